"""The contract of a stack: what its machines need, what they let in, and what they may open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, collapse_addresses
from types import MappingProxyType

from config.model import Settings
from plan.contract import profiles
from plan.contract.needs import Releases, exits, needs
from plan.contract.rule import Rule
from plan.topology import Host, Role, Topology

ANYONE = IPv4Network("0.0.0.0/0")
NODE_PORTS = (30000, 32767)


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
    first: Mapping[tuple[Role, str | None], Host]
    """A machine of each role in each cluster."""
    reached: dict[Host, tuple[tuple[Rule, tuple[IPv4Network, ...]], ...]] = field(init=False, default_factory=dict, repr=False)
    """Filled by plan/network.py: what machines of the stack each machine may open, found once for machines that are alike."""


def contract(settings: Settings, topology: Topology, releases: Releases) -> Contract:
    """Of valid settings and the releases of every cluster."""
    chosen = settings.network
    wanted = needs(settings, topology, releases)
    opened = profiles.rules(chosen.profile, settings.architecture, chosen.strict, wanted)
    first: dict[tuple[Role, str | None], Host] = {}
    for host in topology.hosts:
        first.setdefault((host.role, host.cluster), host)
    return Contract(
        settings=settings, topology=topology, needs=wanted, rules=(*opened, *_custom(settings)),
        exits=(*exits(settings, topology), *_custom_exits(settings)), first=MappingProxyType(first),
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
