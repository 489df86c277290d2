"""Watchdog: a step whose peer falls silent is given up by name, and only such a step."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest

from components import host, watchdog
from components.watchdog import Step, Watchdog
from tests.support.platform import reference

STEP = Step(machine="worker-3", seconds=600, limit=0.05)
EVENT: Any = SimpleNamespace(urn="urn:step", name="nodes-worker-3-rke2")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", lambda message, *_: found.append(message))
    return found


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(watchdog, "plugins", lambda _: (4711,))
    monkeypatch.setattr(os, "kill", lambda process, _: found.append(process))
    return found


def after(*events: str, seconds: float = 0.15) -> None:
    """Lets the hooks `events` be called, one after the other, and time pass."""

    async def run() -> None:
        dog = Watchdog("watchdog")
        dog.binding(EVENT.name, STEP)
        for event in events:
            await getattr(dog, event)(EVENT)
        await asyncio.sleep(seconds)

    asyncio.run(run())


def test_a_step_past_its_limit_is_given_up_by_name(told: list[str], killed: list[int]) -> None:
    after("_begun")
    (message,) = told
    assert message.startswith("worker-3: nodes-worker-3-rke2 has not ended")
    assert "600 s" in message and "What to do: " in message and "pulumi up" in message
    assert killed == [4711]


def test_a_plugin_that_has_ended_meanwhile_spares_no_other(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def kill(process: int, _: int) -> None:
        if process == 4711:
            raise ProcessLookupError
        found.append(process)

    monkeypatch.setattr(watchdog, "plugins", lambda _: (4711, 4712))
    monkeypatch.setattr(os, "kill", kill)
    after("_begun")
    assert found == [4712] and len(told) == 1


@pytest.mark.parametrize("end", ["_ended", "_failed"])
def test_a_step_that_ends_is_left_alone(told: list[str], killed: list[int], end: str) -> None:
    after("_begun", end)
    assert (told, killed) == ([], [])


def test_every_remote_step_is_watched_and_its_limit_exceeds_whatever_the_engine_allows() -> None:
    found = reference("standalone").of_type("command:remote:Command")
    assert len(found) > 50
    for step in found:
        hooks = step.request.hooks
        assert [*hooks.before_create, *hooks.after_update, *hooks.on_error] == [
            "host-watchdog-begin", "host-watchdog-end", "host-watchdog-failure",
        ], step.name  # fmt: skip


def dials(count: int, seconds: float) -> float:
    """Seconds of `count` dials that each take `seconds`, with the plugin's pauses between them."""
    return count * seconds + sum(min(0.1 * 1.5**n, 5) for n in range(count))


def test_a_steps_limit_leaves_room_for_all_dials_of_both_hops() -> None:
    """Else the message is "context deadline exceeded" and has neither address nor reason."""
    from plan.hosts import BASTION_SYSCTLS

    kernel = 2 ** (BASTION_SYSCTLS["net.ipv4.tcp_syn_retries"] + 1) - 1
    slowest = dials(host._BASTION_DIALS, host._DIAL_SECONDS) + dials(host._DIALS, kernel)
    assert slowest < host._MARGIN_SECONDS
    # A refused connection is dialled for as long as a machine takes to boot.
    assert dials(host._BASTION_DIALS, 0) > 100 and dials(host._DIALS, 0) > 60


TREE = """
import subprocess, sys
plugin = subprocess.Popen([sys.executable, sys.argv[1]])
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
host = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
program = "import os; from components.watchdog import plugins; print(list(plugins(os.getpid())), flush=True)"
subprocess.run([sys.executable, "-c", host, program], check=True)
print(plugin.pid, flush=True)
plugin.kill(); other.kill()
"""


@pytest.mark.parametrize("program", [watchdog.PLUGIN, f"{watchdog.FOLDER}1.2.1/main.py"])
def test_the_plugin_is_found_among_the_processes_of_the_engine(tmp_path: Path, program: str) -> None:
    plugin = tmp_path / program
    plugin.parent.mkdir(exist_ok=True)
    plugin.write_text("import time; time.sleep(30)\n")
    elsewhere = subprocess.Popen([sys.executable, plugin])  # that of another run
    try:
        run = subprocess.run(
            [sys.executable, "-c", TREE, str(plugin)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
    finally:
        elsewhere.kill()
        elsewhere.wait()
    found, expected = run.stdout.splitlines()
    assert json.loads(found) == [int(expected)]
