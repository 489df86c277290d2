"""What the contract (plan/contract/) means on each machine: whom it lets in, and what it may open.

A source is a role (`master`, `worker`, `node` for both, `haproxy`, `bastion` …), `operator`, `pods`, `peers`, `platform`, or
`any`; roles of a cluster mean the machines of the target's own cluster, or of every cluster behind a load balancer,
`peers` its others of the target's own role, `platform` the nodes of the clusters that the rule names, and `given` the
networks that a rule of the user's names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from config.addresses import named
from config.model import Settings
from plan.contract.contract import Contract
from plan.contract.rule import Rule
from plan.topology import ClusterHosts, Host, Topology

METADATA = tuple(map(IPv4Network, ("100.100.100.200/32", "168.63.129.16/32", "169.254.0.0/16")))
"""Where clouds serve a machine's user data and credentials to whoever runs on it: AWS, Azure, Google Cloud, OpenStack and
Oracle at 169.254.169.254, Azure's agent endpoint at 168.63.129.16, Alibaba Cloud at 100.100.100.200 (their documentation)."""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A rule as it stands on one host: these protocols and ports, from these networks, or to them where the host opens
    the connection (empty: anywhere)."""

    rule: Rule
    networks: tuple[IPv4Network, ...]


def openings(host: Host, contract: Contract) -> tuple[Opening, ...]:
    """What `host` lets in, in the order of the rules."""
    alike = contract.alike(host)
    return contract.once(("openings", alike), lambda: _openings(alike, contract))


def _openings(host: Host, contract: Contract) -> tuple[Opening, ...]:
    return tuple(
        Opening(rule=rule, networks=networks)
        for rule in contract.rules
        if (networks := sources(rule, host, contract)) is not None
    )


def exits(host: Host, contract: Contract) -> tuple[Opening, ...]:
    """What `host` may open: what it needs of the stack's machines, what the user's own rules let it reach there, and what
    it needs of others."""
    alike = contract.alike(host)
    inside = contract.once(("reached", alike), lambda: _reached(alike, contract))
    address = IPv4Network(host.address)
    given = [
        Opening(rule=rule, networks=_addresses(targets))
        for rule in contract.rules
        if rule.source == "given"
        and (not rule.networks or any(address.subnet_of(network) for network in rule.networks))
        and (targets := [h for h in contract.topology.hosts if h != host and _targets(rule, h, contract)])
    ]
    outside = [
        Opening(rule=rule, networks=rule.networks)
        for rule in contract.exits
        if rule.source in _names(host) and (not rule.clusters or host.cluster in rule.clusters)
    ]
    return (*inside, *given, *outside)


def of_pods(cluster: ClusterHosts, contract: Contract) -> tuple[Opening, ...]:
    """What the pods of `cluster` may open to machines of the stack, with the addresses it leads to; the nodes refuse the rest.

    A pod's connection to a machine arrives with its node's address, so no other machine can tell the two apart. Allowed is
    what is for anyone, what tools declare of their pods, and rules of the user's whose networks contain all pods.
    """
    return contract.once(("of_pods", cluster.name), lambda: _of_pods(cluster, contract))


def _of_pods(cluster: ClusterHosts, contract: Contract) -> tuple[Opening, ...]:
    found: list[tuple[Rule, set[int]]] = []
    for rule in (*contract.needs, *(rule for rule in contract.rules if rule.source == "given")):
        if _for_pods(rule, cluster):
            groups = {
                number
                for number, (one, *_) in enumerate(contract.groups)
                if _targets(rule, one, contract) and (rule.source != "pods" or cluster in contract.topology.served(one))
            }
            if new := {number for number in groups if not _known(rule, number, found)}:
                found.append((rule, new))
    return tuple(
        Opening(rule=rule, networks=tuple(collapse_addresses(a for n in sorted(new) for a in _of_group(n, contract))))
        for rule, new in found
    )


def _for_pods(rule: Rule, cluster: ClusterHosts) -> bool:
    if rule.source == "platform":
        return cluster.name in rule.clusters
    if rule.source == "given":
        pods = cluster.settings.pod_subnet
        return not rule.networks or any(pods.subnet_of(network) for network in rule.networks)
    return rule.source in ("any", "pods")


def machine_addresses(topology: Topology) -> tuple[IPv4Network, ...]:
    """Every address of the stack's machines, the load balancers' virtual ones among them, as the fewest networks."""
    every = [*(host.address for host in topology.hosts), *(cluster.entrance for cluster in topology.clusters)]
    return tuple(collapse_addresses(map(IPv4Network, every)))


def machine_networks(settings: Settings, topology: Topology) -> tuple[IPv4Network, ...]:
    """The subnets of all machines, without what is in them, is not a machine of the stack, and is for pods to use: what
    opstella:network.neighbours names, and the servers that other settings name by their addresses."""
    subnets = tuple(collapse_addresses(cluster.subnet for cluster in settings.enabled_clusters.values()))
    machines = machine_addresses(topology)
    servers = [
        n
        for path, n in named(settings)
        if n.prefixlen == 32 and not path.startswith(("clusters.", "network.", "firewall."))
    ]
    outside = _without([*settings.network.neighbours, *servers], machines)
    return tuple(sorted(_without(subnets, outside)))


def _without(networks: Iterable[IPv4Network], holes: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """`networks` less all addresses of `holes`."""
    left = list(collapse_addresses(networks))
    for hole in holes:
        left = [
            part
            for network in left
            for part in (
                network.address_exclude(hole)
                if hole.subnet_of(network)
                else ()
                if network.subnet_of(hole)
                else (network,)
            )
        ]
    return tuple(collapse_addresses(left))


def _reached(host: Host, contract: Contract) -> tuple[Opening, ...]:
    """Each need of `host`'s, with the machines that it is for, unless an earlier one leads there too."""
    address = int(host.address)
    found: list[tuple[Rule, set[int]]] = []
    for rule in contract.needs:
        wanted = set()
        for number, (one, *_) in enumerate(contract.groups):
            networks = sources(rule, one, contract)
            if networks is not None and (
                _anyone(rule, host) if not networks else _within(networks, contract).holds(address, address)
            ):
                wanted.add(number)
        new = {n for n in wanted if not _known(rule, n, found)}
        # A machine that is alone of its kind needs nothing of itself.
        if any(contract.groups[number] != (host,) for number in new):
            found.append((rule, new))
    return tuple(
        Opening(rule=rule, networks=tuple(collapse_addresses(a for n in sorted(new) for a in _of_group(n, contract))))
        for rule, new in found
    )


