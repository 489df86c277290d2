"""The contract of a stack: what its machines need, what they let in, and what they may open."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, collapse_addresses
from typing import Any, TypeVar

from config.model import Settings
from plan.contract import profiles
from plan.contract.needs import Releases, exits, needs
from plan.contract.rule import Rule
from plan.topology import Host, Topology

ANYONE = IPv4Network("0.0.0.0/0")
NODE_PORTS = (30000, 32767)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Contract:
    """`needs` are the declared flows between machines, `rules` what machines let in: the profile's rows, the needs that no
    row allows, and the user's own. `exits` are what they open to others, judged only where `settings.network.egress`
    says so."""

    settings: Settings
    topology: Topology
    needs: tuple[Rule, ...]
    rules: tuple[Rule, ...]
    exits: tuple[Rule, ...]
    groups: tuple[tuple[Host, ...], ...]
    """Machines that are alike: of a role and a cluster, but each load balancer alone, for its peer is another one's."""
    found: dict[Any, Any] = field(init=False, default_factory=dict, repr=False)
    """What was worked out once for machines that are alike, by whoever did (plan/network.py, plan/nftables.py)."""

    def alike(self, host: Host) -> Host:
        """The first of the machines that are like `host`."""
        if "alike" not in self.found:
            self.found["alike"] = {one: group[0] for group in self.groups for one in group}
        return self.found["alike"][host]

    def once(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` gives, worked out the first time that `key` is asked for."""
        if key not in self.found:
            self.found[key] = work()
        return self.found[key]


def contract(settings: Settings, topology: Topology, releases: Releases) -> Contract:
    """Of valid settings and the releases of every cluster."""
    chosen = settings.network
    wanted = needs(settings, topology, releases)
    opened = profiles.rules(chosen.profile, settings.architecture, chosen.strict, wanted)
    groups: dict[tuple[str | None, ...], list[Host]] = {}
    for host in topology.hosts:
        groups.setdefault((host.role, host.cluster, host.name if host.role == "haproxy" else None), []).append(host)
    return Contract(
        settings=settings, topology=topology, needs=wanted, rules=(*opened, *_custom(settings)),
        exits=(*exits(settings, topology), *_custom_exits(settings)), groups=tuple(map(tuple, groups.values())),
    )  # fmt: skip


def _custom(settings: Settings) -> Iterator[Rule]:
    first, last = NODE_PORTS
    for number, rule in enumerate(settings.network.rules):
        # NodePorts are guarded in a chain of their own, so a range that goes beyond them is two rules.
        parts = (((1, first - 1), (last + 1, 65535)), (NODE_PORTS,))
        for bounds in parts:
            ports = [(max(a, low), min(b, high)) for a, b in rule.ports for low, high in bounds]
            intervals = [(low, high) for low, high in ports if low <= high]
            if intervals:
                yield Rule(
                    target=rule.to, protocols=rule.protocols, ports=tuple(a for a, b in intervals if a == b),
                    ranges=tuple((a, b) for a, b in intervals if a < b), source="given", purpose=rule.purpose,
                    origin="custom", why=f"opstella:network.rules[{number}]", networks=_collapsed(rule.sources),
                )  # fmt: skip


def _custom_exits(settings: Settings) -> Iterator[Rule]:
    for number, rule in enumerate(settings.network.egress.rules):
        yield Rule(
            target="outside", source=rule.source, protocols=rule.protocols, purpose=rule.purpose, origin="custom",
            ports=tuple(a for a, b in rule.ports if a == b), ranges=tuple((a, b) for a, b in rule.ports if a < b),
            why=f"opstella:network.egress.rules[{number}]", networks=_collapsed(rule.to),
        )  # fmt: skip


def _collapsed(networks: tuple[IPv4Network, ...]) -> tuple[IPv4Network, ...]:
    """As the fewest networks, for nft refuses a set whose elements overlap; none for anyone."""
    found = tuple(collapse_addresses(networks))
    return () if ANYONE in found else found
