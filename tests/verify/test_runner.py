"""The runner: one line a check, a count, and a program that fails when a check does."""

from __future__ import annotations

import contextlib
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest

import verify.checks
import verify.ssh
import verify.stack
from plan.plan import as_data
from tests.support.platform import ARCHITECTURES, plan_of, reference
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


def test_what_was_changed_by_hand_is_repaired_by_name() -> None:
    """A run without changed settings repairs nothing, so no check may advise one; each resource is named once."""

    def unreachable() -> str:
        raise CheckFailed("no answer", repair=("standalone-lb-haproxy",))

    written: list[str] = []
    checks = [Check("a", unreachable), Check("b", unreachable), Check("c", failing, repair=("standalone-nfs-nfs",)), Check("d", failing)]
    assert run(checks, written.append, "mine") == 4
    (advice,) = [text for text in written if "--replace" in text]
    assert advice.endswith("pulumi up --stack mine --replace '**::standalone-lb-haproxy' --replace '**::standalone-nfs-nfs'")
    assert not [text for text in written if text.startswith("FAIL") and "pulumi up" in text]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_named_for_repair_is_in_the_stack(monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    plan = plan_of(architecture)
    monkeypatch.setattr(verify.checks, "Api", lambda _kubeconfig, balancers: list(balancers))
    monkeypatch.setattr(verify.checks, "tool_checks", lambda _stack, _cluster, balancers: [Check("api", str, repair=tuple(balancers))])
    names = [cluster.name for cluster in plan.topology.clusters]
    stack = verify.stack.Stack(
        name="s", plan=as_data(plan), releases={}, outputs={"kubeconfigs": dict.fromkeys(names, "")}, private_key="", public_address=None
    )
    named = {resource for check in verify.checks.checks(stack, None) for resource in check.repair}  # type: ignore[arg-type]
    assert len(named) > len(names)
    assert named <= {command.name for command in reference(architecture).commands}


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


def program(monkeypatch: pytest.MonkeyPatch, checks: Iterable[Check], *arguments: str) -> object:
    """The status with which `python -m verify` of a stack with these checks ends."""
    monkeypatch.setattr(sys, "argv", ["verify", "--stack", "one", *arguments])
    monkeypatch.setattr(verify.stack, "read", lambda *_: None)
    monkeypatch.setattr(verify.ssh, "session", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(verify.checks, "checks", lambda *_: iter(checks))
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("verify", run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize(("check", "status"), [(lambda: "fine", 0), (failing, 1), (breaking, 1)])
def test_the_programs_status_is_the_result(
    check: Callable[[], str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program(monkeypatch, [Check("only", check)]) == status


@pytest.mark.parametrize(
    ("only", "status", "ran"), [("", 0, ["etcd", "NFS"]), ("etcd", 0, ["etcd"]), ("Etcd", 2, [])]
)
def test_only_the_chosen_checks_run_and_none_is_no_success(
    only: str, status: int, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    some = [Check(f"one: {name}", lambda name=name: done.append(name) or "seen") for name in ("etcd", "NFS")]
    assert program(monkeypatch, some, *(["--only", only] if only else [])) == status
    assert done == ran
    assert ("no check has 'Etcd' in its name" in capsys.readouterr().err) == (status == 2)


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
