"""RKE2: config.yaml of every node, registries.yaml, and what the nodes need from the kernel.

A node's configuration is data; the token is added by the component, so that no secret passes through the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import yaml

from config.checks import node_mask
from config.model import Kubernetes, Media
from plan import audit
from plan.contract.rule import need
from plan.haproxy import KUBERNETES_API, SUPERVISOR
from plan.topology import ClusterHosts, Host

ETCD_CLIENT, ETCD_PEER, ETCD_METRICS, KUBELET = 2379, 2380, 2381, 10250
OF_MASTERS = (KUBERNETES_API, SUPERVISOR, ETCD_CLIENT, ETCD_PEER, ETCD_METRICS)
"""Ports that only masters have."""
FLOWS = (
    need("RKE2", "master", "master", (ETCD_CLIENT,), "etcd client", "a master that joins asks the others' etcd"),
    need("RKE2", "master", "master", (ETCD_PEER,), "etcd peer", "the members of etcd replicate"),
    need(
        "RKE2", "node", "haproxy", (KUBERNETES_API, SUPERVISOR), "registration address",
        "nodes join through a fixed address, which is the load balancer",
    ),
    need("RKE2", "node", "master", (SUPERVISOR,), "RKE2 supervisor API", "a node that has joined asks the masters directly"),
    need("RKE2", "node", "master", (KUBERNETES_API,), "Kubernetes API", "kubelets, and the kubernetes Service of any node's pods"),
    need("RKE2", "pods", "master", (KUBERNETES_API,), "Kubernetes API", "a pod on the same master arrives with its own address"),
    need("RKE2", "node", "node", (KUBELET,), "kubelet", "API servers fetch logs and open shells, metrics-server asks for usage"),
    need("RKE2", "pods", "node", (KUBELET,), "kubelet", "metrics-server on the same node arrives with its own address"),
)  # fmt: skip

MIRRORED = ("docker.io", "quay.io", "ghcr.io", "registry.k8s.io")
"""Registries whose images the platform's Harbor hands on and keeps, each in a public project of this name."""
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

# Where rke2.sh installs the CA bundle that the identity provider's certificate is verified with. RKE2 mounts every file
# that an argument names into the API server's static pod (rancher/rke2, pkg/podtemplate: ReadFiles).
OIDC_CA = "/etc/rancher/rke2/oidc-ca.crt"
METRICS_SERVER = "rke2-metrics-server"  # as RKE2 names its packaged component
OIDC_CLIENT = "kubernetes"
ETCD_ELECTION = ("heartbeat-interval=200", "election-timeout=2000")
"""Milliseconds. RKE2's own are 500 and 5000: a lost leader would then stop every write for 5 to 10 seconds."""
RBAC = "rbac.authorization.k8s.io"
FORMER_ROLES = {"platform-admins": "cluster-admin", "developers": "edit", "viewers": "view"}
OIDC_PREFIX = "oidc:"
"""Before the names of users and groups that come from the identity provider, so that none can be a built-in one."""
GROUP_ROLES: Mapping[str, str] = MappingProxyType(
    {"platform-admins": "cluster-admin", "developers": "view", "viewers": "view"}
)
"""What each group may in the whole of a cluster. `view` reads no Secret and starts nothing; where developers work, in the
projects of opstella:kubernetes.projects, a RoleBinding gives them `edit` (plan/tools/projects.py)."""


def server_url(cluster: ClusterHosts) -> str:
    """The fixed registration address: the load balancer's port 9345."""
    return f"https://{cluster.entrance}:{SUPERVISOR}"


def api_url(cluster: ClusterHosts) -> str:
    """The Kubernetes API as everyone outside reaches it."""
    return f"https://{cluster.entrance}:{KUBERNETES_API}"


