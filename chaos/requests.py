"""What a steady client saw: requests, and the figures over a time. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request; `began` and `ended` are seconds of `time.monotonic()`, `error` is empty when it was answered."""

    kind: str
    began: float
    ended: float
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one kind of request over a time.

    `gap` is the longest time without any answer, `spread` the time from the first request that failed to the last one,
    both in seconds; `errors` counts what the failed ones said.
    """

    asked: int
    failed: int
    gap: float
    spread: float
    errors: dict[str, int]


def figures(requests: Iterable[Request], since: float, until: float) -> Figures:
    """The figures of the requests that began between `since` and `until`, which count as answered moments."""
    everything = list(requests)
    asked = [r for r in everything if since <= r.began < until]
    failed = [r for r in asked if r.error]
    # By when answers arrived: one that came late has kept its client waiting.
    answers = sorted(r.ended for r in everything if not r.error and since <= r.ended <= until)
    moments = [since, *answers, until]
    return Figures(
        asked=len(asked),
        failed=len(failed),
        gap=max(later - earlier for earlier, later in zip(moments, moments[1:], strict=False)),
        spread=max((r.began for r in failed), default=0.0) - min((r.began for r in failed), default=0.0),
        errors=dict(Counter(r.error for r in failed).most_common()),
    )


def pause(requests: Iterable[Request], since: float, until: float) -> float:
    """The longest time, in seconds, in which no request began: a client that is starved itself measures nothing."""
    moments = sorted([since, until, *(r.began for r in requests if since <= r.began <= until)])
    return max(later - earlier for earlier, later in zip(moments, moments[1:], strict=False))


def lost(acknowledged: Iterable[int], found: Iterable[int]) -> list[int]:
    """Numbers of the writes that were acknowledged and are not there."""
    return sorted(set(acknowledged) - set(found))
