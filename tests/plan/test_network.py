"""The packet filter: every row of the reference's tables on the right machines, and nothing else but what has a reason.

The expectation below is written from the tables; the plan's own lists take no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan import gitlab, network, nftables
from plan.plan import Plan
from plan.topology import Host
from tests.plan.packet_filter import parse
from tests.plan.stacks import as_written, examples, plan, stacks

TCP, UDP, BOTH = ("tcp",), ("udp",), ("tcp", "udp")

# Target, protocols, ports, source; in the order of the tables. Where a table's protocol cell is merged away, the
# other table's protocol stands here. VXLAN is UDP, though the multi-cluster table says TCP.
ROWS: tuple[tuple[str, tuple[str, ...], tuple[int, ...], str], ...] = (
    ("master", TCP, (6443,), "haproxy"),
    ("master", TCP, (6443,), "worker"),
    ("master", TCP, (9345,), "master"),
    ("master", TCP, (9345,), "worker"),
    ("master", TCP, (2379,), "master"),
    ("master", TCP, (2380,), "master"),
    ("master", TCP, (2381,), "master"),
    ("worker", TCP, (30080, 30443), "haproxy"),
    ("node", TCP, (10250,), "any"),
    ("node", TCP, (179,), "node"),
    ("node", UDP, (4789,), "node"),
    ("node", TCP, (5473,), "node"),
    ("node", TCP, (9098,), "node"),
    ("node", TCP, (9099,), "node"),
    ("gitlab", TCP, (80, 443), "any"),
    ("gitlab", TCP, (22,), "any"),
    ("gitlab", TCP, (9090,), "any"),
    ("nfs", BOTH, (2049,), "worker"),
    ("nfs", BOTH, (111,), "worker"),
    ("nfs", BOTH, (33333,), "worker"),
    ("haproxy", TCP, (80, 443), "any"),
)
SEVERAL_CLUSTERS_ROW = ("haproxy", TCP, (6443,), "headlamp")
STANDALONE_ROWS = (("master", TCP, (6443,), "any"),)
# What the tables lack: the way in, the API and the registration address at the load balancer, the API from pods and
# other masters, and the metrics of nodes and etcd from whoever scrapes.
DERIVED = (
    ("bastion", TCP, (22,), "operator"),
    ("all", TCP, (22,), "bastion"),
    ("haproxy", TCP, (6443,), "operator"),
    ("haproxy", TCP, (6443, 9345), "node"),
    ("master", TCP, (9345,), "haproxy"),
    ("master", TCP, (6443,), "master"),
    ("master", TCP, (6443,), "pods"),
    ("node", TCP, (9100,), "node"),
    ("node", TCP, (9100,), "pods"),
    ("master", TCP, (2381,), "worker"),
    ("master", TCP, (2381,), "pods"),
)
OF_ALLOY = tuple(row for row in DERIVED if row[2] in ((9100,), (2381,)))
# Every port of the tables, and some that none of them opens.
PORTS = tuple(sorted({p for row in (*ROWS, *DERIVED) for p in row[2]} | {1, 23, 8404, 10257, 30081, 32767, 65535}))
STRANGER = IPv4Address("198.51.100.7")


@dataclass(frozen=True)
class Peer:
    """Whoever opens a connection: a machine, a pod of a cluster, or a stranger."""

    address: IPv4Address
    role: str
    cluster: str | None = None


def peers(stack: Plan) -> list[Peer]:
    found = [Peer(h.address, h.role, h.cluster) for h in stack.topology.hosts]
    found += [Peer(c.settings.pod_subnet[7], "pods", c.name) for c in stack.topology.clusters]
    found += [Peer(n.broadcast_address, "operator") for n in stack.settings.firewall.operator_networks]
    return [*found, Peer(STRANGER, "stranger")]


def is_target(target: str, host: Host) -> bool:
    if target == "all":
        return host.role != "bastion"
    return target == host.role or (target == "node" and host.role in ("master", "worker"))


def is_source(source: str, host: Host, peer: Peer, stack: Plan) -> bool:
    operators = stack.settings.firewall.operator_networks
    if source == "any" or (source == "operator" and not operators):
        return True
    if source == "operator":
        # The bastion uses the API as an operator does; SSH to itself it needs not.
        inside = any(peer.address in n for n in operators)
        return inside or (host.role != "bastion" and peer.role == "bastion")
    if source == "bastion":
        return peer.role == "bastion"
    if source == "headlamp":
        serving = next(r.cluster for r in stack.records if r.service == "headlamp")
        return peer.role in ("master", "worker") and peer.cluster == serving
    if source == "pods":
        return peer.address in stack.settings.clusters[host.cluster or ""].pod_subnet
    if "haproxy" in (host.role, peer.role):
        own = front(host.cluster, stack) == front(peer.cluster, stack)
    else:
        own = peer.cluster == host.cluster
    return own and (peer.role == source or (source == "node" and peer.role in ("master", "worker")))


def front(cluster: str | None, stack: Plan) -> str | None:
    """Whose load balancer stands before `cluster`."""
    return (stack.settings.clusters[cluster].load_balancer.shared_with or cluster) if cluster else None


def expected(stack: Plan, host: Host, peer: Peer) -> set[tuple[str, int]]:
    """Protocol and port of everything that `peer` may open on `host`, by the tables above."""
    extra = STANDALONE_ROWS if stack.settings.architecture == "standalone" else ()
    return {
        (protocol, port)
        for target, protocols, ports, source in (*ROWS, *extra, *DERIVED, SEVERAL_CLUSTERS_ROW)
        if is_target(target, host) and is_source(source, host, peer, stack)
        and ((target, protocols, ports, source) not in OF_ALLOY or carries(stack, host, "alloy"))
        for protocol in protocols
        for port in ports
    }


def carries(stack: Plan, host: Host, tool: str) -> bool:
    """Whether the cluster of `host` has `tool`."""
    return any(release.name == tool for release in stack.releases[host.cluster or ""])


@cache
def reference(architecture: str) -> Plan:
    return as_written(architecture)


ARCHITECTURES = ("standalone", "multicluster")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{'-'.join(map(str, row[2]))}-from-{row[3]}")
def test_every_row_of_the_tables_is_carried(
    architecture: str, row: tuple[str, tuple[str, ...], tuple[int, ...], str]
) -> None:
    carried(reference(architecture), row)


def test_only_standalone_opens_the_masters_api_to_anyone() -> None:
    carried(reference("standalone"), STANDALONE_ROWS[0])
    stack = reference("multicluster")
    for cluster in stack.topology.clusters:
        found = network.openings(cluster.masters[0], stack.contract)
        assert network.allows(found, IPv4Network(STRANGER), "tcp", 6443) is None


def carried(stack: Plan, row: tuple[str, tuple[str, ...], tuple[int, ...], str]) -> None:
    """The row's every source reaches the row's every target, by the plan's answer and by the ruleset's text."""
    target, protocols, ports, source = row
    targets = [h for h in stack.topology.hosts if is_target(target, h)]
    assert targets
    for host in targets:
        found = network.openings(host, stack.contract)
        rules = parse(nftables.ruleset(host, stack.contract))
        sources = [p for p in peers(stack) if is_source(source, host, p, stack)]
        assert sources
        for peer in sources:
            for protocol in protocols:
                for port in ports:
                    where = f"{host.name} {protocol}/{port} from {peer}"
                    assert network.allows(found, IPv4Network(peer.address), protocol, port), where
                    assert rules.lets_in(peer.address, protocol, port), where


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_else_is_open(architecture: str) -> None:
    """Every machine against one peer of each kind in each cluster: what is open is what the tables say."""
    stack = reference(architecture)
    one_of_each = {(p.role, p.cluster): p for p in peers(stack)}.values()
    for host in stack.topology.hosts:
        found = network.openings(host, stack.contract)
        for peer in one_of_each:
            opened = {
                (protocol, port)
                for protocol in BOTH
                for port in PORTS
                if network.allows(found, IPv4Network(peer.address), protocol, port)
            }
            assert opened == expected(stack, host, peer), f"{host.name} from {peer}"


@pytest.mark.toolchain
@examples(15)
@given(stacks(most_workers=4), st.integers(0))
def test_plan_and_ruleset_agree_with_the_tables(stack: Plan, seed: int) -> None:
    """For any stack: the plan's answer, the text's own meaning and the tables are one."""
    everyone, chosen = peers(stack), Random(seed)
    for host in stack.topology.hosts:
        found = network.openings(host, stack.contract)
        rules = parse(nftables.ruleset(host, stack.contract))
        assert {p for o in found for p in o.rule.ports} <= set(PORTS)
        for peer in chosen.sample(everyone, 4):
            wanted = expected(stack, host, peer)
            for protocol in BOTH:
                for port in PORTS:
                    allowed = network.allows(found, IPv4Network(peer.address), protocol, port) is not None
                    assert allowed == ((protocol, port) in wanted), f"{host.name} {protocol}/{port} from {peer}"
                    assert rules.lets_in(peer.address, protocol, port) == allowed, f"{host.name} {protocol}/{port}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_rule_is_a_row_or_has_its_reason(architecture: str) -> None:
    stack = reference(architecture)
    openings = [o for h in stack.topology.hosts for o in network.openings(h, stack.contract)]
    rules = {o.rule for o in openings}
    extra = STANDALONE_ROWS if architecture == "standalone" else ()
    written = {(r.target, r.protocols, r.ports, r.source) for r in rules if r.origin == "reference"}
    assert written == {*ROWS, *extra}
    derived = [r for r in rules if r.origin == "derived"]
    # What the reference opens to anyone needs nothing more.
    covered = [row for row in DERIVED if row[0] == "master" and row[2] == (6443,)] if architecture == "standalone" else []
    assert len(derived) == len(DERIVED) - len(covered) + (architecture == "multicluster")
    assert all(r.why and r.purpose for r in derived)
    assert all(not r.why for r in rules if r.origin == "reference")


def test_operators_networks_bound_ssh_and_the_api() -> None:
    stack = plan(firewall={"operatorNetworks": ["10.200.0.0/16"]})
    bastion, balancer = stack.topology.bastion, stack.topology.clusters[0].load_balancers[0]
    for host, port in ((bastion, 22), (balancer, 6443)):
        found = network.openings(host, stack.contract)
        assert network.allows(found, IPv4Network("10.200.3.4"), "tcp", port)
        assert network.allows(found, IPv4Network(STRANGER), "tcp", port) is None
    found = network.openings(balancer, stack.contract)
    assert network.allows(found, IPv4Network(bastion.address), "tcp", 6443)


def test_headlamp_reaches_every_api_where_operators_networks_are_given() -> None:
    stack = plan("multicluster", firewall={"operatorNetworks": ["10.200.0.0/16"]})
    serving, *others = stack.topology.clusters
    for cluster in others:
        found = network.openings(cluster.load_balancers[0], stack.contract)
        assert all(network.allows(found, IPv4Network(w.address), "tcp", 6443) for w in serving.workers)
        assert network.allows(found, IPv4Network(serving.workers[0].address), "tcp", 9345) is None
        assert network.allows(found, IPv4Network(serving.nfs.address), "tcp", 6443) is None
    for worker in others[0].workers:
        found = network.openings(serving.load_balancers[0], stack.contract)
        assert network.allows(found, IPv4Network(worker.address), "tcp", 6443) is None
    without = plan("multicluster", firewall={"operatorNetworks": ["10.200.0.0/16"]}, tools={"headlamp": {"enabled": False}})
    found = network.openings(without.topology.clusters[1].load_balancers[0], without.contract)
    assert network.allows(found, IPv4Network(serving.workers[0].address), "tcp", 6443) is None


def test_operators_networks_that_overlap_stand_once() -> None:
    networks = ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/8"]
    stack = plan(firewall={"operatorNetworks": networks})
    rules = parse(nftables.ruleset(stack.topology.bastion, stack.contract))
    assert rules.sets == {"operator": [IPv4Network("10.0.0.0/7")]}


def test_allows_wants_the_whole_network_inside() -> None:
    stack = plan(firewall={"operatorNetworks": ["10.200.0.0/16"]})
    found = network.openings(stack.topology.bastion, stack.contract)
    assert network.allows(found, IPv4Network("10.200.3.0/24"), "tcp", 22)
    assert network.allows(found, IPv4Network("10.0.0.0/8"), "tcp", 22) is None


def test_the_ruleset_replaces_only_its_own_table() -> None:
    stack = reference("standalone")
    for host in stack.topology.hosts:
        text = nftables.ruleset(host, stack.contract)
        assert text.startswith("table inet opstella {}\ndelete table inet opstella\ntable inet opstella {\n")
        assert "flush ruleset" not in text and text.count("\ntable ") == 1
        assert "ct state established,related accept" in text


# What the tables open wider than anything needs, and what nothing uses: closed unless a stack asks for the literal tables.
CLOSED = (
    ("node", "tcp", 10250, "stranger"), ("master", "tcp", 6443, "stranger"), ("gitlab", "tcp", 9090, "stranger"),
    ("gitlab", "tcp", 9090, "worker"), ("node", "tcp", 179, "worker"), ("node", "tcp", 9098, "worker"),
    ("node", "tcp", 9099, "worker"), ("nfs", "udp", 2049, "worker"), ("nfs", "tcp", 111, "worker"), ("nfs", "tcp", 33333, "worker"),
)  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("target", "protocol", "port", "source"), CLOSED)
def test_without_a_word_in_the_settings_only_what_is_needed_is_open(
    architecture: str, target: str, protocol: str, port: int, source: str
) -> None:
    stack, literal = plan(architecture), reference(architecture)
    targets = [h for h in stack.topology.hosts if is_target(target, h)]
    closed = 0
    for host in targets:
        for peer in (p for p in peers(stack) if p.role == source and (host.cluster is None or p.cluster in (None, host.cluster)) and p.address != host.address):
            assert not parse(nftables.ruleset(host, stack.contract)).lets_in(peer.address, protocol, port), f"{host.name} from {peer}"
            closed += parse(nftables.ruleset(host, literal.contract)).lets_in(peer.address, protocol, port)
    assert closed or (architecture, target, port) == ("multicluster", "master", 6443)


def test_gitlabs_prometheus_answers_whom_the_contract_lets_in() -> None:
    scraper = {"purpose": "our Prometheus", "to": "gitlab", "from": ["10.9.0.0/16"], "ports": [9090]}
    assert not gitlab.scraped(plan().contract.rules)
    assert gitlab.scraped(reference("standalone").contract.rules)
    assert gitlab.scraped(plan(network={"rules": [scraper]}).contract.rules)
    for is_open, address in ((False, "localhost"), (True, "0.0.0.0")):
        text = gitlab.gitlab_rb("gitlab.example.com", "19.3.0", prometheus_open=is_open)
        assert f"prometheus['listen_address'] = '{address}:9090'\n" in text


def test_node_ports_are_guarded_on_nodes_only() -> None:
    stack = reference("standalone")
    for host in stack.topology.hosts:
        chains = parse(nftables.ruleset(host, stack.contract)).chains
        assert ("nodeports_allowed" in chains) == (host.role in ("master", "worker"))
        if host.role == "worker":
            guarded = [line for line in chains["nodeports_allowed"] if "dport" in line]
            assert guarded == [
                'ip saddr @haproxy tcp dport { 30080, 30443 } return comment "ingress NodePorts"',
            ]


def test_the_second_opinion_refuses_what_it_does_not_know() -> None:
    """Else it would agree with anything."""
    stack = reference("standalone")
    text = nftables.ruleset(stack.topology.clusters[0].nfs, stack.contract)
    filters = parse(text.replace("policy drop", "policy accept"))
    assert filters.lets_in(STRANGER, "tcp", 2049)
    with pytest.raises(ValueError, match="unknown statement"):
        parse(text.replace("        counter\n", "        accept\n")).lets_in(STRANGER, "tcp", 1)
    with pytest.raises(ValueError, match="twice"):
        parse(text.replace("elements = { ", "elements = { 192.168.72.16/30, 192.168.72.16, ", 1))
