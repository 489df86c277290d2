"""opstella:network.egress: what machines may open themselves, where it is enforced."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan import network, nftables
from plan.media import required_artifacts
from plan.plan import Plan, as_data, build
from plan.topology import Host
from tests.plan.packet_filter import parse
from tests.plan.stacks import contracts, examples, plan, read

ELSEWHERE, RESOLVER, CLOCK = IPv4Address("198.51.100.7"), "192.0.2.53", "192.0.2.123"
AIRGAP = {"source": "airgap", "artifacts": "http://192.0.2.80:8000/media", "chartRepository": "http://192.0.2.80:8000/charts", "allowHttp": True}


def enforced(architecture: str = "standalone", egress: dict[str, Any] | None = None, **sections: Any) -> Plan:
    """A stack that fetches from places of its own, so that nothing leads to the web."""
    sums = dict.fromkeys(required_artifacts(read()), "0" * 64)
    given = {"dns": {"servers": [RESOLVER]}, "time": {"servers": [CLOCK]}, "media": {**AIRGAP, "sha256": sums}, **sections}
    return plan(architecture, network={"egress": {"enforce": True, **(egress or {})}}, **given)


def host(stack: Plan, name: str) -> Host:
    return next(h for h in stack.topology.hosts if h.name == name)


def may(stack: Plan, source: str, target: IPv4Address | str, port: int, protocol: str = "tcp") -> bool:
    """The plan's answer, with which the ruleset's text must agree."""
    address = IPv4Address(target) if "." in str(target) else host(stack, str(target)).address
    answer = network.allows(network.exits(host(stack, source), stack.contract), IPv4Network(address), protocol, port)
    text = parse(nftables.ruleset(host(stack, source), stack.contract)).lets_out(address, protocol, port)
    assert text == (answer is not None)
    return text


def test_without_it_nothing_holds_back_what_goes_out() -> None:
    stack = plan()
    for one in stack.topology.hosts:
        text = nftables.ruleset(one, stack.contract)
        assert "output" not in text and parse(text).lets_out(ELSEWHERE, "tcp", 25)
    assert not any("outbound" in h for h in as_data(stack)["hosts"])


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("bastion", {("haproxy", 22), ("nfs", 22), ("gitlab", 22), ("master-1", 22), ("worker-1", 22), ("worker-2", 22), ("haproxy", 6443)}),
        ("haproxy", {("master-1", 6443), ("master-1", 9345), ("worker-1", 30080), ("worker-1", 30443), ("worker-2", 30080),
                     ("worker-2", 30443)}),
        ("nfs", set()),
        ("gitlab", {("haproxy", 443)}),
        (
            "master-1",
            {("haproxy", 443), ("haproxy", 6443), ("haproxy", 9345), ("gitlab", 443), ("worker-1", 10250), ("worker-1", 5473),
             ("worker-1", 9100), ("worker-2", 10250), ("worker-2", 5473), ("worker-2", 9100)},
        ),
        (
            "worker-1",
            {("haproxy", 443), ("haproxy", 6443), ("haproxy", 9345), ("gitlab", 443), ("nfs", 2049), ("master-1", 6443),
             ("master-1", 9345), ("master-1", 2381), ("master-1", 10250), ("master-1", 5473), ("master-1", 9100),
             ("worker-2", 10250), ("worker-2", 5473), ("worker-2", 9100)},
        ),
    ],
)  # fmt: skip
def test_a_machine_reaches_what_it_needs_and_no_other(source: str, reached: set[tuple[str, int]]) -> None:
    stack = enforced()
    ports = (22, 80, 111, 179, 443, 2049, 2379, 2381, 5473, 6443, 8000, 9090, 9100, 9345, 10250, 30080, 30443)
    targets = [name for name in ("bastion", "haproxy", "nfs", "gitlab", "master-1", "worker-1", "worker-2") if name != source]
    assert {(t, p) for t in targets for p in ports if may(stack, source, t, p)} == reached
    udp = {(t, p) for t in targets for p in (53, 111, 123, 2049, 4789) if may(stack, source, t, p, "udp")}
    nodes = {"master-1", "worker-1", "worker-2"}
    assert udp == ({(t, 4789) for t in nodes - {source}} if source in nodes else set())


@pytest.mark.parametrize("source", ["bastion", "haproxy", "nfs", "gitlab", "master-1", "worker-1"])
def test_names_time_and_media_are_where_the_settings_say(source: str) -> None:
    stack = enforced()
    assert may(stack, source, RESOLVER, 53, "udp") and may(stack, source, RESOLVER, 53)
    assert may(stack, source, CLOCK, 123, "udp") and not may(stack, source, CLOCK, 123)
    assert not may(stack, source, ELSEWHERE, 53, "udp") and not may(stack, source, ELSEWHERE, 123, "udp")
    assert may(stack, source, "192.0.2.80", 8000) == (source in ("gitlab", "master-1", "worker-1"))
    assert not may(stack, source, ELSEWHERE, 443) and not may(stack, source, ELSEWHERE, 80)


def test_what_is_named_and_not_addressed_is_open_by_its_port() -> None:
    """Whose address a name has, a packet filter cannot know."""
    stack = plan(network={"egress": {"enforce": True}})
    assert may(stack, "nfs", ELSEWHERE, 123, "udp") and may(stack, "nfs", ELSEWHERE, 53, "udp")
    assert may(stack, "nfs", ELSEWHERE, 443) and not may(stack, "nfs", ELSEWHERE, 25)
    through_proxy = plan(network={"egress": {"enforce": True}}, proxy={"http": "http://192.0.2.3:3128"})
    assert may(through_proxy, "nfs", "192.0.2.3", 3128) and not may(through_proxy, "nfs", ELSEWHERE, 443)


def test_nodes_reach_their_own_pods_and_services() -> None:
    stack = enforced("multicluster", clusters={"dev": {"podSubnet": "172.20.0.0/22", "serviceSubnet": "172.20.4.0/22"}})
    for address in ("172.20.1.7", "172.20.4.1"):
        assert may(stack, "dev-worker-1", address, 8443) and may(stack, "dev-master-1", address, 53, "udp")
        assert not may(stack, "prd-worker-1", address, 8443) and not may(stack, "dev-nfs", address, 8443)


def test_other_clusters_are_reached_by_their_public_names_only() -> None:
    stack = enforced("multicluster")
    assert may(stack, "dev-worker-1", "devsecops-haproxy", 443)
    for target, port in (("devsecops-worker-1", 10250), ("devsecops-master-1", 6443), ("prd-nfs", 2049)):
        assert not may(stack, "dev-worker-1", target, port)


def test_the_users_own_rules() -> None:
    mirror = {"purpose": "mirror", "from": "nfs", "to": ["10.9.0.0/16", "10.9.1.0/24"], "ports": [80, "8000-8010"]}
    everyone = {"purpose": "logs", "to": ["10.8.0.1/32"], "ports": [514], "protocols": ["udp"]}
    stack = enforced(egress={"rules": [mirror, everyone]})
    assert may(stack, "nfs", "10.9.1.1", 8005) and not may(stack, "haproxy", "10.9.1.1", 8005)
    assert not may(stack, "nfs", "10.9.1.1", 8011) and not may(stack, "nfs", "10.10.0.1", 80)
    for one in stack.topology.hosts:
        assert may(stack, one.name, "10.8.0.1", 514, "udp") and not may(stack, one.name, "10.8.0.1", 514)
    rule = network.allows(network.exits(host(stack, "nfs"), stack.contract), IPv4Network("10.9.1.1"), "tcp", 80)
    assert rule and rule.reason == "opstella:network.egress.rules[0]"


def test_whom_a_rule_of_the_users_lets_in_may_come() -> None:
    own = {"purpose": "theirs", "to": "worker", "from": ["192.168.72.14/32"], "ports": [9400]}
    stack = plan(network={"egress": {"enforce": True}, "rules": [own]}, proxy={"http": "http://192.0.2.3:3128"})
    assert host(stack, "gitlab").address == IPv4Address("192.168.72.14")
    assert may(stack, "gitlab", "worker-1", 9400) and not may(stack, "nfs", "worker-1", 9400)


def test_a_lease_is_renewed_and_echoes_pass() -> None:
    text = nftables.ruleset(enforced().topology.bastion, enforced().contract)
    assert "udp sport 68 udp dport 67 accept" in text and "meta l4proto { 1, 2, 58 } accept" in text
    assert text.index('log prefix "opstella egress drop: "') < text.index("counter reject with icmpx admin-prohibited")


def test_the_plan_tells_it() -> None:
    (one,) = (h for h in as_data(enforced())["hosts"] if h["name"] == "nfs")
    assert {(tuple(o["ports"]), *o["to"]) for o in one["outbound"]} == {((53,), f"{RESOLVER}/32"), ((123,), f"{CLOCK}/32")}


@pytest.mark.toolchain
@examples(5)
@given(contracts(), st.integers(0))
def test_the_text_says_what_the_plan_says(stack: Plan, seed: int) -> None:
    """For any stack: everything that it may open of machines, and the port beside."""
    sections = stack.settings.model_copy(
        update={
            "network": stack.settings.network.model_copy(
                update={"egress": stack.settings.network.egress.model_copy(update={"enforce": True})}
            )
        }
    )
    stack = build(sections, "opstella/custom")
    targets = [*(group[0].address for group in stack.contract.groups), ELSEWHERE]
    for one, *_ in stack.contract.groups:
        found, text = network.exits(one, stack.contract), parse(nftables.ruleset(one, stack.contract))
        ports = {p for o in found for low, high in o.rule.intervals for p in (low, high, high + 1) if p < 65536}
        for target in targets:
            for port in ports:
                for protocol in ("tcp", "udp"):
                    allowed = network.allows(found, IPv4Network(target), protocol, port) is not None
                    assert text.lets_out(target, protocol, port) == allowed, f"{one.name} to {target} {protocol}/{port}"
