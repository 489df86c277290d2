"""What the end-to-end tests do with a lab of their own: deploy into it, look into its hosts, break it, look for traces.

Hosts are looked into from outside (their disks are folders of this machine) or as from their console, never by the
product's own code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STACK = "standalone"
KEPT = os.environ.get("OPSTELLA_TEST_LAB", "")
"""Name of a lab that the tests use and leave standing, for who writes them: a run then takes a part of the time."""
Done = subprocess.CompletedProcess[str]

_STEP = re.compile(r"^ *([+~\-]+|\+-) +(\S+:\S+) (\S+) (created|updated|deleted|replaced)\b", re.MULTILINE)


@dataclass
class Lab:
    """A lab called `name` for the stack `stack`, with its files in `folder`; `environment` is what its commands get."""

    name: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    stack: str = STACK

    @classmethod
    def of_this_process(cls, prefix: str, stack: str = STACK) -> Lab:
        """A lab that no other on this machine is mixed up with. Fails the test without root."""
        if os.geteuid() != 0:
            pytest.fail("the lab needs root: sudo -E make test-lab")
        name = KEPT or f"{prefix}{os.getpid() % 100000}"
        folder = Path(f"/var/lib/{name}-lab")
        # Nothing of the user's own engine: neither backend nor passphrase.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
        own = {"OPSTELLA_LAB_NAME": name, "OPSTELLA_LAB": str(folder), "STACK": stack}
        return cls(name, folder, {**inherited, **own}, stack)

    # --- commands -------------------------------------------------------------------------------

    def __call__(
        self, *arguments: str, check: bool = True, seconds: float = 900, stdin: str = "", **extra: str
    ) -> Done:
        """`lab/lab ARGUMENTS`."""
        return run([str(ROOT / "lab/lab"), *arguments], {**self.environment, **extra}, check, seconds, stdin)

    def pulumi(self, *arguments: str, check: bool = True, seconds: float = 900) -> Done:
        """The engine on the lab's stack and its stack file, as `lab/lab pulumi` runs it for a user."""
        return self("pulumi", *arguments, check=check, seconds=seconds)

    def up(self, *arguments: str, check: bool = True, seconds: float = 900) -> Done:
        return self.pulumi(
            "up", "--yes", "--skip-preview", "--non-interactive", *arguments, check=check, seconds=seconds
        )

    def start_up(self, log: Path) -> Run:
        """`pulumi up` in the background, as the leader of a session of its own."""
        with open(log, "w") as stream:
            process = subprocess.Popen(
                [ROOT / "lab/lab", "pulumi", "up", "--yes", "--skip-preview", "--non-interactive"],
                cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        return Run(process, log)

    def console(self, host: str, script: str, check: bool = True, seconds: float = 120) -> str:
        """Standard output of a script run as root on the host, as from its console."""
        return self("exec", host, "bash", "-c", script, check=check, seconds=seconds).stdout

    def kubectl(self, *arguments: str, check: bool = True, server: str = "master-1") -> Done:
        """kubectl of a server, as its administrator."""
        return self(
            "exec", server, "/var/lib/rancher/rke2/bin/kubectl", "--kubeconfig", "/etc/rancher/rke2/rke2.yaml",
            "--request-timeout=20s", *arguments, check=check,
        )  # fmt: skip

    def end(self) -> None:
        """Takes the lab down and fails when anything of it is left."""
        if not KEPT:
            self("down")
            assert self.left_behind() == []

    # --- what stands ----------------------------------------------------------------------------

    @property
    def settings_file(self) -> Path:
        return self.folder / f"Pulumi.{self.stack}.yaml"

    @contextlib.contextmanager
    def settings(self, changes: Mapping[str, Any]) -> Iterator[None]:
        """The lab's stack file with `changes` laid over its settings; as it was again when the context ends.

        What the engine wrote into the file meanwhile (the salt of its encryption) stays.
        """
        document = yaml.safe_load(self.settings_file.read_text())
        before = document["config"]
        try:
            self._write({**document, "config": merge(before, changes)})
            yield
        finally:
            self._write({**yaml.safe_load(self.settings_file.read_text()), "config": before})

    def _write(self, document: Mapping[str, Any]) -> None:
        self.settings_file.write_text(yaml.safe_dump(dict(document), sort_keys=False))

    @property
    def hosts(self) -> list[dict[str, Any]]:
        return json.loads((self.folder / "plan.json").read_text())["hosts"]

    def disk(self, host: str) -> Path:
        return self.folder / "hosts" / host / "root"

    def outputs(self, secrets: bool = True) -> dict[str, Any]:
        extra = ["--show-secrets"] if secrets else []
        return json.loads(self.pulumi("stack", "output", "--json", *extra).stdout)

    def state_files(self) -> list[Path]:
        """Every file of the state's backend: the stack, its history, its backups and locks."""
        return [path for path in (self.folder / "state").rglob("*") if path.is_file()]

    def nodes(self) -> dict[str, bool]:
        """Node name to whether it is Ready, by the API."""
        return {
            node["metadata"]["name"]: ready(node)
            for node in json.loads(self.kubectl("get", "nodes", "-o", "json").stdout)["items"]
        }

    def running_since(self, units: Mapping[str, str]) -> dict[str, str]:
        """Host to the moment at which its unit last became active, and the number of its main process."""
        return {
            host: self.console(
                host, f"systemctl show -P ActiveEnterTimestampMonotonic -P MainPID -P ActiveState {unit}"
            )
            for host, unit in units.items()
        }

    def fingerprint(self) -> dict[str, str]:
        """Host to a hash of every name, mode, owner and content below /etc, and of what packages it has."""
        return {host["name"]: tree_hash(self.disk(host["name"])) for host in self.hosts}

    def left_behind(self) -> list[str]:
        """Traces of this lab on this machine, looked for apart from the lab's own code."""
        found = [f"namespace {p.name}" for p in Path("/run/netns").glob(f"{self.name}-*")]
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        found += [f"namespace {line}" for line in listed.splitlines() if line.startswith(f"{self.name}-")]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line}" for line in mounts if f"{self.folder}/" in line or f"/{self.name}-" in line]
        found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"**/{self.name}-lab") if p.is_dir()]
        places = (self.folder, Path(f"/etc/netns/{self.name}-lab"), Path(f"/run/{self.name}-lab.json"))
        found += [f"file {p}" for p in places if p.exists()]
        for pid, command in processes():
            if pid != os.getpid() and (f"{self.name}-" in command or str(self.folder) in command):
                found.append(f"process {pid} {command}")
        return found


