"""What the lab's processes use: memory, processor time since boot, and the share of one processor right now."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 2.0
"""How long `percent` is measured for: an idle API server works in bursts of a second."""


@dataclass(frozen=True)
class Process:
    """A process of a host. `memory` in bytes, shared pages by share (PSS); `seconds` of processor time.

    `seconds` counts the ended children that it waited for; `own_seconds` and `percent` (of one processor) do not.
    """

    pid: int
    program: str
    memory: int
    seconds: float
    own_seconds: float
    percent: float


@dataclass(frozen=True)
class Usage:
    """The sum over some processes."""

    processes: int = 0
    memory_mb: int = 0
    seconds: float = 0.0
    percent: float = 0.0

    def row(self) -> dict[str, int | float]:
        """What `lab/lab status --json` prints of it."""
        return {
            "processes": self.processes,
            "memory_mb": self.memory_mb,
            "cpu_seconds": round(self.seconds, 1),
            "cpu_percent": round(self.percent, 1),
        }


def total(processes: Iterable[Process]) -> Usage:
    """What processes use together, with the children they had: the usage of hosts."""
    found = list(processes)
    return Usage(
        len(found), sum(p.memory for p in found) >> 20, sum(p.seconds for p in found), sum(p.percent for p in found)
    )


def by_program(processes: Iterable[Process]) -> dict[str, Usage]:
    """Program name to what the running processes of it use themselves, the largest memory first."""
    groups: dict[str, list[Process]] = {}
    for one in processes:
        groups.setdefault(one.program, []).append(one)
    sums = {
        name: Usage(
            len(group),
            sum(p.memory for p in group) >> 20,
            sum(p.own_seconds for p in group),
            sum(p.percent for p in group),
        )
        for name, group in groups.items()
    }
    return dict(sorted(sums.items(), key=lambda item: -item[1].memory_mb))


def measure(
    groups: Mapping[str, Iterable[int]],
    seconds: float = SAMPLE_SECONDS,
    proc: Path = PROC,
    wait: Callable[[float], None] = time.sleep,
) -> dict[str, list[Process]]:
    """Looks at every process of every group twice, `seconds` apart; those that end meanwhile are left out."""
    pids = {pid for group in groups.values() for pid in group}
    # Between the looks nothing is read: reading memory maps of hundreds of processes is itself work.
    memory = {pid: _memory(proc, pid) for pid in pids}
    first = {pid: times for pid in pids if (times := _times(proc, pid))}
    began = time.monotonic()
    wait(seconds)
    passed = max(time.monotonic() - began, seconds)
    found = {}
    for pid, (own, _) in first.items():
        now = _times(proc, pid)
        if now is not None:
            found[pid] = Process(pid, _program(proc, pid), memory[pid], sum(now), now[0], 100 * (now[0] - own) / passed)
    return {name: [found[pid] for pid in group if pid in found] for name, group in groups.items()}


def _times(proc: Path, pid: int) -> tuple[float, float] | None:
    """Seconds of processor time of the process itself, and of its ended children. See proc(5), `stat`."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, children_user, children_system = (int(field) / TICKS for field in fields[11:15])
    return user + system, children_user + children_system


def _program(proc: Path, pid: int) -> str:
    try:
        name = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        # `sshd: ops [priv]` writes what it does there.
        name = Path(name.partition(":")[0].partition(" ")[0]).name
        return name or (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "ended"


def _memory(proc: Path, pid: int) -> int:
    try:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
