"""The proof by real packets, between network namespaces that hold the plan's own rulesets; no SSH, no services."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

import pytest

from plan.plan import Plan
from tests.support.platform import plan_of
from tests.verify.conftest import Make
from tests.verify.namespaces import Namespaces, namespaces
from verify.network.proof import Proof, prove
from verify.network.questions import questions
from verify.network.recorder import Recorder, table
from verify.network.table import differences, text
from verify.stack import Stack

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None,
        reason="nft is not installed; lab/toolchain/setup does",
    ),
]

# The literal tables: more is open, so more may be changed by hand.
ROOT = {"ssh": {"user": "root", "sudo": False}, "network": {"strict": False}}
RATE = 1000
OWN = "table inet opstella"
PING = shutil.which("ping")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of("standalone", ROOT)


@pytest.fixture(scope="module")
def hosts(plan: Plan) -> Iterator[Namespaces]:
    with namespaces(plan) as made:
        yield made


@pytest.fixture
def stack(make: Make) -> Stack:
    return make(changes=ROOT)


@pytest.fixture(autouse=True)
def nothing_is_left(hosts: Namespaces, stack: Stack) -> Iterator[None]:
    yield
    for host in stack.hosts:
        assert hosts.run(host["name"], "nft list tables").splitlines() == [OWN], host["name"]


def found(proof: Proof) -> list[str]:
    assert not proof.away
    return [line for line, _ in differences(proof)]


def handle(hosts: Namespaces, host: str, chain: str, word: str) -> str:
    """The handle of the one rule of `chain` in which `word` stands."""
    (line,) = [line for line in hosts.run(host, f"nft -a list chain inet opstella {chain}").splitlines() if word in line]
    return line.rpartition(" ")[2]


def test_the_ruleset_does_what_the_plan_says(hosts: Namespaces, stack: Stack) -> None:
    proof = prove(stack, hosts, stack.hosts, RATE)
    assert found(proof) == []
    assert proof.as_planned
    asked = {question for _, own in questions(stack.hosts, {}) for question in own if PING or question.protocol != "icmp"}
    # And what a host's own ruleset names beside it, as the ends of the NodePorts.
    assert asked < {o.question for o in proof.outcomes}
    assert len({(o.question.source, o.question.target) for o in proof.outcomes}) == 90
    assert proof.unasked == (0 if PING else 90)
    passed = {o.question for o in proof.outcomes if o.passed and o.question.protocol != "icmp"}
    assert {q.protocol for q in passed} == {"tcp", "udp"} and 300 < len(passed) < len(asked) / 2
    # Nobody listens here: what passes is refused by the host behind its filter, and datagrams are seen by the record alone.
    assert {o.seen for o in proof.outcomes} == {"refused", "let in", "held back", *(["answered"] if PING else [])}


WORKERS = "worker-1, worker-2, worker-3, worker-4, worker-5"
LAST = "192.168.72.20"
SAID = [
    f"{WORKERS} to nfs, tcp 2049: held back, planned: NFS",
    f"{WORKERS} to nfs, udp 2049: held back, planned: NFS",
    "all 9 others to worker-3, tcp 4444: refused, planned: nothing",
    "all 9 others to gitlab, udp 5000, 5010: let in, planned: nothing",
    "bastion, gitlab, nfs, master-1, worker-1, worker-3 and 2 more to worker-2, tcp 30080, 30443: let in, planned: nothing",
    "all 9 others to worker-2, tcp 30000, 31000, 32767: let in, planned: nothing",
    "all 9 others to worker-2, udp 30000, 30080, 30443, 31000, 32767: let in, planned: nothing",
    "haproxy to worker-5, tcp 10250: never arrived, planned: kubelet metrics",
]


def test_what_was_changed_by_hand_is_found_and_nothing_else(hosts: Namespaces, stack: Stack, plan: Plan) -> None:
    changed = ["nfs", "worker-3", "gitlab", "worker-2"]
    number = handle(hosts, "nfs", "input", '"NFS"')
    hosts.nft("nfs", f"delete rule inet opstella input handle {number}")
    hosts.nft("worker-3", "insert rule inet opstella input tcp dport 4444 accept")
    hosts.nft("gitlab", "insert rule inet opstella input udp dport 5000-5010 accept")
    hosts.nft("worker-2", "flush chain inet opstella nodeports_allowed")
    # On the way, not at the host that the packets are for.
    hosts.nft("haproxy", f"table ip front {{ chain out {{ type filter hook output priority 0; ip daddr {LAST} tcp dport {{ 22, 10250 }} drop; }}; }}")
    try:
        proof = prove(stack, hosts, stack.hosts, RATE)
    finally:
        hosts.nft("haproxy", "delete table ip front")
        for host in changed:
            hosts.renew(host, plan)
    # Without the row behind the purpose.
    assert sorted(line.partition(" (")[0] for line in found(proof)) == sorted(SAID)
    assert "1 of what is held back never arrived at the host: something in front of it holds it back already" in text(proof)


def test_a_run_that_dies_leaves_nothing(hosts: Namespaces, stack: Stack) -> None:
    """As when this program is killed: the pipes to the recorders end."""
    host = stack.hosts[1]
    Recorder(stack, hosts, host, table(host, ["10.0.0.1"], "0" * 8, 10), 60)
    assert "table inet opstella_record" in hosts.run(host["name"], "nft list tables")
    hosts.started[-1].stdin.close()  # type: ignore[union-attr]
    end = time.monotonic() + 10
    while hosts.run(host["name"], "nft list tables").split("\n") != [OWN, ""]:
        assert time.monotonic() < end
        time.sleep(0.05)
    hosts.started[-1].wait(10)


def test_a_recording_ends_by_itself(hosts: Namespaces, stack: Stack) -> None:
    host = stack.hosts[1]
    Recorder(stack, hosts, host, table(host, ["10.0.0.1"], "0" * 8, 10), 1)
    assert hosts.started[-1].wait(10) is not None


def test_two_runs_at_once_do_not_mix(hosts: Namespaces, stack: Stack) -> None:
    few = [host for host in stack.hosts if host["name"] in ("gitlab", "nfs", "worker-1")]
    other = Recorder(stack, hosts, few[1], table(few[1], ["10.0.0.1"], "0" * 8, 10), 60)
    try:
        proof = prove(stack, hosts, few, RATE)
    finally:
        other.close()
    assert proof.away == {"nfs": "nfs: another run records on this host: wait for its end"}
    assert not proof.differences and not proof.as_planned
    assert {(o.question.source, o.question.target) for o in proof.outcomes} == {("gitlab", "worker-1"), ("worker-1", "gitlab")}


def test_what_hosts_may_not_open_is_held_back_where_they_are(make: Make) -> None:
    """With opstella:network.egress; then one host's guard of its own connections is taken away."""
    changes = {**ROOT, "network": {"strict": False, "egress": {"enforce": True}}}
    stack, enforced = make(changes=changes), plan_of("standalone", changes)
    few = [host for host in stack.hosts if host["name"] in ("gitlab", "haproxy", "master-1", "worker-1")]
    with namespaces(enforced) as made:
        proof = prove(stack, made, few, RATE)
        assert found(proof) == [] and any(o.passed for o in proof.outcomes)
        assert {o.seen for o in proof.outcomes if not o.may_leave} == {"never arrived"}
        made.nft("gitlab", "flush chain inet opstella output; chain inet opstella output { policy accept; }")
        lines = found(prove(stack, made, few, RATE))
    assert lines and all(line.startswith("gitlab to ") for line in lines)
    assert all(line.endswith(": refused, planned: not to be sent, by opstella:network.egress") for line in lines), lines
