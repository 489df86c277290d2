"""Real TCP and UDP connections through a ruleset, between two network namespaces that end with this process.

Reads JSON from standard input: the target's `address`, its `ruleset`, the `sources` (addresses) and the `ports`.
Prints JSON: for each source the `[protocol, port]` pairs that got through. Run it as root below `unshare --net`.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from typing import Any

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# A dropped packet is known only by waiting; between two namespaces of one kernel an answer takes well below this.
PATIENCE, TRIES = 4.0, 3


def main() -> None:
    case = json.loads(sys.stdin.readline())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for every try
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, __file__, "target"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as target:  # fmt: skip
        assert target.stdin and target.stdout
        expect(target.stdout.readline(), "apart")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(target.pid))
        for address in case["sources"]:
            run("ip", "address", "add", f"{address}/32", "dev", "near")
        run("ip", "link", "set", "near", "up")
        run("ip", "route", "add", f"{case['address']}/32", "dev", "near")
        print(json.dumps(case), file=target.stdin, flush=True)
        expect(target.stdout.readline(), "listening")
        print(json.dumps(knock(case["sources"], case["address"], case["ports"])))
        target.stdin.close()


def target() -> None:
    """The machine: its address, its ruleset, a listener on every port; until standard input ends."""
    print("apart", flush=True)
    case = json.loads(sys.stdin.readline())
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{case['address']}/32", "dev", "far")
    run("ip", "link", "set", "far", "up")
    run("ip", "route", "add", "default", "dev", "far")
    # Twice, as on a machine whose ruleset is renewed.
    for _ in "12":
        subprocess.run(["nft", "-f", "-"], input=case["ruleset"], text=True, check=True)
    selector, open_ports = selectors.DefaultSelector(), []
    for kind in PROTOCOLS.values():
        for port in case["ports"]:
            listener = socket.socket(socket.AF_INET, kind)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                listener.listen(64)
                open_ports.append(listener)  # one that nobody holds is closed
            else:
                selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("listening", flush=True)
    while True:
        for event, _ in selector.select():
            if not isinstance(event.fileobj, socket.socket):
                return
            data, peer = event.fileobj.recvfrom(64)
            event.fileobj.sendto(data, peer)


def knock(sources: list[str], address: str, ports: list[int]) -> dict[str, list[tuple[str, int]]]:
    """What answers on `address` to connections from each of `sources`, all tried at once."""
    selector = selectors.DefaultSelector()
    for source in sources:
        for protocol, kind in PROTOCOLS.items():
            for port in ports:
                client = socket.socket(socket.AF_INET, kind)
                client.setblocking(False)
                client.bind((source, 0))
                client.connect_ex((address, port))
                answered = selectors.EVENT_WRITE if protocol == "tcp" else selectors.EVENT_READ
                selector.register(client, answered, (source, protocol, port))
    through: dict[str, list[tuple[str, int]]] = {source: [] for source in sources}
    # A datagram may be lost while the neighbour's address is resolved; TCP repeats its own.
    for _ in range(TRIES):
        for waiting in selector.get_map().values():
            if waiting.data[1] == "udp":
                waiting.fileobj.send(b"?")  # type: ignore[union-attr]
        end = time.monotonic() + PATIENCE / TRIES
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for event, _ in selector.select(left):
                source, protocol, port = event.data
                if event.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:  # type: ignore[union-attr]
                    through[source].append((protocol, port))
                selector.unregister(event.fileobj)
    return {source: sorted(found) for source, found in through.items()}


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def expect(line: str, word: str) -> None:
    if line.strip() != word:
        raise RuntimeError(f"the target said {line!r}, not {word!r}")


def start(case: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """Runs a case in namespaces of its own."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, __file__, "source"],
        input=json.dumps(case) + "\n", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"probe failed:\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    {"source": main, "target": target}[sys.argv[1]]()
