"""One load balancer or two: names, addresses, what leads to them, and who may speak for their virtual address."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from plan import haproxy, hosts, keepalived, network, rke2
from plan.plan import Plan, as_data
from tests.plan.packet_filter import parse
from tests.plan.stacks import examples, plan, stacks, written

TWO = {"count": 2, "virtualAddress": "192.168.72.10", "addresses": ["192.168.72.12", "192.168.72.9"]}
VRRP = "112"


def standalone(balancer: dict[str, Any]) -> Plan:
    return plan(clusters={"standalone": {"loadBalancer": balancer}})


def test_a_second_one_moves_nothing_and_is_called_after_the_first() -> None:
    before, after = ({h.name: h for h in standalone(b).topology.hosts} for b in ({}, TWO))
    assert set(before) - set(after) == {"haproxy"}
    assert set(after) - set(before) == {"haproxy-1", "haproxy-2"}
    assert after["haproxy-1"].address == before["haproxy"].address
    assert all(after[name] == host for name, host in before.items() if name != "haproxy")
    # Either knows the other's name, so that the engine takes them for the same machine in both directions.
    assert after["haproxy-1"].other_names == ("haproxy",) and before["haproxy"].other_names == ("haproxy-1",)
    assert after["haproxy-2"].other_names == ()


def test_the_virtual_address_is_not_allocated() -> None:
    addresses = {h.name: str(h.address) for h in standalone({"virtualAddress": "192.168.72.12"}).topology.hosts}
    assert (addresses["haproxy"], addresses["nfs"]) == ("192.168.72.13", "192.168.72.14")


@examples(20)
@given(stacks())
def test_everything_leads_to_the_entrance_and_only_load_balancers_hold_it(stack: Plan) -> None:
    machines = {h.address for h in stack.topology.hosts}
    for cluster, data in zip(stack.topology.clusters, as_data(stack)["clusters"], strict=True):
        virtual = cluster.settings.load_balancer.virtual_address
        own = {b.address for b in cluster.load_balancers}
        assert cluster.entrance == virtual or (virtual is None and {cluster.entrance} == own)
        assert virtual not in machines
        led = {r.address for r in stack.records if r.cluster == cluster.name}
        assert led == {cluster.entrance}
        assert rke2.api_url(cluster) == f"https://{cluster.entrance}:6443"
        assert data["load_balancer"] == str(cluster.entrance)
        assert data["load_balancers"] == [b.name for b in cluster.load_balancers]
        master = rke2.node_config(cluster, cluster.masters[0], stack.settings.kubernetes, "api.x")
        assert {str(cluster.entrance), *map(str, own)} <= set(master["tls-san"])
        assert len(master["tls-san"]) == len(set(master["tls-san"]))
        # What they forward comes from their own addresses.
        admitted = {a for n in cluster.networks["haproxy"] for a in n}
        assert admitted == own


@examples(20)
@given(stacks())
def test_vrrp_is_let_in_from_the_other_load_balancer_only(stack: Plan) -> None:
    peers = {h.address for h in stack.topology.hosts} | {IPv4Address("198.51.100.7")}
    for cluster in stack.topology.clusters:
        for host in (*cluster.load_balancers, cluster.nfs, cluster.masters[0], cluster.workers[0]):
            rules = parse(network.ruleset(host, stack.settings, stack.topology))
            others = {b.address for b in cluster.load_balancers if b != host} if host.role == "haproxy" else set()
            assert {p for p in peers if rules.lets_in(p, VRRP, 0)} == others, host.name


def values_in(text: str, keyword: str) -> list[str]:
    return re.findall(rf"^ +{keyword} (.+)$", text, re.M)


@examples(20)
@given(stacks())
def test_two_agree_on_all_but_who_they_are(stack: Plan) -> None:
    for cluster in stack.topology.clusters:
        texts = [keepalived.configuration(cluster, b) for b in cluster.load_balancers]
        if len(texts) == 1:
            continue
        one, two = texts
        for keyword in ("virtual_router_id", "advert_int", "vrrp_version", "state"):
            assert values_in(one, keyword) == values_in(two, keyword) != []
        assert values_in(one, "priority") != values_in(two, "priority")
        # No preemption works only from this state.
        assert values_in(one, "state") == ["BACKUP"] and "    nopreempt\n" in one and "    nopreempt\n" in two
        first, second = cluster.load_balancers
        assert values_in(one, "unicast_src_ip") == [str(first.address)]
        assert f"unicast_peer {{\n        {second.address}\n    }}" in one
        assert f"unicast_peer {{\n        {first.address}\n    }}" in two
        virtual = cluster.settings.load_balancer.virtual_address
        assert all(f"        {virtual}/32 dev @INTERFACE@\n" in text for text in texts)
        assert 1 <= int(values_in(one, "virtual_router_id")[0]) <= 255


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_a_router_id_is_one(address: IPv4Address) -> None:
    assert 1 <= keepalived.router_id(address) <= 255


def test_the_check_asks_what_haproxy_answers() -> None:
    cluster = standalone(TWO).topology.clusters[0]
    text = haproxy.configuration(cluster)
    (asked,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", keepalived.configuration(cluster, cluster.load_balancers[0]))
    assert f"bind 127.0.0.1:{asked[0]}\n" in text and f"monitor-uri {asked[1]}\n" in text


def test_the_time_to_take_over_is_within_what_clients_bear() -> None:
    """Three missed advertisements and the skew, or the check's failures and its last time-out; then one of its requests."""
    lost = keepalived.ADVERTISEMENT_SECONDS * 4
    hung = keepalived.CHECK_SECONDS * (keepalived.CHECK_FAILURES + 1) + keepalived.ADVERTISEMENT_SECONDS
    assert max(lost, hung) <= 4


def test_one_with_a_virtual_address_holds_it_alone() -> None:
    cluster = standalone({"virtualAddress": "192.168.72.10"}).topology.clusters[0]
    (host,) = cluster.load_balancers
    assert (host.name, str(cluster.entrance)) == ("haproxy", "192.168.72.10")
    text = keepalived.configuration(cluster, host)
    assert "static_ipaddress {\n    192.168.72.10/32 dev @INTERFACE@\n}" in text
    assert "vrrp_instance" not in text
    assert keepalived.values(cluster, host)["peers"] == []


def test_without_a_virtual_address_there_is_no_keepalived() -> None:
    cluster = standalone({}).topology.clusters[0]
    assert keepalived.values(cluster, cluster.load_balancers[0]) == {}
    assert keepalived.configuration(cluster, cluster.load_balancers[0]) == ""


def test_first_contact_does_not_count_the_address_that_passes_from_one_to_the_other() -> None:
    stack = standalone(TWO)
    told = {h.name: hosts.preflight(h, stack.settings, stack.stack)["passing_addresses"] for h in stack.topology.hosts}
    assert told.pop("haproxy-1") == told.pop("haproxy-2") == ("192.168.72.10",)
    assert set(told.values()) == {()}


@examples(20)
@given(written())
def test_two_on_one_address_are_refused(values: dict[str, Any]) -> None:
    name = next((n for n, c in values["clusters"].items() if c["loadBalancer"].get("count") == 2), None)
    assume(name is not None)
    assert name is not None
    cluster = values["clusters"][name]
    same = {**cluster["loadBalancer"], "addresses": [cluster["loadBalancer"]["addresses"][0]] * 2}
    with pytest.raises(ConfigurationError, match="is given to opstella:clusters"):
        plan("custom", **values | {"clusters": values["clusters"] | {name: {**cluster, "loadBalancer": same}}})
