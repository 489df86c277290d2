"""Asks, looks at what was recorded, and compares with the plan."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from verify.network.asker import Pace, ask
from verify.network.planned import Planned, Rule
from verify.network.questions import Host, Question, questions
from verify.network.recorder import Record, Recorder, table
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

_Item = TypeVar("_Item")

RATE = 100
"""Packets a second from one host."""
_AGAIN_PATIENCE = 3.0
_CONNECTING = 8
"""SSH connections that are made at once."""
_SLACK_SECONDS = 600
"""How much longer than planned a recorder waits for the end of the run before it ends by itself."""

ANSWERED, HELD_BACK, NEVER_ARRIVED, SILENT, UNASKED = "answered", "held back", "never arrived", "silent", "unasked"

ICMP: Rule = {"purpose": "echo requests", "ports": [], "ranges": [], "why": "every machine answers them"}
"""No row says it: see "ICMP" in docs/network.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a question: whether it passed, what of it was `seen`, and the rule by which the plan lets it pass."""

    question: Question
    passed: bool
    seen: str
    planned: Rule | None
    may_leave: bool = True
    """Whether the host that asks may send it (opstella:network.egress)."""

    @property
    def differs(self) -> bool:
        return self.passed != (self.planned is not None)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """`outcomes` of every question that could be asked; `away` are hosts that could not, each with the reason."""

    stack: str
    hosts: Sequence[Host]
    outcomes: Sequence[Outcome]
    away: Mapping[str, str]
    unasked: int
    """Echo requests from hosts that have no ping."""
    rate: int
    seconds: float

    @property
    def differences(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.differs]

    @property
    def as_planned(self) -> bool:
        return not self.differences and not self.away


def prove(stack: Stack, ssh: Ssh, hosts: Sequence[Host], rate: int = RATE) -> Proof:
    """Every question between `hosts`, asked and compared. Only addresses of `hosts` are sent to."""
    began = time.monotonic()
    token = secrets.token_hex(4)
    with _recording(stack, ssh, hosts, token, rate) as (recorders, away):
        run = _Run(ssh, [host for host in hosts if host["name"] in recorders], recorders, token, away)
        run.ask(run.questions, Pace(rate=rate))
        run.ask(run.doubtful(), Pace(rate=rate, patience=_AGAIN_PATIENCE))
        outcomes = list(run.outcomes())
    return Proof(
        stack=stack.name, hosts=hosts, outcomes=[outcome for outcome in outcomes if outcome.seen != UNASKED], away=run.away,
        unasked=sum(outcome.seen == UNASKED for outcome in outcomes), rate=rate, seconds=time.monotonic() - began,
    )  # fmt: skip


@contextlib.contextmanager
def _recording(
    stack: Stack, ssh: Ssh, hosts: Sequence[Host], token: str, rate: int
) -> Iterator[tuple[dict[str, Recorder], dict[str, str]]]:
    """A recorder on each of `hosts`, and the reason for each host that has none."""
    recorders: dict[str, Recorder] = {}
    away: dict[str, str] = {}
    # Twice what the contract's questions come to: ports of a single host are known only afterwards.
    most = 2 * max((len(own) for _, own in questions(hosts, {})), default=0)
    seconds = math.ceil(_SLACK_SECONDS + 4 * Pace(rate=rate).seconds(most))
    addresses = [host["address"] for host in hosts]

    def record(host: Host) -> None:
        senders = [address for address in addresses if address != host["address"]]
        try:
            recorders[host["name"]] = Recorder(stack, ssh, host, table(host, senders, token, 2 * most), seconds)
        except CheckFailed as error:
            away[host["name"]] = str(error)

    try:
        # The bastion first: every other connection goes through its own.
        for bastion in (host for host in hosts if host["role"] == "bastion"):
            record(bastion)
        _each(record, [host for host in hosts if host["role"] != "bastion"], _CONNECTING)
        yield recorders, away
    finally:
        _each(Recorder.close, list(recorders.values()), _CONNECTING)


class _Run:
    """What `hosts` asked each other and what was seen of it until now; `away` grows by those that fail meanwhile."""

    def __init__(
        self, ssh: Ssh, hosts: Sequence[Host], recorders: Mapping[str, Recorder], token: str, away: dict[str, str]
    ) -> None:
        self._ssh, self._recorders, self._token, self.away = ssh, recorders, token, away
        self._addresses: dict[str, str] = {host["name"]: host["address"] for host in hosts}
        self._planned = Planned(hosts)
        self._answers: dict[Question, str] = {}
        self._records: dict[str, Record] = {}
        own = {name: recorder.ports for name, recorder in recorders.items()}
        self.questions = {source["name"]: asked for source, asked in questions(hosts, own)}

    def ask(self, asked: Mapping[str, Sequence[Question]], pace: Pace) -> None:
        """Sends `asked`, by the name of who asks, all hosts at once, and reads what was recorded then."""

        def one(source: str) -> None:
            with self._or_away(source):
                self._answers.update(ask(self._ssh, source, asked[source], self._addresses, self._token, pace))

        def read(name: str) -> None:
            with self._or_away(name):
                self._records[name] = self._recorders[name].read()

        sources = [source for source, own in asked.items() if own]
        if sources:
            _each(one, sources, len(sources))
            _each(read, list(self._recorders), _CONNECTING)

    def outcomes(self) -> Iterator[Outcome]:
        """Of every question between hosts that are there."""
        for asked in self.questions.values():
            for question in asked:
                if question.source not in self.away and question.target not in self.away:
                    yield self._outcome(question)

    def doubtful(self) -> dict[str, list[Question]]:
        """What is worth asking again: a packet may be lost, and a busy machine answers late. What passed did pass."""
        found: dict[str, list[Question]] = {}
        for outcome in self.outcomes():
            unexplained = outcome.seen == NEVER_ARRIVED and outcome.may_leave
            held = outcome.planned is not None and outcome.seen != UNASKED
            if not outcome.passed and (held or unexplained):
                found.setdefault(outcome.question.source, []).append(outcome.question)
        return found

    def _outcome(self, question: Question) -> Outcome:
        source, target, protocol, port = question
        answer = self._answers.get(question, SILENT)
        if protocol == "icmp":
            answer = {"open": ANSWERED, UNASKED: UNASKED}.get(answer, SILENT)
            return Outcome(question=question, passed=answer == ANSWERED, seen=answer, planned=ICMP)
        record, key = self._records[target], (self._addresses[source], protocol, port)
        if answer in ("open", "refused"):
            passed, seen = True, answer
        elif key in record.passed:
            # Nobody answers a datagram, and a service may be busy: the filter let it in.
            passed, seen = True, "let in"
        else:
            passed, seen = False, HELD_BACK if key in record.arrived else NEVER_ARRIVED
        return Outcome(
            question=question, passed=passed, seen=seen, planned=self._planned.rule(*question),
            may_leave=self._planned.may_leave(*question),
        )  # fmt: skip

    @contextlib.contextmanager
    def _or_away(self, name: str) -> Iterator[None]:
        try:
            yield
        except CheckFailed as error:
            self.away[name] = str(error)


def _each(act: Callable[[_Item], None], items: Sequence[_Item], at_once: int) -> None:
    """`act` on each of `items`; raises what the first of them raised."""
    with ThreadPoolExecutor(at_once or 1) as pool:
        for done in [pool.submit(act, item) for item in items]:
            done.result()
