"""DNS: the records the user must create, and which cluster serves which name.

The reference names services, not the cluster behind each; the pairing follows the clusters' purposes.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from config.model import Settings
from plan.topology import Topology

# Service key to cluster; everything else is served by the first cluster.
_PLACES = {
    "argocdDev": "dev",
    "argocdPrd": "prd",
    "loki": "observability",
    "grafana": "observability",
    "tempo": "observability",
    "mimir": "observability",
    "minioObservability": "observability",
    "minioApiObservability": "observability",
}


@dataclass(frozen=True, kw_only=True)
class Record:
    """An A record; `service` is the key in settings, `kubernetes-api` for a cluster's API."""

    name: str
    address: IPv4Address
    service: str
    cluster: str | None


def api_name(settings: Settings, cluster: str) -> str:
    """The name of a cluster's Kubernetes API; its certificate carries it."""
    return f"api.{cluster}.{settings.domain}"


def records(settings: Settings, topology: Topology) -> tuple[Record, ...]:
    """Every record, services in the order of the settings, then the clusters' APIs."""
    clusters = {c.name: c for c in topology.clusters}
    first = topology.clusters[0]
    found = []
    for service, label in settings.domains.items():
        name = f"{label}.{settings.domain}"
        if service == "gitlab":
            found.append(Record(name=name, address=topology.gitlab.address, service=service, cluster=None))
            continue
        cluster = clusters.get(_PLACES.get(service, first.name), first)
        found.append(
            Record(name=name, address=cluster.load_balancer.address, service=service, cluster=cluster.name)
        )
    for cluster in topology.clusters:
        found.append(
            Record(
                name=api_name(settings, cluster.name), address=cluster.load_balancer.address,
                service="kubernetes-api", cluster=cluster.name,
            )
        )  # fmt: skip
    return tuple(found)
