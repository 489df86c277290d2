"""opstella:network.rules: what the machines of a role let in beyond the profile, and nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from plan import network, nftables
from plan.contract.export import table
from plan.contract.flow import flows
from tests.plan.packet_filter import parse
from tests.plan.stacks import plan

NEAR, FAR, STRANGER = IPv4Address("10.9.1.7"), IPv4Address("10.10.0.1"), IPv4Address("198.51.100.7")
RULE = {"purpose": "Prometheus of ours", "to": "node", "from": ["10.9.0.0/16", "10.9.1.0/24"], "ports": [9100]}


def let_in(port: int, source: IPv4Address, protocol: str = "tcp", *, strict: bool = False, **changes: Any) -> set[str]:
    """Roles of the machines that let it in, by the plan, with which the text of every ruleset must agree."""
    stack = plan("multicluster", network={"strict": strict, "rules": [{**RULE, **changes}]})
    roles = set()
    for host in {(h.role, h.cluster): h for h in stack.topology.hosts}.values():
        openings = network.openings(host, stack.contract)
        allowed = network.allows(openings, IPv4Network(source), protocol, port) is not None
        assert parse(nftables.ruleset(host, stack.contract)).lets_in(source, protocol, port) == allowed, host.name
        roles |= {host.role} if allowed else set()
    return roles


@pytest.mark.parametrize("strict", [False, True])
def test_a_rule_opens_its_port_to_its_networks_on_its_machines(strict: bool) -> None:
    assert let_in(9100, NEAR, strict=strict) == {"master", "worker"}
    assert let_in(9100, FAR, strict=strict) == set()
    assert let_in(9100, NEAR, "udp", strict=strict) == set()
    assert let_in(9101, NEAR, strict=strict) == set()


@pytest.mark.parametrize("role", ["master", "worker", "gitlab", "nfs", "haproxy"])
def test_a_rule_is_for_one_role(role: str) -> None:
    assert let_in(9100, NEAR, to=role) == {role}


def test_anyone_is_the_whole_world() -> None:
    assert let_in(9100, STRANGER, to="gitlab", **{"from": ["10.0.0.0/8", "0.0.0.0/0"]}) == {"gitlab"}
    halves = {**RULE, "to": "gitlab", "from": ["0.0.0.0/1", "128.0.0.0/1"]}
    (flow,) = [f for f in flows(plan(network={"rules": [halves]}).contract) if f.rule.origin == "custom"]
    assert flow.sources == ()  # and so without a set, which would hold IPv4 alone


@pytest.mark.parametrize("port", [29999, 30000, 30001, 32767, 32768, 40000])
def test_a_range_across_the_node_ports_is_open_in_both_chains(port: int) -> None:
    assert let_in(port, NEAR, "udp", protocols=["tcp", "udp"], ports=["29999-40000"]) == {"master", "worker"}
    assert let_in(port, FAR, "udp", protocols=["tcp", "udp"], ports=["29999-40000"]) == set()


def test_single_node_ports_beside_others() -> None:
    for port in (9100, 30500):
        assert let_in(port, NEAR, ports=[9100, 30500]) == {"master", "worker"}
    assert let_in(30501, NEAR, ports=[9100, 30500]) == set()


def test_it_is_told_whose_rule_it_is() -> None:
    stack = plan(network={"rules": [RULE, {**RULE, "to": "nfs", "purpose": "other"}]})
    told = {(f.role, f.rule.purpose): f for f in flows(stack.contract) if f.rule.origin == "custom"}
    assert {place: f.reason for place, f in told.items()} == {
        ("master", "Prometheus of ours"): "opstella:network.rules[0]",
        ("worker", "Prometheus of ours"): "opstella:network.rules[0]",
        ("nfs", "other"): "opstella:network.rules[1]",
    }
    assert all(f.sources == (IPv4Network("10.9.0.0/16"),) for f in told.values())
    lines = [line.split() for line in table(list(told.values())).splitlines()[1:]]
    assert {line[4] for line in lines} == {"10.9.0.0/16"}


def test_without_rules_of_the_users_nothing_changes() -> None:
    def texts(**sections: Any) -> dict[str, str]:
        stack = plan(**sections)
        return {host.name: nftables.ruleset(host, stack.contract) for host in stack.topology.hosts}

    assert texts(network={"rules": []}) == texts()
    changed = texts(network={"rules": [{**RULE, "to": "nfs"}]})
    assert {name for name, text in texts().items() if changed[name] != text} == {"nfs"}
