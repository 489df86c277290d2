"""Where the time of a run went, from what the engine prints and the kernel counts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.profile import EngineFailed, Profile, watch

_STEPS = """\
import time
print(" +  command:remote:Command host-worker-1-prepare creating (0s)", flush=True)
time.sleep({seconds})
print(" +  command:remote:Command host-worker-1-prepare created (1s)", flush=True)
print(" +  kubernetes:helm.sh/v3:Release devsecops-tools-vault created (3s)", flush=True)
print("@ updating....", flush=True)
"""


def _watch(program: str, seconds: float = 30) -> Profile:
    return watch([sys.executable, "-c", program], environment=os.environ, folder=Path.cwd(), seconds=seconds)


def test_steps_have_their_begin_and_end() -> None:
    profile = _watch(_STEPS.format(seconds=0.5))
    begin, end = profile.steps["command:remote:Command", "host-worker-1-prepare"]
    assert 0.5 <= end - begin <= profile.seconds
    lines = "\n".join(profile.lines())
    assert "command prepare             1 steps" in lines
    assert "Release                     1 steps" in lines


def test_a_run_without_steps_tells_its_processors_only() -> None:
    (line,) = _watch("pass").lines()
    assert line.startswith("  seconds of processor: ")


def test_a_failed_run_says_what_it_printed() -> None:
    with pytest.raises(EngineFailed, match="exit 3\nno such stack"):
        _watch("print('no such stack', flush=True); raise SystemExit(3)")


def test_a_run_that_does_not_end_is_ended() -> None:
    with pytest.raises(EngineFailed, match="exit -9"):
        _watch("import time; time.sleep(600)", seconds=0.5)


@pytest.mark.toolchain
def test_processor_time_of_a_provider_holds_the_sessions_that_it_waited_for(tmp_path: Path) -> None:
    provider = tmp_path / "pulumi-resource-command"
    work = "n = 0\nwhile n < 6_000_000: n += 1"
    provider.write_text(
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {work!r}])\ntime.sleep(2)"
    )
    profile = _watch(f"import subprocess, sys; subprocess.run([sys.executable, {str(provider)!r}])")
    assert profile.cpu["providers"] > 0.05
    assert profile.busy >= profile.cpu["providers"]


@pytest.mark.toolchain
def test_forks_of_ansible_are_counted_once(tmp_path: Path) -> None:
    """By the process that waits for them."""
    playbook = tmp_path / "ansible-playbook"
    playbook.write_text(
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    end = time.process_time() + 0.6\n"
        "    while time.process_time() < end: pass\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(2)\n"
    )
    profile = _watch(f"import subprocess, sys; subprocess.run([sys.executable, {str(playbook)!r}, 'site.yaml'])")
    assert 0.55 <= profile.cpu["ansible"] <= 1.0
