"""The proof of the network contract: what is asked, how it is compared, what is told; the hosts are played."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.verify.conftest import Make
from tests.verify.played import Odd, Played
from verify import network
from verify.network import __main__ as command
from verify.network.planned import Planned
from verify.network.proof import Proof, prove
from verify.network.questions import BEYOND, contract_ports, listening, named, questions
from verify.network.recorder import table
from verify.network.table import data, differences, text
from verify.reachability import reachability
from verify.runner import CheckFailed
from verify.stack import Stack, StackUnreadable


def proved(stack: Stack, ssh: Played, rate: int = 100) -> Proof:
    proof = prove(stack, ssh, stack.hosts, rate)
    assert all(recorder.ended for recorder in ssh.recorders.values())
    return proof


def lines(proof: Proof) -> list[str]:
    return [line for line, _ in differences(proof)]


# --- what is asked --------------------------------------------------------------------------------


def test_every_port_of_the_contract_is_asked_of_every_host_by_every_host(make: Make) -> None:
    stack = make()
    ssh = Played(stack=stack)
    proof = proved(stack, ssh)
    asked = {question for _, _, own in ssh.asked for question in own}
    ports = {22, 80, 111, 443, 2049, 2379, 4789, 6443, 9345, 10250, 30080, 30443, 33333, *BEYOND}
    for source in stack.hosts:
        for target in stack.hosts:
            found = {(q.protocol, q.port) for q in asked if (q.source, q.target) == (source["name"], target["name"])}
            wanted = {("icmp", 0), *((p, port) for p in ("tcp", "udp") for port in ports)}
            assert wanted <= found if source != target else not found
    assert len(proof.outcomes) == len(asked) and proof.as_planned and not proof.away


def test_nothing_but_the_stacks_hosts_is_ever_sent_to(make: Make) -> None:
    stack = make()
    ssh = Played(stack=stack, odd={("gitlab", "nfs", "tcp", 2049): ["lost", "lost"]})
    proved(stack, ssh)  # the double knows no other address
    assert {host for host, _, _ in ssh.asked} == {host["name"] for host in stack.hosts}


def test_the_middle_and_the_ends_of_a_range_are_asked() -> None:
    rule = {"protocols": ["tcp"], "from": ["any"], "ports": [22], "ranges": [[30000, 32767], [7000, 7001]]}
    assert contract_ports([{"inbound": [rule]}, {"inbound": [rule]}]) == [22, 7000, 7001, 30000, 31383, 32767]


def test_what_listens_is_asked_of_that_host_only(make: Make) -> None:
    said = (
        "udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:*\n"
        "tcp LISTEN 0 4096 127.0.0.1:7001 0.0.0.0:*\n"
        "tcp LISTEN 0 4096 [::1]:7002 [::]:*\n"
        "udp UNCONN 0 0 127.0.0.53%lo:7003 0.0.0.0:*\n"
        "tcp LISTEN 0 4096 *:7004 *:*\n"
        "tcp LISTEN 0 4096 [::]:7005 [::]:*\n"
        "tcp LISTEN 0 4096 192.168.72.13%eth0:7006 0.0.0.0:*\n"
    )
    assert listening(said) == {5353, 7004, 7005, 7006}
    stack = make()
    ssh = Played(stack=stack, sockets={"nfs": said}, rulesets={"gitlab": "\t\ttcp dport { 7100, 7200-7300 } accept\n"})
    proved(stack, ssh)
    asked = [question for _, _, own in ssh.asked for question in own]
    assert {q.target for q in asked if q.port in (5353, 7004, 7005, 7006)} == {"nfs"}
    assert {(q.target, q.port) for q in asked if 7100 <= q.port <= 7300} == {("gitlab", 7100), ("gitlab", 7200), ("gitlab", 7300)}


def test_ports_that_a_ruleset_names() -> None:
    text = """
        ip saddr @node tcp dport 179 counter packets 1 bytes 60 accept comment "dport 99"
        meta l4proto { 6, 17 } th dport { 2049, 5000-5010 } accept
        th dport != 30000-32767 drop
        tcp dport @ours accept
        udp sport 68 udp dport 67 accept
    """
    assert named(text) - {99} == {179, 2049, 5000, 5010, 30000, 32767, 67}


def test_no_host_is_asked_by_all_at_once(make: Make) -> None:
    stack = make("multicluster")
    firsts = [own[0].target for _, own in questions(stack.hosts, {})]
    assert sorted(firsts) == sorted(host["name"] for host in stack.hosts)


def test_the_rate_is_told_to_each_host_and_the_time_it_may_take_follows(make: Make) -> None:
    stack = make()
    ssh = Played(stack=stack)
    proof = proved(stack, ssh, rate=20)
    assert proof.rate == 20
    for _, arguments, _ in ssh.asked:
        pause, patience, most, token = arguments
        assert int(pause) == 50_000 and 0 < int(patience) < 1_000_000 and int(most) == 100 and len(token) == 8


# --- what is compared -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (("gitlab", "nfs", "tcp", 2049, "open"), "gitlab to nfs, tcp 2049: open, planned: nothing"),
        (("gitlab", "nfs", "tcp", 2049, "refused"), "gitlab to nfs, tcp 2049: refused, planned: nothing"),
        (("gitlab", "nfs", "tcp", 2049, "let in"), "gitlab to nfs, tcp 2049: let in, planned: nothing"),
        (("gitlab", "nfs", "udp", 2049, "let in"), "gitlab to nfs, udp 2049: let in, planned: nothing"),
        (("worker-1", "nfs", "tcp", 2049, "dropped"), "worker-1 to nfs, tcp 2049: held back, planned: NFS ("),
        (("worker-1", "nfs", "udp", 2049, "dropped"), "worker-1 to nfs, udp 2049: held back, planned: NFS ("),
        (("worker-1", "nfs", "udp", 2049, "lost"), "worker-1 to nfs, udp 2049: never arrived, planned: NFS ("),
        (("worker-2", "master-1", "tcp", 12345, "open"), "worker-2 to master-1, tcp 12345: open, planned: nothing"),
        (("worker-2", "master-1", "icmp", 0, "lost"), "worker-2 to master-1, icmp: silent, planned: echo requests ("),
    ],
)  # fmt: skip
def test_one_hole_is_named_and_nothing_else(make: Make, odd: tuple[str, str, str, int, str], said: str) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, odd={odd[:4]: [odd[4]] * 2}))
    (line,) = lines(proof)
    assert line.startswith(said)
    assert not proof.as_planned
    assert any(line.startswith("  to do: ") for line in text(proof))


def test_a_difference_names_the_row_of_the_contract(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, odd={("worker-1", "nfs", "tcp", 2049): ["dropped"] * 2}))
    rule = Planned(stack.hosts).rule("worker-1", "nfs", "tcp", 2049)
    assert rule is not None and rule["row"] and f"planned: NFS ({rule['row']}" in lines(proof)[0]


def test_a_service_that_does_not_answer_is_no_hole(make: Make) -> None:
    """The filter let it in, which the record shows."""
    stack = make()
    assert proved(stack, Played(stack=stack, odd={("worker-1", "nfs", "tcp", 2049): ["let in"]})).as_planned


def test_what_is_doubtful_is_asked_again_alone_and_more_patiently(make: Make) -> None:
    stack = make()
    odd: Odd = {("worker-1", "nfs", "tcp", 2049): ["dropped"], ("gitlab", "nfs", "udp", 2049): ["lost"]}
    ssh = Played(stack=stack, odd=odd)
    proof = proved(stack, ssh)
    assert proof.as_planned
    again = ssh.asked[len(stack.hosts) :]
    assert sorted(tuple(q) for _, _, own in again for q in own) == [("gitlab", "nfs", "udp", 2049), ("worker-1", "nfs", "tcp", 2049)]
    # Which the kernel repeats meanwhile, so they come more slowly.
    assert {tuple(map(int, arguments[:2])) for _, arguments, _ in again} == {(40_000, 3_000_000)}
    assert not any("never arrived" in line for line in text(proof))


def test_what_passed_once_is_not_asked_again(make: Make) -> None:
    stack = make()
    ssh = Played(stack=stack, odd={("gitlab", "nfs", "tcp", 2049): ["open"]})
    assert len(lines(proved(stack, ssh))) == 1 and len(ssh.asked) == len(stack.hosts)


def test_what_something_in_front_holds_back_is_as_planned_and_told(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, odd={("gitlab", "nfs", "udp", 2049): ["lost", "lost"]}))
    assert proof.as_planned
    assert any(line.startswith("1 of what is held back never arrived at the host") for line in text(proof))


def test_a_host_that_is_away_is_named_and_its_pairs_are_left_out(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, away=frozenset({"worker-3"})))
    assert proof.away == {"worker-3": "worker-3: ssh: connect to host: No route to host"}
    assert not proof.differences and not proof.as_planned
    assert {"worker-3"}.isdisjoint(name for o in proof.outcomes for name in (o.question.source, o.question.target))
    assert len({(o.question.source, o.question.target) for o in proof.outcomes}) == 72
    assert any(line.startswith("not asked: worker-3, ") for line in text(proof))


def test_a_host_that_gives_up_while_it_asks_is_away(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, mute=frozenset({"nfs"})))
    assert proof.away == {"nfs": "nfs: Broken pipe"} and not proof.differences
    assert "nfs" not in {name for o in proof.outcomes for name in (o.question.source, o.question.target)}


def test_a_host_that_does_not_ask_to_the_end_is_away(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, cut=frozenset({"nfs"})))
    assert list(proof.away) == ["nfs"] and proof.away["nfs"].startswith("nfs did not ask to the end: ")


def test_recorders_end_also_when_asking_breaks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = make()
    ssh = Played(stack=stack)

    def broken(*_: Any) -> None:
        raise RuntimeError("by the test")

    monkeypatch.setattr(network.proof, "ask", broken)
    with pytest.raises(RuntimeError, match="by the test"):
        prove(stack, ssh, stack.hosts)
    assert len(ssh.recorders) == len(stack.hosts) and all(recorder.ended for recorder in ssh.recorders.values())


def test_hosts_without_ping_ask_no_echo(make: Make) -> None:
    stack = make()
    odd: Odd = {("nfs", host["name"], "icmp", 0): ["unasked"] for host in stack.hosts}
    proof = proved(stack, Played(stack=stack, odd=odd))
    assert proof.as_planned and proof.unasked == 9
    assert any(line.startswith("9 echo requests were not sent") for line in text(proof))


EGRESS = {"network": {"egress": {"enforce": True}}}


def test_what_may_not_leave_a_host_is_not_planned_to_arrive(make: Make) -> None:
    stack = make(changes=EGRESS)
    planned = Planned(stack.hosts)
    every = [q for _, own in questions(stack.hosts, {}) for q in own if q.protocol != "icmp"]
    odd: Odd = {tuple(q): ["lost"] * 2 for q in every if not planned.may_leave(*q)}
    ssh = Played(stack=stack, odd=odd)
    proof = proved(stack, ssh)
    assert proof.as_planned and len(ssh.asked) == len(stack.hosts), "it was asked again"
    assert any("may not leave its own host" in line for line in text(proof))
    # By the other host's rules it would pass.
    key = ("gitlab", "worker-1", "tcp", 10250)
    assert key in odd and Planned(make().hosts).rule(*key)
    hole = proved(stack, Played(stack=stack, odd={key: ["refused"]}))
    assert lines(hole) == ["gitlab to worker-1, tcp 10250: refused, planned: not to be sent, by opstella:network.egress"]


# --- what is told ---------------------------------------------------------------------------------


def test_the_table_of_36_hosts_can_be_read(make: Make) -> None:
    stack = make("multicluster")
    proof = proved(stack, Played(stack=stack))
    told = list(text(proof))
    assert len(told) < 60 and max(map(len, told)) < 180
    assert len({(o.question.source, o.question.target) for o in proof.outcomes}) == 36 * 35
    rows = data(proof)["rows"]
    assert sum(row["pairs"] for row in rows) == 36 * 35
    assert sum(row["asked"] for row in rows) == sum(row["passed"] + row["held_back"] for row in rows) == len(proof.outcomes)
    by_roles = {(row["from"], row["to"], row["cluster"]): row["passes"] for row in rows}
    assert by_roles["worker", "nfs", "same"].startswith("tcp 111, 2049, ") and by_roles["worker", "nfs", "other"] == "icmp"
    assert ("master", "master", "same") in by_roles and ("bastion", "worker", "-") in by_roles


def test_neighbours_and_ranges_are_one(make: Make) -> None:
    own = {"purpose": "ours", "to": "nfs", "from": ["192.168.72.17/32"], "ports": ["7000-7999", 8001, 8002]}
    stack = make(changes={"network": {"rules": [own]}})
    proof = proved(stack, Played(stack=stack))
    passes = {(row["from"], row["to"]): row["passes"] for row in data(proof)["rows"]}["worker", "nfs"]
    assert "7000-7999 (1 of 5), 8001-8002 (1 of 5)" in passes


def test_differences_that_are_one_but_for_who_asked_are_one_line(make: Make) -> None:
    stack = make()
    names = [host["name"] for host in stack.hosts]
    odd: Odd = {(name, "worker-3", "tcp", port): ["refused"] for name in names for port in (12345, 33333) if name != "worker-3"}
    odd |= {(name, "gitlab", "udp", 12345): ["let in"] for name in names[2:]}
    proof = proved(stack, Played(stack=stack, odd=odd))
    assert sorted(lines(proof)) == [
        "all 9 others to worker-3, tcp 12345, 33333: refused, planned: nothing",
        "haproxy, nfs, master-1, worker-1, worker-2, worker-3 and 2 more to gitlab, udp 12345: let in, planned: nothing",
    ]
    assert "26 differ from the plan" in "\n".join(text(proof))
    assert len(data(proof)["differences"]) == 26


def test_what_passes_against_the_plan_is_no_part_of_the_table(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, odd={("gitlab", "nfs", "tcp", 2049): ["open"]}))
    row = next(row for row in data(proof)["rows"] if (row["from"], row["to"]) == ("gitlab", "nfs"))
    assert (row["passed"], row["differing"], row["passes"]) == (2, 1, "icmp")


def test_json_holds_each_difference(make: Make) -> None:
    stack = make()
    proof = proved(stack, Played(stack=stack, odd={("gitlab", "nfs", "tcp", 2049): ["open"]}))
    told = json.loads(json.dumps(data(proof)))
    assert told["differences"] == [
        {"from": "gitlab", "to": "nfs", "protocol": "tcp", "port": 2049, "seen": "open", "passed": True, "planned": None}
    ]
    assert told["as_planned"] is False and told["hosts"] == 10 and told["asked"] == told["passed"] + told["held_back"]


@pytest.fixture
def told(make: Make, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command reads and reaches; `stack` and `ssh` may be replaced."""
    found: dict[str, Any] = {"stack": make()}
    found["ssh"] = Played(stack=found["stack"])

    class Session:
        def __init__(self, _stack: Stack) -> None: ...
        def __enter__(self) -> Played:
            return found["ssh"]

        def __exit__(self, *_: object) -> None: ...

    def read(name: str, _file: str | None) -> Stack:
        if name == "absent":
            raise StackUnreadable("stack 'absent' has no outputs yet")
        return found["stack"]

    monkeypatch.setattr(command, "session", Session)
    monkeypatch.setattr(command, "read", read)
    return found


