"""What the lab serves at 198.18.0.1: HTTP (media, charts, Debian packages), time and names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lab.hosts import kernel
from lab.hosts.kernel import KernelError, run
from lab.hosts.site import (
    SERVICES_ADDRESS,
    SERVICES_PORT,
    Names,
    Site,
    chrony_configuration,
    dnsmasq_configuration,
)

SERVER = Path(__file__).resolve().parent.parent / "services" / "server.py"


class Services:
    """Starts and looks at the three servers in the operator's namespace."""

    def __init__(self, names: Names, site: Site) -> None:
        self.names, self.site = names, site
        self.folder = Path(names.folder, "services")

    @property
    def cgroup(self) -> str:
        return f"{self.names.cgroup}/services"

    def running(self) -> dict[str, int]:
        """Server name to process number, of those that run."""
        found = {}
        for pid in kernel.cgroup_processes(self.cgroup):
            try:
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            for name, mark in (("http", b"server.py"), ("chronyd", b"chronyd"), ("dnsmasq", b"dnsmasq")):
                if any(mark in argument for argument in arguments[:3]):
                    found.setdefault(name, pid)
        return found

    def start(self, folders: dict[str, list[Path]], image: Path, layer: Path | None) -> None:
        """Starts what does not run. `folders`: first part of the URL's path to the folders behind it.

        `layer` holds chrony and dnsmasq as an overlay on `image`; they run with that as their root, so
        that nothing is installed on the machine. Without it there is neither time nor names.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        running = self.running()
        arguments = [f"--folder={name}={path}" for name, paths in folders.items() for path in paths]
        if "http" in running and not self._serves(running["http"], arguments):
            # Media were built anew since: what is served must be what the stack file has the sums of.
            os.kill(running.pop("http"), signal.SIGTERM)
            self._wait_for_end()
        if "http" not in running:
            self._spawn(
                "http",
                [sys.executable, "-I", str(SERVER), f"--address={SERVICES_ADDRESS}", f"--port={SERVICES_PORT}", *arguments],
            )
        if layer is None:
            return
        root = self.folder / "root"
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(exist_ok=True)
        if str(root) not in kernel.mounts_under(str(root)):
            run(
                "mount", "-t", "overlay", f"{self.names.name}-services",
                "-o", f"lowerdir={layer}:{image},upperdir={self.folder}/upper,workdir={self.folder}/work", str(root),
            )  # fmt: skip
        (root / "etc/lab-chrony.conf").write_text(chrony_configuration())
        (root / "etc/lab-dnsmasq.conf").write_text(dnsmasq_configuration(self.site))
        (root / "etc/resolv.conf").write_text(f"nameserver {SERVICES_ADDRESS}\n")
        if "chronyd" not in running:
            (root / "run/chronyd-lab.pid").unlink(missing_ok=True)
            self._spawn("chronyd", ["chroot", str(root), "/usr/sbin/chronyd", "-d", "-x", "-u", "root", "-f", "/etc/lab-chrony.conf"])
        if "dnsmasq" not in running:
            self._spawn("dnsmasq", ["chroot", str(root), "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/etc/lab-dnsmasq.conf"])

    @staticmethod
    def _serves(pid: int, arguments: list[str]) -> bool:
        return set(arguments) <= set(Path(f"/proc/{pid}/cmdline").read_text().split("\0"))

    def _wait_for_end(self, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while "http" in self.running():
            if time.monotonic() > end:
                raise KernelError("the lab's HTTP server does not end; lab/lab down, then up again")
            time.sleep(0.05)

    def _spawn(self, name: str, command: list[str]) -> None:
        kernel.spawn(
            ["ip", "netns", "exec", self.names.operator, *command], self.cgroup, str(self.folder / f"{name}.log")
        )

    def wait(self, expected: set[str], seconds: float = 15) -> None:
        """Waits until the servers answer; raises with the log of one that does not."""
        knock = f"exec 2>/dev/null; exec 3<>/dev/tcp/{SERVICES_ADDRESS}/{SERVICES_PORT}"
        end = time.monotonic() + seconds
        while True:
            missing = expected - set(self.running())
            if not missing:
                asked = subprocess.run(["ip", "netns", "exec", self.names.operator, "bash", "-c", knock], check=False)
                if asked.returncode == 0:
                    return
                missing = {"http"}
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        logs = "\n".join(
            f"{name}: " + " | ".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-5:])
            for name in sorted(missing)
            if (self.folder / f"{name}.log").exists()
        )
        raise KernelError(f"the lab's services did not start ({', '.join(sorted(missing))}); their logs:\n{logs}")