def credentials(host: Host, cluster: ClusterHosts, token: str, agent_token: str, authority: str) -> dict[str, str]:
    """Keys of config.yaml by which `host` joins, or makes, the cluster; they come before all others.

    `authority` is the hash of the cluster's CA: with it in the token, a node verifies who answers before it sends the
    secret (docs.rke2.io, Security, Token). The first server has nobody to verify. Workers never have the servers' token,
    which is as good as the administrator's and decrypts what etcd holds.
    """
    if host.role == "worker":
        return {"token": f"K10{authority}::node:{agent_token}"}
    first = host == cluster.masters[0]
    return {"token": token if first else f"K10{authority}::server:{token}", "agent-token": agent_token}


def living_urls(cluster: ClusterHosts, host: Host) -> list[str]:
    """Where the first server looks for its cluster before it makes one, the address to join by first; for any other
    server, and for one that is alone, nowhere."""
    if host != cluster.masters[0] or len(cluster.masters) == 1:
        return []
    return [server_url(cluster), *(f"https://{other.address}:{SUPERVISOR}" for other in cluster.masters[1:])]


def node_config(
    cluster: ClusterHosts,
    host: Host,
    kubernetes: Kubernetes,
    api_name: str,
    issuer: str | None = None,
    *,
    resolv_conf: str | None = None,
) -> dict[str, Any]:
    """config.yaml of `host` without its token; keys are RKE2's own ("Server/Agent Configuration Reference").

    `api_name` is the DNS name that the API's certificate carries beside the addresses; `issuer` is the URL of the
    realm whose tokens the API takes, if there is one. It need not answer yet when the API server starts. `resolv_conf` is
    the file that the kubelet gives to pods (plan/dns.py: for_pods), None for the host's own.
    """
    config: dict[str, Any] = {"node-name": host.name, "node-ip": str(host.address)}
    if own := registered(host.labels):
        config["node-label"] = [f"{key}={value}" for key, value in own]
    if host.taints:
        config["node-taint"] = [f"{t.key}={t.value}:{t.effect}" for t in host.taints]
    if resolv_conf:
        config["resolv-conf"] = resolv_conf
    if kubernetes.cis_profile:
        config["profile"] = "cis"
    if host.role == "worker":
        return {"server": server_url(cluster), **config}
    settings = cluster.settings
    if host != cluster.masters[0]:
        config = {"server": server_url(cluster), **config}
    # Behind a virtual address, the machines that hold it in turn answer at their own too; those of another cluster's
    # load balancer do so for that cluster.
    servers = [host for host in cluster.own if host.role in ("haproxy", "master")]
    api_server = [*audit.arguments(), *(oidc_arguments(issuer) if issuer else [])]
    if kubernetes.cis_profile:
        api_server.append("service-account-extend-token-expiration=false")  # a step of the guide that RKE2 leaves to us
    disabled = [METRICS_SERVER] if kubernetes.metrics_server != "rke2" else []
    return config | {
        "tls-san": list(dict.fromkeys([str(cluster.entrance), api_name, *(str(h.address) for h in servers)])),
        "write-kubeconfig-mode": "0600",
        "cni": kubernetes.cni,
        "cluster-cidr": str(settings.pod_subnet),
        "service-cidr": str(settings.service_subnet),
        "cluster-dns": str(settings.service_subnet.network_address + 10),
        "ingress-controller": "none",  # Traefik comes as a release of the tool stack
        **({"disable": disabled} if disabled else {}),
        "audit-policy-file": audit.POLICY,
        "kube-apiserver-arg": api_server,
        "kube-controller-manager-arg": [f"node-cidr-mask-size={node_mask(cluster.settings)}"],
        **({"etcd-arg": list(ETCD_ELECTION)} if len(cluster.masters) > 1 else {}),
        "etcd-expose-metrics": True,
        "etcd-snapshot-schedule-cron": kubernetes.etcd_snapshots.cron,
        "etcd-snapshot-retention": kubernetes.etcd_snapshots.retention,
        **_s3(kubernetes),
    }


