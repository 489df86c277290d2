"""What every host is told: the values of the phases that all hosts share (scripts/README.md)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, collapse_addresses

from config.model import Settings
from plan import access, chrony, dns, gitlab, haproxy, media, network, nfs, nftables, proxies, rke2
from plan.contract.contract import Contract
from plan.pki import extra_authorities
from plan.topology import Host, Role, Topology

Values = dict[str, str | int | bool | list[str] | tuple[str, ...]]

_PORTS: dict[Role, tuple[int, ...]] = {
    "bastion": (),
    "haproxy": (80, 443, haproxy.KUBERNETES_API, haproxy.SUPERVISOR, haproxy.STATISTICS),
    "nfs": (nfs.NFSD, nfs.MOUNTD),
    "gitlab": (gitlab.HTTP, gitlab.HTTPS, gitlab.PROMETHEUS),
    "master": (haproxy.KUBERNETES_API, haproxy.SUPERVISOR, 2379, 2380, 2381, 10250),
    "worker": (10250, haproxy.INGRESS_HTTP, haproxy.INGRESS_HTTPS),
}
# The bastion dials the machines for everybody: a machine that drops packets is given up after 15 s (1, 2, 4 and 8 s
# between the tries), where the kernel's own six tries take more than two minutes. An established connection is not concerned.
BASTION_SYSCTLS = {"net.ipv4.tcp_syn_retries": 3}
# From where programs run beside the system's own: RKE2 unpacks itself below /var/lib/rancher, init containers put programs
# into emptyDir volumes, and GitLab's Gitaly unpacks its helpers.
_EXECUTED: dict[Role, tuple[str, ...]] = {
    "gitlab": ("/var/opt/gitlab", "/opt/gitlab"),
    "master": ("/var/lib/rancher", "/var/lib/kubelet"),
    "worker": ("/var/lib/rancher", "/var/lib/kubelet"),
}
_BASE = ("ca-certificates", "chrony", "curl", "nftables", "openssl")


def identity(host: Host, stack: str) -> str:
    """Whose host this is; a host that carries another identity is refused. `stack` is `project/stack`."""
    return f"{stack}/{host.cluster or 'shared'}/{host.role}"


def data_folder(host: Host, settings: Settings) -> str:
    """The folder that holds what `host` is for, whose file system has to have the planned size."""
    if host.role == "nfs" and host.cluster:
        return settings.enabled_clusters[host.cluster].nfs.path
    return {"gitlab": "/var/opt/gitlab", "master": "/var/lib/rancher", "worker": "/var/lib/rancher"}.get(host.role, "/var/lib")


def preflight(host: Host, settings: Settings, topology: Topology, stack: str) -> Values:
    """First-contact checks of `host` against the plan; sizes in MB (2**20 bytes) and GB (2**30 bytes)."""
    return {
        "name": host.name,
        "role": host.role,
        "identity": identity(host, stack),
        "address": str(host.address),
        "passing_addresses": _passing(host, settings),
        "cpu": host.cpu,
        "memory_mb": host.memory_gb * 1024,
        "disk_gb": host.disk_gb,
        "disk_path": data_folder(host, settings),
        "exec_paths": _EXECUTED.get(host.role, ()),
        "size_check": settings.machines.size_check,
        "sessions": _sessions(topology) if host == topology.bastion else 0,
        "source": settings.media.source,
        "rename": settings.machines.rename,
        "ports": [f"tcp/{port}" for port in _PORTS[host.role]],
        "time_servers": settings.time.servers,
        "max_skew_seconds": settings.time.max_skew_seconds,
        "urls": media.reachable(host, settings),
        "families": media.families(host, settings),
        # Pods get the machine's own search domains where the settings name no name servers.
        "search_below": settings.domain if host.role in ("master", "worker") and not settings.dns.servers else "",
        "proxy_http": settings.proxy.http or "",
        "proxy_https": settings.proxy.https or "",
        "proxy_no": proxies.no_proxy(settings),
        "ca_bundle": "".join(extra_authorities(settings)),
    }


def _sessions(topology: Topology) -> int:
    """The sessions of a first deployment, as the next power of two: one machine more does not concern the bastion."""
    return 1 << (access.sessions(topology) - 1).bit_length()


def prepare(host: Host, contract: Contract, stack: str) -> Values:
    """The base of `host`; the component adds `ca_bundle`."""
    settings, topology = contract.settings, contract.topology
    node = host.role in ("master", "worker")
    return {
        "hostname": host.name,
        "rename": settings.machines.rename,
        "identity": identity(host, stack),
        "hosts_file": hosts_file(host, settings, topology),
        "dns_servers": [str(address) for address in settings.dns.servers],
        "pods_resolv_conf": dns.for_pods(settings) if node else "",
        "chrony_conf": chrony.configuration(settings.time),
        "modules": rke2.KERNEL_MODULES if node else (),
        "sysctl": "".join(f"{name} = {value}\n" for name, value in _sysctls(host).items()),
        "proxy_http": settings.proxy.http or "",
        "proxy_https": settings.proxy.https or "",
        "proxy_no": proxies.no_proxy(settings),
        # Workers carry an NFS client: the kernel's for volumes, the user-space one to test an export without a mount.
        "packages_debian": [*_BASE, *(("nfs-common", "libnfs-utils") if host.role == "worker" else ())],
        "packages_rhel": [*_BASE, *(("nfs-utils",) if host.role == "worker" else ())],
        "ruleset": nftables.ruleset(host, contract) if settings.firewall.enabled else "",
        "ssh_from": _ssh_from(host, contract),
        "rollback_seconds": settings.firewall.rollback_seconds,
        "cis": node and settings.kubernetes.cis_profile,
        "persistent_journal": node,
    }


def _sysctls(host: Host) -> Mapping[str, str | int]:
    """Kernel parameters of `host`, by name."""
    if host.role == "bastion":
        return BASTION_SYSCTLS
    return rke2.SYSCTLS if host.role in ("master", "worker") else {}


def _ssh_from(host: Host, contract: Contract) -> tuple[str, ...]:
    """The networks that SSH is let in from; empty for anyone."""
    return () if () in _ssh_openings(host, contract) else administrators_from(host, contract)


def administrators_from(host: Host, contract: Contract) -> tuple[str, ...]:
    """The networks from which rules let SSH to `host` in. A rule that lets in anyone names no network, and adds none."""
    return tuple(str(n) for n in collapse_addresses(n for networks in _ssh_openings(host, contract) for n in networks))


def _ssh_openings(host: Host, contract: Contract) -> list[tuple[IPv4Network, ...]]:
    """The networks of each rule that opens SSH to `host`; none for anyone."""
    port = contract.settings.ssh.port
    return [o.networks for o in network.openings(host, contract) if o.rule.opens("tcp", port)]


def _passing(host: Host, settings: Settings) -> tuple[str, ...]:
    """Addresses that `host` has at some times and another machine at others, so that they tell nothing about it."""
    if host.role != "haproxy" or host.cluster is None:
        return ()
    return tuple(str(address) for address in settings.virtual_addresses(host.cluster).values())


def hosts_file(host: Host, settings: Settings, topology: Topology) -> str:
    """Lines for /etc/hosts: the host itself, GitLab, and its cluster's API; no list of the whole fleet, so that a
    new machine changes no other one's file."""
    names = {r.name: r.address for r in dns.records(settings, topology) if r.service == "gitlab" or _own_api(r, host)}
    return "".join(f"{address} {name}\n" for name, address in {host.name: host.address, **names}.items())


def _own_api(record: dns.Record, host: Host) -> bool:
    return record.service == "kubernetes-api" and record.cluster == host.cluster
