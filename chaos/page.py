"""The table: one row a fault, printed, and kept in docs/chaos.md from run to run. Pure."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields

from chaos.faults import GAP_SECONDS, Target
from chaos.watch import Seen

_BEGIN, _END = "<!-- rows -->", "<!-- end of rows -->"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One experiment as it is told; every field is one cell."""

    fault: str
    done: str
    clients: str
    recovered: str
    lost: str
    target: str
    measured: str


def clients(seen: list[Seen]) -> str:
    """What clients saw, in words."""
    parts = []
    for one in seen:
        kinds = []
        for kind, f in one.figures.items():
            spread = (
                f" over {f.spread:.1f} s ({', '.join(f'{n} {e}' for e, n in f.errors.items())})" if f.failed else ""
            )
            name = kind if kind == "ingress" else f"{kind}s"
            kinds.append(f"{name}: {f.failed} of {f.asked} failed{spread}, longest gap {f.gap:.1f} s")
        parts.append((f"{one.cluster}: " if len(seen) > 1 else "") + "; ".join(kinds))
    return "<br>".join(parts)


def lost(seen: list[Seen]) -> str:
    """The acknowledged writes that are gone, in words."""
    gone = [f"{one.cluster}: {', '.join(map(str, one.lost))}" for one in seen if one.lost]
    total = sum(one.acknowledged for one in seen)
    return f"none of {total} acknowledged writes" if not gone else f"of {total} acknowledged writes " + "; ".join(gone)


def judged(target: Target, seen: list[Seen]) -> str:
    """`met: …` or `MISSED: …`, with the target. The ingress is told, not judged: its pods are doubles."""
    of_api = [f for one in seen for kind, f in one.figures.items() if kind != "ingress"]
    everything = [f for one in seen for f in one.figures.values()]
    kept = not any(one.lost for one in seen)
    if target is Target.REACHABLE:
        kept = kept and all(f.gap <= GAP_SECONDS for f in of_api)
    elif target is Target.NO_FAILURE:
        kept = kept and not any(f.failed for f in everything)
    return f"{'met' if kept else 'MISSED'}: {target.value}"


def table(rows: list[Row]) -> str:
    """Markdown."""
    names = [f.name for f in fields(Row)]
    head = ["fault", "what was done", "what clients saw", "how it recovered", "lost", "target", "measured"]
    assert len(head) == len(names)
    lines = [head, ["---"] * len(head), *(list(astuple(row)) for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def rows_of(page: str) -> list[Row]:
    """The rows that a page holds; none when it has no table."""
    _, begin, rest = page.partition(_BEGIN)
    if not begin:
        return []
    lines = [line for line in rest.partition(_END)[0].splitlines() if line.startswith("| ")][2:]
    cells = [line.removeprefix("| ").removesuffix(" |").replace("\\|", "\0").split(" | ") for line in lines]
    return [
        Row(**dict(zip([f.name for f in fields(Row)], (c.replace("\0", "|") for c in row), strict=True)))
        for row in cells
    ]


def with_rows(page: str, measured: list[Row], order: list[str]) -> str:
    """The page with these rows in the place of those of the same faults; the others stay. `order` is that of the faults."""
    rows = {row.fault: row for row in (*rows_of(page), *measured)}
    known = [rows[name] for name in order if name in rows]
    before, begin, rest = page.partition(_BEGIN)
    if not begin or _END not in rest:
        raise ValueError(f"the page has no place for the table: a line {_BEGIN} and one {_END}")
    return f"{before}{_BEGIN}\n\n{table(known)}\n{_END}{rest.partition(_END)[2]}"
