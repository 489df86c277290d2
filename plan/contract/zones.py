"""The contract as a graph of few places: the groups of machines of each zone, whoever is outside, and who speaks to whom.

A zone is the outside, the machines that all clusters share, or one cluster. Where masters and workers are alike, the place
`node` stands for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from config.model import Settings
from plan.contract.contract import Contract
from plan.contract.flow import Flow, flows, short
from plan.topology import ClusterHosts, Host, Topology

OUTSIDE, SHARED = "outside", "shared"
_ALIKE = ("master", "worker")
_NAMES = {
    "operator": "operators", "given": "your networks", "gitlab": "GitLab", "haproxy": "load balancer", "node": "nodes",
    "master": "masters", "worker": "workers", "nfs": "NFS",
}  # fmt: skip
_TITLES = {
    "anyone": "Anyone", "operator": "Operators", "given": "Networks of your rules", "bastion": "Bastion", "gitlab": "GitLab",
    "haproxy": "Load balancer", "node": "Nodes", "master": "Masters", "worker": "Workers", "pods": "Pods", "nfs": "NFS",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """One end of arrows; `networks` are the addresses that it speaks with, none where settings say who it is."""

    zone: str
    role: str
    lines: tuple[str, ...] = ()
    networks: tuple[IPv4Network, ...] = ()

    @property
    def title(self) -> str:
        return _TITLES[self.role]

    def name(self, seen_from: str) -> str:
        """What arrows to places of the zone `seen_from` call it."""
        name = _NAMES.get(self.role, self.role)
        return name if self.zone in (OUTSIDE, SHARED, seen_from) else f"{name} of {self.zone}"


@dataclass(frozen=True, kw_only=True)
class Zone:
    """Places that belong together, in the order in which one reads them."""

    name: str
    title: str
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """`source` may open connections to `target` by `ports`: protocols (none for VRRP: its ports) to first and last."""

    source: Place
    target: Place
    ports: tuple[Atom, ...]

    @property
    def label(self) -> str:
        """As `22, 80, udp 4789, tcp+udp 111, 2049`."""
        parts = []
        for protocols in dict.fromkeys(protocols for protocols, _, _ in self.ports):
            spans = [(low, high) for p, low, high in self.ports if p == protocols]
            ports = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans if high)
            word = "+".join(protocols)
            parts.append(ports if protocols == ("tcp",) else f"{word} {ports}" if ports else word.upper())
        return ", ".join(parts)


Atom = tuple[tuple[str, ...], int, int]
"""Protocols, and the first and the last port; 0 and 0 of a protocol without ports."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Zones in reading order, and every arrow between their places once."""

    zones: tuple[Zone, ...]
    arrows: tuple[Arrow, ...]


def graph(contract: Contract) -> Graph:
    """Every flow of the contract. Raises ValueError for one whose source has no place."""
    topology = contract.topology
    places = {(place.zone, place.role): place for place in _places(contract.settings, topology)}
    pairs: dict[Atom, set[tuple[Place, Place]]] = {}
    known: dict[tuple[object, ...], list[Place]] = {}
    for flow in flows(contract):
        target = places[flow.cluster or SHARED, flow.role]
        # The same for all rules with these sources, which a fleet has thousands of.
        case = (flow.sources, flow.rule.source, flow.rule.origin, target.zone)
        if case not in known:
            known[case] = list(_sources(flow, target, list(places.values())))
        for atom in _atoms(flow):
            pairs.setdefault(atom, set()).update((source, target) for source in known[case])
    for cluster in topology.clusters:
        nodes = [places[cluster.name, role] for role in (*_ALIKE, "node")]
        for atom in pairs:
            pairs[atom] = _merged(pairs[atom], *nodes)
    order = {place: number for number, place in enumerate(places.values())}
    found: dict[tuple[Place, Place], list[Atom]] = {}
    for atom, ends in pairs.items():
        for pair in ends:
            found.setdefault(pair, []).append(atom)
    arrows = tuple(
        Arrow(source=source, target=target, ports=tuple(sorted(ports, key=lambda a: (a[0] != ("tcp",), a))))
        for (source, target), ports in sorted(found.items(), key=lambda item: (order[item[0][1]], order[item[0][0]]))
    )
    used = {place for pair in found for place in pair}
    return Graph(zones=tuple(_zones(topology, [p for p in places.values() if p in used])), arrows=arrows)


