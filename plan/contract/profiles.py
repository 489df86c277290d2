"""A profile: the document whose rows a stack's machines open, and what the platform needs beyond it.

- A `must` becomes a rule. A `should` becomes one too.
- A `may` becomes a rule only where the platform needs what it allows, and then no more than that.
- What the platform needs (plan/contract/needs.py) and no row allows is derived, with its reason.
- A row that could not work as it stands is corrected (findings.toml, `always`).
- A protocol that a row does not name is TCP. ICMP makes no rule: every machine takes what it needs of it.

Under `strict` only what the platform needs is open, each by the row that allows it, or derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from plan.contract.entry import Entry, Strength, inbound
from plan.contract.findings import findings
from plan.contract.roles import ours
from plan.contract.rule import Rule

Key = tuple[Any, ...]
OWN = "opstella"
_NODES = ("master", "worker")
_MACHINES = (*_NODES, "haproxy", "gitlab", "nfs", "bastion")


def document(profile: str, architecture: str) -> str:
    """The document of `profile`; the reference has a table for each architecture, `custom` takes the one of several."""
    if profile == OWN:
        return f"{OWN}_{'standalone' if architecture == 'standalone' else 'multicluster'}"
    return profile.replace("-", "_")


def rules(profile: str, architecture: str, strict: bool, needs: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Every rule of the profile, then what `needs` ask for beyond it."""
    chosen = document(profile, architecture)
    opened = () if strict else _opened(chosen, ("must", "should"))
    allowed = _opened(chosen, ("must", "should", "may"))
    added: list[Rule] = []
    for need in needs:
        added += [_attributed(part, allowed) for part in _missing(need, (*opened, *added))]
    # What stands twice on a machine would be one line of its ruleset twice.
    return (*(rule for rule in opened if not any(covers((wider,), rule) for wider in added)), *added)


def unused(profile: str, architecture: str, needs: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rows of the profile that open nothing which the platform needs."""
    opened = _opened(document(profile, architecture), ("must", "should"))
    return tuple(rule for rule in opened if not any(meet(rule, need) for need in needs))


def _missing(need: Rule, opened: tuple[Rule, ...]) -> Iterator[Rule]:
    """What of `need` is not open yet: as one rule where it is the same for all of its machines."""
    parts = [
        (target, source)
        for target in (_NODES if need.target == "node" else (need.target,))
        for source in _sources(need.source)
    ]
    lacking = [_lacking(replace(need, target=t, source=s), opened) for t, s in parts]  # type: ignore[arg-type]
    if len(set(lacking)) == 1:
        lacking, parts = lacking[:1], [(need.target, need.source)]
    for (target, source), ports in zip(parts, lacking, strict=True):
        if ports is not None:
            yield replace(need, target=target, source=source, ports=ports)  # type: ignore[arg-type]


def _lacking(part: Rule, opened: tuple[Rule, ...]) -> tuple[int, ...] | None:
    """The ports that are not open; None: all are. VRRP has none, and is open where a rule is for it."""
    if not part.ports:
        there = any((r.target, r.source, r.protocols) == (part.target, part.source, part.protocols) for r in opened)
        return None if there else ()
    return tuple(p for p in part.ports if not covers(opened, replace(part, ports=(p,)))) or None


def _attributed(need: Rule, allowed: Iterable[Rule]) -> Rule:
    row = next((rule.row for rule in allowed if covers((rule,), need)), None)
    if row:
        return replace(need, origin="reference", row=row, why="")
    return need


@lru_cache(maxsize=64)
def _opened(chosen: str, strengths: tuple[Strength, ...]) -> tuple[Rule, ...]:
    """The rules of a document's rows of these strengths, each once."""
    found: dict[Key, Rule] = {}
    for entry in _ordered(chosen):
        if entry.strength in strengths:
            for rule in _rules(entry):
                found.setdefault((rule.target, rule.protocols, rule.intervals, rule.source), rule)
    return tuple(found.values())


def _ordered(chosen: str) -> Iterator[Entry]:
    """What both tables of the reference have comes first, so that a machine's ruleset keeps its order in both."""
    if chosen != document(OWN, "standalone"):
        yield from inbound(chosen)
        return
    both = {_place(entry) for entry in inbound(document(OWN, "multicluster"))}
    yield from sorted(inbound(chosen), key=lambda entry: _place(entry) not in both)


def _place(entry: Entry) -> Key:
    return (entry.to, entry.ports, entry.source)


def _rules(entry: Entry) -> Iterator[Rule]:
    finding = next((f for f in findings(entry.document) if f.always and f.holds_for(entry)), None)
    targets, sources = ours(entry.document, entry.to), ours(entry.document, entry.source)
    protocols = (finding.protocols if finding else ()) or entry.protocols or ("tcp",)
    if "icmp" in protocols:
        return
    for target in targets:
        for source in sources:
            yield Rule(
                target=target, protocols=protocols, ports=entry.ports, ranges=entry.ranges, source=source,  # type: ignore[arg-type]
                purpose=entry.purpose, row=entry.name,
            )  # fmt: skip


def covers(opened: Iterable[Rule], need: Rule) -> bool:
    """Whether everything that `need` allows is allowed by some of `opened`. What has no ports is never covered."""
    every = tuple(opened)
    return bool(need.intervals) and all(
        any(
            machine in _machines(rule.target)
            and _includes(rule.source, source)
            and (not rule.clusters or cluster in rule.clusters)
            and protocol in rule.protocols
            and any(low <= first and last <= high for low, high in rule.intervals)
            for rule in every
        )
        for machine in _machines(need.target)
        for source in _sources(need.source)
        for cluster in need.clusters or (None,)
        for protocol in need.protocols
        for first, last in need.intervals
    )


def meet(rule: Rule, need: Rule) -> bool:
    """Whether something that `need` allows is allowed by `rule` too."""
    return (
        any(machine in _machines(need.target) for machine in _machines(rule.target))
        and any(_includes(rule.source, s) or _includes(s, rule.source) for s in _sources(need.source))
        and any(protocol in need.protocols for protocol in rule.protocols)
        and any(low <= last and first <= high for low, high in rule.intervals for first, last in need.intervals)
    )


def _machines(target: str) -> tuple[str, ...]:
    return _MACHINES if target == "all" else _NODES if target == "node" else (target,)


def _sources(source: str) -> tuple[str, ...]:
    return _NODES if source == "node" else (source,)


def _includes(wider: str, source: str) -> bool:
    return wider in ("any", source) or source in _sources(wider)
