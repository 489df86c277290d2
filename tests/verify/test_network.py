"""The comparison of real connections with the plan; a double answers for the machines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.verify.conftest import Make
from verify.network import reachability
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack, allowed


@dataclass(frozen=True)
class Answering(Ssh):
    """A double of the connections: each host answers as the plan says, but for `odd`, by host, address and port.

    It proves nothing about the probe's script, which runs on real hosts in the lab.
    """

    config: Path = Path("/nonexistent")
    stack: Stack | None = None
    odd: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def run(self, host: str, command: str, *, stdin: str = "", seconds: int = 60) -> str:
        assert self.stack is not None and command == "bash -s"
        source = next(h for h in self.stack.hosts if h["name"] == host)
        by_address = {h["address"]: h for h in self.stack.hosts}
        wanted = re.findall(r"^([\d.]+) (\d+)$", stdin, re.M)
        self.asked.append((host, len(wanted)))
        lines = []
        for address, port in wanted:
            planned = allowed(by_address[address], source["address"], "tcp", int(port))
            states = self.odd.get((host, address, int(port)))
            state = states.pop(0) if states else ("refused" if planned else "silent")
            if state != "lost":
                lines.append(f"{address} {port} {state}\n")
        return "".join(lines)


def test_as_planned(make: Make) -> None:
    stack = make()
    ssh = Answering(stack=stack)
    line = reachability(stack, ssh)
    asked = sum(count for _, count in ssh.asked)
    assert [host for host, _ in ssh.asked].count("worker-1") == 1
    assert len(ssh.asked) == 7  # one of each role, and a second worker
    found = re.fullmatch(r"(\d+) connections between 7 hosts are as planned: (\d+) pass, (\d+) do not", line)
    assert found and int(found[1]) == asked == int(found[2]) + int(found[3])
    assert int(found[2]) > 20 and int(found[3]) > 100


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (("gitlab", "192.168.72.13", 2049, "open"), "gitlab to nfs:2049 is open, planned: nothing"),
        (("gitlab", "192.168.72.13", 2049, "refused"), "gitlab to nfs:2049 is refused, planned: nothing"),
        (("worker-1", "192.168.72.13", 2049, "silent"), "worker-1 to nfs:2049 is silent, planned: NFS"),
        (("worker-2", "192.168.72.15", 12345, "open"), "worker-2 to master-1:12345 is open, planned: nothing"),
    ],
)
def test_one_hole_is_named_and_nothing_else(make: Make, odd: tuple[str, str, int, str], said: str) -> None:
    stack = make()
    host, address, port, state = odd
    ssh = Answering(stack=stack, odd={(host, address, port): [state, state]})
    with pytest.raises(CheckFailed) as caught:
        reachability(stack, ssh)
    assert re.fullmatch(rf"1 of \d+ differ from the plan: {re.escape(said)}", str(caught.value))


def test_what_differs_only_once_is_asked_again_and_alone(make: Make) -> None:
    stack = make()
    ssh = Answering(stack=stack, odd={("worker-1", "192.168.72.13", 2049): ["silent"]})
    assert "are as planned" in reachability(stack, ssh)
    assert ssh.asked[-1] == ("worker-1", 1)


def test_many_holes_are_counted_and_the_first_named(make: Make) -> None:
    stack = make()
    ports = (2379, 2380, 5473, 8404, 9345, 12345, 31000, 33333)
    odd = {("gitlab", "192.168.72.12", port): ["open", "open"] for port in ports}
    with pytest.raises(CheckFailed) as caught:
        reachability(stack, Answering(stack=stack, odd=odd))
    assert str(caught.value).startswith(f"{len(ports)} of ")
    assert str(caught.value).count("gitlab to haproxy:") == 6


def test_an_answer_that_is_missing_is_no_silence(make: Make) -> None:
    stack = make()
    ssh = Answering(stack=stack, odd={("nfs", "192.168.72.15", 6443): ["lost"]})
    with pytest.raises(CheckFailed, match=r"^nfs gave no answer about master-1:6443$"):
        reachability(stack, ssh)


def test_each_cluster_is_looked_at(make: Make) -> None:
    stack = make("multicluster")
    ssh = Answering(stack=stack)
    reachability(stack, ssh)
    seen = {host for host, _ in ssh.asked}
    for cluster in ("devsecops", "observability", "dev", "prd"):
        assert {f"{cluster}-{role}" for role in ("haproxy", "nfs", "master-1", "worker-1")} <= seen


@pytest.mark.parametrize(
    ("host", "source", "protocol", "port", "purpose"),
    [
        ("nfs", "192.168.72.16", "tcp", 2049, "NFS"),
        ("nfs", "192.168.72.16", "udp", 2049, "NFS"),
        ("nfs", "192.168.72.15", "tcp", 2049, None),
        ("nfs", "192.168.72.11", "tcp", 22, "SSH"),
        ("nfs", "192.168.72.16", "tcp", 22, None),
        ("gitlab", "203.0.113.7", "tcp", 443, "GitLab web"),
        ("gitlab", "203.0.113.7", "udp", 443, None),
        ("worker-1", "192.168.72.12", "tcp", 30443, "ingress NodePorts"),
        ("worker-1", "192.168.72.17", "tcp", 30443, None),
        ("worker-1", "192.168.72.17", "udp", 4789, "Calico VXLAN"),
        ("bastion", "203.0.113.7", "tcp", 22, "SSH"),
    ],
)
def test_allowed_is_the_plans_answer(
    make: Make, host: str, source: str, protocol: str, port: int, purpose: str | None
) -> None:
    stack = make()
    assert allowed(next(h for h in stack.hosts if h["name"] == host), source, protocol, port) == purpose
