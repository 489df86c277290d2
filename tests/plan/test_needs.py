"""What the platform needs: declared by its components and tools with reasons, derived where no row opens it, and proven."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from plan import network, nfs, nftables
from plan.contract import proof
from plan.contract.rule import Rule
from plan.plan import Plan, build
from tests.plan.packet_filter import parse
from tests.plan.stacks import contracts, examples, plan, read

ARCHITECTURES = ("standalone", "multicluster")
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


@cache
def reference(architecture: str) -> Plan:
    return plan(architecture)


def declared(stack: Plan, by: str) -> set[tuple[str, str, tuple[int, ...]]]:
    return {(n.source, n.target, n.ports) for n in stack.contract.needs if n.by == by}


@architectures
def test_every_need_says_who_to_whom_by_what_and_why(architecture: str) -> None:
    for need in reference(architecture).contract.needs:
        assert need.by and need.why and need.purpose, need
        assert need.ports or need.protocols == ("vrrp",), need
        assert need.origin == "derived" and not need.row and need.target != "outside"


def test_components_declare_what_they_open() -> None:
    stack = reference("multicluster")
    assert declared(stack, "SSH") == {("operator", "bastion", (22,)), ("bastion", "all", (22,))}
    assert declared(stack, "NFS") == {("worker", "nfs", (2049,))}
    assert declared(stack, "keepalived") == {("peers", "haproxy", ()), ("peers", "haproxy", (80,))}
    assert declared(stack, "Calico") == {("node", "node", (4789,)), ("node", "node", (5473,))}
    assert ("haproxy", "master", (9345,)) in declared(stack, "HAProxy")
    assert {("node", "haproxy", (6443, 9345)), ("master", "master", (2379,))} <= declared(stack, "RKE2")


def test_tools_declare_what_they_open_to_machines() -> None:
    """By the flows that their NetworkPolicies are made of: metrics of the nodes, and other clusters by public names."""
    stack = reference("multicluster")
    assert {("node", "node", (9100, 10250)), ("pods", "master", (2381,))} <= declared(stack, "alloy")
    every = {(n.by, n.purpose): n for n in stack.contract.needs}
    shipping = [n for n in stack.contract.needs if n.by == "alloy" and n.target == "haproxy"]
    assert shipping and all(n.source == "platform" and n.ports == (443,) for n in shipping)
    # Of every cluster but the one that has the stores.
    assert {c for n in shipping for c in n.clusters} >= {"dev", "prd"}
    for by, purpose in (("RKE2", "OIDC"), ("RKE2", "registry"), ("GitLab", "S3"), ("GitLab", "OIDC")):
        assert every[by, purpose].target == "haproxy" and every[by, purpose].ports == (443,)
    headlamp = [n for n in stack.contract.needs if n.by == "headlamp" and 6443 in n.ports and n.target == "haproxy"]
    assert [n.clusters for n in headlamp] == [("devsecops",)]


@architectures
def test_names_and_time_are_opened_outward(architecture: str) -> None:
    exits = {(e.purpose, e.source, e.ports, e.protocols) for e in reference(architecture).contract.exits}
    assert {("names", "all", (53,), ("tcp", "udp")), ("time", "all", (123,), ("udp",))} <= exits


@architectures
def test_what_no_row_opens_is_derived_with_its_reason(architecture: str) -> None:
    derived = {(r.target, r.source, r.ports): r for r in reference(architecture).contract.rules if r.origin == "derived"}
    for target, source, ports, reason in (
        ("all", "bastion", (22,), "derived, SSH: every machine is reached through the bastion"),
        ("haproxy", "node", (6443, 9345), "derived, RKE2: nodes join through a fixed address, which is the load balancer"),
        ("master", "haproxy", (9345,), "derived, HAProxy: the registration address forwards here"),
        ("node", "node", (9100,), "derived, alloy: metrics of machines, kubelets and etcd"),
    ):
        assert derived[target, source, ports].reason == reason


def test_a_tool_that_is_left_out_needs_nothing() -> None:
    with_it, without = reference("standalone"), plan(tools={"alloy": {"enabled": False}})
    assert any(r.opens("tcp", 9100) for r in with_it.contract.rules)
    assert not any(r.opens("tcp", 9100) for r in without.contract.rules)
    assert any(r.opens("tcp", 10250) for r in without.contract.rules)


def test_a_tool_of_one_cluster_opens_that_clusters_machines() -> None:
    stack = plan("multicluster", tools={"alloy": {"clusters": ["devsecops"]}})
    opened = {
        host.cluster
        for host in stack.topology.hosts
        if any(o.rule.opens("tcp", 9100) for o in network.openings(host, stack.contract))
    }
    assert opened == {"devsecops"}


def test_ssh_on_another_port_is_let_in_there() -> None:
    stack = plan("multicluster", ssh={"privateKey": read().ssh.private_key.get_secret_value(), "port": 2222})
    for host in stack.topology.hosts:
        rules = parse(stack_text(stack, host.name))
        assert rules.lets_in(stack.topology.bastion.address, "tcp", 2222) or host.role == "bastion"
        assert "tcp dport { 22, 2222 } update" in stack_text(stack, host.name) or host.role != "gitlab"


def stack_text(stack: Plan, name: str) -> str:
    return nftables.ruleset(next(h for h in stack.topology.hosts if h.name == name), stack.contract)


# The proof


@examples(8)
@given(contracts())
def test_every_need_is_let_in_under_any_profile(stack: Plan) -> None:
    assert list(proof.held_back(stack.contract)) == []
    assert all(proof.allowed_by(need, stack.contract) for need in stack.contract.needs if need.source != "peers")


@architectures
@pytest.mark.parametrize("strict", [False, True], ids=["as-written", "strict"])
def test_a_lost_rule_is_found(architecture: str, strict: bool) -> None:
    """Without any one of the rules that nothing else covers, the proof names what would be held back, and where."""
    # Where operators may be anyone, their way to the API is Headlamp's too.
    operators = {"operatorNetworks": ["10.200.0.0/16"]}
    whole = plan(architecture, network={"strict": strict}, firewall=operators).contract
    found = 0
    for lost in whole.rules:
        held = list(proof.held_back(replace(whole, rules=tuple(r for r in whole.rules if r != lost))))
        assert all(need.target in (lost.target, "node", "all") or lost.target in ("all", "node") for need, _ in held)
        found += bool(held)
    # Under strict nothing is open but what is needed.
    assert found == len([r for r in whole.rules if r.protocols != ("vrrp",)]) if strict else found > 10


def test_a_plan_that_would_hold_something_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plan.contract.profiles._missing", lambda need, opened: iter(()))
    with pytest.raises(ConfigurationError) as refused:
        build(read(network={"strict": False}), "opstella/standalone")
    said = str(refused.value)
    assert "gitlab would hold back 22 (SSH) from bastion" not in said  # Git's own row lets it in
    assert "would hold back 22 (SSH) from bastion, which SSH needs: every machine is reached through the bastion" in said
    assert "fix: open it by a rule of opstella:network.rules" in said


def test_a_component_that_declares_more_is_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = Rule(
        target="nfs", source="worker", ports=(20048,), protocols=("udp",), purpose="locks", by="NFS", why="locks", origin="derived"
    )
    monkeypatch.setattr(nfs, "FLOWS", (*nfs.FLOWS, extra))
    stack = build(read(), "opstella/standalone")
    server, worker = stack.topology.clusters[0].nfs, stack.topology.clusters[0].workers[0]
    rule = network.allows(network.openings(server, stack.contract), IPv4Network(worker.address), "udp", 20048)
    assert rule and rule.reason == "derived, NFS: locks"


# Both ends


@pytest.mark.toolchain
@examples(6)
@given(contracts(), st.integers(0))
def test_what_a_machine_needs_it_may_open(stack: Plan, seed: int) -> None:
    """Whoever is let in for a need and is a machine, may open that connection where egress is enforced."""
    contract = stack.contract
    exits = {host: network.exits(host, contract) for host in stack.topology.hosts}
    asked = 0
    for target, *_ in contract.groups:
        for need in contract.needs:
            wanted = network.sources(need, target, contract)
            for host in stack.topology.hosts:
                inside = any(IPv4Network(host.address).subnet_of(n) for n in wanted or ())
                if host == target or not inside:
                    continue
                for port in need.ports:
                    asked += 1
                    assert network.allows(exits[host], IPv4Network(target.address), need.protocols[0], port), (host.name, need)
    assert asked
