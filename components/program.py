"""A phase as the program that bash reads on a machine: what it needs of scripts/lib.sh, and itself.

The engine keeps every program twice in its state and writes the whole state after every step, so a program is kept
short: no comments, and of the library only the functions that it calls.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

_SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
# A function begins and ends in the first column, or stands in one line.
_FUNCTION = re.compile(r"^([a-z_][a-z0-9_]*)\(\) (?:.*\}\n|.*\n(?:.*\n)*?\}\n)", re.M)
_WORD = re.compile(r"[a-z_][a-z0-9_]*")


@functools.cache
def program(phase: str) -> str:
    """The program of `phase`, whose last step is still missing: the call of `main`."""
    library, text = _source("lib"), _source(phase)
    functions = {found[1]: found[0] for found in _FUNCTION.finditer(library)}
    called = _called(functions, _FUNCTION.sub("", library) + text)
    return _FUNCTION.sub(lambda found: found[0] if found[1] in called else "", library) + text


def _called(functions: Mapping[str, str], text: str) -> set[str]:
    """Names of those `functions` that `text` names, and of those that these name in turn."""
    called: set[str] = set()
    unread = [text]
    while unread:
        found = functions.keys() & set(_WORD.findall(unread.pop())) - called
        called |= found
        unread += [functions[name] for name in found]
    return called


def _source(name: str) -> str:
    """A script without the lines that hold only a comment or nothing."""
    lines = (_SCRIPTS / f"{name}.sh").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
