"""TOML from data: tables, arrays of tables, and values on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def render(table: Mapping[str, Any]) -> str:
    """The text of `table`: maps become tables, lists of maps arrays of tables; ends with a line feed."""
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    # Values before tables: what follows a table's header belongs to it.
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _tables(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        name = ".".join(map(_key, (*path, key)))
        if isinstance(value, Mapping):
            yield f"[{name}]"
            yield from _lines(value, (*path, key))
        elif _tables(value):
            for one in value:
                yield f"[[{name}]]"
                yield from _lines(one, (*path, key))


def _tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return "[" + ", ".join(map(_value, value)) + "]"


def _text(value: str) -> str:
    # JSON escapes what TOML wants escaped, apart from the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
