"""One allowed inbound flow, in the platform's own roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

Target = Literal["master", "worker", "node", "gitlab", "nfs", "haproxy", "all"]
Source = Literal["any", "master", "worker", "node", "haproxy", "bastion", "operator", "pods", "peers", "headlamp", "given"]
Protocol = Literal["tcp", "udp", "vrrp"]


def listed(intervals: Iterable[tuple[int, int]]) -> str:
    """Ports by the first and last of each range, as `80, 443, 30000-32767`."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in intervals)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One allowed inbound flow; VRRP has no ports, and `ranges` are ports too, by their first and last.

    `origin` is a document's row, which `row` names, or `derived` with the `why`, or `custom`: a rule of the user's, whose
    setting stands in `why`, and whose source is `given` by `networks` (none: anyone).
    """

    target: Target
    protocols: tuple[Protocol, ...]
    ports: tuple[int, ...]
    source: Source
    purpose: str
    ranges: tuple[tuple[int, int], ...] = ()
    origin: Literal["reference", "derived", "custom"] = "reference"
    why: str = ""
    row: str = ""
    networks: tuple[IPv4Network, ...] = ()

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """All ports, each as a range."""
        return (*((port, port) for port in self.ports), *self.ranges)

    @property
    def reason(self) -> str:
        """The row or the setting it is by, or why it was derived."""
        return self.row or (f"derived: {self.why}" if self.origin == "derived" else self.why)

    def opens(self, protocol: str, port: int) -> bool:
        """Whether `port` is one of the rule's, by `protocol`."""
        return protocol in self.protocols and any(low <= port <= high for low, high in self.intervals)
