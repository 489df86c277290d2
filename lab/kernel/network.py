"""The network of the virtual machines: one namespace with a bridge, the operator's place on it, and no way out.

QEMU itself runs in the namespace, so nothing that a machine sends can leave it. The namespace is named after this
process; one whose process is gone is removed by the next run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

PREFIX = "prove-kernel-"
OPERATOR = IPv4Address("192.168.72.1")
"""Where the operator sits, and the machines' gateway."""
SERVICES = IPv4Address("198.18.0.1")
"""Where the machines find time and installation media."""
MEDIA_PORT = 8000
_PR_SET_PDEATHSIG = 1


class NetworkError(Exception):
    """A command of the network failed; the message holds the command and what it said."""


def run(*command: str, check: bool = True, seconds: float = 60) -> str:
    """Runs a command to its end and returns its output. Raises NetworkError when it fails, unless `check` is off."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise NetworkError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip() or 'no message'}")
    return done.stdout


def _die_with_parent() -> None:
    """Has the kernel end this process when the driver dies, also by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Network:
    """The namespace `name`, as a context manager; `within` is the command prefix that runs something inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"{PREFIX}{os.getpid()}"
        self.within = ("ip", "netns", "exec", self.name)
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Network:
        for stale in _stale():
            remove(stale)
        try:
            run("ip", "netns", "add", self.name)
            for line in (
                "link set lo up",
                f"addr add {SERVICES}/32 dev lo",
                "link add br0 type bridge",
                f"addr add {OPERATOR}/24 dev br0",
                "link set br0 up",
            ):
                run("ip", "-n", self.name, *line.split())
            self._serve_time()
            self._serve_media()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        remove(self.name)

    def tap(self, number: int) -> str:
        """A new port of the bridge for one machine; returns its name."""
        name = f"tap{number}"
        run("ip", "-n", self.name, "tuntap", "add", name, "mode", "tap")
        run("ip", "-n", self.name, "link", "set", name, "master", "br0", "up")
        return name

    def spawn(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a process in the namespace; it ends with the network, or with this process."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self.within, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
                cwd=self.folder,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        self._processes.append(process)
        return process

    def _serve_time(self) -> None:
        """chronyd, which serves the clock of this machine and never touches it (-x)."""
        configuration = self.folder / "time.conf"
        configuration.write_text(
            f"local stratum 8\nallow 192.168.72.0/24\nbindaddress {SERVICES}\ncmdport 0\nbindcmdaddress /\n"
            f"pidfile {self.folder}/time.pid\n"
        )
        self.spawn(["chronyd", "-d", "-x", "-u", "root", "-f", str(configuration)], self.folder / "time.log")

    def _serve_media(self) -> None:
        """The first of RKE2's media, empty: the check before first contact asks whether it can be fetched."""
        media = self.folder / "media"
        media.mkdir()
        (media / "install.sh").write_text("")
        command = ["python3", "-m", "http.server", str(MEDIA_PORT), "--bind", str(SERVICES), "--directory", str(media)]
        self.spawn(command, self.folder / "media.log")


def _stale() -> list[str]:
    """Namespaces that a run left which is gone."""
    names = re.findall(rf"^({PREFIX}(\d+))", run("ip", "netns", "list"), re.MULTILINE)
    return [name for name, pid in names if not Path(f"/proc/{pid}").exists()]


def remove(name: str, seconds: float = 15) -> None:
    """Ends what runs in the namespace and removes it; nothing happens when there is none."""
    end = time.monotonic() + seconds
    while (pids := run("ip", "netns", "pids", name, check=False).split()) and time.monotonic() < end:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.1)
    run("ip", "netns", "del", name, check=False)
