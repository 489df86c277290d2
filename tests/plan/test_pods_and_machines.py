"""What pods reach of the machines, by the plan, by the ruleset's text, and by packets through a node that masquerades."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from plan import network, nftables
from plan.plan import Plan
from plan.topology import ClusterHosts, Host
from tests.plan.packet_filter import parse
from tests.plan.probe import from_pods
from tests.plan.stacks import plan
from tests.plan.test_real_servers import as_root, needs

METADATA = IPv4Address("169.254.169.254")
STRANGER = IPv4Address("198.51.100.7")
TABLE: tuple[tuple[str, str, int, bool], ...] = (
    ("nfs", "tcp", 2049, False),
    ("nfs", "udp", 2049, False),
    ("nfs", "tcp", 111, False),
    ("nfs", "tcp", 33333, False),
    ("nfs", "tcp", 22, False),
    ("bastion", "tcp", 22, False),
    ("gitlab", "tcp", 443, True),
    ("gitlab", "tcp", 22, True),  # Git over SSH, of which anyone may make use
    ("gitlab", "tcp", 9090, False),
    ("haproxy", "tcp", 443, True),
    ("haproxy", "tcp", 22, False),
    ("haproxy", "tcp", 6443, False),
    ("haproxy", "tcp", 9345, False),
    ("master", "tcp", 6443, True),
    ("master", "tcp", 2379, False),
    ("master", "tcp", 2380, False),
    ("master", "tcp", 9345, False),
    ("master", "tcp", 10250, True),  # metrics-server and Alloy ask every kubelet
    ("worker", "tcp", 10250, True),
    ("worker", "tcp", 22, False),
    ("worker", "tcp", 30443, False),
    ("worker", "udp", 4789, False),
)
PORTS = sorted({port for _, _, port, _ in TABLE} | {53, 80, 12345})


def forwarding(stack: Plan, cluster: ClusterHosts) -> Any:
    return parse(nftables.ruleset(cluster.workers[0], stack.contract))


def others(stack: Plan, role: str, but: Host) -> list[Host]:
    return [host for host in stack.topology.hosts if host.role == role and host != but]


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "as-written"])
@pytest.mark.parametrize(("role", "protocol", "port", "passes"), TABLE)
def test_the_nodes_pass_on_what_is_declared(role: str, protocol: str, port: int, passes: bool, strict: bool) -> None:
    stack = plan(network={"strict": strict})
    (cluster,) = stack.topology.clusters
    for node in (cluster.workers[0], cluster.masters[0]):
        rules = parse(nftables.ruleset(node, stack.contract))
        for host in others(stack, role, node):
            assert rules.forwards(host.address, protocol, port) == passes, f"{host.name} from pods on {node.name}"


def test_of_the_metadata_only_name_servers_are_reached() -> None:
    stack = plan("multicluster")
    for cluster in stack.topology.clusters:
        rules = forwarding(stack, cluster)
        for address in (METADATA, IPv4Address("169.254.170.2"), IPv4Address("168.63.129.16"), IPv4Address("100.100.100.200")):
            assert not any(rules.forwards(address, protocol, port) for protocol in ("tcp", "udp") for port in (80, 443, 1338, 32526))
            assert rules.forwards(address, "udp", 53) and rules.forwards(address, "tcp", 53)


def test_what_is_no_machine_is_not_held_back() -> None:
    stack = plan("multicluster")
    for cluster in stack.topology.clusters:
        rules = forwarding(stack, cluster)
        for address in (STRANGER, cluster.settings.pod_subnet[9], cluster.settings.service_subnet[1], cluster.settings.subnet[250]):
            assert rules.forwards(address, "tcp", 22) and rules.forwards(address, "udp", 2049)


def test_machines_of_other_clusters_are_reached_by_their_public_names_only() -> None:
    stack = plan("multicluster")
    here, *elsewhere = stack.topology.clusters
    rules = forwarding(stack, elsewhere[0])
    for host in here.own:
        for port in PORTS:
            assert rules.forwards(host.address, "tcp", port) == (host.role == "haproxy" and port in (80, 443)), (host.name, port)
    # Headlamp asks the API of every cluster, at its load balancer.
    assert forwarding(stack, here).forwards(elsewhere[0].entrance, "tcp", 6443)


def test_a_virtual_address_is_one_of_the_machines() -> None:
    addresses = {"count": 2, "addresses": ["192.168.72.31", "192.168.72.32"], "virtualAddress": "192.168.72.30"}
    stack = plan(clusters={"standalone": {"loadBalancer": addresses}})
    rules = forwarding(stack, stack.topology.clusters[0])
    for address in map(IPv4Address, ("192.168.72.30", "192.168.72.31", "192.168.72.32")):
        assert rules.forwards(address, "tcp", 443) and not rules.forwards(address, "tcp", 22)


def test_a_rule_of_the_users_lets_pods_in_by_their_own_network() -> None:
    rule = {"purpose": "our database", "to": "gitlab", "ports": [5432, "7000-7010"]}
    for sources, passes in (([], None), (["172.16.72.0/22"], True), (["192.168.72.0/24"], False), (["0.0.0.0/0"], True)):
        stack = plan(network={"rules": [{**rule, "from": sources}]} if sources else {})
        rules = forwarding(stack, stack.topology.clusters[0])
        for port in (5432, 7003):
            assert rules.forwards(stack.topology.gitlab.address, "tcp", port) == bool(passes), sources


def test_only_nodes_forward() -> None:
    stack = plan("multicluster")
    for host in stack.topology.hosts:
        forwards = "hook forward" in nftables.ruleset(host, stack.contract)
        assert forwards == (host.role in ("master", "worker"))


def passed(stack: Plan, worker: Host, ruleset: str) -> dict[str, set[tuple[str, int]]]:
    """By name, what a pod of `worker` reaches of the machines, each with its own ruleset, and of the metadata's address."""
    (cluster,) = stack.topology.clusters
    pod = cluster.settings.pod_subnet[7]
    machines = {host.name: host.address for host in stack.topology.hosts if host != worker}
    found = from_pods(
        {
            "node": str(worker.address), "ruleset": ruleset, "pods": [str(pod)], "ports": PORTS,
            "machines": [
                *(
                    {"addresses": [str(h.address)], "ruleset": nftables.ruleset(h, stack.contract)}
                    for h in stack.topology.hosts if h != worker
                ),
                {"addresses": [str(METADATA)]}, {"addresses": [str(STRANGER)]},
            ],
        }
    )  # fmt: skip
    names = {**machines, "metadata": METADATA, "stranger": STRANGER}
    return {name: {(p, port) for p, port in found[f"{pod} > {address}"]} for name, address in names.items()}


