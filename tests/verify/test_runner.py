"""The runner: one line a check, a count, and a program that fails when a check does."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator

import pytest

import verify.checks
import verify.ssh
import verify.stack
from verify.runner import Check, CheckFailed, run


def failing() -> str:
    raise CheckFailed("expected 3, found 2")


def breaking() -> str:
    return str({}["nothing"])


def lines(*checks: Check) -> tuple[int, list[str]]:
    written: list[str] = []
    return run(checks, written.append), written


def test_each_check_has_its_line_and_all_are_counted() -> None:
    failed, written = lines(Check("first", lambda: "seen"), Check("second", failing), Check("third", lambda: "seen too"))
    assert failed == 1
    assert re.fullmatch(r"ok   +\d+\.\d s  first: seen", written[0])
    assert re.fullmatch(r"FAIL +\d+\.\d s  second: expected 3, found 2", written[1])
    assert written[2].endswith("third: seen too")
    assert written[3] == "2 passed, 1 failed"


def test_a_check_that_breaks_has_failed_and_the_others_still_run() -> None:
    failed, written = lines(Check("broken", breaking), Check("next", lambda: "seen"))
    assert failed == 1
    assert written[0].startswith("FAIL") and "KeyError: 'nothing' (breaking, line " in written[0]
    assert written[1].endswith("next: seen")


def test_checks_are_made_as_they_are_reached() -> None:
    """A check may only be possible to describe once the one before has run."""
    seen: list[str] = []

    def some() -> Iterator[Check]:
        yield Check("one", lambda: seen.append("one") or "")
        assert seen == ["one"]
        yield Check("two", lambda: "")

    assert run(some(), lambda _: None) == 0


@pytest.mark.parametrize(("check", "status"), [(lambda: "fine", 0), (failing, 1), (breaking, 1)])
def test_the_programs_status_is_the_result(check: object, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    monkeypatch.setattr(sys, "argv", ["verify", "--stack", "one"])
    monkeypatch.setattr(verify.stack, "read", lambda *_: None)
    monkeypatch.setattr(verify.ssh, "session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(verify.checks, "checks", lambda *_: [Check("only", check)])  # type: ignore[arg-type]
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("verify", run_name="__main__")
    assert ended.value.code == status


def test_a_stack_that_cannot_be_read_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreadable(*_: object) -> None:
        raise verify.stack.StackUnreadable("stack 'one' has no outputs yet")

    monkeypatch.setattr(sys, "argv", ["verify", "--stack", "one"])
    monkeypatch.setattr(verify.stack, "read", unreadable)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("verify", run_name="__main__")
    assert ended.value.code == 2
    assert "error: stack 'one' has no outputs yet" in capsys.readouterr().err
