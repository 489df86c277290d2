"""The inventory of bench/ansible/site.yaml: the plan's hosts, and for each the texts that the product writes too."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from config.model import Settings
from plan import chrony, dns, gitlab, haproxy, hosts, media, nfs, nftables, rke2
from plan.plan import Plan
from plan.topology import ClusterHosts, Host


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the product generates and Ansible is given: PEM texts, a join token per cluster, GitLab's first password."""

    ca_bundle: str
    certificate: str
    private_key: str = field(repr=False)
    tokens: dict[str, str] = field(repr=False)
    gitlab_password: str = field(repr=False)


def inventory(plan: Plan, material: Material, ssh_config: str) -> dict[str, Any]:
    """An inventory in Ansible's JSON form: groups by role, variables by host. It holds secrets."""
    variables = {host.name: _base(host, plan, material) for host in plan.topology.hosts}
    groups: dict[str, list[str]] = {
        name: [] for name in ("haproxy", "nfs", "first_masters", "further_masters", "workers")
    }
    for balancer in plan.topology.load_balancers:
        groups["haproxy"] += [host.name for host in balancer.hosts]
        for host in balancer.hosts:
            variables[host.name]["haproxy_cfg"] = haproxy.configuration(balancer)
    for cluster in plan.topology.clusters:
        groups["nfs"].append(cluster.nfs.name)
        groups["first_masters"].append(cluster.masters[0].name)
        groups["further_masters"] += [master.name for master in cluster.masters[1:]]
        groups["workers"] += [worker.name for worker in cluster.workers]
        variables[cluster.nfs.name] |= {
            "ganesha_conf": nfs.ganesha_conf(cluster),
            "share": cluster.settings.nfs.path,
        }
        for node in cluster.nodes:
            variables[node.name] |= _node(cluster, node, plan, material)
        variables[cluster.masters[0].name] |= {
            "nodes": [node.name for node in cluster.nodes],
            "node_labels": [
                {"node": node.name, "labels": shlex.join(f"{key}={value}" for key, value in node.labels)}
                for node in cluster.nodes
                if node.labels
            ],
        }
    variables[plan.topology.gitlab.name] |= _gitlab(plan.settings, material)
    groups["gitlab"] = [plan.topology.gitlab.name]
    return {
        "all": {
            "vars": {
                "ansible_ssh_common_args": f"-F {ssh_config}",
                "artifacts": plan.settings.media.artifacts,
                "sha256": dict(plan.settings.media.sha256),
                "ca_bundle": material.ca_bundle,
            },
            "hosts": variables,
            "children": {group: {"hosts": dict.fromkeys(names, {})} for group, names in groups.items()},
        }
    }


def _base(host: Host, plan: Plan, material: Material) -> dict[str, Any]:
    values = hosts.prepare(host, plan.contract, plan.stack)
    servers = [str(address) for address in plan.settings.dns.servers]
    return {
        "hosts_file": values["hosts_file"],
        "packages": values["packages_debian"],
        "chrony_conf": chrony.configuration(plan.settings.time),
        "modules": values["modules"],
        "sysctl": values["sysctl"],
        "ruleset": nftables.ruleset(host, plan.contract),
        "resolv_conf": "".join(f"nameserver {server}\n" for server in servers),
    }


def _node(cluster: ClusterHosts, node: Host, plan: Plan, material: Material) -> dict[str, Any]:
    settings = plan.settings
    config = rke2.node_config(cluster, node, settings.kubernetes, dns.api_name(settings, cluster.name), plan.issuer)
    texts = {
        "config.yaml": rke2.to_yaml({"token": material.tokens[cluster.name], **config}),
        "registries.yaml": rke2.to_yaml(rke2.registries(settings.media, plan.registry)),
    }
    return {
        "rke2_type": "agent" if node.role == "worker" else "server",
        "rke2_files": list(media.rke2_artifacts(settings.kubernetes.cni)),
        "rke2_configuration": [{"name": name, "content": text} for name, text in texts.items() if text],
    }


def _gitlab(settings: Settings, material: Material) -> dict[str, Any]:
    host = f"{settings.domains['gitlab']}.{settings.domain}"
    package = media.gitlab_packages(settings)["debian"]
    files = {
        "/etc/gitlab/gitlab.rb": gitlab.gitlab_rb(host, media.gitlab_version(settings)),
        f"/etc/gitlab/ssl/{host}.crt": material.certificate,
        f"/etc/gitlab/ssl/{host}.key": material.private_key,
        "/etc/gitlab/trusted-certs/platform.crt": material.ca_bundle,
    }
    return {
        "gitlab_files": [{"path": path, "content": text} for path, text in files.items()],
        "gitlab_package": f"{settings.media.artifacts}/{package}",
        "gitlab_sha256": settings.media.sha256[package],
        "gitlab_root_password": material.gitlab_password,
    }
