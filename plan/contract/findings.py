"""What is wrong or wider than need be in the documents, and what to do instead: the table findings.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from plan.contract.entry import DOCUMENTS, Entry, entries

_FILE = Path(__file__).with_name("findings.toml")
_KEYS = {"document", "table", "rows", "what", "proposal", "always", "protocols"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`what` is wrong with `rows`, and the proposal in words; `always`: it is taken, with `protocols` in place of the rows'
    own if it names some."""

    document: str
    table: str
    rows: tuple[int, ...]
    what: str
    proposal: str
    always: bool = False
    protocols: tuple[str, ...] = ()

    def holds_for(self, entry: Entry) -> bool:
        """Whether `entry` is one of its rows."""
        return (self.document, self.table) == (entry.document, entry.table) and entry.row in self.rows


@cache
def findings(document: str) -> tuple[Finding, ...]:
    """Those of one of DOCUMENTS. Raises ValueError for a row that the document does not have."""
    return tuple(f for f in _all() if f.document == document)


@cache
def _all() -> tuple[Finding, ...]:
    return tuple(_finding(written) for written in tomllib.loads(_FILE.read_text(encoding="utf-8"))["finding"])


def _finding(written: dict[str, Any]) -> Finding:
    where = f"{_FILE.name}: {written['document']}, {written['table']}, rows {written['rows']}"
    if unknown := written.keys() - _KEYS:
        raise ValueError(f"{where}: there is no key {sorted(unknown)}; write {sorted(_KEYS)}")
    there = {(e.table, e.row) for d in DOCUMENTS if d == written["document"] for e in entries(d)}
    if missing := [row for row in written["rows"] if (written["table"], row) not in there]:
        raise ValueError(f"{where}: the document has no row {missing}; name rows of plan/contract/*.toml")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}
    return Finding(**values)
