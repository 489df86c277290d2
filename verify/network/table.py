"""The proof in words: a table by roles for people, each difference, and the whole as data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from verify.network.planned import by, intervals
from verify.network.proof import HELD_BACK, NEVER_ARRIVED, SILENT, Outcome, Proof
from verify.network.questions import PROTOCOLS, Host

_HEAD = ("from", "to", "cluster", "pairs", "asked", "pass", "held back", "differ", "passes as planned")
_MOST_DIFFERENCES = 50
_MOST_SOURCES = 6
_NOT_LEFT = "not to be sent"


@dataclass
class Row:
    """All outcomes between the hosts of one role and those of another, in the same cluster or between two."""

    source: str
    target: str
    cluster: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return len({(o.question.source, o.question.target) for o in self.outcomes})

    @property
    def passed(self) -> int:
        return sum(o.passed for o in self.outcomes)

    @property
    def differing(self) -> int:
        return sum(o.differs for o in self.outcomes)

    def cells(self) -> tuple[str, ...]:
        asked = len(self.outcomes)
        numbers = (self.pairs, asked, self.passed, asked - self.passed, self.differing)
        return (self.source, self.target, self.cluster, *map(str, numbers), self.passes())

    def passes(self) -> str:
        """The ports that pass as planned, by protocol; of those that not every pair passes, between how many of them."""
        counts: dict[str, dict[int, int]] = {}
        asked: dict[str, set[int]] = {}
        ranges = {interval for o in self.outcomes if o.planned for interval in _ranges(o)}
        for outcome in self.outcomes:
            protocol, port = outcome.question.protocol, outcome.question.port
            asked.setdefault(protocol, set()).add(port)
            if outcome.passed and outcome.planned:
                counts.setdefault(protocol, {})[port] = counts.get(protocol, {}).get(port, 0) + 1
        parts = []
        for protocol in (*PROTOCOLS, "icmp"):
            found = counts.get(protocol, {})
            if protocol == "icmp":
                parts += ["icmp" + self._share(found[0])] if found else []
            elif found:
                parts.append(f"{protocol} " + ", ".join(
                    (str(low) if low == high else f"{low}-{high}") + self._share(count)
                    for low, high, count in _spans(found, asked[protocol], ranges)
                ))  # fmt: skip
        return "; ".join(parts)

    def _share(self, count: int) -> str:
        return "" if count == self.pairs else f" ({count} of {self.pairs})"


def _ranges(outcome: Outcome) -> Iterator[tuple[int, int]]:
    return ((low, high) for low, high in intervals(outcome.planned or {}) if low < high)


def _spans(counts: dict[int, int], asked: set[int], ranges: set[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Ports with their counts: neighbours, and neighbours among those asked of one planned range, are one span."""
    spans: list[tuple[int, int, int]] = []
    order = sorted(asked)
    for before, port in zip([None, *order], order, strict=False):
        if port not in counts:
            continue
        low, high, count = spans[-1] if spans else (0, 0, 0)
        one = any(first <= high and port <= last for first, last in ranges)
        if spans and high == before and count == counts[port] and (port == high + 1 or one):
            spans[-1] = (low, port, count)
        else:
            spans.append((port, port, counts[port]))
    return spans


def rows(proof: Proof) -> list[Row]:
    """By roles, in the order of the plan's hosts."""
    hosts = {host["name"]: host for host in proof.hosts}
    found: dict[tuple[str, str, str], Row] = {}
    for outcome in proof.outcomes:
        source, target = hosts[outcome.question.source], hosts[outcome.question.target]
        key = (source["role"], target["role"], _clusters(source, target))
        found.setdefault(key, Row(*key)).outcomes.append(outcome)
    roles = list(dict.fromkeys(host["role"] for host in proof.hosts))
    return sorted(found.values(), key=lambda row: (roles.index(row.source), roles.index(row.target), row.cluster == "other"))


def _clusters(source: Host, target: Host) -> str:
    if source["cluster"] is None or target["cluster"] is None:
        return "-"
    return "same" if source["cluster"] == target["cluster"] else "other"


