"""What is asked of whom: every host, of every other, each port of the contract and a sample of ports beyond it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from verify.network.planned import intervals

Host = dict[str, Any]
"""A host as `plan.as_data` gives it."""

PROTOCOLS = ("tcp", "udp")
BEYOND = (12345, 31000, 33333)
"""Asked of every host, whatever its contract says; one of them is a NodePort."""

_ADDRESS_AND_PORT = re.compile(r"^(?P<protocol>tcp|udp)\s+\S+\s+\S+\s+\S+\s+(?P<address>\S+):(?P<port>\d+)\s")
_DESTINATIONS = re.compile(r"\bdport (?:!= )?(\{[^}]*\}|\d+(?:-\d+)?)")


class Question(NamedTuple):
    """A packet from one host to another, by name. ICMP has port 0: an echo request."""

    source: str
    target: str
    protocol: str
    port: int


def contract_ports(hosts: Sequence[Host]) -> list[int]:
    """Every port that any host's rules name; of a range its ends and the middle."""
    found: set[int] = set()
    for host in hosts:
        for rule in host["inbound"]:
            for low, high in intervals(rule):
                found |= {low, (low + high) // 2, high}
    return sorted(found)


def listening(said: str) -> set[int]:
    """Ports on which a host takes connections or datagrams from others, by `ss -Hltun`."""
    found = (_ADDRESS_AND_PORT.match(line) for line in said.splitlines())
    return {int(m["port"]) for m in found if m and not m["address"].strip("[]").startswith(("127.", "::1"))}


def named(ruleset: str) -> set[int]:
    """Ports that a ruleset names, by `nft list`: where somebody opened one by hand, it is worth asking."""
    found = {int(port) for text in _DESTINATIONS.findall(ruleset) for port in re.findall(r"\d+", text)}
    return {port for port in found if 0 < port < 65536}


def questions(hosts: Sequence[Host], own: Mapping[str, set[int]]) -> Iterator[tuple[Host, list[Question]]]:
    """For each of `hosts` what it asks the others; `own` are ports that are asked of one host only.

    Each begins with the host behind it, so that no host is asked by all at once.
    """
    common = {*contract_ports(hosts), *BEYOND}
    ports = {host["name"]: sorted(common | own.get(host["name"], set())) for host in hosts}
    for number, source in enumerate(hosts):
        yield source, [
            question
            for target in (*hosts[number + 1 :], *hosts[:number])
            for question in _of_pair(source["name"], target["name"], ports[target["name"]])
        ]


def _of_pair(source: str, target: str, ports: Sequence[int]) -> Iterator[Question]:
    yield Question(source, target, "icmp", 0)
    for port in ports:
        for protocol in PROTOCOLS:
            yield Question(source, target, protocol, port)
