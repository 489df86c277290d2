"""In which order a cluster's releases stand: waves by need, and the longest chain of needs.

The engine starts each release as soon as what it needs stands; a wave is what could start together at the latest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plan.tools.model import Release
from plan.tools.wiring import needs_of


def waves(releases: Sequence[Release]) -> tuple[tuple[str, ...], ...]:
    """Names of `releases` (needs first): the first wave needs nothing, each other one something of the wave before."""
    number: dict[str, int] = {}
    for release in releases:
        number[release.name] = max((number[need] + 1 for need in needs_of(release)), default=0)
    return tuple(
        tuple(name for name, own in number.items() if own == wave)
        for wave in range(max(number.values(), default=-1) + 1)
    )


def critical_path(releases: Sequence[Release], seconds: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """The chain of needs that takes longest, first to last, with the measured `seconds` of each release.

    Without them each counts the same; of equally long chains, the one that ends first in `releases`.
    """
    chains: dict[str, tuple[float, tuple[str, ...]]] = {}
    for release in releases:
        longest = max((chains[need] for need in needs_of(release)), key=lambda chain: chain[0], default=(0.0, ()))
        own = 1.0 if seconds is None else seconds.get(release.name, 0.0)
        chains[release.name] = (longest[0] + own, (*longest[1], release.name))
    return max(chains.values(), key=lambda chain: chain[0], default=(0.0, ()))[1]


def as_data(releases: Sequence[Release]) -> dict[str, Any]:
    """Both, as plain JSON data."""
    return {"waves": [list(wave) for wave in waves(releases)], "critical_path": list(critical_path(releases))}