def test_exit_status(told: dict[str, Any], make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--stack", "standalone", "--rate", "1000"]) == 0
    assert "0 differ from the plan" in capsys.readouterr().out
    told["ssh"] = Played(stack=told["stack"], odd={("gitlab", "nfs", "tcp", 2049): ["open"]})
    assert command.main(["--stack", "standalone", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differences"]
    told["ssh"] = Played(stack=told["stack"], away=frozenset({"nfs"}))
    assert command.main(["--stack", "standalone"]) == 1
    told["ssh"] = Played(stack=told["stack"], away=frozenset(host["name"] for host in told["stack"].hosts))
    assert command.main(["--stack", "standalone"]) == 2
    assert "fewer than two hosts" in capsys.readouterr().err
    assert command.main(["--stack", "absent"]) == 2
    told["stack"] = make(firewall=False)
    assert command.main(["--stack", "standalone"]) == 2
    assert "opstella:firewall.enabled is false" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1001", "-1", "ten", "1.5", ""])
def test_a_rate_that_is_none_is_refused(told: dict[str, Any], rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--stack", "standalone", f"--rate={rate}"])
    assert ended.value.code == 2 and "from 1 to 1000" in capsys.readouterr().err


# --- the record -----------------------------------------------------------------------------------


def test_the_record_judges_nothing_and_takes_only_the_runs_own_datagrams(make: Make) -> None:
    stack = make()
    for host in stack.hosts:
        made = table(host, ["192.168.72.11", "192.168.72.12"], "0123abcd", 100)
        assert made.startswith("table inet opstella_record {") and made.count("policy accept") == made.count("chain ")
        assert not {"drop", "reject", "accept"} & set(made.replace("policy accept;", "").split())
        assert f"@th,64,64 0x{b'0123abcd'.hex()} " in made
        node = host["role"] in ("master", "worker")
        assert ("th dport 30000-32767" in made) == node and ("th dport != 30000-32767" in made) == node


# --- the quick form -------------------------------------------------------------------------------


def test_quick_as_planned(make: Make) -> None:
    stack = make()
    ssh = Played(stack=stack)
    line = reachability(stack, ssh)
    assert {host for host, _, _ in ssh.asked} == {"bastion", "gitlab", "haproxy", "nfs", "master-1", "worker-1", "worker-2"}
    assert "between 7 hosts (42 pairs)" in line and line.endswith(", 0 differ from the plan")


def test_quick_names_a_hole(make: Make) -> None:
    stack = make()
    with pytest.raises(CheckFailed) as caught:
        reachability(stack, Played(stack=stack, odd={("gitlab", "nfs", "tcp", 2049): ["open"]}))
    assert str(caught.value).endswith(", 1 differ from the plan; gitlab to nfs, tcp 2049: open, planned: nothing")


def test_quick_names_a_host_that_is_away(make: Make) -> None:
    stack = make()
    with pytest.raises(CheckFailed, match="nfs could not be asked: nfs: ssh: connect to host: No route to host"):
        reachability(stack, Played(stack=stack, away=frozenset({"nfs"})))


def test_quick_looks_at_each_cluster(make: Make) -> None:
    stack = make("multicluster")
    ssh = Played(stack=stack)
    reachability(stack, ssh)
    seen = {host for host, _, _ in ssh.asked}
    for cluster in ("devsecops", "observability", "dev", "prd"):
        assert {f"{cluster}-{role}" for role in ("haproxy", "nfs", "master-1", "worker-1")} <= seen


def test_quick_without_a_packet_filter_asks_nothing(make: Make) -> None:
    ssh = Played(stack=make())
    assert "opstella:firewall.enabled is false" in reachability(make(firewall=False), ssh)
    assert ssh.asked == []


# --- the plan's answer ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "protocol", "port", "purpose"),
    [
        ("worker-1", "nfs", "tcp", 2049, "NFS"),
        ("worker-1", "nfs", "udp", 2049, "NFS"),
        ("master-1", "nfs", "tcp", 2049, None),
        ("bastion", "nfs", "tcp", 22, "SSH"),
        ("worker-1", "nfs", "tcp", 22, None),
        ("nfs", "gitlab", "tcp", 443, "GitLab web"),
        ("nfs", "gitlab", "udp", 443, None),
        ("haproxy", "worker-1", "tcp", 30443, "ingress NodePorts"),
        ("worker-2", "worker-1", "tcp", 30443, None),
        ("worker-2", "worker-1", "udp", 4789, "Calico VXLAN"),
        ("gitlab", "bastion", "tcp", 22, "SSH"),
    ],
)
def test_the_plans_answer(make: Make, source: str, target: str, protocol: str, port: int, purpose: str | None) -> None:
    rule = Planned(make().hosts).rule(source, target, protocol, port)
    assert (rule and rule["purpose"]) == purpose