@dataclass
class Run:
    """An engine at work in a session of its own; `log` takes all it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, seen: Callable[[str], bool], seconds: float) -> None:
        """Waits until `seen` says yes to what was printed so far. Fails when the engine ends before, or in `seconds`."""
        end = time.monotonic() + seconds
        while not seen(self.text()):
            if self.process.poll() is not None:
                pytest.fail(
                    f"the engine ended ({self.process.returncode}) before it came so far:\n{self.text()[-3000:]}"
                )
            if time.monotonic() > end:
                self.kill()
                pytest.fail(f"the engine did not come so far in {seconds} s:\n{self.text()[-3000:]}")
            time.sleep(0.2)

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def kill(self) -> list[str]:
        """As a power cut does: the engine, its language host and its providers at once. Returns what was killed.

        They are in process groups of their own, but in one session.
        """
        killed = []
        for _ in range(20):
            members = [(pid, command) for pid, command in processes() if session_of(pid) == self.process.pid]
            if not members:
                break
            for pid, command in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(command)
            self.process.poll()
            time.sleep(0.1)
        self.process.wait(10)
        return killed


# --- plain functions ------------------------------------------------------------------------------


def run(
    command: list[str], environment: Mapping[str, str], check: bool = True, seconds: float = 900, stdin: str = ""
) -> Done:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=dict(environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def steps(text: str) -> dict[str, str]:
    """Resource name to what the engine did to it, from what `pulumi up` prints."""
    return {name: act for _, _, name, act in _STEP.findall(text)}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def ready(node: Mapping[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


def eventually(what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.5)


def processes() -> list[tuple[int, str]]:
    """Number and command line of every process of this machine that has one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found.append(
                    (int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                )
    return found


def session_of(pid: int) -> int | None:
    try:
        # pid (name) state parent group session: the name may hold anything, also blanks.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return None


def tree_hash(root: Path) -> str:
    """One hash over /etc and the package database of a host's disk; other tests' own marks are not in there."""
    total = hashlib.sha256()
    for top in ("etc", "var/lib/dpkg/status", "usr/local"):
        start = root / top
        for path in sorted([start, *start.rglob("*")]):
            entry = path.lstat()
            total.update(f"{path.relative_to(root)} {entry.st_mode:o} {entry.st_uid} {entry.st_gid}".encode())
            if stat.S_ISLNK(entry.st_mode):
                total.update(os.readlink(path).encode())
            elif stat.S_ISREG(entry.st_mode):
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
