"""A throw-away SSH server on loopback for the tests."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class SshServer:
    """Where the server listens and what it lets in; ``real`` is false without OpenSSH's."""

    port: int
    private_key: str
    host_key: str
    folder: Path
    real: bool
    accepted: list[int] = field(default_factory=list)
    user: str = field(default_factory=getpass.getuser)

    def connection(self, **more: Any) -> dict[str, Any]:
        """A ``connection`` that works, changed by ``more``; None leaves a member out."""
        given = {"host": "127.0.0.1", "port": self.port, "user": self.user,
                 "privateKey": self.private_key, "hostKey": self.host_key, **more}
        return {key: value for key, value in given.items() if value is not None}

    def connections(self) -> int:
        """How many connections were let in so far."""
        if not self.real:
            return len(self.accepted)
        return (self.folder / "log").read_text().count("Accepted publickey")


def _key(path: Path) -> str:
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.write_bytes(key.export_private_key())
    path.chmod(0o600)
    return key.export_public_key().decode().strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _openssh(folder: Path, port: int) -> subprocess.Popen[bytes]:
    (folder / "config").write_text("\n".join([
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/authorized", "StrictModes no", "UsePAM no",
        "PasswordAuthentication no", "PermitRootLogin yes", f"PidFile {folder}/pid",
        "AcceptEnv LAB_*", "MaxStartups 200", ""]))
    if os.geteuid() == 0:
        # The empty folder that OpenSSH's sshd confines itself to; Debian makes it at boot.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return subprocess.Popen([str(SSHD), "-D", "-f", f"{folder}/config", "-E", f"{folder}/log"])


class _Server(asyncssh.SSHServer):
    def __init__(self, accepted: list[int]) -> None:
        self._accepted = accepted

    def auth_completed(self) -> None:
        self._accepted.append(1)

    def connection_requested(self, *_: Any) -> bool:
        return True


async def _serve_process(process: Any) -> None:
    child = await asyncio.create_subprocess_shell(
        process.command or "true", stdin=-1, stdout=-1, stderr=-1)

    async def feed() -> None:
        try:
            while data := await process.stdin.read(65536):
                child.stdin.write(data)
                await child.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass
        child.stdin.close()

    async def copy(source: asyncio.StreamReader, target: Any) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()

    feeding = asyncio.create_task(feed())
    await asyncio.gather(copy(child.stdout, process.stdout), copy(child.stderr, process.stderr))
    status = await child.wait()
    feeding.cancel()
    process.exit(status)


def serve(folder: Path) -> Iterator[SshServer]:
    """OpenSSH's sshd when the machine has it, else asyncssh's server (which refuses no variable)."""
    host_key = _key(folder / "host")
    (folder / "authorized").write_text(_key(folder / "user") + "\n")
    found = SshServer(_free_port(), (folder / "user").read_text(), host_key, folder, bool(SSHD))
    if SSHD:
        daemon = _openssh(folder, found.port)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", found.port), 1).close()
                    break
                except OSError:
                    assert daemon.poll() is None and time.monotonic() < deadline, (
                        folder / "log").read_text()
                    time.sleep(0.05)
            yield found
        finally:
            daemon.terminate()
            daemon.wait(10)
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(
            lambda: _Server(found.accepted), "127.0.0.1", found.port, encoding=None,
            server_host_keys=[str(folder / "host")], process_factory=_serve_process,
            authorized_client_keys=str(folder / "authorized"))

    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    yield found
    loop.call_soon_threadsafe(listener.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
