"""What a run costs: the time of the processors by who used them, of the clock by what ran, and memory."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_STEP = re.compile(r"^ *[+~-]+ +(\S+:\S+) (\S+) (creat|updat|delet)(ing|ed)\b")
_TICK = os.sysconf("SC_CLK_TCK")
_MOST_KINDS = 8
_OF_ITSELF = ("engine", "program")
"""Of a provider the processes that it has waited for count too: each SSH session is one."""


class EngineFailed(Exception):
    """A run failed; the message holds the end of what it printed."""


@dataclass(kw_only=True)
class Profile:
    """`cpu`: seconds by user; `busy` and `idle`: seconds of all processors together; `steps`: by resource, when it
    began and ended, in seconds since the run's own begin; `program_mib` and `processes_mib`: the peak resident memory of
    the program, and of all processes together."""

    seconds: float = 0.0
    said: list[tuple[float, str]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    idle: float = 0.0
    program_mib: float = 0.0
    processes_mib: float = 0.0
    steps: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return "".join(line for _, line in self.said)

    def processors(self) -> str:
        """Who used them, in seconds."""
        others = max(0.0, self.busy - sum(self.cpu.values()))
        users = "".join(f"{user} {seconds:.1f}, " for user, seconds in sorted(self.cpu.items()))
        return f"  seconds of processor: {users}hosts and all else {others:.1f}, idle {self.idle:.1f}"

    def lines(self) -> Iterator[str]:
        """What is worth reading: processors, then the kinds of steps that ran longest."""
        yield self.processors()
        if not self.steps:
            return
        first = min(begin for begin, _ in self.steps.values())
        last = max(end for _, end in self.steps.values())
        yield f"  before the first step {first:.1f} s, after the last one {self.seconds - last:.1f} s"
        kinds: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (kind, name), span in self.steps.items():
            kinds[_kind(kind, name)].append(span)
        longest = sorted(kinds.items(), key=lambda found: -sum(end - begin for begin, end in found[1]))
        for kind, spans in longest[:_MOST_KINDS]:
            total = sum(end - begin for begin, end in spans)
            yield (
                f"  {kind:<24} {len(spans):4} steps, {total:7.1f} s together, from {min(spans)[0]:6.1f} s"
                f" to {max(end for _, end in spans):6.1f} s"
            )


def watch(command: list[str], *, environment: Mapping[str, str], folder: Path, seconds: float) -> Profile:
    """Runs `command`, at most so many seconds. Raises EngineFailed."""
    profile, begin, machine = Profile(), time.monotonic(), _machine()
    process = subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    sampler = _Sampler(process)
    sampler.start()
    limit = threading.Timer(seconds, process.kill)
    limit.start()
    assert process.stdout is not None
    try:
        for line in process.stdout:
            at = time.monotonic() - begin
            profile.said.append((at, line))
            _note(profile.steps, line, at)
        process.wait()
    finally:
        limit.cancel()
        process.kill()  # of one that has ended, nothing
        sampler.stop()
    profile.seconds = time.monotonic() - begin
    if process.returncode:
        raise EngineFailed(f"{' '.join(command)}: exit {process.returncode}\n{profile.output[-3000:]}")
    busy, idle = _machine()
    profile.busy, profile.idle = busy - machine[0], idle - machine[1]
    profile.cpu = sampler.users()
    profile.program_mib, profile.processes_mib = sampler.program_mib, sampler.processes_mib
    return profile


def _note(steps: dict[tuple[str, str], tuple[float, float]], line: str, at: float) -> None:
    found = _STEP.match(line)
    if found and found[1] != "pulumi:pulumi:Stack":  # which lasts as long as the run
        key = (found[1], found[2])
        begin = at if found[4] == "ing" or key not in steps else steps[key][0]
        steps[key] = (begin, at)


def _kind(token: str, name: str) -> str:
    """A step on a host by its phase, the last word of its name; any other by its type."""
    phase = name.rpartition("-")[2] if token.startswith("command:") else ""
    return f"command {phase}" if phase else token.rpartition(":")[2]


def _machine() -> tuple[float, float]:
    """Seconds that all processors have been busy and idle since the machine's start."""
    times = [int(ticks) / _TICK for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = times[3] + times[4]
    return sum(times) - idle, idle


class _Sampler(threading.Thread):
    """Ten times a second, of every process below the one that was started: processor time by who it is, and the kernel's
    own high-water mark of its memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._root, self._end = process.pid, threading.Event()
        self._found: dict[int, tuple[str, float]] = {}
        self._peaks: dict[int, tuple[bool, int]] = {}

    def run(self) -> None:
        while not self._end.wait(0.1):
            for pid in _descendants(self._root):
                try:
                    command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                user = _user(command)
                peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
                if peak:  # a process that has ended shows none
                    self._peaks[pid] = (user == "program", peak)
                if user and not (user == "ansible" and self._is_fork(numbers[1])):
                    own, waited = sum(map(int, numbers[11:13])), sum(map(int, numbers[13:15]))
                    ticks = own if user in _OF_ITSELF else own + waited
                    self._found[pid] = (user, ticks / _TICK)

    @staticmethod
    def _is_fork(parent: str) -> bool:
        """Whether a process of Ansible's is one that another has made, and so waits for."""
        try:
            return _user(Path(f"/proc/{parent}/cmdline").read_text().replace("\0", " ")) == "ansible"
        except OSError:
            return True

    def stop(self) -> None:
        self._end.set()
        self.join()

    def users(self) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for user, seconds in self._found.values():
            sums[user] += seconds
        return dict(sums)

    @property
    def program_mib(self) -> float:
        return max((peak for program, peak in self._peaks.values() if program), default=0) / 1024

    @property
    def processes_mib(self) -> float:
        return sum(peak for _, peak in self._peaks.values()) / 1024


def _descendants(root: int) -> list[int]:
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


def _user(command: str) -> str:
    """Which part of the engine, or Ansible, a command line is; "" of any other."""
    if re.match(r"\S*python\S* \S*/ansible-playbook ", command):
        return "ansible"
    if re.search(r"/plugins/resource-|pulumi-resource-", command):
        return "providers"
    if re.search(r"language_host|pulumi-language-", command):
        return "program"
    return "engine" if re.match(r"\S*/pulumi (?:up|preview)\b", command) else ""
