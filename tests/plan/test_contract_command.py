"""`python -m plan.contract`: the contract as a table, why a connection is let in or not, and the contract for others."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from plan import network
from plan.contract import cilium, export, firewalls, zones_picture
from plan.contract.__main__ import FORMATS, main
from plan.contract.flow import Flow, flows
from plan.contract.rule import Rule
from plan.plan import Plan
from plan.tools import flow_table
from plan.topology import Topology
from tests.plan.stacks import plan

ROOT = Path(__file__).resolve().parents[2]
STRANGER = IPv4Address("198.51.100.7")
PROFILES = ("opstella", "tectonic", "deckhouse", "rke2-cilium")
TWO = {"count": 2, "virtualAddress": "192.168.75.10", "addresses": ["192.168.75.11", "192.168.75.9"]}


@cache
def stack(profile: str = "opstella") -> tuple[Plan, Topology, tuple[Flow, ...]]:
    found = plan(
        "multicluster",
        network={"profile": profile},
        firewall={"operatorNetworks": ["10.200.0.0/16", "10.201.4.0/24"]},
        clusters={"prd": {"loadBalancer": TWO}},
    )
    return found, found.topology, flows(found.contract)


# What another reads from an export: source, destination, protocol and port to whether it is let through.
Judge = Callable[[IPv4Address, IPv4Address, str, int], bool]


def judge_by(lines: Iterable[tuple[list[str], list[str], list[str], list[str]]], machines: list[str] | None = None) -> Judge:
    """Lines of sources (none: anyone), destinations, protocols and ports; what leads to none of `machines` passes."""

    def span(network: str) -> tuple[int, int]:
        parsed = IPv4Network(network)
        return int(parsed.network_address), int(parsed.broadcast_address)

    def ends(ports: str) -> tuple[int, int]:
        first, *rest = map(int, re.split("[-:]", ports))
        return first, rest[0] if rest else first

    def among(number: int, spans: list[tuple[int, int]]) -> bool:
        return any(low <= number <= high for low, high in spans)

    known = [
        ([span(s) for s in sources], [span(d) for d in destinations], protocols, [ends(p) for p in ports])
        for sources, destinations, protocols, ports in lines
    ]
    guarded = None if machines is None else [span(m) for m in machines]

    def judge(source: IPv4Address, destination: IPv4Address, protocol: str, port: int) -> bool:
        return (guarded is not None and not among(int(destination), guarded)) or any(
            protocol in protocols
            and among(port, ports)
            and among(int(destination), destinations)
            and (not sources or among(int(source), sources))
            for sources, destinations, protocols, ports in known
        )

    return judge


def by_json(text: str) -> Judge:
    return judge_by(
        (flow["sources"] or [], flow["destinations"], flow["protocols"], [str(port) for port in flow["ports"]])
        for flow in json.loads(text)["flows"]
    )


def by_rows(every: list[list[str]]) -> Judge:
    return judge_by(
        ([] if networks == "anyone" else networks.split(), addresses.split(), protocols.split("/"), [p for p in ports.split(", ") if p])
        for _, _, addresses, protocols, ports, _, networks, _, _ in every
    )


def by_csv(text: str) -> Judge:
    head, *every = csv.reader(io.StringIO(text))
    assert tuple(head) == export.COLUMNS
    return by_rows(every)


def by_markdown(text: str) -> Judge:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    return by_rows([[cell.strip("| ") for cell in line] for line in lines[2:]])


_NFT = re.compile(
    r"(?:ip saddr \{ (?P<source>[^}]+) \} )?ip daddr \{ (?P<to>[^}]+) \} "
    r"(?:meta l4proto \{ (?P<both>tcp, udp) \} th|(?P<one>tcp|udp)) dport \{ (?P<ports>[^}]+) \} "
    r'counter accept comment "[^"]+"'
)


def by_nftables(text: str) -> Judge:
    body = text.split("chain machines {\n")[1].split("    }\n")[0]
    first, second, third, *lines, last = (line.strip() for line in body.splitlines())
    assert (first, second, third, last) == (
        "ct state established,related accept", "ct state invalid drop", "ip protocol icmp accept", "counter drop",
    )  # fmt: skip
    found = [_NFT.fullmatch(line) for line in lines]
    jump = re.search(r"policy accept;\n +ip daddr \{ ([^}]+) \} jump machines\n    \}\n\}\n\Z", text)
    assert jump and all(found)
    return judge_by(
        (
            ((m["source"].split(", ") if m["source"] else []), m["to"].split(", "), (m["both"] or m["one"]).split(", "), m["ports"].split(", "))
            for m in found
            if m
        ),
        jump[1].split(", "),
    )


_IPTABLES = re.compile(
    r"-A OPSTELLA-IN (?:-s (?P<source>\S+) )?-d (?P<to>\S+) -p (?P<protocol>tcp|udp) "
    r'-m multiport --dports (?P<ports>\S+) -m comment --comment "[^"]+" -j ACCEPT'
)


def by_iptables(text: str) -> Judge:
    lines = text.splitlines()
    assert lines[1:4] == ["*filter", ":OPSTELLA - [0:0]", ":OPSTELLA-IN - [0:0]"]
    assert lines[-2:] == ["-A OPSTELLA-IN -j DROP", "COMMIT"]
    found = [m for m in map(_IPTABLES.fullmatch, lines) if m]
    machines = [m[1] for m in (re.fullmatch(r"-A OPSTELLA -d (\S+) -j OPSTELLA-IN", line) for line in lines) if m]
    assert len(lines) == 4 + len(machines) + 3 + len(found) + 2
    return judge_by(
        (([m["source"]] if m["source"] else [], [m["to"]], [m["protocol"]], m["ports"].split(",")) for m in found), machines
    )


JUDGES = {"json": by_json, "csv": by_csv, "markdown": by_markdown, "nftables": by_nftables, "iptables": by_iptables}


def asked(machines: Topology) -> Iterator[tuple[IPv4Address, IPv4Address, int]]:
    """Source, destination and the index of its host: among some of the last cluster and whoever else asks."""
    last = machines.clusters[-1]
    some = [machines.bastion, machines.gitlab, *last.load_balancers, last.nfs, *last.masters[:2], last.workers[-1]]
    sources = [h.address for h in some] + [last.settings.pod_subnet[7], IPv4Address("10.201.4.9"), STRANGER]
    for target in some:
        for source in sources:
            if source != target.address:
                yield source, target.address, machines.hosts.index(target)


@pytest.mark.toolchain
@pytest.mark.parametrize("profile", PROFILES)
def test_every_export_says_what_the_machines_do(profile: str) -> None:
    found, machines, every = stack(profile)
    judges = {form: JUDGES[form](write(every)) for form, write in FORMATS.items()}
    openings = [network.openings(host, found.contract) for host in machines.hosts]
    seen = set()
    for source, destination, index in asked(machines):
        for port in (22, 111, 2379, 4789, 6443, 7999, 8000, 30080, 32767, 32768):
            for protocol in ("tcp", "udp"):
                allowed = network.allows(openings[index], IPv4Network(source), protocol, port) is not None
                answers = {form: judge(source, destination, protocol, port) for form, judge in judges.items()}
                assert set(answers.values()) == {allowed}, f"{destination} {protocol}/{port} from {source}: {answers}"
                seen.add(allowed)
    assert seen == {True, False}


@pytest.mark.parametrize("form", FORMATS)
def test_the_virtual_address_is_one_of_the_load_balancers(form: str) -> None:
    judge = JUDGES[form](FORMATS[form](stack()[2]))
    virtual = IPv4Address("192.168.75.10")
    assert judge(STRANGER, virtual, "tcp", 443) and not judge(STRANGER, virtual, "tcp", 9345)


@pytest.mark.parametrize("form", FORMATS)
def test_so_is_each_address_of_a_shared_one(form: str) -> None:
    shared = {"dev": {"loadBalancer": {"sharedWith": "prd", "virtualAddress": "192.168.75.8"}}, "prd": {"loadBalancer": TWO}}
    shared_stack = plan("multicluster", clusters=shared)
    machines = shared_stack.topology
    judge = JUDGES[form](FORMATS[form](flows(shared_stack.contract)))
    dev = machines.clusters[2]
    for address in (dev.entrance, machines.clusters[3].entrance, *(b.address for b in dev.load_balancers)):
        assert judge(STRANGER, address, "tcp", 443) and judge(dev.workers[0].address, address, "tcp", 9345), address
        assert not judge(STRANGER, address, "tcp", 9345), address


def test_a_firewall_in_front_leaves_alone_what_goes_elsewhere() -> None:
    for form in ("nftables", "iptables"):
        judge = JUDGES[form](FORMATS[form](stack()[2]))
        assert judge(STRANGER, IPv4Address("203.0.113.1"), "tcp", 1)


def test_json_says_anyone_by_null() -> None:
    every = json.loads(export.as_json(stack()[2]))
    assert every["version"] == 1
    sources = {flow["purpose"]: flow["sources"] for flow in every["flows"]}
    assert sources["GitLab web"] is None and sources["NFS"]


def test_many_ports_take_several_lines_of_iptables() -> None:
    (of_haproxy, *_) = [f for f in stack()[2] if f.role == "haproxy"]
    ports = tuple(range(100, 114))  # with a range, which counts twice, one too many
    rule = Rule(target="haproxy", protocols=("tcp",), ports=ports, ranges=((200, 210),), source="any", purpose="many")
    flow = Flow(**{**vars(of_haproxy), "rule": rule, "sources": ()})
    lines = [m["ports"] for m in map(_IPTABLES.fullmatch, firewalls.iptables([flow]).splitlines()) if m]
    assert {p for line in lines for p in line.split(",")} == {*map(str, ports), "200:210"}
    assert max(line.count(",") + line.count(":") + 1 for line in lines) <= 15


def test_the_exports_do_not_grow_with_the_machines() -> None:
    """Machines that follow one another in a network are one network."""

    def text(workers: int, form: str) -> str:
        cluster = {"subnet": "10.0.0.0/20", "podSubnet": "10.64.0.0/12", "masters": {"count": 3}, "workers": {"count": workers}}
        return FORMATS[form](flows(plan("custom", clusters={"one": cluster}).contract))

    for form in ("nftables", "csv"):
        assert len(text(1000, form)) < 2 * len(text(36, form))


# The command


def run(*arguments: str, file: str = "Pulumi.standalone.yaml") -> int:
    return main(["--config-file", str(ROOT / file), *arguments])


def test_the_table_has_a_line_for_each_flow(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    without = capsys.readouterr().out
    assert run("table") == 0 and capsys.readouterr().out == without
    head, *lines = without.splitlines()
    assert head.split() == ["CLUSTER", "TO", "PROTOCOL", "PORTS", "FROM", "PURPOSE", "BY"]
    assert len(lines) == len(flows(plan().contract))
    (line,) = [line for line in lines if "30443" in line]
    assert re.split(r"  +", line) == [
        "standalone", "worker", "tcp", "30080, 30443", "haproxy", "ingress NodePorts",
        "Opstella Reference Architecture, standalone: Kubernetes Worker Nodes, row 1",
    ]  # fmt: skip
    assert all(re.search(r"(, row \d+|derived, .+: .+)$", line) for line in lines)


def test_the_tools_flows_stand_below_the_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    machines = capsys.readouterr().out
    assert run("--tools") == 0
    both = capsys.readouterr().out
    assert run("table", "--tools") == 0 and capsys.readouterr().out == both
    assert both.startswith(f"{machines}\n")
    head, *lines = both.removeprefix(f"{machines}\n").splitlines()
    assert head.split() == ["CLUSTER", "TOOL", "NAMESPACE", "PODS", "DIRECTION", "PEER", "PROTOCOL", "PORTS", "WHY"]
    assert len(lines) == len(flow_table.rows(plan().releases))
    assert any(re.match(r"standalone  harbor +harbor +out +minio +tcp +[0-9]+ ", line) for line in lines), lines


@pytest.mark.parametrize("form", [*FORMATS, "svg"])
def test_an_export_is_written(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", form, file="Pulumi.multicluster.yaml") == 0
    contract = plan("multicluster").contract
    expected = zones_picture.svg(contract) if form == "svg" else FORMATS[form](flows(contract))
    assert capsys.readouterr().out == expected


def test_ciliums_policies_are_those_of_a_stack_with_cilium(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "cilium") == 2
    assert "plugin is calico (opstella:kubernetes.cni)" in capsys.readouterr().err
    file = tmp_path / "Pulumi.standalone.yaml"
    file.write_text(
        "config:\n  opstella:architecture: standalone\n  opstella:domain: devops.example.com\n"
        "  opstella:ssh: {privateKey: file:/none}\n  opstella:kubernetes: {cni: cilium}\n"
    )
    assert run("export", "cilium", file=str(file)) == 0
    contract = plan(kubernetes={"cni": "cilium"}).contract
    assert capsys.readouterr().out == cilium.as_yaml(flows(contract), contract.topology.clusters, contract)


@pytest.mark.parametrize(
    ("question", "status", "answer"),
    [
        (("haproxy", "worker-1", "30443"), 0, "Kubernetes Worker Nodes, row 1"),
        (("bastion", "gitlab", "22/tcp"), 0, "derived, SSH: every machine is reached through the bastion"),
        (("198.51.100.7", "192.168.72.12", "443"), 0, "from any (anyone)"),
        (("worker-2", "nfs", "2049"), 0, "NFS, row 1"),
        (("master-1", "master-1", "1"), 0, "may always talk to itself"),
        (("gitlab", "worker-1", "443"), 1, "held back: worker-1 (192.168.72.16) 443/tcp from gitlab (192.168.72.14); no rule"),
        (("worker-1", "master-1", "2379"), 1, "not from there:\n  etcd client, from master (192.168.72.15)"),
    ],
)
def test_why(question: tuple[str, ...], status: int, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("why", *question) == status
    said = capsys.readouterr().out
    assert answer in said and said.startswith("let in: " if status == 0 else "held back: ")


@pytest.mark.parametrize(
    ("question", "status", "answer"),
    [
        (("gitlab", "worker-1", "10250"), 1, "gitlab may not open it: nothing on it needs that (opstella:network.egress)"),
        (("worker-2", "worker-1", "10250"), 0, "Kubernetes Master & Worker Nodes, row 1"),
        (("198.51.100.7", "worker-1", "10250"), 0, "from any (anyone)"),
        (("nfs", "198.51.100.7", "123/udp"), 0, "let out: 198.51.100.7 123/udp by nfs (192.168.72.13)\n  time\n  derived, chrony:"),
        (("nfs", "198.51.100.7", "25"), 1, "held back: 198.51.100.7 25/tcp by nfs (192.168.72.13); no rule of opstella:network.egress"),
    ],
)
def test_why_where_egress_is_enforced(
    question: tuple[str, ...], status: int, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "Pulumi.standalone.yaml"
    file.write_text(
        "config:\n  opstella:architecture: standalone\n  opstella:domain: devops.example.com\n"
        "  opstella:ssh: {privateKey: file:/none}\n  opstella:network: {strict: false, egress: {enforce: true}}\n"
    )
    assert run("why", *question, file=str(file)) == status
    assert answer in capsys.readouterr().out


def test_why_of_a_virtual_address_and_without_a_packet_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Pulumi.multicluster.yaml"
    text = "config:\n  opstella:architecture: multicluster\n  opstella:domain: devops.example.com\n"
    text += "  opstella:ssh: {privateKey: file:/none}\n"
    file.write_text(text + f"  opstella:clusters: {{prd: {{loadBalancer: {json.dumps(TWO)}}}}}\n")
    assert run("why", "198.51.100.7", "192.168.75.10", "80", file=str(file)) == 0
    assert "let in: prd-haproxy-1" in capsys.readouterr().out
    file.write_text(text + "  opstella:firewall: {enabled: false}\n")
    assert run("why", "198.51.100.7", "gitlab", "9999", file=str(file)) == 0
    assert "opstella:firewall.enabled is false" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (("gitlab", "workr-1", "443"), "'workr-1' is no machine of this stack; did you mean worker-1?"),
        (("nobody", "worker-1", "443"), "'nobody' is no machine of this stack; the first of each role: bastion, gitlab, "),
        (("gitlab", "203.0.113.1", "443"), "'203.0.113.1' is no machine of this stack"),
        (("2001:db8::1", "haproxy", "443"), "'2001:db8::1' is an IPv6 address, and the contract is of IPv4 only"),
        (("gitlab", "[fe80::1%eth0]", "443"), "'[fe80::1%eth0]' is an IPv6 address, and the contract is of IPv4 only"),
        (("gitlab", "worker-1", "0"), "'0' is no port; write 1 to 65535"),
        (("gitlab", "worker-1", "70000"), "'70000' is no port"),
        (("gitlab", "worker-1", "443-80"), "'443-80' is no port"),
        (("gitlab", "worker-1", "https"), "'https' is no port"),
        (("gitlab", "worker-1", "443/icmp"), "'icmp' is no protocol with ports; write 443/tcp or /udp"),
    ],
)
def test_a_question_that_makes_no_sense(question: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("why", *question) == 2
    said = capsys.readouterr()
    assert message in said.err and not said.out


def test_a_stack_file_with_a_fault_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Pulumi.x.yaml"
    file.write_text("config:\n  opstella:architecture: none\n")
    assert run(file=str(file)) == 2
    assert "opstella:architecture" in capsys.readouterr().err
