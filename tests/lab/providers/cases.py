"""Cases in which a stand-in could be kinder than the released command plugin, or say it in other words.

Each case is an input and what the released plugin 1.2.1 answers to it. The stand-in must answer the same
(test_released.py). Where the released plugin is at hand, the table can be held against it:

    venv/bin/python -m tests.lab.providers.cases FOLDER/pulumi-resource-command
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from tests.lab.providers import ssh_server
from tests.lab.providers.driver import UNKNOWN, Driver, Failure, Process, plain, secret
from tests.lab.providers.ssh_server import SshServer

REMOTE = "command:remote:Command"
LOCAL = "command:local:Command"
BASE: dict[str, Any] = {"connection": {"host": "h"}, "create": "a", "stdin": "1", "triggers": ["1", "2"]}


@dataclass(frozen=True)
class Case:
    """`ask` plays the engine; `answer` is what the released plugin lets the engine see, as text."""

    name: str
    ask: Callable[[Driver, SshServer], str]
    answer: str


def _failure(driver: Driver, inputs: dict[str, Any], token: str = REMOTE) -> str:
    """The error of a command, without what differs from run to run."""
    try:
        driver.create(token, inputs)
    except Failure as failure:
        said = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", str(failure))
        return re.sub(r"ecdsa\S+ ssh-ed25519 \S.*?\]|rsa-sha2\S+ .*?\]", "…]", said)
    return "no error"


def _refused(driver: Driver, inputs: dict[str, Any]) -> str:
    _, failures = driver.check(REMOTE, inputs)
    return "; ".join(f"{key}: {why}" for key, why in sorted(failures.items())) or "accepted"


def _diff(driver: Driver, change: dict[str, Any], base: dict[str, Any] = BASE) -> str:
    return str(driver.raw_diff(REMOTE, base, {**base, **change}))


def _preview(driver: Driver, change: dict[str, Any]) -> str:
    """Which outputs a preview of an update knows."""
    state = {**driver.inputs(REMOTE, BASE), "stdout": "old", "stderr": ""}
    found = driver.update(REMOTE, state, {**BASE, **change}, preview=True)
    return ", ".join("unknown" if plain(found[key]) == UNKNOWN else "known" for key in ("stdout", "stderr"))


def _kind(kind: str) -> str:
    return asyncssh.generate_private_key(kind).export_public_key().decode().strip()


@contextmanager
def _listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on loopback whose connections are given to `answer`."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                try:
                    client, _ = server.accept()
                except TimeoutError:
                    continue
                answer(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()


def _hang_up(client: socket.socket) -> None:
    """Ends the connection by a reset, as a crashing or overloaded sshd does."""
    client.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _dialled(driver: Driver, answer: Callable[[socket.socket], None]) -> str:
    with _listener(answer) as port:
        connection = {"host": "127.0.0.1", "port": port, "password": "x", "dialErrorLimit": 0}
        return _failure(driver, {"connection": connection, "create": "true"})


def _other_kind(kind: str) -> Callable[[Driver, SshServer], str]:
    return lambda driver, sshd: _failure(
        driver, {"create": "true", "connection": sshd.connection(hostKey=_kind(kind), dialErrorLimit=0)}
    )


def _left_open(driver: Driver, sshd: SshServer) -> str:
    """Connections that are open once three commands through a bastion have ended."""
    for number in range(3):
        connection = sshd.connection(proxy=sshd.connection())
        driver.create(REMOTE, {"connection": connection, "create": "true", "stdin": str(number)})
    time.sleep(0.5)
    asked = ["ss", "-Htn", "state", "established", f"( dport = :{sshd.port} )"]
    return f"{len(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()) >= 6}"


CASES = (
    Case("ended by SIGKILL",
         lambda d, s: _failure(d, {"connection": s.connection(), "create": "kill -KILL $$"}),
         'Process exited with status 137 from signal KILL: running "kill -KILL $$":\n'),
    Case("ended by SIGTERM",
         lambda d, s: _failure(d, {"connection": s.connection(), "create": "kill -TERM $$"}),
         'Process exited with status 143 from signal TERM: running "kill -TERM $$":\n'),
    Case("unknown input",
         lambda d, s: _refused(d, {**BASE, "surprise": "x"}),
         "surprise: Unrecognized field 'surprise' on 'remote.CommandInputs'"),
    Case("unknown member of the connection",
         lambda d, s: _refused(d, {**BASE, "connection": {"host": "h", "x": "y"}}),
         "connection: An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n\tx: Unrecognized field 'x' on 'remote.Connection'"),
    Case("no host",
         lambda d, s: _refused(d, {**BASE, "connection": {}}),
         "connection: An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n\thost: Missing required field 'host' on 'remote.Connection'"),
    Case("no connection",
         lambda d, s: _refused(d, {"create": "a"}),
         "connection: Missing required field 'connection' on 'remote.CommandInputs'"),
    Case("a port that is a text",
         lambda d, s: _refused(d, {**BASE, "connection": {"host": "h", "port": "x"}}),
         "connection: An error occurred decoding 'CommandInputs.connection': 1 failures decoding:\n\tport: Field 'port' on 'remote.Connection' must be a 'float64'; got 'string' instead"),
    Case("a create that is a number",
         lambda d, s: _refused(d, {**BASE, "create": 5}),
         "create: Field 'create' on 'remote.CommandInputs' must be a 'string'; got 'float64' instead"),
    Case("hung up in the handshake",
         lambda d, s: _dialled(d, _hang_up),
         "after 0 failed attempts: ssh: handshake failed: read tcp ADDRESS->ADDRESS: read: connection reset by peer"),
    Case("closed in the handshake",
         lambda d, s: _dialled(d, lambda client: client.close()),
         "after 0 failed attempts: ssh: handshake failed: EOF"),
    Case("pinned key of another kind",
         _other_kind("ecdsa-sha2-nistp256"),
         "after 0 failed attempts: ssh: handshake failed: ssh: no common algorithm for host key; we offered: [ecdsa-sha2-nistp256], peer offered: [ssh-ed25519]"),
    Case("pinned RSA key",
         _other_kind("ssh-rsa"),
         "after 0 failed attempts: ssh: handshake failed: ssh: no common algorithm for host key; we offered: [ssh-rsa], peer offered: [ssh-ed25519]"),
    Case("unknown connection", lambda d, s: _diff(d, {"connection": UNKNOWN}), "{}"),
    Case("unknown standard input", lambda d, s: _diff(d, {"stdin": UNKNOWN}), "{'stdin': 'UPDATE'}"),
    Case("unknown member of environment", lambda d, s: _diff(d, {"environment": {"A": UNKNOWN}},
                                                             {**BASE, "environment": {"A": "1"}}), "{'environment.A': 'UPDATE'}"),
    Case("unknown new input", lambda d, s: _diff(d, {"update": UNKNOWN}), "{'update': 'ADD'}"),
    Case("unknown trigger", lambda d, s: _diff(d, {"triggers": ["1", UNKNOWN]}), "{'triggers[1]': 'UPDATE'}"),
    Case("changed trigger", lambda d, s: _diff(d, {"triggers": ["1", "3"]}), "{'triggers[1]': 'UPDATE'}"),
    Case("one trigger more", lambda d, s: _diff(d, {"triggers": ["1", "2", "3"]}), "{'triggers[2]': 'ADD'}"),
    Case("no triggers", lambda d, s: _diff(d, {"triggers": None}), "{'triggers': 'DELETE_REPLACE'}"),
    Case("changed standard input", lambda d, s: _diff(d, {"stdin": "2"}), "{'stdin': 'UPDATE'}"),
    Case("standard input becomes secret", lambda d, s: _diff(d, {"stdin": secret("1")}), "{'stdin': 'UPDATE'}"),
    Case("changed connection", lambda d, s: _diff(d, {"connection": {"host": "other"}}), "{'connection': 'UPDATE'}"),
    Case("changed environment", lambda d, s: _diff(d, {"environment": {"A": "2", "B_C": "3"}},
                                                   {**BASE, "environment": {"A": "1"}}), "{'environment.A': 'UPDATE', 'environment.B_C': 'ADD'}"),
    Case("preview of nothing new", lambda d, s: _preview(d, {}), "known, known"),
    Case("preview of a changed standard input", lambda d, s: _preview(d, {"stdin": "2"}), "unknown, unknown"),
    Case("preview of a standard input that becomes secret",
         lambda d, s: _preview(d, {"stdin": secret("1")}),
         "unknown, unknown"),
    Case("preview of an unknown standard input", lambda d, s: _preview(d, {"stdin": UNKNOWN}), "unknown, unknown"),
    Case("preview of an added update", lambda d, s: _preview(d, {"update": "b"}), "known, known"),
    Case("connections stay open", _left_open, "True"),
    Case("local, ended by SIGKILL",
         lambda d, s: _failure(d, {"create": "kill -9 $$"}, LOCAL),
         "signal: killed: running \"kill -9 $$\":\n"),
    Case("local, no interpreter",
         lambda d, s: _failure(d, {"create": "x", "interpreter": ["/none"]}, LOCAL),
         "fork/exec /none: no such file or directory: running \"x\":\n"),
)  # fmt: skip


def main(plugin: str) -> int:
    """Prints the cases whose answer differs from the table; returns how many."""
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        servers = ssh_server.serve(Path(folder))
        sshd = next(servers)
        for case in CASES:
            driver = Process(plugin)
            try:
                found = case.ask(driver, sshd)
            except (Failure, AssertionError) as error:
                found = f"{type(error).__name__}: {error}"
            finally:
                driver.close()
            if found != case.answer:
                different += 1
                print(f"{case.name}\n  table: {case.answer!r}\n  found: {found!r}")
        next(servers, None)
    print(f"{len(CASES) - different} of {len(CASES)} as in the table")
    return different


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]) else 0)
