"""What the user should know about the profile's document: a sentence for each thing that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

from plan.contract.entry import entries
from plan.contract.findings import findings
from plan.contract.profiles import document, unused
from plan.contract.rule import Rule, listed

_STRICT = " (network.strict: true)"


def remarks(profile: str, architecture: str, strict: bool, needs: tuple[Rule, ...]) -> tuple[str, ...]:
    """The sentences. Under `strict` there are none: then every proposal is taken, and what is not used is not open."""
    return () if strict else tuple(_remarks(profile, architecture, needs))


def _remarks(profile: str, architecture: str, needs: tuple[Rule, ...]) -> Iterator[str]:
    chosen = document(profile, architecture)
    found = findings(chosen)
    head = f"network.profile {profile}"
    for finding in found:
        remedy = f"corrected: {finding.proposal}" if finding.always else f"proposal: {finding.proposal}{_STRICT}"
        yield f"{head}: {finding.what} ({finding.table}, row {', '.join(map(str, finding.rows))}); {remedy}"
    corrected = {(f.table, row) for f in found if f.always and f.protocols for row in f.rows}
    rows = [e for e in entries(chosen) if e.direction == "in" and not e.as_for and (e.table, e.row) not in corrected]
    if without := [e for e in rows if not e.protocols]:
        yield f"{head}: no protocol is named for {listed(dict.fromkeys(r for e in without for r in e.intervals))}; taken as TCP"
    known = {f"{entries(chosen)[0].title}: {f.table}, row {row}" for f in found for row in f.rows}
    idle = [rule for rule in unused(profile, architecture, needs) if rule.row not in known]
    for target in dict.fromkeys(rule.target for rule in idle):
        ports = listed(dict.fromkeys(r for rule in idle if rule.target == target for r in rule.intervals))
        yield f"{head}: nothing of the platform uses {ports} on {target}, which the profile opens; proposal: leave it closed{_STRICT}"
