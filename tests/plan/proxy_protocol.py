"""HAProxy with a plan's configuration in front of workers that read the PROXY protocol, or do not; a program of its own.

Run as root below `unshare --net`: every address is on the loopback of that namespace, which ends with this process. Reads a
`Case` as JSON from standard input, and prints for each of its steps by port the answers: which worker, and whose
connection it says it has. Workers answer in TLS on 30443 and in clear on 30080, as an ingress does; one that trusts the load
balancer reads its header, by version 2 of the protocol (its own document), and takes a connection without one.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TypedDict

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
SECURE, PLAIN = 30443, 30080


class Case(TypedDict):
    """`steps`: in each, the workers that read the header; `certificate`: a file with a key."""

    configuration: str
    balancer: str
    client: str
    workers: list[str]
    steps: list[list[str]]
    certificate: str


def start(case: Case) -> list[dict[str, list[list[str]]]]:
    """Runs a case in a namespace of its own. Raises RuntimeError."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, __file__], input=json.dumps(case), capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class Worker:
    """A worker's ingress: `trusting` is whether it reads PROXY headers."""

    def __init__(self, address: str, certificate: str) -> None:
        self.address, self.trusting = address, False
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        for port in (SECURE, PLAIN):
            listener = socket.create_server((address, port), backlog=64)
            threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=self._answer, args=(connection, peer[0], port), daemon=True).start()

    def _answer(self, connection: socket.socket, peer: str, port: int) -> None:
        try:
            connection.settimeout(5)
            if self.trusting and connection.recv(12, socket.MSG_PEEK) == SIGNATURE:
                peer = _header(connection) or peer
            if port == SECURE:
                connection = self._context.wrap_socket(connection, server_side=True)
            if line := connection.recv(256):
                said = f"{self.address} {peer}" if line.startswith(b"GET") else "400"
                connection.sendall(f"{said}\n".encode())
        except OSError:
            pass  # a check, or what cannot be read as TLS
        finally:
            connection.close()


def _header(connection: socket.socket) -> str | None:
    """Whose connection it is; None for the load balancer's own (LOCAL)."""
    head = connection.recv(16, socket.MSG_WAITALL)
    command, family, length = head[12] & 15, head[13] >> 4, struct.unpack("!H", head[14:])[0]
    rest = connection.recv(length, socket.MSG_WAITALL) if length else b""
    return socket.inet_ntoa(rest[:4]) if command == 1 and family == 1 else None


def ask(client: str, balancer: str, port: int) -> list[str]:
    """The worker and the address that it saw, or what went wrong."""
    try:
        with socket.create_connection((balancer, port), timeout=5, source_address=(client, 0)) as plain:
            connection: Any = plain
            if port == 443:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection = context.wrap_socket(plain)
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return connection.recv(256).decode().split()
    except OSError as error:
        return [type(error).__name__]


def main() -> None:
    case: Case = json.load(sys.stdin)
    run = lambda *words: subprocess.run(words, check=True)  # noqa: E731
    run("ip", "link", "set", "lo", "up")
    for address in (case["balancer"], case["client"], *case["workers"]):
        run("ip", "address", "add", address, "dev", "lo")
    workers = {address: Worker(address, case["certificate"]) for address in case["workers"]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "haproxy.cfg")
        # Its socket would be the machine's own HAProxy's. What it forwards comes from its own address, as on a machine.
        text = case["configuration"].replace("/run/haproxy/admin.sock", f"{folder}/admin.sock")
        file.write_text(text.replace("    mode tcp\n", f"    mode tcp\n    source {case['balancer']}\n", 1))
        haproxy = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-q", "-f", str(file)])
        try:
            found = []
            for trusting in case["steps"]:
                for address, worker in workers.items():
                    worker.trusting = address in trusting
                time.sleep(4.5)  # two checks, a second apart, each up to a second
                found.append(
                    {str(port): [ask(case["client"], case["balancer"], port) for _ in range(12)] for port in (80, 443)}
                )
            print(json.dumps(found))
        finally:
            haproxy.kill()
            haproxy.wait()


if __name__ == "__main__":
    main()
