"""Runs the engine and watches what it costs: wall time, and the peak memory of the program and of the engine."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "lab/toolchain/pulumi"


class EngineFailed(Exception):
    """A run of the engine failed; the message holds the end of what it printed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Wall time in seconds; peak resident memory in MiB of the Python program, and of all its processes together."""

    seconds: float
    program_mib: float
    processes_mib: float
    output: str


def run(arguments: list[str], *, folder: Path, environment: dict[str, str], prefix: tuple[str, ...] = ()) -> Run:
    """`pulumi ARGUMENTS` in `folder`. Raises EngineFailed."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*prefix, str(ENGINE), *arguments, "--non-interactive"],
        cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    watch = _Watch(process.pid)
    watch.start()
    output, _ = process.communicate(timeout=3600)
    seconds = time.monotonic() - start
    watch.stop()
    if process.returncode:
        raise EngineFailed(f"pulumi {' '.join(arguments)}: exit {process.returncode}\n{output[-3000:]}")
    return Run(seconds=seconds, program_mib=watch.program / 1024, processes_mib=watch.total / 1024, output=output)


class _Watch(threading.Thread):
    """Samples /proc ten times a second: the kernel's own high-water marks of every process below `root`."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._end = root, threading.Event()
        self._peaks: dict[int, tuple[bool, int]] = {}

    def run(self) -> None:
        while not self._end.wait(0.1):
            for pid in descendants(self._root):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                    command = Path(f"/proc/{pid}/cmdline").read_text()
                except OSError:
                    continue
                peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
                if peak:  # a process that has ended shows none
                    self._peaks[pid] = ("language" in command, peak)

    def stop(self) -> None:
        self._end.set()
        self.join()

    @property
    def program(self) -> int:
        return max((peak for host, peak in self._peaks.values() if host), default=0)

    @property
    def total(self) -> int:
        return sum(peak for _, peak in self._peaks.values())


def descendants(root: int) -> list[int]:
    """The processes below `root`, itself among them."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += parents.get(pid, [])
    return found


def exponent(counts: tuple[int, ...], times: list[float]) -> float:
    """How `times` grow with `counts`: the slope of log(time) over log(count), by least squares."""
    return statistics.linear_regression([math.log(n) for n in counts], [math.log(t) for t in times]).slope
