"""The plan's own answer: which rule lets a packet through from one host to another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any

Rule = dict[str, Any]
"""A rule as `plan.as_data` gives it, in `inbound` and `outbound` of a host."""


class Planned:
    """What may pass between the hosts of a plan."""

    def __init__(self, hosts: Sequence[dict[str, Any]]) -> None:
        self._addresses: dict[str, str] = {host["name"]: host["address"] for host in hosts}
        self._inbound = {host["name"]: _Openings(host["inbound"], "from") for host in hosts}
        # Without opstella:network.egress.enforce a host may open anything.
        self._outbound = {host["name"]: _Openings(host["outbound"], "to") for host in hosts if "outbound" in host}

    def rule(self, source: str, target: str, protocol: str, port: int) -> Rule | None:
        """The first rule by which `target` lets `source` in on `port`, hosts by name; None: it gets no answer."""
        if not self.may_leave(source, target, protocol, port):
            return None
        return self._inbound[target].rule(self._addresses[source], protocol, port)

    def may_leave(self, source: str, target: str, protocol: str, port: int) -> bool:
        """Whether `source` may open it, whatever `target` says."""
        outbound = self._outbound.get(source)
        return outbound is None or outbound.rule(self._addresses[target], protocol, port) is not None


class _Openings:
    """The rules of one host in one direction; `where` is the key of the networks on the other side."""

    def __init__(self, rules: Sequence[Rule], where: str) -> None:
        self._rules = [(rule, [IPv4Network(n) for n in rule[where] if n != "any"]) for rule in rules]
        self._of = lru_cache(maxsize=None)(self._open)

    def rule(self, other: str, protocol: str, port: int) -> Rule | None:
        return next((rule for low, high, rule in self._of(other, protocol) if low <= port <= high), None)

    def _open(self, other: str, protocol: str) -> list[tuple[int, int, Rule]]:
        address = IPv4Address(other)
        return [
            (low, high, rule)
            for rule, networks in self._rules
            if protocol in rule["protocols"] and (not networks or any(address in network for network in networks))
            for low, high in intervals(rule)
        ]


def intervals(rule: Rule) -> list[tuple[int, int]]:
    """The ports of `rule`, each as an interval of its own."""
    return [*((port, port) for port in rule["ports"]), *((low, high) for low, high in rule.get("ranges", ()))]


def by(rule: Rule) -> str:
    """For what a rule opens, and whose word it is."""
    return f"{rule['purpose']} ({', '.join(str(word) for word in (rule.get('row'), rule.get('why')) if word)})"
