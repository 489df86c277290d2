"""SSH as an operator uses it: OpenSSH, through the bastion, host keys held to those the stack recorded."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.runner import CheckFailed
from verify.stack import Stack

# Before it stands what the login printed, such as a banner.
_MARK = "----- opstella reply -----"


@dataclass(frozen=True)
class Ssh:
    """Connections to the stack's hosts by the configuration file `config`."""

    config: Path

    def run(self, host: str, command: str, *, stdin: str = "", seconds: int = 60) -> str:
        """Standard output of `command` on `host`. Raises CheckFailed with what the host said."""
        try:
            done = subprocess.run(
                ["ssh", "-F", str(self.config), host, f"echo {shlex.quote(_MARK)}; {command}"],
                input=stdin, capture_output=True, text=True, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{host}: `{command[:60]}` took more than {seconds} s") from None
        if done.returncode:
            raise CheckFailed(f"{host}: {(done.stderr.strip() or done.stdout.strip() or 'no message')[-400:]}")
        return done.stdout.rpartition(f"{_MARK}\n")[2]

    def start(self, host: str, command: str) -> subprocess.Popen[str]:
        """`command` at work on `host`, with pipes to it. Whoever starts it ends it."""
        return subprocess.Popen(
            ["ssh", "-F", str(self.config), host, command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@contextlib.contextmanager
def session(stack: Stack) -> Iterator[Ssh]:
    """One master connection per host, closed with the context; the key lives in a private folder until then."""
    with tempfile.TemporaryDirectory(prefix="opstella-verify-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        place = Path(folder)
        place.chmod(0o700)
        config = place / "config"
        config.write_text(_config(stack, place), encoding="utf-8")
        (place / "known_hosts").write_text(_known_hosts(stack), encoding="utf-8")
        key = place / "key"
        key.touch(mode=0o600)
        key.write_text(stack.private_key, encoding="utf-8")
        try:
            yield Ssh(config)
        finally:
            # The bastion's connection carries the others, so it closes last.
            for host in sorted(stack.hosts, key=lambda h: h["role"] == "bastion"):
                subprocess.run(["ssh", "-F", str(config), "-O", "exit", host["name"]], capture_output=True, timeout=20)


def _config(stack: Stack, place: Path) -> str:
    ssh = stack.plan["ssh"]
    lines = [
        "Host *",
        f"  User {ssh['user']}",
        f"  Port {ssh['port']}",
        f"  UserKnownHostsFile {place}/known_hosts",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        "  ConnectTimeout 15",
        "  ServerAliveInterval 5",
        "  ControlMaster auto",
        f"  ControlPath {place}/%C",
        "  ControlPersist 120",
        f"  IdentityFile {place}/key",
        "  IdentitiesOnly yes",
    ]
    for host in stack.hosts:
        lines += [f"Host {host['name']}", f"  HostName {_dial(stack, host)}", f"  HostKeyAlias {host['name']}"]
        if host["role"] != "bastion":
            lines.append(f"  ProxyJump {stack.bastion['name']}")
    # OpenSSH takes the first value it finds, so what holds for all hosts may stand first.
    return "\n".join(lines) + "\n"


def _dial(stack: Stack, host: dict[str, Any]) -> str:
    return stack.public_address if host["role"] == "bastion" and stack.public_address else host["address"]


def _known_hosts(stack: Stack) -> str:
    return "".join(f"{name} {key}\n" for name, key in stack.outputs["host_keys"].items())
