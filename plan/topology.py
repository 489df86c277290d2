"""Which machines there are: names, roles, sizes, addresses, and the order in which they join.

Addresses are allocated per subnet from `machines.firstAddress` on, in this order: bastion, load balancer (two of them
have given addresses, and a cluster that shares another's has none), NFS, GitLab (bastion and GitLab in the first
cluster's subnet only), masters, workers. An address the user gave is kept and skipped by the allocation. One more
worker moves no other machine; one more master moves its cluster's allocated workers, so addresses are to be given
before the number of masters changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from types import MappingProxyType
from typing import Literal

from config.clusters import Cluster, Machine, Nodes, Taint
from config.errors import Problem, key
from config.model import Settings
from config.nodes_checks import CONTROL_PLANE

Role = Literal["bastion", "haproxy", "nfs", "gitlab", "master", "worker"]

MASTERS_TAINT = Taint(key=CONTROL_PLANE, effect="NoSchedule")
"""Of every master, also where the settings list others: the cluster's share is exported to workers only, so that a pod
with a volume could not start on a master, and the tools are sized by the workers. RKE2 itself leaves masters open."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine. Sizes in cores and GB (2**30 bytes); `cluster` is None for the bastion and GitLab."""

    name: str
    role: Role
    cluster: str | None
    address: IPv4Address
    subnet: IPv4Network
    cpu: int
    memory_gb: int
    disk_gb: int
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    other_names: tuple[str, ...] = ()
    """What the same machine is called when its group has another size, so that nothing of it is made anew then."""


@dataclass(frozen=True, kw_only=True)
class ClusterHosts:
    """One cluster's machines. `masters[0]` is the first server; the others join it in this order, one by one."""

    name: str
    settings: Cluster
    load_balancers: tuple[Host, ...]
    """The machines before it: its own, or those of the cluster whose load balancer it shares."""
    nfs: Host
    masters: tuple[Host, ...]
    workers: tuple[Host, ...]

    @cached_property
    def nodes(self) -> tuple[Host, ...]:
        return self.masters + self.workers

    @property
    def own(self) -> tuple[Host, ...]:
        """The cluster's machines, in the order of allocation."""
        balancers = tuple(balancer for balancer in self.load_balancers if balancer.cluster == self.name)
        return (*balancers, self.nfs, *self.masters, *self.workers)

    @property
    def entrance(self) -> IPv4Address:
        """Where the cluster is reached: names, kubeconfigs and joining nodes lead here. Held by a load balancer."""
        return self.settings.load_balancer.virtual_address or self.load_balancers[0].address

    @cached_property
    def networks(self) -> Mapping[Literal["master", "worker", "node", "haproxy"], tuple[IPv4Network, ...]]:
        """The addresses of each group as the fewest networks that hold exactly them.

        Kept, because every machine's packet filter names them: made anew for each, a plan grows with the square.
        """
        return MappingProxyType(
            {
                "master": _collapsed(self.masters),
                "worker": _collapsed(self.workers),
                "node": _collapsed(self.nodes),
                "haproxy": _collapsed(self.load_balancers),
            }
        )


@dataclass(frozen=True, kw_only=True)
class LoadBalancerHosts:
    """One load balancer: its machine or two, and every cluster behind it, first the one whose machines they are."""

    hosts: tuple[Host, ...]
    clusters: tuple[ClusterHosts, ...]

    @property
    def owner(self) -> ClusterHosts:
        return self.clusters[0]

    @property
    def virtual_addresses(self) -> Mapping[str, IPv4Address]:
        """Cluster to the address that it is reached at beside the machines' own, of the clusters that have one."""
        given = {c.name: c.settings.load_balancer.virtual_address for c in self.clusters}
        return {name: address for name, address in given.items() if address}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Every machine of a stack."""

    bastion: Host
    gitlab: Host
    clusters: tuple[ClusterHosts, ...]

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All machines, in the order of allocation."""
        return (self.bastion, self.gitlab, *(host for cluster in self.clusters for host in cluster.own))

    @cached_property
    def load_balancers(self) -> tuple[LoadBalancerHosts, ...]:
        """Each once, in the order of the clusters whose machines they are."""
        behind = {c.name: [c] for c in self.clusters if c.settings.load_balancer.machines}
        for cluster in self.clusters:
            if owner := cluster.settings.load_balancer.shared_with:
                behind[owner].append(cluster)
        return tuple(LoadBalancerHosts(hosts=cs[0].load_balancers, clusters=tuple(cs)) for cs in behind.values())

    def served(self, host: Host) -> tuple[ClusterHosts, ...]:
        """The clusters that `host` works for: its own, or all behind a load balancer; of bastion and GitLab, none."""
        if host.role == "haproxy":
            return next(balancer.clusters for balancer in self.load_balancers if balancer.owner.name == host.cluster)
        return tuple(cluster for cluster in self.clusters if cluster.name == host.cluster)


