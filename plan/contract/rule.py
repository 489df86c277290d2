"""One allowed flow, in the platform's own roles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

Target = Literal["master", "worker", "node", "gitlab", "nfs", "haproxy", "bastion", "all", "outside"]
Source = Literal[
    "any", "master", "worker", "node", "haproxy", "bastion", "operator", "pods", "peers", "platform", "given",
    "gitlab", "nfs", "all",
]  # fmt: skip
Protocol = Literal["tcp", "udp", "vrrp"]


def listed(intervals: Iterable[tuple[int, int]]) -> str:
    """Ports by the first and last of each range, as `80, 443, 30000-32767`."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in intervals)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One allowed flow; VRRP has no ports, and `ranges` are ports too, by their first and last.

    `origin` is a document's row, which `row` names, or `derived` from a flow that `by`, a component or a tool, declares
    with its `why`, or `custom`: a rule of the user's, whose setting stands in `why`, and whose source is `given` by
    `networks` (none: anyone). A rule with the target `outside` is what machines open to somebody who is none of the
    stack's: there `networks` are where to.
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
    by: str = ""
    networks: tuple[IPv4Network, ...] = ()
    clusters: tuple[str, ...] = ()
    """The clusters whose machines it is about; empty: all. With the source `platform`, the clusters whose nodes it is."""

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """All ports, each as a range."""
        return (*((port, port) for port in self.ports), *self.ranges)

    @property
    def reason(self) -> str:
        """The row or the setting it is by, or why it was derived."""
        return self.row or (f"derived, {self.by}: {self.why}" if self.origin == "derived" else self.why)

    def opens(self, protocol: str, port: int) -> bool:
        """Whether `port` is one of the rule's, by `protocol`."""
        return protocol in self.protocols and any(low <= port <= high for low, high in self.intervals)


def need(
    by: str,
    source: Source,
    target: Target,
    ports: tuple[int, ...],
    purpose: str,
    why: str,
    *,
    protocols: tuple[Protocol, ...] = ("tcp",),
    networks: tuple[IPv4Network, ...] = (),
) -> Rule:
    """A flow that the component `by` does not work without."""
    return Rule(
        by=by, source=source, target=target, protocols=protocols, ports=ports, purpose=purpose, why=why,
        networks=networks, origin="derived",
    )  # fmt: skip
