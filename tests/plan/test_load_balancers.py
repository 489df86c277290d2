"""One load balancer or two, of one cluster or several: names, addresses, what leads to them, and who may speak for
their virtual addresses."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from plan import haproxy, hosts, keepalived, nftables, rke2
from plan.contract.flow import flows
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
        before = {b.address for b in cluster.load_balancers}
        own = {b.address for b in cluster.load_balancers if b.cluster == cluster.name}
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
        assert admitted == before


@examples(20)
@given(stacks())
def test_vrrp_is_let_in_from_the_other_load_balancer_only(stack: Plan) -> None:
    peers = {h.address for h in stack.topology.hosts} | {IPv4Address("198.51.100.7")}
    for cluster in stack.topology.clusters:
        for host in (*cluster.load_balancers, cluster.nfs, cluster.masters[0], cluster.workers[0]):
            rules = parse(nftables.ruleset(host, stack.contract))
            others = {b.address for b in cluster.load_balancers if b != host} if host.role == "haproxy" else set()
            assert {p for p in peers if rules.lets_in(p, VRRP, 0)} == others, host.name


def values_in(text: str, keyword: str) -> list[str]:
    return re.findall(rf"^ +{keyword} (.+)$", text, re.M)


@examples(20)
@given(stacks())
def test_two_agree_on_all_but_who_they_are(stack: Plan) -> None:
    for balancer in stack.topology.load_balancers:
        if len(balancer.hosts) == 1:
            continue
        first, second = balancer.hosts
        one, two = (instances(keepalived.configuration(balancer, host)) for host in balancer.hosts)
        assert list(one) == list(two) and len(one) == len(balancer.clusters)
        for cluster, name in zip(balancer.clusters, one, strict=True):
            for keyword in ("virtual_router_id", "advert_int", "state"):
                assert values_in(one[name], keyword) == values_in(two[name], keyword) != []
            assert values_in(one[name], "priority") != values_in(two[name], "priority")
            # No preemption works only from this state.
            assert values_in(one[name], "state") == ["BACKUP"]
            assert all("    nopreempt\n" in text for text in (one[name], two[name]))
            assert values_in(one[name], "unicast_src_ip") == [str(first.address)]
            assert f"unicast_peer {{\n        {second.address}\n    }}" in one[name]
            assert f"unicast_peer {{\n        {first.address}\n    }}" in two[name]
            held = f"virtual_ipaddress {{\n        {cluster.entrance}/32 dev @INTERFACE@\n    }}"
            assert held in one[name] and held in two[name]
        identifiers = [int(values_in(text, "virtual_router_id")[0]) for text in one.values()]
        assert len(set(identifiers)) == len(identifiers) and all(1 <= number <= 255 for number in identifiers)


def instances(text: str) -> dict[str, str]:
    """The VRRP instances of keepalived.conf by their names."""
    return dict(re.findall(r"^vrrp_instance (\S+) {\n(.*?)^}$", text, re.M | re.S))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_a_router_id_is_one(address: IPv4Address) -> None:
    assert 1 <= keepalived.router_id(address) <= 255


def test_the_check_asks_what_haproxy_answers() -> None:
    (balancer,) = standalone(TWO).topology.load_balancers
    text = haproxy.configuration(balancer)
    (asked,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", keepalived.configuration(balancer, balancer.hosts[0]))
    assert f"bind 127.0.0.1:{asked[0]}\n" in text and f"monitor-uri {asked[1]}\n" in text


def test_the_time_to_take_over_is_within_what_clients_bear() -> None:
    """Three missed advertisements and the skew, or the check's failures and its last time-out; then one of its requests."""
    lost = keepalived.ADVERTISEMENT_SECONDS * 4
    hung = keepalived.CHECK_SECONDS * (keepalived.CHECK_FAILURES + 1) + keepalived.ADVERTISEMENT_SECONDS
    assert max(lost, hung) <= 4


def test_one_with_a_virtual_address_holds_it_alone() -> None:
    (balancer,) = standalone({"virtualAddress": "192.168.72.10"}).topology.load_balancers
    (host,) = balancer.hosts
    assert (host.name, str(balancer.owner.entrance)) == ("haproxy", "192.168.72.10")
    text = keepalived.configuration(balancer, host)
    assert "static_ipaddress {\n    192.168.72.10/32 dev @INTERFACE@\n}" in text
    assert "vrrp_instance" not in text
    assert keepalived.values(balancer, host)["peers"] == []


def test_without_a_virtual_address_there_is_no_keepalived() -> None:
    (balancer,) = standalone({}).topology.load_balancers
    assert keepalived.values(balancer, balancer.hosts[0]) == {}
    assert keepalived.configuration(balancer, balancer.hosts[0]) == ""


def test_first_contact_does_not_count_the_address_that_passes_from_one_to_the_other() -> None:
    stack = standalone(TWO)
    told = {h.name: hosts.preflight(h, stack.settings, stack.topology, stack.stack)["passing_addresses"] for h in stack.topology.hosts}
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


# Of several clusters


def cluster(number: int, balancer: dict[str, Any]) -> dict[str, Any]:
    workers = {"count": 1, "cpu": 64, "memoryGb": 256}
    return {"subnet": f"10.{number}.0.0/23", "loadBalancer": balancer, "masters": {"count": 1}, "workers": workers}


def several(owner: dict[str, Any], *addresses: str) -> Plan:
    """A cluster `own` with `owner` for its load balancer, and `c1`, `c2`, … behind that at `addresses`."""
    others = {
        f"c{number}": cluster(number, {"sharedWith": "own", "virtualAddress": address})
        for number, address in enumerate(addresses, 1)
    }
    return plan("custom", clusters={**others, "own": cluster(0, owner)})


