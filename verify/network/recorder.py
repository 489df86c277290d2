"""What arrives at a host and what its filter lets in, recorded by record.sh in a table beside the platform's own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.network.questions import Host, listening, named
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

_SCRIPT = (Path(__file__).parent / "record.sh").read_text(encoding="utf-8")
_TABLE = "opstella_record"
_NODE_PORTS = "30000-32767"
_START_SECONDS = 60
_ELEMENT = re.compile(r"(\d+\.\d+\.\d+\.\d+) \. (6|17) \. (\d+)")
_PROTOCOLS = {"6": "tcp", "17": "udp"}

Seen = frozenset[tuple[str, str, int]]
"""Address of the sender, protocol and port."""


@dataclass(frozen=True)
class Record:
    """All that came to one host, and the part of it that its filter let in."""

    arrived: Seen = frozenset()
    passed: Seen = frozenset()


def table(host: Host, senders: Sequence[str], token: str, most: int) -> str:
    """The table for nft: datagrams by their `token` of eight letters, connections by their first packet.

    On a node the platform guards NodePorts before kube-proxy rewrites them, so they are recorded behind that guard.
    """
    key = "{ ip saddr . meta l4proto . th dport }"
    node = host["role"] in ("master", "worker")

    def lines(into: str, ports: str = "") -> str:
        return (
            f"    ip saddr != {{ {', '.join(senders)} }} return\n"
            f"    meta l4proto tcp {ports}tcp flags & (fin | syn | rst | ack) == syn update @{into} {key}\n"
            f"    meta l4proto udp {ports}@th,64,64 0x{token.encode().hex()} update @{into} {key}\n"
        )

    def chain(name: str, hook: str, body: str) -> str:
        return f"  chain {name} {{\n    type filter hook {hook}; policy accept;\n{body}  }}\n"

    sets = "".join(
        f"  set {name} {{ type ipv4_addr . inet_proto . inet_service; size {most}; flags dynamic; }}\n"
        for name in ("arrived", "passed")
    )
    chains = chain("arrive", "prerouting priority -310", lines("arrived"))
    if node:
        chains += chain("guarded", "prerouting priority -140", lines("passed", f"th dport {_NODE_PORTS} "))
        chains += chain("pass", "input priority 10", lines("passed", f"th dport != {_NODE_PORTS} "))
    else:
        chains += chain("pass", "input priority 10", lines("passed"))
    return f"table inet {_TABLE} {{\n{sets}{chains}}}\n"


class Recorder:
    """Records on one host from its making until `close`. `ports` are those that its ruleset names or that it listens on."""

    def __init__(self, stack: Stack, ssh: Ssh, host: Host, text: str, seconds: int) -> None:
        """Raises CheckFailed with what the host said when it does not record."""
        self._ssh, self._name = ssh, host["name"]
        self._root = "sudo -n " if stack.plan["ssh"]["sudo"] else ""
        self._process = ssh.start(self._name, f"{self._root}bash -s -- {seconds}")
        assert self._process.stdin and self._process.stdout and self._process.stderr
        late = threading.Timer(_START_SECONDS, self._process.kill)
        late.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # it ended: what it said comes below
                self._process.stdin.write(f"{_SCRIPT}{text}\0")
                self._process.stdin.flush()
            said = list(self._until_recording(self._process.stdout))
        finally:
            late.cancel()
        if said[-1:] != ["recording"]:
            self.close()
            raise CheckFailed(f"{self._name}: {self._process.stderr.read().strip()[-400:] or 'does not answer'}")
        here = said.index("ruleset")
        self.ports = listening("\n".join(said[:here])) | named("\n".join(said[here:]))

    @staticmethod
    def _until_recording(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            yield line.rstrip("\n")
            if line == "recording\n":
                return

    def read(self) -> Record:
        """What was recorded until now. Raises CheckFailed."""
        listed = self._ssh.run(self._name, f"{self._root}env PATH=/usr/sbin:/sbin:/usr/bin:/bin nft -nn list table inet {_TABLE}", seconds=120)
        parts = dict(re.findall(r"^\tset (arrived|passed) \{(.*?)^\t\}", listed, re.M | re.S))
        return Record(**{
            name: frozenset((a, _PROTOCOLS[p], int(port)) for a, p, port in _ELEMENT.findall(parts[name]))
            for name in ("arrived", "passed")
        })  # fmt: skip

    def close(self) -> None:
        """Ends the recording; the host removes its table by itself."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
