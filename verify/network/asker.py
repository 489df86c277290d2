"""Sends a host's questions from that host, by ask.sh."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.network.questions import Question
from verify.runner import CheckFailed
from verify.ssh import Ssh

_SCRIPT = (Path(__file__).parent / "ask.sh").read_text(encoding="utf-8")
MOST = 100
"""Connections that a host has open at once."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """`rate` packets a second from one host at most; `patience` is how long an answer may take, in seconds.

    Of a connection that nobody answers the kernel repeats the first packet every second, which is counted.
    """

    rate: int
    patience: float = 0.75

    @property
    def pause(self) -> float:
        """Seconds between two questions."""
        return (1 + int(self.patience)) / self.rate

    def seconds(self, questions: int) -> float:
        """What `questions` of one host take, when nobody answers."""
        return questions * max(self.pause, self.patience / MOST) + self.patience


def ask(
    ssh: Ssh, source: str, asked: Sequence[Question], addresses: Mapping[str, str], token: str, pace: Pace
) -> dict[Question, str]:
    """What `source` saw of each TCP and ICMP question: open, refused, unreachable, silent or unasked.

    `addresses` are those of the stack's hosts; nothing else is ever sent to. Raises CheckFailed.
    """
    lines = [f"{q.protocol} {addresses[q.target]} {q.port}" for q in asked]
    arguments = [f"{1e6 * pace.pause:.0f}", f"{1e6 * pace.patience:.0f}", str(MOST), token]
    said = ssh.run(
        source, shlex.join(["bash", "-s", "--", *arguments]), stdin=_SCRIPT + "".join(f"{line}\n" for line in lines),
        seconds=math.ceil(60 + 4 * pace.seconds(len(asked))),
    ).splitlines()  # fmt: skip
    if said[-1:] != [f"asked {len(asked)}"]:
        raise CheckFailed(f"{source} did not ask to the end: {(said or ['nothing'])[-1]}")
    answers = dict(line.rsplit(" ", 1) for line in said[:-1])
    missing = [line for q, line in zip(asked, lines, strict=True) if q.protocol != "udp" and line not in answers]
    if missing:
        raise CheckFailed(f"{source} gave no answer about {', '.join(missing[:3])}")
    return {q: answers[line] for q, line in zip(asked, lines, strict=True) if q.protocol != "udp"}
