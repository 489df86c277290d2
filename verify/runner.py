"""Runs checks one after another, one line each, and counts."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass


class CheckFailed(Exception):
    """What was found, and what was expected; the message is the check's line.

    `repair` names the resources whose phases put right what somebody changed by hand, such as `standalone-lb-haproxy`.
    """

    def __init__(self, message: str, *, repair: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.repair = repair


@dataclass(frozen=True)
class Check:
    """`run` returns the line that says what was seen, or raises CheckFailed. `repair` as there, for all of its failures."""

    name: str
    run: Callable[[], str]
    repair: tuple[str, ...] = ()


def run(checks: Iterable[Check], write: Callable[[str], None] = print, stack: str = "STACK") -> int:
    """Runs all `checks` of the stack named `stack`; returns the number of those that failed."""
    passed = failed = 0
    repairs: dict[str, None] = {}
    began = time.monotonic()
    for check in checks:
        start = time.monotonic()
        try:
            mark, line = "ok  ", check.run()
            passed += 1
        except CheckFailed as error:
            mark, line = "FAIL", str(error)
            failed += 1
            repairs |= dict.fromkeys(error.repair or check.repair)
        except Exception as error:  # a check that breaks has not passed, and the others still run
            where = traceback.extract_tb(error.__traceback__)[-1]
            mark, line = "FAIL", f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            failed += 1
        write(f"{mark} {time.monotonic() - start:6.1f} s  {check.name}: {line}")
    write(f"{passed} passed, {failed} failed")
    if repairs:
        write(
            "If settings were changed, run `make up`. What was changed on a machine by hand is not seen by a run without "
            "changed settings (docs/operations.md, Machines changed by hand); this repairs it:\n    pulumi up --stack "
            + stack + "".join(f" --replace '**::{name}'" for name in repairs)
        )
    write(f"checked in {time.monotonic() - began:.1f} s")
    return failed
