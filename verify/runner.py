"""Runs checks one after another, one line each, and counts."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass


class CheckFailed(Exception):
    """What was found, and what was expected; the message is the check's line."""


@dataclass(frozen=True)
class Check:
    """`run` returns the line that says what was seen, or raises CheckFailed."""

    name: str
    run: Callable[[], str]


def run(checks: Iterable[Check], write: Callable[[str], None] = print) -> int:
    """Runs all `checks`; returns the number of those that failed."""
    passed = failed = 0
    began = time.monotonic()
    for check in checks:
        start = time.monotonic()
        try:
            mark, line = "ok  ", check.run()
            passed += 1
        except CheckFailed as error:
            mark, line = "FAIL", str(error)
            failed += 1
        except Exception as error:  # a check that breaks has not passed, and the others still run
            where = traceback.extract_tb(error.__traceback__)[-1]
            mark, line = "FAIL", f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            failed += 1
        write(f"{mark} {time.monotonic() - start:6.1f} s  {check.name}: {line}")
    write(f"{passed} passed, {failed} failed")
    write(f"checked in {time.monotonic() - began:.1f} s")
    return failed
