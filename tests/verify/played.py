"""Hosts that answer as their plan says, for the proof of the network contract; they prove nothing about its scripts,
which tests/verify/test_network_real.py and the lab run."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from verify.network.planned import Planned
from verify.network.questions import Question
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

Odd = dict[tuple[str, str, str, int], list[str]]
"""Who asks, whom, protocol and port, to what happens each time: `lost` on the way, `dropped` by the filter, `let in` to a
service that does not answer, `open`, `refused`; for ICMP also `unasked`."""


class Process:
    """What `Ssh.start` gives: a recorder on one host."""

    def __init__(self, said: str, error: str = "") -> None:
        self.stdin, self.stdout, self.stderr = io.StringIO(), io.StringIO(said), io.StringIO(error)
        self.stdin.close = self._close  # type: ignore[method-assign]
        self.ended = False

    def _close(self) -> None:
        self.ended = True

    def wait(self, _seconds: float) -> int:
        assert self.ended
        return 0

    def kill(self) -> None:
        self.ended = True


@dataclass(frozen=True)
class Played(Ssh):
    """Every host of `stack`. `sockets` and `rulesets` are what some have beside the plan, `away` do not answer SSH, `mute`
    give up while they ask, `cut` end before they say that they asked everything."""

    config: Path = Path("/nonexistent")
    stack: Stack | None = None
    odd: Odd = field(default_factory=dict)
    sockets: dict[str, str] = field(default_factory=dict)
    rulesets: dict[str, str] = field(default_factory=dict)
    away: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    asked: list[tuple[str, list[str], list[Question]]] = field(default_factory=list)
    """Who asked, with which arguments, what."""
    recorders: dict[str, Process] = field(default_factory=dict)
    seen: dict[str, dict[str, set[tuple[str, str, int]]]] = field(default_factory=dict)

    def start(self, host: str, command: str) -> Any:
        assert command.split()[-4:-1] == ["bash", "-s", "--"]
        if host in self.away:
            return Process("", "ssh: connect to host: No route to host\n")
        self.seen[host] = {"arrived": set(), "passed": set()}
        self.recorders[host] = Process(f"{self.sockets.get(host, '')}ruleset\n{self.rulesets.get(host, '')}recording\n")
        return self.recorders[host]

    def run(self, host: str, command: str, *, stdin: str = "", seconds: int = 60) -> str:
        assert not self.recorders[host].ended
        if command.endswith("nft -nn list table inet opstella_record"):
            return self._listed(host)
        assert command.startswith("bash -s -- ") and seconds > 60
        lines = stdin.partition('main "$@"; exit\n')[2].splitlines()
        if host in self.mute:
            raise CheckFailed(f"{host}: Broken pipe")
        by_address = {address: name for name, address in self._addresses.items()}
        questions = [Question(host, by_address[a], protocol, int(port)) for protocol, a, port in map(str.split, lines)]
        self.asked.append((host, command.split()[3:], questions))
        said = [f"{line} {state}" for line, q in zip(lines, questions, strict=True) if (state := self._answer(q))]
        return "\n".join(said if host in self.cut else [*said, f"asked {len(lines)}"])

    @cached_property
    def _planned(self) -> Planned:
        return Planned(self._hosts)

    @cached_property
    def _addresses(self) -> dict[str, str]:
        return {host["name"]: host["address"] for host in self._hosts}

    @property
    def _hosts(self) -> list[dict[str, Any]]:
        assert self.stack is not None
        return self.stack.hosts

    def _answer(self, question: Question) -> str | None:
        """What the host that asks sees; the recorder on the other notes it."""
        happens = self.odd.get(tuple(question))
        if happens:
            event = happens.pop(0)
        elif question.protocol == "icmp":
            event = "open"
        else:
            event = "refused" if self._planned.rule(*question) else "dropped"
        own = self._addresses[question.source]
        key = (own, {"tcp": "6", "udp": "17"}.get(question.protocol, ""), question.port)
        if event not in ("lost", "unasked"):
            self.seen[question.target]["arrived"].add(key)
        if event in ("let in", "open", "refused"):
            self.seen[question.target]["passed"].add(key)
        if question.protocol == "udp":
            return None
        return event if event in ("open", "refused", "unasked") else "silent"

    def _listed(self, host: str) -> str:
        sets = ""
        for name, keys in self.seen[host].items():
            elements = ",\n\t\t\t     ".join(f"{address} . {protocol} . {port}" for address, protocol, port in sorted(keys))
            sets += f"\tset {name} {{\n\t\tsize 10\n\t\telements = {{ {elements} }}\n\t}}\n\n"
        return f"table inet opstella_record {{\n{sets}\tchain arrive {{\n\t\tip saddr 192.168.72.1 . 6 . 1\n\t}}\n}}\n"
