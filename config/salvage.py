"""What can still be checked when single values are wrong, so that one page reports everything at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from config.model import Settings
from config.pem import ENCRYPTED
from config.reference import ARCHITECTURES, overlay

# In place of a broken section that has no default; nothing is reported about it.
_STAND_INS: dict[str, Any] = {
    **overlay(ARCHITECTURES["standalone"], {"architecture": "standalone", "domain": "devops.example.com"}),
    "ssh": {"privateKey": ENCRYPTED},
}


def salvage(
    document: dict[str, Any],
    base: dict[str, Any],
    errors: Sequence[Any],
    validate: Callable[[dict[str, Any]], Settings],
) -> tuple[Settings | None, frozenset[str]]:
    """`document` with the values that `errors` name replaced by those of `base`, and the paths of these values.

    Where nothing can take a value's place its whole section is replaced. None: nothing can be checked.
    """
    broken = frozenset(_broken(error) for error in errors if error["type"] != "extra_forbidden")
    for paths in (broken, frozenset((path[0],) for path in broken)):
        rest = deepcopy(document)
        for error in errors:
            if error["type"] == "extra_forbidden":
                _replace(rest, error["loc"], {})
        for path in paths:
            _replace(rest, path, _STAND_INS if len(path) == 1 else base)
        try:
            return validate(rest), frozenset(".".join(map(str, path)) for path in paths)
        except ValidationError:
            continue
    return None, frozenset()


def touches(broken: str, reads: str) -> bool:
    """Whether a check that reads `reads` is concerned by the value at `broken`.

    Both are paths; in `reads` a `*` stands for any name, and a last `**` for everything below, without which only the
    value itself and what it stands in count.
    """
    parts, pattern = broken.split("."), reads.removesuffix(".**").split(".")
    if len(parts) > len(pattern) and not reads.endswith(".**"):
        return False
    return all(wanted in ("*", part) for part, wanted in zip(parts, pattern, strict=False))


def _broken(error: Any) -> tuple[Any, ...]:
    """The path of what an error spoils: nothing can take the place of a missing value or of a wrong name."""
    location: tuple[Any, ...] = error["loc"]
    return location[:1] if error["type"] == "missing" or "[key]" in location else location


def _replace(document: Any, path: tuple[Any, ...], base: Any) -> None:
    """The value at `path` becomes that of `base`, or is taken out where `base` has none."""
    for part in path[:-1]:
        if not isinstance(document, dict | list) or (isinstance(document, dict) and part not in document):
            return
        document = document[part]
        base = base.get(part) if isinstance(base, dict) else None
    last = path[-1]
    if isinstance(base, dict) and last in base:
        document[last] = deepcopy(base[last])
    elif isinstance(document, dict):
        document.pop(last, None)
    # An item of a list stays: without it the others would move, and the section is replaced instead.
