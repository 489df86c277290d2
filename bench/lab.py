"""`BenchLab`: a lab of the benchmark's own, so that one that stands is left alone."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.engine import ROOT
from bench.profile import EngineFailed, Profile, watch

_LAB = ROOT / "lab/lab"
_SECONDS = 5400  # of one command; the first deployment of 36 hosts is the longest
_UP = ("pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs")


class BenchLab:
    """The lab `bench` of one stack file. `folder` holds its state, its keys and the stack file it runs on."""

    folder = Path("/var/lib/bench-lab")

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self.file = self.folder / f"Pulumi.{stack}.yaml"
        self._environment = {**os.environ, "OPSTELLA_LAB_NAME": "bench", "STACK": stack}
        self._environment.pop("OPSTELLA_LAB", None)

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """What `lab/lab ARGUMENTS` prints. Raises EngineFailed."""
        done = subprocess.run(
            [_LAB, *arguments], env={**self._environment, **(environment or {})}, cwd=ROOT,
            capture_output=True, text=True, timeout=_SECONDS,
        )  # fmt: skip
        if done.returncode:
            end = (done.stdout + done.stderr)[-3000:]
            raise EngineFailed(f"lab/lab {' '.join(arguments)}: exit {done.returncode}\n{end}")
        return done.stdout

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """`lab/lab ARGUMENTS`, which whoever calls it ends."""
        return subprocess.Popen(
            [_LAB, *arguments], env=self._environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def start(self, config_file: Path) -> None:
        self.command("up", "--config-file", str(config_file))

    def up(self, environment: Mapping[str, str] | None = None) -> Profile:
        """`pulumi up` of the stack, watched. Raises EngineFailed."""
        return self.watch(*_UP, environment=environment)

    def watch(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Profile:
        """`lab/lab ARGUMENTS`, watched. Raises EngineFailed."""
        return watch(
            [str(_LAB), *arguments], environment={**self._environment, **(environment or {})}, folder=ROOT,
            seconds=_SECONDS,
        )  # fmt: skip

    def down(self) -> None:
        subprocess.run([_LAB, "down"], env=self._environment, cwd=ROOT, capture_output=True, timeout=300)

    def connections(self, hosts: list[str]) -> int:
        """What every host's sshd has written down: sessions, and key scans that end before one."""
        wanted = re.compile(r"^(?:Accepted publickey|Connection closed by .* port \d+(?: \[preauth\])?$)", re.M)
        journal = ("--", "journalctl", "--no-pager", "--quiet", "--output=cat", "--unit=ssh")
        return sum(len(wanted.findall(self.command("exec", host, *journal))) for host in hosts)