def small() -> Plan:
    nodes = {"masters": {"count": 1, "cpu": 4, "memoryGb": 16}, "workers": {"count": 2, "cpu": 16, "memoryGb": 64}}
    return plan(clusters={"standalone": nodes})


@needs("nft")
@pytest.mark.toolchain
@as_root
def test_packets_of_a_pod_reach_what_the_plan_allows_and_nothing_else() -> None:
    stack = small()
    (cluster,) = stack.topology.clusters
    worker = cluster.workers[0]
    found = passed(stack, worker, nftables.ruleset(worker, stack.contract))
    everything = {("icmp", 0), *((protocol, port) for protocol in ("tcp", "udp") for port in PORTS)}
    assert found.pop("stranger") == everything
    assert found.pop("metadata") == {("tcp", 53), ("udp", 53)}
    forwarded = network.of_pods(cluster, stack.contract)
    for name, reached in found.items():
        (host,) = (h for h in stack.topology.hosts if h.name == name)
        taken = network.openings(host, stack.contract)
        assert reached == {("icmp", 0)} | {
            (protocol, port)
            for protocol in ("tcp", "udp") for port in PORTS
            if any(IPv4Network(host.address).subnet_of(n) and o.rule.opens(protocol, port) for o in forwarded for n in o.networks)
            and network.allows(taken, IPv4Network(worker.address), protocol, port)
        }, name  # fmt: skip
    assert found["nfs"] == {("icmp", 0)} and ("tcp", 6443) in found["master-1"] and ("tcp", 443) in found["gitlab"]


@needs("nft")
@pytest.mark.toolchain
@as_root
def test_without_the_nodes_rules_a_pod_is_taken_for_its_worker() -> None:
    """What the rules are for: behind the node's address NFS and the metadata are open to it."""
    stack = small()
    worker = stack.topology.clusters[0].workers[0]
    ruleset = re.sub(r"    chain (forward|pods_to_machines) \{\n(.+\n)*?    \}\n", "", nftables.ruleset(worker, stack.contract))
    assert "forward" not in ruleset
    found = passed(stack, worker, ruleset)
    assert ("tcp", 2049) in found["nfs"] and ("tcp", 80) in found["metadata"]