PAIR = {"count": 2, "virtualAddress": "10.0.0.4", "addresses": ["10.0.0.2", "10.0.0.3"]}


def test_a_cluster_that_shares_has_no_such_machine_and_everything_of_it_leads_to_its_own_address() -> None:
    stack = several(PAIR, "10.0.0.5", "10.0.0.6")
    balancers = [h.name for h in stack.topology.hosts if h.role == "haproxy"]
    assert balancers == ["own-haproxy-1", "own-haproxy-2"]
    (balancer,) = stack.topology.load_balancers
    assert [c.name for c in balancer.clusters] == ["own", "c1", "c2"]
    assert stack.total.nodes == len(stack.topology.hosts) == 2 + 2 + 3 * 3
    for entry in as_data(stack)["clusters"]:
        assert entry["load_balancers"] == balancers
        assert entry["load_balancer"] == {"own": "10.0.0.4", "c1": "10.0.0.5", "c2": "10.0.0.6"}[entry["name"]]
    # The machines' own addresses lead to the cluster whose machines they are.
    names = {
        c.name: set(rke2.node_config(c, c.masters[0], stack.settings.kubernetes, "api.x")["tls-san"])
        for c in stack.topology.clusters
    }
    assert names["c1"] == {"10.0.0.5", "api.x", str(stack.topology.clusters[0].masters[0].address)}
    assert names["own"] >= {"10.0.0.2", "10.0.0.3", "10.0.0.4"}


def test_one_more_cluster_behind_it_changes_nothing_of_the_others_way() -> None:
    """keepalived and HAProxy go on with what they have: the same instances, the same frontends' ports and backends."""
    before, after = several(PAIR, "10.0.0.5"), several(PAIR, "10.0.0.5", "10.0.0.6")
    (one,), (other,) = before.topology.load_balancers, after.topology.load_balancers
    assert one.hosts == other.hosts
    for host in one.hosts:
        had, has = (instances(keepalived.configuration(b, host)) for b in (one, other))
        assert has == had | {"entrance-c2": has["entrance-c2"]}
    had, has = (dict(re.findall(r"^backend (\S+)\n((?: .+\n)*)", haproxy.configuration(b), re.M)) for b in (one, other))
    assert {name: body for name, body in has.items() if not name.endswith("-c2")} == had


def test_a_single_machine_holds_the_addresses_of_all_and_needs_none_for_its_own_cluster() -> None:
    stack = several({"address": "10.0.0.2"}, "10.0.0.5", "10.0.0.6")
    (balancer,) = stack.topology.load_balancers
    (host,) = balancer.hosts
    assert str(balancer.owner.entrance) == "10.0.0.2"
    text = keepalived.configuration(balancer, host)
    assert "static_ipaddress {\n    10.0.0.5/32 dev @INTERFACE@\n    10.0.0.6/32 dev @INTERFACE@\n}" in text
    assert keepalived.values(balancer, host)["virtual_addresses"] == ["10.0.0.5", "10.0.0.6"]
    assert hosts.preflight(host, stack.settings, stack.topology, stack.stack)["passing_addresses"] == ("10.0.0.5", "10.0.0.6")


def test_the_addresses_of_all_are_kept_free_in_the_subnet_of_the_machines() -> None:
    taken = {h.address for h in several({}, "10.0.0.11", "10.0.0.12").topology.hosts}
    assert not taken & {IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12")}


def test_its_packet_filter_lets_in_the_nodes_of_all_and_each_clusters_nodes_let_it_in() -> None:
    stack = several(PAIR, "10.0.0.5")
    (balancer,) = stack.topology.load_balancers
    for host in balancer.hosts:
        rules = parse(nftables.ruleset(host, stack.contract))
        for node in (node for c in balancer.clusters for node in c.nodes):
            assert rules.lets_in(node.address, "tcp", 9345) and rules.lets_in(node.address, "tcp", 6443)
        stranger = next(c.nfs.address for c in stack.topology.clusters)
        assert not rules.lets_in(stranger, "tcp", 9345)
        for c in balancer.clusters:
            master = parse(nftables.ruleset(c.masters[0], stack.contract))
            worker = parse(nftables.ruleset(c.workers[0], stack.contract))
            assert master.lets_in(host.address, "tcp", 9345) and worker.lets_in(host.address, "tcp", 30443)


def test_whoever_filters_in_front_of_the_machines_is_told_every_address() -> None:
    stack = several({"address": "10.0.0.2"}, "10.0.0.5", "10.0.0.6")
    told = [flow for flow in flows(stack.contract) if flow.role == "haproxy" and 443 in flow.rule.ports]
    assert {str(a) for flow in told for network in flow.addresses for a in network} == {"10.0.0.2", "10.0.0.5", "10.0.0.6"}


def test_two_machines_cannot_tell_addresses_of_one_last_number_apart() -> None:
    with pytest.raises(ConfigurationError) as caught:
        several(PAIR, "10.0.1.4")
    (problem,) = caught.value.problems
    assert problem.key == "opstella:clusters.c1.loadBalancer.virtualAddress"
    assert "10.0.1.4 and opstella:clusters.own.loadBalancer.virtualAddress have the same last number" in problem.what
    assert several({"virtualAddress": "10.0.0.4"}, "10.0.1.4").topology.load_balancers, "a machine alone asks nobody"
