"""The planner's proof: what the platform needs is let in on every machine that it is for."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from config.errors import Problem, key
from plan import network
from plan.contract.contract import Contract
from plan.contract.rule import Rule, listed
from plan.topology import Host


def check(contract: Contract) -> list[Problem]:
    """A problem for each need that some machine would hold back; none, unless a rule was lost on the way."""
    return [
        Problem(
            key("network"),
            f"{host.name} would hold back {listed(need.intervals) or 'VRRP'} ({need.purpose}) from {need.source}, "
            f"which {need.by} needs: {need.why}",
            "open it by a rule of opstella:network.rules, and report it: the plan should have derived one",
        )
        for need, host in held_back(contract)
    ]


def held_back(contract: Contract) -> Iterator[tuple[Rule, Host]]:
    """Each need, with the first machine of each group that it is for and that does not let it in."""
    for host, *_ in contract.groups:
        opened = network.openings(host, contract)
        for need in contract.needs:
            wanted = network.sources(need, host, contract)
            if wanted is not None and not _let_in(need, wanted, opened):
                yield need, host


def _let_in(need: Rule, wanted: tuple[IPv4Network, ...], opened: tuple[network.Opening, ...]) -> bool:
    """Whether every one of the `wanted` networks, or anyone, is let in on every port by `opened` together."""
    if not need.intervals:
        return any(o.rule.protocols == need.protocols and o.networks == wanted for o in opened)
    ends = [(int(w.network_address), int(w.broadcast_address)) for w in wanted]
    for protocol in need.protocols:
        for port in need.ports:
            of_port = [o.networks for o in opened if o.rule.opens(protocol, port)]
            if () in of_port or (wanted and wanted in of_port):
                continue
            # Together: two rules may each let in a half of what is one network in `wanted`.
            let_in = network.Intervals.of(n for networks in of_port for n in networks)
            if not wanted or not all(let_in.holds(first, last) for first, last in ends):
                return False
    return True


def allowed_by(need: Rule, contract: Contract) -> tuple[Rule, ...]:
    """The rules by which `need` is let in, each once, over all machines that it is for."""
    found: dict[Rule, None] = {}
    for host, *_ in contract.groups:
        wanted = network.sources(need, host, contract)
        if wanted is None:
            continue
        for opening in network.openings(host, contract):
            rule, networks = opening.rule, opening.networks
            meant = not networks or wanted == networks or any(w.overlaps(n) for w in wanted for n in networks)
            ports = need.ports == rule.ports == () or any(rule.opens(p, port) for p in need.protocols for port in need.ports)
            if meant and ports and set(rule.protocols) & set(need.protocols):
                found[rule] = None
    return tuple(found)