def registered(labels: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of `labels` that a node may register with.

    A kubelet does not start with most labels of the kubernetes.io and k8s.io namespaces (kubernetes,
    cmd/kubelet/app/options: IsKubeletLabel). They are set on the Node object afterwards, as all others are (node.sh).
    """
    reserved = ("kubernetes.io", "k8s.io")

    def kubernetes_own(key: str) -> bool:
        namespace, slash, _ = key.partition("/")
        return bool(slash) and any(namespace == r or namespace.endswith(f".{r}") for r in reserved)

    return [(key, value) for key, value in labels if not kubernetes_own(key)]


def _s3(kubernetes: Kubernetes) -> dict[str, Any]:
    """Where copies of the snapshots go, without the credential. The host's trust store verifies its certificate."""
    store = kubernetes.etcd_snapshots.s3
    if store is None:
        return {}
    return {
        "etcd-s3": True,
        "etcd-s3-endpoint": store.endpoint,
        "etcd-s3-bucket": store.bucket,
        **({"etcd-s3-folder": store.folder} if store.folder else {}),
        "etcd-s3-region": store.region,
        "etcd-s3-retention": kubernetes.etcd_snapshots.retention,
    }


def secrets(host: Host, kubernetes: Kubernetes) -> dict[str, str]:
    """Keys of config.yaml of `host` whose values are secrets of opstella:secrets, to their names."""
    store = kubernetes.etcd_snapshots.s3
    if store is None or host.role == "worker":
        return {}
    return {"etcd-s3-access-key": store.access_key, "etcd-s3-secret-key": store.secret_key}


def oidc_arguments(issuer: str) -> list[str]:
    """The API server's own flags, without dashes."""
    return [
        f"oidc-issuer-url={issuer}",
        f"oidc-client-id={OIDC_CLIENT}",
        "oidc-username-claim=preferred_username",
        f"oidc-username-prefix={OIDC_PREFIX}",
        "oidc-groups-claim=groups",
        f"oidc-groups-prefix={OIDC_PREFIX}",
        f"oidc-ca-file={OIDC_CA}",
    ]


def subject(group: str) -> dict[str, str]:
    """`group` of the realm as RBAC names it."""
    return {"apiGroup": RBAC, "kind": "Group", "name": f"{OIDC_PREFIX}{group}"}


def manifests(issuer: str | None) -> dict[str, str]:
    """What every server applies by itself, by file name: the rights of the identity provider's groups."""
    if issuer is None:
        return {}

    def binding(name: str, role: str, groups: Sequence[str]) -> dict[str, Any]:
        return {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [subject(group) for group in groups],
        }

    bindings = [binding(f"opstella-{group}-{role}", role, [group]) for group, role in GROUP_ROLES.items()]
    # A binding's role cannot be changed. Clusters that were deployed before have these, of which one gave developers
    # `edit` in every namespace: they are left without anybody, whether or not RKE2 takes away what left a file.
    former = [binding(f"opstella-{group}", role, []) for group, role in FORMER_ROLES.items()]
    return {"opstella-groups.yaml": yaml.safe_dump_all([*bindings, *former], sort_keys=False)}


def registries(media: Media, harbor: str | None = None) -> dict[str, Any]:
    """registries.yaml; empty without a mirror. The mirror's CA is in the hosts' trust store, which containerd reads.

    `harbor` is the name of the platform's own registry, which has a project for each of MIRRORED. It is not up when the
    nodes start: containerd then asks the images' own registries, always its last resort, for which no rewrite applies.
    """
    if media.registry_mirror is not None:
        return {"mirrors": {"*": {"endpoint": [media.registry_mirror]}}}
    if harbor is None:
        return {}
    mirrors = {name: {"endpoint": [f"https://{harbor}"], "rewrite": {"^(.*)$": f"{name}/$1"}} for name in MIRRORED}
    return {"mirrors": mirrors}


def to_yaml(data: dict[str, Any]) -> str:
    """`data` as YAML in its own order; nothing for nothing."""
    return yaml.safe_dump(data, sort_keys=False, width=4096) if data else ""