def _known(rule: Rule, group: int, found: list[tuple[Rule, set[int]]]) -> bool:
    """Whether every port of `rule` may be opened in that group by some rule of `found`."""
    there = [one for one, groups in found if group in groups]
    return (
        bool(rule.ports)
        and not rule.ranges
        and all(any(r.opens(p, port) for r in there) for p in rule.protocols for port in rule.ports)
    )


def _of_group(number: int, contract: Contract) -> list[IPv4Network]:
    """The addresses of machines that are alike, the virtual ones of a load balancer among them."""
    hosts = contract.groups[number]
    own = [IPv4Network(host.address) for host in hosts]
    virtual = [c.entrance for b in contract.topology.load_balancers if hosts[0] in b.hosts for c in b.clusters]
    return [*own, *map(IPv4Network, virtual)]


@dataclass(frozen=True)
class Intervals:
    """Networks in the order of their addresses, none of which touches another, as numbers of both ends."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, networks: Iterable[IPv4Network]) -> Intervals:
        every = tuple(collapse_addresses(networks))
        return cls(tuple(int(n.network_address) for n in every), tuple(int(n.broadcast_address) for n in every))

    def holds(self, first: int, last: int) -> bool:
        """Whether all addresses from `first` to `last` are in one of them."""
        place = bisect_right(self.starts, first) - 1
        return place >= 0 and last <= self.ends[place]


def _within(networks: tuple[IPv4Network, ...], contract: Contract) -> Intervals:
    return contract.once(("intervals", networks), lambda: Intervals.of(networks))


def _anyone(rule: Rule, host: Host) -> bool:
    """Whether `host` is meant where anyone may come: people are, and the bastion as a place of an operator's. What
    machines need of each other is declared of them."""
    return rule.source == "operator" and host.role == "bastion"


def _addresses(hosts: Iterable[Host]) -> tuple[IPv4Network, ...]:
    return tuple(collapse_addresses(IPv4Network(host.address) for host in hosts))


def _names(host: Host) -> tuple[str, ...]:
    """What rules may call `host`."""
    return ("all", host.role, *(("node",) if host.role in ("master", "worker") else ()))


def _targets(rule: Rule, host: Host, contract: Contract) -> bool:
    if rule.target not in _names(host):
        return False
    if not rule.clusters or rule.source == "platform":
        return True
    return any(cluster.name in rule.clusters for cluster in contract.topology.served(host))


def sources(rule: Rule, host: Host, contract: Contract) -> tuple[IPv4Network, ...] | None:
    """From where `rule` lets somebody in to `host`: empty for anywhere, None where it is nobody, or not for it."""
    if not _targets(rule, host, contract):
        return None
    settings, topology, source = contract.settings, contract.topology, rule.source
    if source in ("any", "given"):
        return rule.networks
    if source == "bastion":
        # A machine is no source of its own.
        return None if host.role == "bastion" else (IPv4Network(topology.bastion.address),)
    if source == "gitlab":
        return (IPv4Network(topology.gitlab.address),)
    if source == "operator":
        own = settings.firewall.operator_networks
        # Whoever may reach the bastion may use the API; the bastion itself is one such place.
        bastion = () if host.role == "bastion" else (IPv4Network(topology.bastion.address),)
        return tuple(collapse_addresses([*own, *bastion])) if own else ()
    served = topology.served(host)
    if source == "platform":
        return contract.once(("platform", rule.clusters), lambda: _platform(rule, contract)) or None
    if not served:
        raise ValueError(f"rule with source '{source}' on a host outside of any cluster")
    if source == "peers":
        return _peers(host, served) or None
    if source == "pods":
        return tuple(collapse_addresses(cluster.settings.pod_subnet for cluster in served))
    if len(served) == 1:
        return served[0].networks[source]  # type: ignore[index]
    return tuple(collapse_addresses(network for cluster in served for network in cluster.networks[source]))  # type: ignore[index]


def _peers(host: Host, served: tuple[ClusterHosts, ...]) -> tuple[IPv4Network, ...]:
    if host.role != "haproxy":
        return ()
    return tuple(IPv4Network(other.address) for other in served[0].load_balancers if other != host)


def _platform(rule: Rule, contract: Contract) -> tuple[IPv4Network, ...]:
    """The nodes of the clusters that the rule names; a pod comes to its own load balancer by a public name, too."""
    named = (cluster for cluster in contract.topology.clusters if cluster.name in rule.clusters)
    return tuple(collapse_addresses(network for cluster in named for network in cluster.networks["node"]))


def allows(found: tuple[Opening, ...], other: IPv4Network, protocol: str, port: int) -> Rule | None:
    """The first rule that lets `other` in on `port` (of `openings`), or lets it be reached there (of `exits`), or None: the
    plan's own answer, for checks from outside."""
    for opening in found:
        inside = not opening.networks or any(other.subnet_of(network) for network in opening.networks)
        if inside and opening.rule.opens(protocol, port):
            return opening.rule
    return None
