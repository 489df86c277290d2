"""Load balancers: what two machines need that one does not, and what a cluster needs that has another one's."""

from __future__ import annotations

from collections.abc import Iterator

from config.clusters import Cluster
from config.errors import REMOVE, Problem, key
from config.model import Settings

# What describes a load balancer's machines, and so is no setting of one that is shared.
_OF_MACHINES = ("count", "address", "addresses", "cpu", "memory_gb", "disk_gb")


def check_balancers(settings: Settings) -> Iterator[Problem]:
    for name, cluster in settings.enabled_clusters.items():
        owner = cluster.load_balancer.shared_with
        yield from _own(name, cluster) if owner is None else _shared(settings, name, owner)


def _own(name: str, cluster: Cluster) -> Iterator[Problem]:
    """Two machines need what one does not: an address of each, and one that either may hold."""
    balancer, path = cluster.load_balancer, key("clusters", name, "loadBalancer")
    if balancer.count == 1:
        if balancer.addresses:
            yield Problem(
                f"{path}.addresses",
                f"addresses are those of two machines, but {path}.count is 1",
                "write address for the one machine, or set count to 2",
            )
        return
    if balancer.virtual_address is None:
        yield Problem(
            f"{path}.virtualAddress",
            "two load balancers, but no address that either of them may hold",
            f"write a free address of {cluster.subnet}",
        )
    if balancer.address is not None:
        yield Problem(
            f"{path}.address",
            f"address is that of a single machine, but {path}.count is 2",
            "move it into addresses",
        )
    # Allocated ones would push every later machine of the subnet one address further.
    if len(balancer.addresses) != balancer.count:
        yield Problem(
            f"{path}.addresses",
            f"{len(balancer.addresses)} of {balancer.count} addresses are given",
            "write both machines' own addresses, that of the present one first",
        )


def _shared(settings: Settings, name: str, owner: str) -> Iterator[Problem]:
    """What the load balancer of another cluster needs: that there is one, and an address that leads to this cluster."""
    balancer, path = settings.clusters[name].load_balancer, key("clusters", name, "loadBalancer")
    of_owner = settings.clusters.get(owner)
    owners = [n for n, c in settings.enabled_clusters.items() if c.load_balancer.shared_with is None]
    another = f"write one of {', '.join(owners)}, or remove it" if owners else "remove it"
    if owner == name:
        yield Problem(f"{path}.sharedWith", f"{owner} is the cluster itself", another)
    elif of_owner is None:
        yield Problem(f"{path}.sharedWith", f"there is no cluster {owner}", another)
    elif not of_owner.enabled:
        left_out = f"{key('clusters', owner, 'enabled')} is false, so its load balancer is left out too"
        yield Problem(f"{path}.sharedWith", left_out, another)
    elif of_owner.load_balancer.shared_with is not None:
        yield Problem(
            f"{path}.sharedWith",
            f"{owner} has no load balancer of its own: {key('clusters', owner, 'loadBalancer.sharedWith')} is "
            f"{of_owner.load_balancer.shared_with}",
            another,
        )
    elif balancer.virtual_address is None:
        yield Problem(
            f"{path}.virtualAddress",
            f"the load balancer of {owner} serves several clusters, but no address of it is this one's",
            f"write a free address of {of_owner.subnet}",
        )
    if own := [name for name in _OF_MACHINES if name in balancer.model_fields_set]:
        names = [str(type(balancer).model_fields[field].alias or field) for field in own]
        written = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        yield Problem(
            path,
            f"{written} cannot be set together with sharedWith: the machines are those of {owner}",
            f"remove {written}; the machines of {owner} are described at {key('clusters', owner, 'loadBalancer')}",
            {("clusters", name, "loadBalancer", field): REMOVE for field in names},
        )
