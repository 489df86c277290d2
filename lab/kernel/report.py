"""What each run did, as a table: on the terminal while it goes on, and as a page of docs/kernel at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.kernel.machine import Result

ROUNDS = ("first", "second", "reboot")
"""From nothing; again at once; again after a reboot."""
_LOOKING = ("hostkey", "preflight", "fleet")
"""Phases that never change anything, so they say nothing about it."""


@dataclass
class Row:
    """One phase on one machine, or one check: what each round said, and the seconds of the first one."""

    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


class Report:
    """Rows by system, phase and machine, in the order in which they came. Safe to be told of by several threads."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Row] = {}
        self.systems: dict[str, str] = {}
        """System to what it is: release and kernel."""
        self.faults: list[str] = []
        self._lock, self._began = threading.Lock(), time.monotonic()

    def phase(self, system: str, phase: str, machine: str, round: str, result: Result) -> None:
        """One run of a phase. A fault is one that failed, or a later one that changed something."""
        if result.status:
            outcome = "failed"
            self._fault(f"{system} {machine} {phase} ({round} run): {result.refusal}")
        elif phase in _LOOKING:
            outcome = "ok"
        else:
            outcome = f"{len(result.changed)} changed" if result.changed else "unchanged"
            if result.changed and round != "first":
                self._fault(f"{system} {machine} {phase} ({round} run) changed: {'; '.join(result.changed)}")
        self._add((system, phase, machine), round, outcome, result.seconds, result.stderr if result.status else "")

    def check(self, system: str, name: str, machine: str, round: str, seconds: float, fault: str) -> None:
        """One check; `fault` is empty when it passed."""
        if fault:
            self._fault(f"{system} {machine} {name} ({round} run): {fault}")
        self._add((system, name, machine), round, "failed" if fault else "passed", seconds, "")

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def _add(self, key: tuple[str, str, str], round: str, outcome: str, seconds: float, note: str) -> None:
        with self._lock:
            row = self.rows.setdefault(key, Row())
            row.outcomes[round], row.seconds[round] = outcome, seconds
            system, name, machine = key
            print(f"[{time.monotonic() - self._began:5.0f}s] {system}: {name} on {machine}, {round} run: {outcome} ({seconds:.0f} s)", flush=True)
            if note:
                print("    " + note.rstrip().replace("\n", "\n    "), flush=True)

    # ---- texts

    def lines(self) -> list[str]:
        """The table in Markdown."""
        table = ["| system | phase or check | machine | first run | second run | after reboot | seconds |", "|---|---|---|---|---|---|---|"]
        for (system, name, machine), row in self.rows.items():
            told = [row.outcomes.get(round, "") for round in ROUNDS]
            took = " / ".join(f"{row.seconds[round]:.0f}" if round in row.seconds else "–" for round in ROUNDS)
            table.append(f"| {system} | {name} | {machine} | {' | '.join(told)} | {took} |")
        return table


def page(report: Report, date: str, not_run: Mapping[str, str]) -> str:
    """docs/kernel/SYSTEM.md: what was run, on which kernels, when, and what was not."""
    systems = [f"| {name} | {what} |" for name, what in report.systems.items()]
    faults = [f"- {fault}" for fault in report.faults] or ["None."]
    left_out = [f"| {what} | {why} |" for what, why in not_run.items()]
    return "\n".join(
        [
            "# Real kernels",
            "",
            "`make prove-kernel` boots virtual machines in software emulation and runs the host phases on them, as the product",
            "sends them and with the values of its plan: from nothing, again at once, and again after a reboot. The machines have",
            "the distribution's own kernel with AppArmor enforcing, a disk, a clock that is wrong, swap that is on, and packages",
            "that apt installs. Everything below was written by that command; it takes too long for CI. How: lab/kernel/README.md.",
            "",
            f"Run of {date}. Seconds are of emulation on a busy machine: upper bounds, first / second / after reboot.",
            "",
            "| system | what |",
            "|---|---|",
            *systems,
            "",
            "## Faults",
            "",
            *faults,
            "",
            "## Runs",
            "",
            "A later run that changes anything is a fault.",
            "",
            *report.lines(),
            "",
            "## Not run here",
            "",
            "| what | why |",
            "|---|---|",
            *left_out,
            "",
        ]
    )