def text(proof: Proof) -> Iterator[str]:
    """The proof as lines."""
    cells = [_HEAD, *(row.cells() for row in rows(proof))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    for row in cells:
        yield "  ".join(
            cell.rjust(width) if 3 <= column < 8 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
    yield ""
    for name, why in sorted(proof.away.items()):
        yield f"not asked: {name}, which counts as a difference; its pairs are left out: {why}"
    found = list(differences(proof))
    for line, advice in found[:_MOST_DIFFERENCES]:
        yield f"differs: {line}"
        yield f"  to do: {advice}"
    if len(found) > _MOST_DIFFERENCES:
        yield f"differs: {len(found) - _MOST_DIFFERENCES} more lines like these; all of them: --json"
    yield from _totals(proof)


def summary(proof: Proof) -> str:
    """The sums in one line."""
    asked, passed = len(proof.outcomes), sum(o.passed for o in proof.outcomes)
    pairs = len({(o.question.source, o.question.target) for o in proof.outcomes})
    return (
        f"{asked} connections between {len(proof.hosts) - len(proof.away)} hosts ({pairs} pairs): {passed} pass, "
        f"{asked - passed} are held back, {len(proof.differences)} differ from the plan"
    )


def _totals(proof: Proof) -> Iterator[str]:
    kept = sum(not o.may_leave and not o.passed for o in proof.outcomes)
    if kept:
        yield f"{kept} of what is held back may not leave its own host (opstella:network.egress), and never came to the other"
    before = sum(o.seen == NEVER_ARRIVED and not o.differs and o.may_leave for o in proof.outcomes)
    if before:
        yield f"{before} of what is held back never arrived at the host: something in front of it holds it back already"
    if proof.unasked:
        yield f"{proof.unasked} echo requests were not sent: those hosts have no ping"
    yield f"{proof.stack}: {summary(proof)}"
    yield f"asked in {proof.seconds:.1f} s, at most {proof.rate} packets a second from one host"


def differences(proof: Proof) -> Iterator[tuple[str, str]]:
    """What differs and what to do about it; what is one but for who asked, or but for the port, is on one line."""
    sources: dict[tuple[str, str, int, str, str], list[str]] = {}
    for o in proof.differences:
        key = (o.question.target, o.question.protocol, o.question.port, o.seen, _planned(o))
        sources.setdefault(key, []).append(o.question.source)
    ports: dict[tuple[str, str, str, str, tuple[str, ...]], list[int]] = {}
    for (target, protocol, port, seen, planned), names in sources.items():
        ports.setdefault((target, protocol, seen, planned, tuple(names)), []).append(port)
    for (target, protocol, seen, planned, names), found in ports.items():
        what = protocol if protocol == "icmp" else f"{protocol} {', '.join(map(str, sorted(found)))}"
        yield f"{_names(names, len(proof.hosts))} to {target}, {what}: {seen}, planned: {planned}", _advice(target, seen, planned)


def _planned(outcome: Outcome) -> str:
    if outcome.planned:
        return by(outcome.planned)
    return "nothing" if outcome.may_leave else f"{_NOT_LEFT}, by opstella:network.egress"


def _names(names: Sequence[str], hosts: int) -> str:
    if len(names) > 1 and len(names) == hosts - 1:
        return f"all {len(names)} others"
    more = len(names) - _MOST_SOURCES
    return ", ".join(names[:_MOST_SOURCES]) + (f" and {more} more" if more > 0 else "")


def _advice(target: str, seen: str, planned: str) -> str:
    place = "where it comes from" if planned.startswith(_NOT_LEFT) else f"on {target}"
    again = f"{place} `systemctl restart opstella-firewall` puts the planned rules in force again"
    if seen in (NEVER_ARRIVED, SILENT):
        return f"look at what lies in between: what the sender may open, a route, a firewall in front of {target} (`./opstella network export`)"
    if seen == HELD_BACK:
        return f"{again}; if it is still held back, `nft list ruleset` there shows by what"
    return f"{again}; if it still passes: `make up`. What is to pass belongs into opstella:network.rules"


def data(proof: Proof) -> dict[str, Any]:
    """The proof for programs; each difference by itself."""
    return {
        "stack": proof.stack,
        "as_planned": proof.as_planned,
        "hosts": len(proof.hosts),
        "away": dict(proof.away),
        "asked": len(proof.outcomes),
        "passed": sum(o.passed for o in proof.outcomes),
        "held_back": sum(not o.passed for o in proof.outcomes),
        "unasked": proof.unasked,
        "rate": proof.rate,
        "seconds": round(proof.seconds, 1),
        "rows": [
            dict(zip(("from", "to", "cluster", "pairs", "asked", "passed", "held_back", "differing", "passes"), (
                row.source, row.target, row.cluster, row.pairs, len(row.outcomes), row.passed,
                len(row.outcomes) - row.passed, row.differing, row.passes(),
            ), strict=True))
            for row in rows(proof)
        ],
        "differences": [
            {
                "from": o.question.source, "to": o.question.target, "protocol": o.question.protocol, "port": o.question.port,
                "seen": o.seen, "passed": o.passed, "planned": o.planned,
            }
            for o in proof.differences
        ],
    }  # fmt: skip
