"""Real TCP and UDP connections and ICMP echoes between network namespaces, which end with this process.

Each machine is a namespace of its own, with its ruleset. All other addresses are of one namespace, outside; an address
may be a machine's and be outside too, as whoever speaks to the other machines. Between them a namespace routes, in which
the rules of a firewall may stand. Everybody answers on every port.

Reads a `Case` as JSON from standard input, and prints for each pair of addresses, as `SOURCE > ADDRESS` or, from a machine,
`SOURCE > ADDRESS outside`, the `[protocol, port]` pairs that got through; an echo has port 0. Run it as root below `unshare --net`.
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_DGRAM}
ECHO = {socket.AF_INET: (socket.IPPROTO_ICMP, b"\x08"), socket.AF_INET6: (socket.IPPROTO_ICMPV6, b"\x80")}
# A dropped packet is known only by waiting; between namespaces of one kernel an answer takes well below this.
PATIENCE, TRIES = 4.0, 3
# The router, by its addresses on every link.
GATEWAYS = {"-4": "169.254.0.1", "-6": "fe80::1"}


class Machine(TypedDict):
    """Its addresses, and what `nft --file` takes."""

    addresses: list[str]
    ruleset: NotRequired[str]


class Case(TypedDict):
    """Everybody outside knocks on all ports of all machines; `outward`: and the machines on theirs.

    `front`: commands that make the router a firewall, each with its standard input.
    """

    machines: list[Machine]
    outside: list[str]
    ports: list[int]
    front: NotRequired[list[tuple[list[str], str]]]
    outward: NotRequired[bool]


class NodeCase(TypedDict):
    """Pods behind a node, which forwards what they send to the machines, by its own address, through its `ruleset`."""

    node: str
    ruleset: str
    pods: list[str]
    machines: list[Machine]
    ports: list[int]


Through = dict[str, list[list[Any]]]


def start(case: Case) -> Through:
    """Runs a case in namespaces of its own. Raises RuntimeError."""
    return _run("router", case)


def from_pods(case: NodeCase) -> Through:
    """What the pods reach of the machines. Raises RuntimeError."""
    return _run("node", case)


def _run(what: str, case: Case | NodeCase) -> Through:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, __file__, what],
        input=json.dumps(case) + "\n", capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"probe failed:\n{done.stderr}")
    return json.loads(done.stdout)


def router() -> None:
    """Knows every link by its side: what comes from a machine goes outside, whatever its address."""
    case: Case = json.loads(sys.stdin.readline())
    run("ip", "link", "set", "lo", "up")
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        _set(name, "1")
    for name in ("all", "default"):
        _set(f"ipv4/conf/{name}/rp_filter", "0")
    run("ip", "address", "add", GATEWAYS["-4"], "dev", "lo")
    with contextlib.ExitStack() as ends:
        outside = ends.enter_context(_end("outer"))
        for family in GATEWAYS:
            run("ip", family, "route", "add", "default", "dev", "outer", "table", "100")
        machines = []
        for number, machine in enumerate(case["machines"]):
            link = f"to{number}"
            child = ends.enter_context(_end(link))
            for family in GATEWAYS:
                run("ip", family, "rule", "add", "iif", link, "lookup", "100")
            for address in machine["addresses"]:
                run("ip", _family(address), "route", "add", address, "dev", link)
            machines.append((child, machine))
        inner = [address for machine in case["machines"] for address in machine["addresses"]]
        for child, end in [(outside, {"addresses": case["outside"]}), *machines]:
            _tell(child, {**end, "ports": case["ports"]})
        for child, _ in [(outside, None), *machines]:
            _answer(child)
        for command, text in case.get("front", []):
            subprocess.run(command, input=text, text=True, check=True)
        _tell(outside, inner)
        through = _answer(outside)
        if case.get("outward"):
            for child, _ in machines:
                _tell(child, case["outside"])
            for child, _ in machines:
                through |= {f"{pair} outside": found for pair, found in _answer(child).items()}
        print(json.dumps(through))


def node() -> None:
    """Pods on one side, machines on the other; in between the node, which masquerades what leaves the pods."""
    case: NodeCase = json.loads(sys.stdin.readline())
    run("ip", "link", "set", "lo", "up")
    _set("ipv4/ip_forward", "1")
    for name in ("all", "default"):
        _set(f"ipv4/conf/{name}/rp_filter", "0")
    for address in (GATEWAYS["-4"], case["node"]):
        run("ip", "address", "add", address, "dev", "lo")
    nat = f"ip saddr {{ {', '.join(case['pods'])} }} oifname != \"pods\" snat to {case['node']}"
    table = f"table ip opstella_test {{ chain out {{ type nat hook postrouting priority srcnat; {nat}; }}; }}"
    for text in (table, case["ruleset"]):
        subprocess.run(["nft", "--file", "-"], input=text, text=True, check=True)
    with contextlib.ExitStack() as ends:
        pods = ends.enter_context(_end("pods"))
        for address in case["pods"]:
            run("ip", "route", "add", address, "dev", "pods")
        machines = []
        for number, machine in enumerate(case["machines"]):
            machines.append(ends.enter_context(_end(f"to{number}")))
            for address in machine["addresses"]:
                run("ip", "route", "add", address, "dev", f"to{number}")
        every = list(zip([pods, *machines], [{"addresses": case["pods"]}, *case["machines"]], strict=True))
        for child, end in every:
            _tell(child, {**end, "ports": case["ports"]})
        for child, _ in every:
            _answer(child)
        _tell(pods, [address for machine in case["machines"] for address in machine["addresses"]])
        print(json.dumps(_answer(pods)))


def end() -> None:
    """Listens on every port of its addresses and knocks on those that it is told, until standard input ends."""
    print("apart", flush=True)
    case = json.loads(sys.stdin.readline())
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for every try
    _set("ipv4/ping_group_range", "0 0")
    for link in ("lo", "far"):
        run("ip", "link", "set", link, "up")
    for address in case["addresses"]:
        run("ip", "address", "add", address, "dev", "far", *(["nodad"] if ":" in address else []))
    for family, gateway in GATEWAYS.items():
        run("ip", family, "route", "add", "default", "via", gateway, "dev", "far", "onlink")
        # What this namespace sends leaves it, also to an address of its own.
        run("ip", family, "rule", "add", "pref", "1", "iif", "lo", "lookup", "main")
        run("ip", family, "rule", "add", "pref", "2", "lookup", "local")
        run("ip", family, "rule", "del", "pref", "0")
    # Twice, as on a machine whose ruleset is renewed.
    for _ in "12" if "ruleset" in case else "":
        subprocess.run(["nft", "--file", "-"], input=case["ruleset"], text=True, check=True)
    selector, open_ports = selectors.DefaultSelector(), []
    for address in case["addresses"]:
        for port in case["ports"]:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                listener = _socket(address, kind)
                listener.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    listener.listen(64)
                    open_ports.append(listener)  # one that nobody holds is closed
                else:
                    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("null", flush=True)
    while True:
        for event, _ in selector.select():
            if isinstance(event.fileobj, socket.socket):
                data, peer = event.fileobj.recvfrom(64)
                event.fileobj.sendto(data, peer)
            elif line := sys.stdin.readline():
                print(json.dumps(knock(case["addresses"], json.loads(line), case["ports"])), flush=True)
            else:
                return


def knock(sources: list[str], addresses: list[str], ports: list[int]) -> Through:
    """What answers on `addresses` to connections from each of `sources`, all tried at once."""
    selector = selectors.DefaultSelector()
    through: Through = {}
    for source in sources:
        for address in addresses:
            if source == address or _family(source) != _family(address):
                continue
            pair = f"{source} > {address}"
            through[pair] = []
            for protocol, port in [("icmp", 0), *((p, port) for p in ("tcp", "udp") for port in ports)]:
                client = _socket(address, KINDS[protocol], echo=protocol == "icmp")
                client.setblocking(False)
                client.bind((source, 0))
                client.connect_ex((address, port))
                answered = selectors.EVENT_WRITE if protocol == "tcp" else selectors.EVENT_READ
                selector.register(client, answered, (pair, protocol, port))
    # A datagram may be lost while the neighbour's address is resolved; TCP repeats its own.
    for _ in range(TRIES):
        for waiting in selector.get_map().values():
            _repeat(waiting.fileobj, waiting.data[1])  # type: ignore[arg-type]
        last = time.monotonic() + PATIENCE / TRIES
        while selector.get_map() and (left := last - time.monotonic()) > 0:
            for event, _ in selector.select(left):
                pair, protocol, port = event.data
                if event.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:  # type: ignore[union-attr]
                    through[pair].append([protocol, port])
                selector.unregister(event.fileobj)
    return {pair: sorted(found) for pair, found in through.items()}


def _repeat(client: socket.socket, protocol: str) -> None:
    if protocol != "tcp":
        # The machine's own rules may refuse it at once.
        with contextlib.suppress(OSError):
            client.send(ECHO[client.family][1] + bytes(7) if protocol == "icmp" else b"?")  # type: ignore[index]


def _socket(address: str, kind: int, *, echo: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind, ECHO[family][0] if echo else 0)


def _family(address: str) -> str:
    """As `ip` takes it."""
    return "-6" if ":" in address else "-4"


@contextlib.contextmanager
def _end(link: str) -> Iterator[subprocess.Popen[str]]:
    """A namespace behind the router's `link`, which is gone with the context."""
    command = ["unshare", "--net", sys.executable, __file__, "end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        if child.stdout.readline() != "apart\n":
            raise RuntimeError("no namespace; the message stands above")
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "far", "netns", str(child.pid))
        run("ip", "link", "set", link, "up")
        run("ip", "address", "add", GATEWAYS["-6"], "dev", link, "nodad")
        try:
            yield child
        finally:
            child.stdin.close()


def _tell(child: subprocess.Popen[str], said: Any) -> None:
    assert child.stdin
    print(json.dumps(said), file=child.stdin, flush=True)


def _answer(child: subprocess.Popen[str]) -> Any:
    assert child.stdout
    if not (line := child.stdout.readline()):
        raise RuntimeError("a namespace's program ended; its message stands above")
    return json.loads(line)


def _set(name: str, value: str) -> None:
    Path("/proc/sys/net", name).write_text(value)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    {"router": router, "node": node, "end": end}[sys.argv[1]]()
