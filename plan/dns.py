"""DNS: the records the user must create, and which cluster serves which name."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from config.model import Settings
from config.placement import services
from plan.contract.rule import Rule, need
from plan.endpoints import networks_of
from plan.topology import Topology

KUBERNETES_API = "kubernetes-api"
PODS_FILE = "/etc/opstella/pods-resolv.conf"


@dataclass(frozen=True, kw_only=True)
class Record:
    """An A record; `service` is the key in settings, `kubernetes-api` for a cluster's API.

    `kind` is the key that the service has where it is alone (`argocd` for `argocdDev`).
    """

    name: str
    address: IPv4Address
    service: str
    kind: str
    cluster: str | None


def api_name(settings: Settings, cluster: str) -> str:
    """The name of a cluster's Kubernetes API; its certificate carries it."""
    return f"api.{cluster}.{settings.domain}"


def records(settings: Settings, topology: Topology) -> tuple[Record, ...]:
    """Every record, services in the order of the settings, then the clusters' APIs."""
    clusters = {c.name: c for c in topology.clusters}
    found = [
        Record(
            name=f"{service.label}.{settings.domain}",
            address=topology.gitlab.address if service.cluster is None else clusters[service.cluster].entrance,
            service=service.key,
            kind=service.kind,
            cluster=service.cluster,
        )
        for service in services(settings)
    ]
    found += [
        Record(
            name=api_name(settings, cluster.name), address=cluster.entrance,
            service=KUBERNETES_API, kind=KUBERNETES_API, cluster=cluster.name,
        )
        for cluster in topology.clusters
    ]  # fmt: skip
    return tuple(found)


def for_pods(settings: Settings) -> str:
    """The resolv.conf that the kubelet gives to pods: the name servers of opstella:dns and no search domain; empty without.

    Pods ask with ndots:5, so that a short name such as minio.minio.svc.cluster.local is asked below each search domain of the
    machine first: a wildcard record there, which the platform's own domain has, would answer for every Service.
    """
    return "".join(f"nameserver {server}\n" for server in settings.dns.servers)


def pods_file(settings: Settings) -> str | None:
    """Where a node has it; None where pods get what the machine has, and first contact looks at its search domains."""
    return PODS_FILE if settings.dns.servers else None


def flows(settings: Settings) -> tuple[Rule, ...]:
    """What every machine opens to the name servers; to any where the settings leave those that it has."""
    networks = networks_of(map(str, settings.dns.servers))
    why = "machines ask the name servers"
    return (need("DNS", "all", "outside", (53,), "names", why, protocols=("tcp", "udp"), networks=networks),)
