"""The lab that runs: its commands, its hosts, and the engine on its stack."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.hosts.overlay import merge
from lab.hosts.site import Names

ROOT = Path(__file__).resolve().parent.parent
Done = subprocess.CompletedProcess[str]


class ChaosError(Exception):
    """An experiment cannot be made, or the lab did not come back; the message says what and why."""


class Lab:
    """The lab called `name` (default: by the environment, as `lab/lab` finds it)."""

    def __init__(self, name: str | None = None) -> None:
        # Nothing of the user's own engine: neither backend nor passphrase.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
        if name:
            inherited = {**inherited, "OPSTELLA_LAB_NAME": name}
            inherited.pop("OPSTELLA_LAB", None)
        self.environment = inherited
        self.name = Names.from_environment(inherited).name
        self.folder = Path(Names.from_environment(inherited).folder)

    def __call__(self, *arguments: str, check: bool = True, seconds: float = 120) -> Done:
        """`lab/lab ARGUMENTS`. Raises ChaosError when it fails, unless not to `check`."""
        try:
            done = subprocess.run(
                [ROOT / "lab/lab", *arguments],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            if check:
                raise ChaosError(f"lab/lab {' '.join(arguments)}: no end after {seconds:.0f} s") from None
            return Done(arguments, 124, "", f"no end after {seconds:.0f} s")
        if check and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise ChaosError(f"lab/lab {' '.join(arguments)} ended with {done.returncode}: {said}")
        return done

    @property
    def stands(self) -> bool:
        return (self.folder / "plan.json").exists() and Path(f"/run/netns/{self.name}-lab").exists()

    # --- hosts ----------------------------------------------------------------------------------

    @property
    def plan(self) -> dict[str, Any]:
        return json.loads((self.folder / "plan.json").read_text())

    def console(self, host: str, script: str, *, check: bool = True, seconds: float = 60) -> str:
        """Standard output of a script run as root on the host, as from its console."""
        return self("exec", host, "bash", "-c", script, check=check, seconds=seconds).stdout

    @contextlib.contextmanager
    def off(self, host: str) -> Iterator[None]:
        """The host without power, and silent: a namespace without processes would still answer with resets."""
        try:
            self("cut", host)
            self("stop", host)
            yield
        finally:
            self("heal", host)
            self("start", host)

    @contextlib.contextmanager
    def without_router(self, subnet: str) -> Iterator[None]:
        """The subnet cut off from every other one and from the operator; its own hosts still reach each other."""
        index = list(dict.fromkeys(self.plan["subnets"])).index(subnet)
        listed = self("run", "--", "ip", "-json", "address", "show", "dev", f"br{index}").stdout
        gateway = next(a for a in json.loads(listed)[0]["addr_info"] if a["family"] == "inet")
        interface = f"{gateway['local']}/{gateway['prefixlen']}"
        try:
            self("run", "--", "ip", "address", "del", interface, "dev", f"br{index}")
            yield
        finally:
            self("run", "--", "ip", "address", "replace", interface, "dev", f"br{index}")

    # --- the engine -----------------------------------------------------------------------------

    @property
    def stack(self) -> str:
        return str(self.plan["stack"]).rpartition("/")[2]

    @property
    def settings_file(self) -> Path:
        return self.folder / f"Pulumi.{self.stack}.yaml"

    @property
    def state_file(self) -> Path:
        return self.folder / f"state/.pulumi/stacks/opstella/{self.stack}.json"

    def up(self, *, check: bool = True, seconds: float = 1500) -> Done:
        return self("pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs", check=check, seconds=seconds)  # fmt: skip

    def unchanged(self) -> bool:
        """Whether the engine finds nothing left to change."""
        arguments = ("preview", "--expect-no-changes", "--non-interactive", "--suppress-outputs")
        return self("pulumi", *arguments, check=False, seconds=600).returncode == 0

    def outputs(self) -> dict[str, Any]:
        return json.loads(self("pulumi", "stack", "output", "--json", "--show-secrets").stdout)

    @contextlib.contextmanager
    def settings(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A function that lays changes over the lab's stack file; at the end its settings are as they were.

        What the engine wrote into the file meanwhile (the salt of its encryption) stays.
        """
        before = yaml.safe_load(self.settings_file.read_text())["config"]

        def write(config: Mapping[str, Any]) -> None:
            document = {**yaml.safe_load(self.settings_file.read_text()), "config": dict(config)}
            self.settings_file.write_text(yaml.safe_dump(document, sort_keys=False))

        try:
            yield lambda changes: write(merge(before, changes))
        finally:
            write(before)

    def start_up(self, log: Path) -> Run:
        """`pulumi up` in the background, as the leader of a session of its own."""
        with open(log, "w") as stream:
            process = subprocess.Popen(
                [ROOT / "lab/lab", "pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs"],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return Run(process, log)


class Run:
    """An engine at work in a session of its own; `log` takes all it prints."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ends(self, seconds: float) -> int | None:
        """Its exit status, if it ends within `seconds`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def kill(self) -> int:
        """`kill -9` of the engine, its language host and its providers, as a power cut would; how many were killed.

        They are in process groups of their own, but in one session.
        """
        killed = 0
        for _ in range(30):
            members = [
                pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.process.pid
            ]
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            if self.process.poll() is not None and not members:
                break
            time.sleep(0.1)
        return killed


def _session(pid: int) -> int | None:
    try:
        # pid (name) state parent group session: the name may hold anything, also blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[3]) if fields[0] != "Z" else None


def wait_until(what: str, holds: Callable[[], str], seconds: float) -> float:
    """Waits until `holds` returns nothing instead of what is missing; returns how long that took. Raises ChaosError."""
    began = time.monotonic()
    while missing := holds():
        if time.monotonic() - began > seconds:
            raise ChaosError(f"{what}: not within {seconds:.0f} s: {missing}")
        time.sleep(0.5)
    return time.monotonic() - began