def topology(settings: Settings) -> Topology:
    """The machines of valid `settings`."""
    single = len(settings.enabled_clusters) == 1
    bastion: Host | None = None
    gitlab: Host | None = None
    clusters: list[ClusterHosts] = []
    for name, cluster in settings.enabled_clusters.items():
        prefix = "" if single else f"{name}-"
        first = not clusters
        given = _given(name, settings, first=first)
        free = _free(cluster.subnet, settings.machines.first_address, given)

        def host(host_name: str, role: Role, machine: Machine | Nodes, owner: str | None, address: IPv4Address | None,
                 labels: dict[str, str] | None = None, taints: tuple[Taint, ...] = (), others: tuple[str, ...] = (),
                 free: Iterator[IPv4Address] = free, subnet: IPv4Network = cluster.subnet) -> Host:
            return Host(
                name=host_name, role=role, cluster=owner, address=address or next(free), subnet=subnet,
                cpu=machine.cpu, memory_gb=machine.memory_gb, disk_gb=machine.disk_gb,
                labels=tuple(sorted((labels or {}).items())), taints=taints,
                other_names=others,
            )  # fmt: skip

        if first:
            bastion = host("bastion", "bastion", settings.bastion, None, settings.bastion.address)
        alone, paired = f"{prefix}haproxy", (f"{prefix}haproxy-1", f"{prefix}haproxy-2")
        balancer = cluster.load_balancer
        balancers: tuple[Host, ...] = ()
        if balancer.machines == 1:
            balancers = (host(alone, "haproxy", balancer, name, balancer.address, others=(paired[0],)),)
        elif balancer.machines == 2:
            balancers = tuple(
                host(one, "haproxy", balancer, name, address, others=(alone,) if one == paired[0] else ())
                for one, address in zip(paired, balancer.addresses, strict=True)
            )
        nfs = host(f"{prefix}nfs", "nfs", cluster.nfs, name, cluster.nfs.address)
        if first:
            gitlab = host("gitlab", "gitlab", settings.gitlab, None, settings.gitlab.address)

        def nodes(role: Literal["master", "worker"], group: Nodes) -> tuple[Host, ...]:
            return tuple(
                host(
                    node, role, group, name, group.addresses[index] if index < len(group.addresses) else None,
                    {**group.labels, **group.node_labels.get(node, {})}, _taints(role, group),
                )
                for index, node in enumerate(f"{prefix}{role}-{number}" for number in range(1, group.count + 1))
            )  # fmt: skip

        masters = nodes("master", cluster.masters)
        clusters.append(
            ClusterHosts(
                name=name, settings=cluster, load_balancers=balancers, nfs=nfs, masters=masters,
                workers=nodes("worker", cluster.workers),
            )  # fmt: skip
        )
    if bastion is None or gitlab is None:
        raise ValueError("settings without a cluster; config.checks refuses them")
    machines = {cluster.name: cluster.load_balancers for cluster in clusters}
    behind = tuple(
        replace(c, load_balancers=machines[owner]) if (owner := c.settings.load_balancer.shared_with) else c
        for c in clusters
    )
    return Topology(bastion=bastion, gitlab=gitlab, clusters=behind)


def check(topology: Topology) -> list[Problem]:
    """Labels of single nodes must name nodes of their own group: a misspelt name would be left out in silence."""
    problems = []
    for cluster in topology.clusters:
        groups = (
            ("masters", cluster.settings.masters, cluster.masters),
            ("workers", cluster.settings.workers, cluster.workers),
        )
        for group, settings, hosts in groups:
            names = {host.name for host in hosts}
            problems += [
                Problem(
                    key("clusters", cluster.name, group, "nodeLabels"),
                    f"'{node}' is none of the cluster's {group}",
                    f"name one of {_listed(hosts)}, or remove it",
                )
                for node in settings.node_labels
                if node not in names
            ]
    return problems


def _taints(role: Role, group: Nodes) -> tuple[Taint, ...]:
    """Those of the settings; of masters, MASTERS_TAINT too unless the settings give it another value."""
    given = {(taint.key, taint.effect) for taint in group.taints}
    own = (MASTERS_TAINT,) if role == "master" and (MASTERS_TAINT.key, MASTERS_TAINT.effect) not in given else ()
    return (*own, *group.taints)


def _listed(hosts: tuple[Host, ...]) -> str:
    """Their names; of many, which are numbered, only the first and the last."""
    names = [host.name for host in hosts]
    return ", ".join(names) if len(names) <= 5 else f"{names[0]} to {names[-1]}"


def _collapsed(hosts: Iterable[Host]) -> tuple[IPv4Network, ...]:
    return tuple(collapse_addresses(IPv4Network(h.address) for h in hosts))


def _given(name: str, settings: Settings, *, first: bool) -> frozenset[IPv4Address]:
    """What is not to be allocated in the subnet of `name`."""
    cluster = settings.clusters[name]
    machines = [cluster.nfs, *((settings.bastion, settings.gitlab) if first else ())]
    single = [*settings.virtual_addresses(name).values(), *(m.address for m in machines if m.address)]
    return frozenset([*single, *cluster.load_balancer.given, *cluster.masters.addresses, *cluster.workers.addresses])


def _free(subnet: IPv4Network, first: int, given: frozenset[IPv4Address]) -> Iterator[IPv4Address]:
    for number in range(first, subnet.num_addresses - 1):
        if (address := subnet.network_address + number) not in given:
            yield address
