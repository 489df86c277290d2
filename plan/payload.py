"""How values travel to a host script: one `NAME BASE64` line each (scripts/README.md).

Base64 keeps any text, newlines included, in one line that no shell interprets.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

_NAME = re.compile(r"[a-z0-9_]+\Z")


def render(values: Mapping[str, str | int | bool | list[str] | tuple[str, ...]]) -> str:
    """The payload of `values`: booleans as true/false, lists newline-separated.

    Raises ValueError for a bad name, for an item of a list that holds a line break, and for NUL bytes.
    """
    lines = []
    for name, value in values.items():
        if not _NAME.match(name):
            raise ValueError(f"payload name '{name}': use a-z, 0-9 and '_'")
        text = _text(name, value)
        if "\0" in text:
            raise ValueError(f"payload value '{name}' contains a NUL byte, which no shell can hold")
        lines.append(f"{name} {base64.b64encode(text.encode()).decode()}\n")
    return "".join(lines)


def _text(name: str, value: str | int | bool | list[str] | tuple[str, ...]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        if any("\n" in item for item in value):
            raise ValueError(f"payload value '{name}': an item of the list holds a line break, which would make it two")
        return "\n".join(value)
    return str(value)
