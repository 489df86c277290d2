"""Cilium's host policies: what they let into a node is what the plan lets in, weighed by another evaluation."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plan import network, nftables
from plan.contract import cilium
from plan.contract.flow import flows
from plan.plan import Plan
from plan.topology import ClusterHosts
from tests.plan.host_firewall import Peer, lets_in, opened
from tests.plan.packet_filter import parse
from tests.plan.stacks import contracts, examples, plan

STRANGER = IPv4Address("198.51.100.7")
LABELS = {"master": {cilium.CONTROL_PLANE: "true"}, "worker": {}}


def edges(openings: tuple[network.Opening, ...]) -> set[int]:
    """Every port at which the answer may change, and those beside it."""
    bounds = {bound for opening in openings for interval in opening.rule.intervals for bound in interval}
    return {port for bound in bounds for port in (bound - 1, bound, bound + 1) if 1 <= port <= 65535}


@pytest.mark.toolchain
@examples(25)
@given(contracts(), st.data())
def test_what_the_policies_let_in_is_what_the_plan_lets_in(stack: Plan, data: st.DataObject) -> None:
    machines = stack.topology
    told = flows(stack.contract)
    for cluster in machines.clusters:
        policies = cilium.host_policies(told, cluster)
        pod = Peer(next(cluster.settings.pod_subnet.hosts()), pod=True)
        outside = [Peer(address) for address in (STRANGER, IPv4Address("10.200.7.9"))]
        for node in (cluster.masters[-1], data.draw(st.sampled_from(cluster.workers))):
            openings = network.openings(node, stack.contract)
            # What a machine says to itself is judged by neither.
            others = [host for host in machines.hosts if host != node]
            hosts = data.draw(st.lists(st.sampled_from(others), min_size=2, max_size=3))
            for peer in (pod, *outside, *(Peer(host.address) for host in hosts)):
                found = opened(policies, LABELS[node.role], peer)
                for port in edges(openings):
                    for protocol in ("tcp", "udp"):
                        planned = network.allows(openings, IPv4Network(peer.address), protocol, port) is not None
                        let_in = any(low <= port <= high for low, high in found.get(protocol, ()))
                        assert let_in == planned, (node.name, peer, protocol, port)


def of(cluster_name: str = "standalone", **sections: Any) -> tuple[ClusterHosts, list[dict[str, Any]]]:
    stack = plan("standalone" if cluster_name == "standalone" else "multicluster", **sections)
    cluster = next(c for c in stack.topology.clusters if c.name == cluster_name)
    return cluster, cilium.host_policies(flows(stack.contract), cluster)


@pytest.mark.parametrize("role", ["master", "worker"])
def test_icmp_is_taken_as_the_packet_filter_takes_it(role: str) -> None:
    _, policies = of()
    taken = {kind for kind in range(256) if lets_in(policies, LABELS[role], Peer(STRANGER), "icmp", kind)}
    assert taken == {3, 8, 11, 12}  # unreachable, echo request, time exceeded, a parameter's problem
    stack = plan()
    node = next(h for h in stack.topology.hosts if h.role == role)
    names = "icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept"
    assert names in nftables.ruleset(node, stack.contract)


def test_every_node_is_selected_by_one_policy() -> None:
    _, policies = of()
    assert [p["metadata"]["name"] for p in policies] == ["opstella-masters", "opstella-workers"]
    for role, labels in LABELS.items():
        mine = [p for p in policies if not lets_in([p], labels, Peer(STRANGER), "tcp", 2379)]
        assert [p["metadata"]["name"] for p in mine] == [f"opstella-{role}s"]


def test_a_rule_has_the_reason_of_its_flow() -> None:
    rule = {"purpose": "Prometheus of ours", "to": "worker", "from": ["10.9.0.0/16"], "ports": [9100, "9400-9410"]}
    _, (masters, workers) = of(network={"rules": [rule]})
    (ours,) = [s for s in workers["specs"] if s["description"] == "Prometheus of ours: opstella:network.rules[0]"]
    assert ours["ingress"] == [
        {
            "fromCIDRSet": [{"cidr": "10.9.0.0/16"}],
            "toPorts": [
                {"ports": [{"port": "9100", "protocol": "TCP"}, {"port": "9400", "endPort": 9410, "protocol": "TCP"}]}
            ],
        }
    ]
    assert not [s for s in masters["specs"] if "ours" in s["description"]]


def test_many_ports_are_several_lists() -> None:
    ports = list(range(20000, 20100, 2))
    rule = {"purpose": "many", "to": "worker", "from": ["10.9.0.0/16"], "ports": ports, "protocols": ["tcp", "udp"]}
    _, policies = of(network={"rules": [rule]})
    near = Peer(IPv4Address("10.9.0.1"))
    assert [p for p in range(19999, 20101) if lets_in(policies, {}, near, "udp", p)] == ports


def test_pods_are_let_in_by_a_network_that_holds_them_all() -> None:
    cluster, _ = of()
    pods = cluster.settings.pod_subnet
    pod, rule = Peer(pods[5], pod=True), {"purpose": "wide", "to": "worker", "ports": [9999]}
    for networks, expected in (([str(pods.supernet())], True), ([str(pods)], True), (["10.9.0.0/16"], False)):
        _, policies = of(network={"rules": [{**rule, "from": networks}]})
        assert lets_in(policies, {}, pod, "tcp", 9999) == expected, networks
    # Part of them is nothing that Cilium could tell from the rest.
    _, policies = of(network={"rules": [{**rule, "from": [str(next(pods.subnets()))]}]})
    assert not lets_in(policies, {}, pod, "tcp", 9999)


def test_the_text_has_every_cluster() -> None:
    stack = plan("multicluster")
    told, clusters = flows(stack.contract), stack.topology.clusters
    text = cilium.as_yaml(told, clusters, stack.contract)
    assert [line for line in text.splitlines() if line.startswith("#")] == [f"# cluster {c.name}" for c in clusters]
    every = [
        policy
        for cluster in clusters
        for policy in (*cilium.host_policies(told, cluster), cilium.pod_policy(stack.contract, cluster))
    ]
    assert list(yaml.safe_load_all(text)) == every and "&id" not in text


def denied(policy: dict[str, Any], target: IPv4Address, protocol: str, port: int) -> bool:
    """Whether a pod may not open it: by Cilium's "Deny Policies", whatever other policies allow."""
    return any(
        any(target in IPv4Network(one["cidr"]) for one in rule["toCIDRSet"])
        and any(
            one["protocol"] == protocol.upper() and int(one["port"]) <= port <= one.get("endPort", int(one["port"]))
            for ports in rule["toPorts"]
            for one in ports["ports"]
        )
        for spec in policy["specs"]
        for rule in spec["egressDeny"]
    )


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_what_pods_may_not_open_is_what_the_nodes_do_not_forward(architecture: str) -> None:
    rule = {"purpose": "ours", "to": "gitlab", "from": ["172.16.72.0/22"], "ports": [5432, "7000-7010"]}
    stack = plan(architecture, kubernetes={"cni": "cilium"}, network={"rules": [rule]})
    addresses = [*(host.address for host in stack.topology.hosts), *map(IPv4Address, ("169.254.169.254", "198.51.100.7"))]
    for cluster in stack.topology.clusters:
        policy = cilium.pod_policy(stack.contract, cluster)
        rules = parse(nftables.ruleset(cluster.workers[0], stack.contract))
        for address in addresses:
            for port in (1, 22, 53, 80, 443, 2049, 2379, 2381, 5432, 6443, 7000, 7005, 7011, 9100, 9345, 10250, 30443, 65535):
                for protocol in ("tcp", "udp"):
                    refused = not rules.forwards(address, protocol, port)
                    assert denied(policy, address, protocol, port) == refused, (cluster.name, address, protocol, port)


def test_the_pods_policy_denies_and_nothing_more() -> None:
    """Otherwise every pod that no policy selects would be cut off from all else."""
    stack = plan(kubernetes={"cni": "cilium"})
    policy = cilium.pod_policy(stack.contract, stack.topology.clusters[0])
    for spec in policy["specs"]:
        assert spec["endpointSelector"] == {} and spec["enableDefaultDeny"] == {"ingress": False, "egress": False}
        assert set(spec) == {"description", "endpointSelector", "enableDefaultDeny", "egressDeny"}
        for rule in spec["egressDeny"]:
            assert all(0 < len(ports["ports"]) <= 40 for ports in rule["toPorts"]) and rule["toCIDRSet"]
