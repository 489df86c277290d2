"""Which of our machines a document means by a name: the table roles.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("roles.toml")


@cache
def mapping() -> dict[str, dict[str, tuple[str, ...]]]:
    """Document, or the family of documents that shares its names, to name to our roles; none: somebody outside."""
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {family: {name: tuple(ours) for name, ours in names.items()} for family, names in content.items()}


def ours(document: str, name: str) -> tuple[str, ...]:
    """Our roles for the document's `name`. Raises ValueError for one that nobody mapped."""
    family = "opstella" if document.startswith("opstella") else document
    names = mapping()[family]
    if name not in names:
        raise ValueError(
            f"{document}: '{name}' is mapped to none of our machines; map it in {_FILE.name}, below [{family}], "
            f"as one of: {', '.join(names)}"
        )
    return names[name]
