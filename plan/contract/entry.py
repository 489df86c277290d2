"""The documents' tables as they stand, row by row: the TOML files beside this one.

A row keeps the document's own names of machines; plan/contract/roles.py knows which of ours they are.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

DOCUMENTS = ("opstella_standalone", "opstella_multicluster", "tectonic", "deckhouse", "rke2_cilium")
Strength = Literal["must", "should", "may"]
Direction = Literal["in", "out"]
UNSTATED = "unstated"
_FOLDER = Path(__file__).parent
_PROTOCOLS = ("tcp", "udp", "icmp")
_OF_TABLE = {"strength", "direction", "from", "to"}
_OF_ROW = {*_OF_TABLE, "row", "protocols", "ports", "purpose", "when", "as_for"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row. `protocols` is empty where the document names none, `when` is its own condition.

    A row with `as_for` has no ports: it stands for all that may come in to the machines of that name.
    """

    document: str
    title: str
    table: str
    row: int
    strength: Strength
    direction: Direction
    source: str
    to: str
    protocols: tuple[str, ...]
    ports: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]
    purpose: str
    when: str = ""
    as_for: str = ""

    @property
    def intervals(self) -> tuple[tuple[int, int], ...]:
        """All ports, each as a range."""
        return (*((port, port) for port in self.ports), *self.ranges)

    @property
    def name(self) -> str:
        """Where it stands, in words."""
        return f"{self.title}: {self.table}, row {self.row}"


@cache
def entries(document: str) -> tuple[Entry, ...]:
    """Every row of `document`, one of DOCUMENTS, in its order."""
    return parse(document, (_FOLDER / f"{document}.toml").read_text(encoding="utf-8"))


def parse(document: str, text: str) -> tuple[Entry, ...]:
    """The rows of a transcription. Raises ValueError that names table, row and what to write instead."""
    content = tomllib.loads(text)
    return tuple(
        _entry(document, content["title"], table["name"], {**_defaults(content), **_defaults(table), **row})
        for table in content["table"]
        for row in table["rows"]
    )


def _defaults(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: table[key] for key in _OF_TABLE & table.keys()}


def _entry(document: str, title: str, table: str, row: Mapping[str, Any]) -> Entry:
    where = f"{document}.toml: {table}, row {row.get('row', '?')}"
    if unknown := row.keys() - _OF_ROW:
        raise ValueError(f"{where}: there is no key {sorted(unknown)}; write {sorted(_OF_ROW)}")
    protocols = tuple(row.get("protocols", ()))
    _one_of(where, "protocol", protocols, _PROTOCOLS)
    _one_of(where, "strength", (row["strength"],), get_args(Strength))
    _one_of(where, "direction", (row["direction"],), get_args(Direction))
    single, ranges = _ports(where, row.get("ports", ()))
    if not (single or ranges) and "icmp" not in protocols and "as_for" not in row:
        raise ValueError(f"{where}: it has no ports; give it ports, or the protocol icmp")
    return Entry(
        document=document, title=title, table=table, row=row["row"],
        strength=row["strength"], direction=row["direction"], source=row.get("from", UNSTATED), to=row["to"],
        protocols=protocols, ports=single, ranges=ranges, purpose=row["purpose"],
        when=row.get("when", ""), as_for=row.get("as_for", ""),
    )  # fmt: skip


def _one_of(where: str, what: str, values: tuple[str, ...], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise ValueError(f"{where}: '{value}' is no {what}; write one of {', '.join(known)}")


def _ports(where: str, written: list[int | str]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Single ports, and ranges that are written as "first-last"."""
    single, ranges = [], []
    for port in written:
        first, *rest = (port,) if isinstance(port, int) else tuple(map(int, port.split("-")))
        for number in (first, *rest):
            if not 1 <= number <= 65535:
                raise ValueError(f"{where}: {number} is no port; write 1 to 65535")
        if not rest:
            single.append(first)
        elif len(rest) > 1 or first >= rest[0]:
            raise ValueError(f"{where}: the range {port} is reversed or empty; write the lower port first")
        else:
            ranges.append((first, rest[0]))
    return tuple(single), tuple(ranges)


def inbound(document: str) -> Iterator[Entry]:
    """The rows of what machines let in, with each `as_for` put out in full: its ports under the row's own name."""
    every = entries(document)
    for entry in every:
        if entry.direction == "out":
            continue
        if not entry.as_for:
            yield entry
            continue
        for other in every:
            if other.direction == "in" and other.to == entry.as_for:
                yield Entry(**{**vars(other), "to": entry.to, "table": entry.table, "row": entry.row})
