"""One virtual machine: QEMU in software emulation, a disk that forgets, cloud-init's seed, SSH through the bastion."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from components.host import command_line, standard_input
from lab.kernel import seed
from lab.kernel.network import OPERATOR, Network, run
from plan.hosts import Values
from plan.topology import Host

MEMORY_MB = 1024
BOOT_SECONDS = 900
"""Generous: an emulated machine on a busy one boots in minutes, not in seconds."""

PHASE_SECONDS = 2700
"""The longest bound of the product, 900 s, for a machine that emulation on a busy processor makes three times slower."""


class MachineError(Exception):
    """A machine that did not do what it had to; the message ends with the last lines of its console."""


@dataclass(frozen=True)
class Result:
    """What a phase printed, how it ended, and how long it took."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def changed(self) -> list[str]:
        """The steps that changed something, as the script named them."""
        return [line.split(": changed: ", 1)[1] for line in self.stderr.splitlines() if ": changed: " in line]

    @property
    def refusal(self) -> str:
        """The first line that says why the phase failed."""
        lines = [line for line in self.stderr.splitlines() if "error:" in line or line.lstrip().startswith("- ")]
        said = lines or self.stderr.splitlines()[-1:] or ["no message"]
        return said[0].strip()


@dataclass
class Machine:
    """The machine of `host` in the plan. `bastion` is the one it is reached through, None for the bastion itself.

    `keys` is the file of known host keys; nobody is spoken to whose key is not there.
    """

    host: Host
    folder: Path
    image: Path
    network: Network
    key: Path
    keys: Path
    bastion: Machine | None = None
    number: int = 0
    by_cloud_init: bool = False
    seconds_ahead: int = 0
    """By how much its hardware's clock is wrong."""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def console(self) -> Path:
        return self.folder / f"{self.host.name}.console"

    def start(self) -> None:
        """Powers the machine on. What it writes to its disk is gone when it is powered off; a reboot keeps it."""
        mac = f"52:54:00:00:00:{self.number:02x}"
        public_key = self.key.with_suffix(".pub").read_text()
        disk = seed.write(self.folder, self.host, mac, OPERATOR, public_key, by_cloud_init=self.by_cloud_init)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + self.seconds_ahead))
        # On a busy machine the emulated timer is late, which the kernel would take for a broken one: no_timer_check.
        line = "root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 no_timer_check systemd.mask=serial-getty@ttyS0.service"
        tap = self.network.tap(self.number)
        self.process = self.network.spawn(
            [
                "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-accel", "tcg,tb-size=256",
                "-cpu", "Nehalem", "-smp", "1", "-m", str(MEMORY_MB), "-serial", f"file:{self.console}",
                "-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd.img"),
                "-append", line if self.by_cloud_init else f"{line} cloud-init=disabled", "-rtc", f"base={clock}",
                "-drive", f"file={self.image}/disk.ext4,format=raw,if=virtio,snapshot=on",
                "-drive", f"file={disk},format=raw,if=virtio,readonly=on",
                "-device", "virtio-rng-pci", "-netdev", f"tap,id=lan,ifname={tap},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=lan,mac={mac},romfile=",
            ],
            self.folder / f"{self.host.name}.qemu",
        )  # fmt: skip

    def stop(self) -> None:
        """Powers it off, as by pulling the plug."""
        if self.process:
            self.process.kill()
            self.process.wait(30)

    # ---- over SSH

    def _ssh(self) -> list[str]:
        options = [
            "-i", str(self.key), "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={self.keys}", "-o", "LogLevel=ERROR",
            "-o", "ConnectTimeout=60", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=20",
        ]  # fmt: skip
        if self.bastion:
            proxy = " ".join(["ssh", *options, "-W", "%h:%p", f"ops@{self.bastion.host.address}"])
            options += ["-o", f"ProxyCommand={proxy}"]
        return [*self.network.within, "ssh", *options, f"ops@{self.host.address}"]

    def shell(self, script: str, seconds: float = 180, check: bool = True) -> str:
        """A shell script on the machine, as root; returns its output. Raises MachineError when it fails."""
        command = [*self._ssh(), "sudo", "-n", "sh", "-eu"]
        try:
            done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            if check:
                raise MachineError(f"{self.host.name}: no end after {seconds:.0f} s of: {script}") from None
            return ""
        if check and done.returncode:
            raise MachineError(f"{self.host.name}: `{script}` ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def send(self, phase: str, values: Values, seconds: int = PHASE_SECONDS) -> Result:
        """Runs a phase as the product sends it: its command line, its standard input, a connection of its own."""
        began = time.monotonic()
        done = subprocess.run(
            [*self._ssh(), command_line(phase, seconds)],
            input=standard_input(phase, values),
            capture_output=True,
            text=True,
            timeout=seconds + 300,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr, time.monotonic() - began)

    # ---- boots

    def wait_for_boot(self, before: str = "") -> str:
        """Waits until the machine answers by SSH with another boot identifier than `before`; returns that."""
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            self._alive()
            found = self.shell("cat /proc/sys/kernel/random/boot_id", check=False, seconds=120).strip()
            if found and found != before:
                # What the boot still does would be part of the first phase's time.
                self.shell("systemctl is-system-running --wait || true", seconds=BOOT_SECONDS)
                return found
            time.sleep(2)
        raise MachineError(f"{self.host.name}: no SSH after {BOOT_SECONDS} s.\n{self._last_words()}")

    def _alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            raise MachineError(f"{self.host.name}: QEMU has ended.\n{self._last_words()}")
        if self.console.exists() and b"Kernel panic" in self.console.read_bytes():
            raise MachineError(f"{self.host.name}: its kernel has stopped.\n{self._last_words()}")

    def wait_for_port(self) -> None:
        """Waits until sshd listens, seen from the operator's place: what first contact would wait for."""
        knock = ["timeout", "70", "bash", "-c", f"exec 3<>/dev/tcp/{self.host.address}/22 && read -t 60 line <&3"]
        end = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < end:
            self._alive()
            if subprocess.run([*self.network.within, *knock], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(2)
        raise MachineError(f"{self.host.name}: no SSH after {BOOT_SECONDS} s.\n{self._last_words()}")

    def reboot(self) -> None:
        before = self.shell("cat /proc/sys/kernel/random/boot_id").strip()
        self.shell("systemd-run --quiet --on-active=1 systemctl reboot", check=False)
        time.sleep(5)
        self.wait_for_boot(before)

    def _last_words(self) -> str:
        logs = [self.console, self.folder / f"{self.host.name}.qemu"]
        return "\n".join(line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()[-15:])


def new_key(folder: Path) -> Path:
    """A pair of SSH keys of this run's own; returns the private one's file."""
    key = folder / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    return key
