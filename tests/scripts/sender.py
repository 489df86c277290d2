"""Sends a phase: the very standard input that the product sends, to a local bash instead of through SSH and sudo."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.host import command_line, reply, standard_input

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

Values = Mapping[str, str | int | bool | list[str] | tuple[str, ...]]


@dataclass(frozen=True)
class Result:
    """What a phase printed and how it ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def reply(self) -> str:
        """What the phase was asked for."""
        return reply(self.stdout)

    @property
    def changed(self) -> list[str]:
        """The steps that changed something, as the script named them."""
        return [line.split(": changed: ", 1)[1] for line in self.stderr.splitlines() if ": changed: " in line]

    @property
    def unchanged(self) -> list[str]:
        """The steps that found their work done."""
        return [line.split(": unchanged: ", 1)[1] for line in self.stderr.splitlines() if ": unchanged: " in line]


def send(phase: str, values: Values, within: Sequence[str] = (), seconds: int = 120, script: str = "") -> Result:
    """Runs `phase` of `script` (default: the same name) behind the command prefix `within`, bounded as on a host."""
    command = [*within, *shlex.split(command_line(phase, seconds, sudo=False))]
    done = subprocess.run(
        command,
        input=standard_input(script or phase, dict(values)),
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def bash(code: str, stdin: str | bytes = "", with_phase: str = "", **environment: str) -> Result:
    """Runs `code` with the library (and the functions of a phase) loaded; for tests of single functions."""
    names = ["lib", *([with_phase] if with_phase else [])]
    source = "".join(f". {shlex.quote(str(SCRIPTS / f'{name}.sh'))}\n" for name in names)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        ["bash", "-c", f"{source}{code}\n", "bash", "unit"],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )
    return Result(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="replace"))