def _places(settings: Settings, topology: Topology) -> Iterable[Place]:
    operators = settings.firewall.operator_networks
    narrowed = [short(n) for n in operators] or ["anyone: opstella:firewall.", "operatorNetworks names none"]
    given = sorted({network for rule in settings.network.rules for network in rule.sources})
    yield Place(zone=OUTSIDE, role="operator", lines=_few(narrowed))
    yield Place(zone=OUTSIDE, role="anyone", lines=("whoever reaches the machine",))
    yield Place(zone=OUTSIDE, role="given", lines=_few([short(n) for n in given]))
    yield _machines(SHARED, "bastion", [topology.bastion])
    yield _machines(SHARED, "gitlab", [topology.gitlab])
    for cluster in topology.clusters:
        if cluster.settings.load_balancer.machines:
            yield _machines(cluster.name, "haproxy", cluster.load_balancers, _behind(cluster, topology))
        yield Place(zone=cluster.name, role="node", lines=("masters and workers alike",))
        yield _machines(cluster.name, "master", cluster.masters)
        yield _machines(cluster.name, "worker", cluster.workers)
        pods = cluster.settings.pod_subnet
        yield Place(zone=cluster.name, role="pods", lines=(str(pods),), networks=(pods,))
        yield _machines(cluster.name, "nfs", [cluster.nfs])


def _machines(zone: str, role: str, hosts: Sequence[Host], more: Sequence[str] = ()) -> Place:
    first, last = hosts[0], hosts[-1]
    count = [f"{len(hosts)} machines"] if len(hosts) > 1 else []
    addresses = f"{first.address}" if first == last else f"{first.address} to {last.address}"
    return Place(
        zone=zone, role=role, lines=(*count, addresses, *more), networks=tuple(IPv4Network(h.address) for h in hosts)
    )


def _behind(cluster: ClusterHosts, topology: Topology) -> list[str]:
    """The virtual addresses, and the other clusters that share it."""
    balancer = next(b for b in topology.load_balancers if b.owner.name == cluster.name)
    names = [c.name for c in balancer.clusters[1:]]
    virtual = [f"reached at {address}" for address in balancer.virtual_addresses.values()]
    return [*virtual, *([f"also for {', '.join(names)}"] if names else [])]


def _few(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(lines) if len(lines) <= 4 else (*lines[:3], f"and {len(lines) - 3} more")


def _zones(topology: Topology, used: Sequence[Place]) -> Iterable[Zone]:
    titles = {OUTSIDE: "Outside", SHARED: "Shared by all clusters" if len(topology.clusters) > 1 else "Beside the cluster"}
    titles |= {c.name: f"Cluster {c.name}, {c.settings.subnet}" for c in topology.clusters}
    for name, title in titles.items():
        yield Zone(name=name, title=title, places=tuple(place for place in used if place.zone == name))


def _atoms(flow: Flow) -> list[Atom]:
    spans = sorted(flow.rule.intervals) or [(0, 0)]
    return [(tuple(flow.rule.protocols), low, high) for low, high in spans]


def _sources(flow: Flow, target: Place, places: Sequence[Place]) -> Iterable[Place]:
    """Whose addresses the flow's are. The networks that settings name are nobody's, whatever stands in them."""
    outside = {place.role: place for place in places if place.zone == OUTSIDE}
    if flow.rule.origin == "custom":
        yield outside["given" if flow.sources else "anyone"]
        return
    if not flow.sources:
        yield outside["operator" if flow.rule.source == "operator" else "anyone"]
        return
    if flow.rule.source == "operator":
        yield outside["operator"]
        yield from (p for p in places if p.role == "bastion" and p != target and _shared(flow.sources, p.networks))
        return
    left = sum(network.num_addresses for network in flow.sources)
    # Clusters may have the same networks for their pods: the target's own comes first.
    for place in sorted(places, key=lambda place: place.zone != target.zone):
        if left and (shared := _shared(flow.sources, place.networks)):
            left -= shared
            yield place
    if left:
        raise ValueError(
            f"the flow '{flow.rule.purpose}' to {target.name(OUTSIDE)} comes from {', '.join(map(short, flow.sources))}, of "
            f"which {left} addresses have no place among the zones; give them one in {__file__}"
        )


def _shared(some: Iterable[IPv4Network], others: Iterable[IPv4Network]) -> int:
    """How many addresses stand in both, each of them without overlaps of its own."""
    first, second = (sorted((int(n.network_address), int(n.broadcast_address)) for n in each) for each in (some, others))
    count = i = j = 0
    while i < len(first) and j < len(second):
        low, high = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        count += max(0, high - low + 1)
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return count


def _merged(pairs: set[tuple[Place, Place]], master: Place, worker: Place, node: Place) -> set[tuple[Place, Place]]:
    """With `node` for masters and workers wherever both are there."""
    both = (master, worker)
    among = {(source, target) for source in both for target in both}
    if among <= pairs:
        pairs = pairs - among | {(node, node)}
    for side in (0, 1):
        others = {pair[1 - side] for pair in pairs}
        for other in others:
            two = {(one, other) if side == 0 else (other, one) for one in both}
            if two <= pairs:
                pairs = pairs - two | {(node, other) if side == 0 else (other, node)}
    return pairs
