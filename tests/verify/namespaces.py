"""Hosts of a plan as network namespaces of this machine: a bridge, and each host's own ruleset. They end with the process.

The product's scripts run in them as on a host; what is played is SSH.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from plan import nftables
from plan.plan import Plan
from verify.runner import CheckFailed
from verify.ssh import Ssh


@dataclass(frozen=True)
class Namespaces(Ssh):
    """Commands run in the namespace of the host's name; `holders` keep the namespaces alive."""

    config: Path = Path("/nonexistent")
    holders: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def _inside(self, host: str, command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holders[host].pid}/ns/net", "bash", "-c", command]

    def run(self, host: str, command: str, *, stdin: str = "", seconds: int = 60) -> str:
        done = subprocess.run(
            self._inside(host, command), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise CheckFailed(f"{host}: {done.stderr}")
        return done.stdout

    def start(self, host: str, command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self._inside(host, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def nft(self, host: str, text: str) -> None:
        self.run(host, "nft -f -", stdin=text)

    def renew(self, host: str, plan: Plan) -> None:
        """Puts the ruleset of the plan in force."""
        machine = next(h for h in plan.topology.hosts if h.name == host)
        self.nft(host, nftables.ruleset(machine, plan.contract))


@contextlib.contextmanager
def namespaces(plan: Plan) -> Iterator[Namespaces]:
    """Every host of `plan`, which has one subnet; each reaches each, and holds back what its ruleset says."""
    with contextlib.ExitStack() as ends:
        holders = {name: _holder(ends) for name in ("", *(str(h.name) for h in plan.topology.hosts))}
        made = Namespaces(holders=holders)
        made.run("", "ip link add bridge type bridge && ip link set bridge up")
        for number, host in enumerate(plan.topology.hosts):
            made.run("", f"ip link add port{number} type veth peer name eth0 netns {holders[host.name].pid} && "
                         f"ip link set port{number} master bridge up")  # fmt: skip
            made.run(host.name, f"ip link set lo up && ip address add {host.address}/{host.subnet.prefixlen} dev eth0 && "
                                "ip link set eth0 up")  # fmt: skip
            made.renew(host.name, plan)
        yield made


def _holder(ends: contextlib.ExitStack) -> subprocess.Popen[str]:
    """A process that keeps a namespace of its own until its input ends, with this process at the latest."""
    process = subprocess.Popen(
        ["unshare", "--net", "bash", "-c", "echo apart; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ends.enter_context(process)
    ends.callback(process.stdin.close)  # type: ignore[union-attr]
    assert process.stdout and process.stdout.readline() == "apart\n"
    return process

