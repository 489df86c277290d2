"""RKE2: config.yaml of every node, registries.yaml, and what the nodes need from the kernel.

A node's configuration is data; the token is added by the component, so that no secret passes through the plan.
"""

from __future__ import annotations

from typing import Any

import yaml

from config.checks import node_mask
from config.model import Kubernetes, Media
from plan.haproxy import KUBERNETES_API, SUPERVISOR
from plan.topology import ClusterHosts, Host

KERNEL_MODULES = ("overlay", "br_netfilter")
SYSCTLS = {
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
    "net.ipv4.ip_forward": 1,
    # SonarQube's and Loki's indices map more areas than the kernel's default allows.
    "vm.max_map_count": 524288,
    "fs.inotify.max_user_instances": 8192,
    "fs.inotify.max_user_watches": 524288,
}


def server_url(cluster: ClusterHosts) -> str:
    """The fixed registration address: the load balancer's port 9345."""
    return f"https://{cluster.load_balancer.address}:{SUPERVISOR}"


def api_url(cluster: ClusterHosts) -> str:
    """The Kubernetes API as everyone outside reaches it."""
    return f"https://{cluster.load_balancer.address}:{KUBERNETES_API}"


def join_order(cluster: ClusterHosts) -> tuple[tuple[Host, ...], ...]:
    """Waves: the first server, every further server by itself (etcd takes one new member at a time), all agents."""
    return (*((master,) for master in cluster.masters), cluster.workers)


def node_config(cluster: ClusterHosts, host: Host, kubernetes: Kubernetes, api_name: str) -> dict[str, Any]:
    """config.yaml of `host` without its token; keys are RKE2's own ("Server/Agent Configuration Reference").

    `api_name` is the DNS name that the API's certificate carries beside the addresses.
    """
    config: dict[str, Any] = {"node-name": host.name, "node-ip": str(host.address)}
    if host.labels:
        config["node-label"] = [f"{key}={value}" for key, value in host.labels]
    if host.taints:
        config["node-taint"] = [f"{t.key}={t.value}:{t.effect}" for t in host.taints]
    if kubernetes.cis_profile:
        config["profile"] = "cis"
    if host.role == "worker":
        return {"server": server_url(cluster), **config}
    settings = cluster.settings
    if host != cluster.masters[0]:
        config = {"server": server_url(cluster), **config}
    return config | {
        "tls-san": [str(cluster.load_balancer.address), api_name, *(str(m.address) for m in cluster.masters)],
        "write-kubeconfig-mode": "0600",
        "cni": kubernetes.cni,
        "cluster-cidr": str(settings.pod_subnet),
        "service-cidr": str(settings.service_subnet),
        "cluster-dns": str(settings.service_subnet.network_address + 10),
        "ingress-controller": "none",  # Traefik comes as a release of the tool stack
        "kube-controller-manager-arg": [f"node-cidr-mask-size={node_mask(cluster.settings)}"],
        "etcd-expose-metrics": True,
        "etcd-snapshot-schedule-cron": kubernetes.etcd_snapshots.cron,
        "etcd-snapshot-retention": kubernetes.etcd_snapshots.retention,
    }


def registries(media: Media) -> dict[str, Any]:
    """registries.yaml; empty without a mirror. The mirror's CA is in the hosts' trust store, which containerd reads."""
    if media.registry_mirror is None:
        return {}
    return {"mirrors": {"*": {"endpoint": [media.registry_mirror]}}}


def to_yaml(data: dict[str, Any]) -> str:
    """`data` as YAML in its own order; nothing for nothing."""
    return yaml.safe_dump(data, sort_keys=False, width=4096) if data else ""
