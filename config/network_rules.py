"""Rules of the user's own beside the profile's: whom else the machines of a role let in."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from config.errors import Fault
from config.types import Flag, Frozen, Network, shown


def _purpose(value: Any) -> Any:
    # It becomes a comment in the ruleset.
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 .,:/()_-]{0,63}", value):
        raise Fault(f"{shown(value)} is not a purpose of plain characters", "write it in letters, digits, spaces and .,:/()_-, at most 64 characters")
    return value


def _ports(value: Any) -> Any:
    """A port, or a range as text: `30000-30010`. Returns its first and last."""
    if isinstance(value, tuple):
        return value
    ends = re.fullmatch(r"(\d{1,6})-(\d{1,6})", value) if isinstance(value, str) else None
    if ends is None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Fault(f"{shown(value)} is neither a port nor a range", "write 443, or a range in quotes: '30000-30010'")
    low, high = (int(ends[1]), int(ends[2])) if ends else (value, value)
    for port in (low, high):
        if not 1 <= port <= 65535:
            raise Fault(f"{port} is not a valid port", "write 1 to 65535")
    if low > high:
        raise Fault(f"the range {low}-{high} is reversed", f"write {high}-{low}", f"{high}-{low}")
    return low, high


class EgressRule(Frozen):
    """What machines may open to others, beyond what the platform needs."""

    purpose: Annotated[str, BeforeValidator(_purpose)]
    source: Literal["all", "master", "worker", "node", "gitlab", "nfs", "haproxy", "bastion"] = Field("all", alias="from")
    to: tuple[Network, ...]
    """Networks; 0.0.0.0/0 is anyone."""
    protocols: tuple[Literal["tcp", "udp"], ...] = ("tcp",)
    ports: tuple[Annotated[tuple[int, int], BeforeValidator(_ports)], ...]
    """First and last of each range."""


class Egress(Frozen):
    """What machines may open themselves."""

    enforce: Flag = False
    """Whether what the contract does not name is refused."""
    rules: tuple[EgressRule, ...] = ()


class NetworkRule(Frozen):
    """One flow that the machines of a role let in."""

    purpose: Annotated[str, BeforeValidator(_purpose)]
    to: Literal["master", "worker", "node", "gitlab", "nfs", "haproxy"]
    """`node`: masters and workers."""
    sources: tuple[Network, ...] = Field(alias="from")
    """Networks; 0.0.0.0/0 is anyone."""
    protocols: tuple[Literal["tcp", "udp"], ...] = ("tcp",)
    ports: tuple[Annotated[tuple[int, int], BeforeValidator(_ports)], ...]
    """First and last of each range."""
    open_to_anyone: Flag = False
    """Whether the API, the supervisor or etcd may be opened to the whole world."""
