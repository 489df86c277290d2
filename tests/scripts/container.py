"""A booted systemd host for tests: the lab's root file system in a container, in network namespaces of its own.

What it does not prove: the kernel is the machine's (no NFS server in it, modules and most sysctls cannot be set from
inside), the clock cannot be set, and there is no disk, no boot loader and no RHEL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.scripts.sender import Result, Values, send

REPOSITORY = Path(__file__).resolve().parents[2]
OPERATOR, SERVICES, OTHER = "192.168.72.1", "198.18.0.1", "192.168.72.50"
ADDRESS = "192.168.72.11"
# Several may be up at once; a lab's `down` takes what begins with the lab's name.
PREFIX = f"host-{os.getpid()}"


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def build(name: str) -> Path:
    """The folder of a lab artifact, built when it is missing."""
    return Path(run(str(REPOSITORY / "lab/toolchain/build"), name).strip())


class Container:
    """One host at `ADDRESS`, an operator at `OPERATOR` who also serves Debian packages, and a stranger at `OTHER`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operator, self.stranger, self.host = f"{PREFIX}-op", f"{PREFIX}-other", f"{PREFIX}-host"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.root = folder / "root"

    def up(self) -> None:
        image, debs = build("image") / "rootfs", build("debs")
        web = self.folder / "web"
        for path in (self.root, web, self.folder / "upper", self.folder / "work", self.folder / "srv"):
            path.mkdir()
        (web / "debian").symlink_to(debs)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "key"))
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={image},upperdir={self.folder}/upper,workdir={self.folder}/work", str(self.root))
        self._identity()
        self._network()
        self.spawn("python3", "-m", "http.server", "8000", "--bind", SERVICES, "--directory", str(web))
        self.processes.append(
            subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", str(self.root), f"--machine={self.host}", "--boot", "--register=no", "--keep-unit",
                 "--resolv-conf=off", "--link-journal=no", "--console=pipe", f"--network-namespace-path=/run/netns/{self.host}",
                 "--capability=CAP_NET_ADMIN", f"--bind={self.folder}/srv:/srv",
                 # NFS-Ganesha opens files by handle, which the container's filter refuses by default.
                 "--system-call-filter=open_by_handle_at"],
                stdin=subprocess.DEVNULL, stdout=(self.folder / "console").open("wb"), stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
        end = time.monotonic() + 180
        while self.ssh("true").returncode:
            if time.monotonic() > end:
                raise RuntimeError(f"the host did not boot: {(self.folder / 'console').read_text()}")
            time.sleep(0.3)

    def _identity(self) -> None:
        home = self.root / "home/ops/.ssh"
        home.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(self.folder / "key.pub", home / "authorized_keys")
        run("chroot", str(self.root), "chown", "-R", "ops:ops", "/home/ops/.ssh")
        run("chroot", str(self.root), "ssh-keygen", "-A")
        (self.root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost {self.host}\n")

    def _network(self) -> None:
        run("ip", "netns", "add", self.operator)
        run("ip", "-n", self.operator, "link", "set", "lo", "up")
        run("ip", "-n", self.operator, "addr", "add", f"{SERVICES}/32", "dev", "lo")
        run("ip", "-n", self.operator, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.operator, "link", "set", "br0", "up")
        run("ip", "-n", self.operator, "addr", "add", f"{OPERATOR}/24", "dev", "br0")
        for number, (namespace, address) in enumerate(((self.host, ADDRESS), (self.stranger, OTHER))):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", self.operator, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "-n", self.operator, "link", "set", f"v{number}", "master", "br0", "up")
            run("ip", "-n", namespace, "link", "set", "lo", "up")
            run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
            run("ip", "-n", namespace, "route", "add", "default", "via", OPERATOR)

    def down(self) -> None:
        for namespace in (self.host, self.operator, self.stranger):
            for pid in run("ip", "netns", "pids", namespace, check=False).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for process in self.processes:
            process.kill()
            process.wait()
        for _ in range(50):
            if subprocess.run(["umount", str(self.root)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        for namespace in (self.host, self.operator, self.stranger):
            run("ip", "netns", "del", namespace, check=False)

    def spawn(self, *command: str, namespace: str = "") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace or self.operator, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.processes.append(process)
        return process

    def within(self, *command: str, namespace: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command at the operator's place, or at the stranger's."""
        return subprocess.run(["ip", "netns", "exec", namespace or self.operator, *command], capture_output=True, text=True, check=False, timeout=120)

    @property
    def _ssh(self) -> list[str]:
        return [
            "ip", "netns", "exec", self.operator, "ssh", "-i", str(self.folder / "key"), "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
            "-o", f"UserKnownHostsFile={self.folder}/known_hosts", "-o", "ConnectTimeout=3", f"ops@{ADDRESS}",
        ]  # fmt: skip

    def ssh(self, command: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
        """A shell command on the host, as root."""
        return subprocess.run([*self._ssh, "sudo", "-n", "sh"], input=command, capture_output=True, text=True, check=False, timeout=seconds)

    def send(self, phase: str, values: Values, seconds: int = 180, script: str = "") -> Result:
        return send(phase, values, within=[*self._ssh, "sudo", "-n"], seconds=seconds, script=script)
