"""Profiles: what each document's rows open on the stack's machines, and that the platform works under each.

A row's meaning is evaluated here from the transcription and a table of roles of this file's own; what is open is the
plan's answer, and the ruleset's text read apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Address, IPv4Network

import pytest

from plan import network, nftables
from plan.contract import profiles
from plan.contract.entry import entries, inbound
from plan.contract.findings import findings
from plan.contract.remarks import remarks
from plan.contract.rule import Rule
from plan.plan import Plan
from plan.tools.alloy import ETCD_METRICS
from plan.tools.model import Release
from plan.tools.needs import NODES
from plan.topology import Host, Topology
from tests.plan.packet_filter import parse
from tests.plan.stacks import plan

ARCHITECTURES = ("standalone", "multicluster")
OTHERS = ("tectonic", "deckhouse", "rke2-cilium")
PROFILES = ("opstella", *OTHERS)
OPERATOR, STRANGER = IPv4Address("10.200.0.9"), IPv4Address("198.51.100.7")
# A document's word, to the roles of our machines.
MEANT = {
    "Master Nodes": {"master"}, "masters": {"master"}, "Worker Nodes": {"worker"}, "nodes": {"master", "worker"},
    "masters & workers": {"master", "worker"}, "All nodes": {"master", "worker"}, "frontends": {"haproxy", "worker"},
    "Infra Nodes (Optional) or Load Balancers": {"haproxy"},
}  # fmt: skip
WORLD = ("all", "outside", "unstated")

profile_of = pytest.mark.parametrize("profile", PROFILES)
others = pytest.mark.parametrize("profile", OTHERS)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
strictness = pytest.mark.parametrize("strict", [False, True], ids=["as-written", "strict"])


@cache
def machines(architecture: str, profile: str, strict: bool) -> Plan:
    return plan(
        architecture,
        network={"profile": profile, "strict": strict},
        firewall={"operatorNetworks": [str(IPv4Network("10.200.0.0/16"))]},
    )


def some(found: Topology) -> list[Host]:
    """The first and the last host of each role in the first cluster and in the last."""
    groups: dict[tuple[str, str | None], list[Host]] = {}
    for host in found.hosts:
        if host.cluster in (None, found.clusters[0].name, found.clusters[-1].name):
            groups.setdefault((host.role, host.cluster), []).append(host)
    return [host for hosts in groups.values() for host in dict.fromkeys((hosts[0], hosts[-1]))]


def sources(found: Topology) -> list[IPv4Address]:
    pods = [c.settings.pod_subnet[7] for c in found.clusters[:1]]
    return [*(h.address for h in some(found)), *pods, OPERATOR, STRANGER]


@cache
def ports() -> tuple[int, ...]:
    """Both ends of every range that any document or the platform names, and what lies beside them."""
    rules = [r for p in PROFILES for s in (False, True) for r in machines("multicluster", p, s).contract.rules]
    ends = {end for r in rules for interval in r.intervals for end in interval}
    return tuple(sorted({p + step for p in ends for step in (-1, 0, 1)}))


@cache
def all_of(rule: Rule) -> frozenset[tuple[str, int]]:
    """Protocol and port of what it opens, of those that are looked at."""
    return frozenset((protocol, port) for protocol in ("tcp", "udp") for port in ports() if rule.opens(protocol, port))


@cache
def opened(architecture: str, profile: str, strict: bool) -> frozenset[tuple[str, str, str, int]]:
    """Host, source, protocol and port of all that is let in, among some machines and whoever else asks."""
    stack = machines(architecture, profile, strict)
    found = stack.topology
    let_in: set[tuple[str, str, str, int]] = set()
    for host in some(found):
        openings = network.openings(host, stack.contract)
        for source in sources(found):
            near = IPv4Network(source)
            mine = [o.rule for o in openings if not o.networks or any(near.subnet_of(n) for n in o.networks)]
            if source != host.address:
                let_in |= {(host.name, str(source), *what) for rule in mine for what in all_of(rule)}
    return frozenset(let_in)


def needed(architecture: str) -> frozenset[tuple[str, str, str, int]]:
    return opened(architecture, "opstella", True)


@architectures
@profile_of
def test_the_platform_has_all_it_needs_under_every_profile(profile: str, architecture: str) -> None:
    assert needed(architecture) - opened(architecture, profile, False) == set()


@architectures
@profile_of
def test_strict_leaves_what_the_platform_needs_and_no_more(profile: str, architecture: str) -> None:
    assert opened(architecture, profile, True) == needed(architecture)


def test_strict_closes_what_the_reference_opens_to_anyone() -> None:
    for architecture in ARCHITECTURES:
        closed = opened(architecture, "opstella", False) - needed(architecture)
        api = {6443} if architecture == "standalone" else set()
        # Beside what is open to anyone: Calico's BGP, which is off, and health checks, which come from the machine itself;
        # what NFS before version 4 had.
        idle = {179, 9098, 9099, 111, 33333}
        assert {port for _, _, protocol, port in closed if protocol == "tcp"} == {10250, 9090} | api | idle
        assert {port for _, _, protocol, port in closed if protocol == "udp"} == {2049, 111, 33333}
        # Who asks the kubelets still may.
        found = machines(architecture, "opstella", True).topology
        master, worker = found.clusters[0].masters[0], found.clusters[0].workers[-1]
        pod = found.clusters[0].settings.pod_subnet[7]
        for source in (master.address, pod):
            assert (worker.name, str(source), "tcp", 10250) in needed(architecture)
        assert (worker.name, str(STRANGER), "tcp", 10250) in closed


@others
def test_a_must_is_open_and_so_is_a_should_but_no_may(profile: str) -> None:
    """Each row on each of its machines, from each of its sources; and what is open beyond, the platform needs."""
    stack = machines("multicluster", profile, False)
    found = stack.topology
    is_open, wanted = opened("multicluster", profile, False), set()
    cluster = {h.address: h for h in found.hosts}
    for entry in inbound(profiles.document(profile, "multicluster")):
        if entry.strength == "may" or "icmp" in entry.protocols:
            continue
        for host in some(found):
            for source in sources(found):
                peer = cluster.get(source)
                near = peer is not None and peer.cluster == host.cluster and peer.role in MEANT.get(entry.source, ())
                operator = entry.source == "user network" and (source == OPERATOR or peer == found.bastion)
                if host.role not in MEANT[entry.to] or peer == host or not (near or operator or entry.source in WORLD):
                    continue
                wanted |= {
                    (host.name, str(source), protocol, port)
                    for protocol in entry.protocols or ("tcp",)
                    for low, high in entry.intervals
                    for port in ports()
                    if low <= port <= high
                }
    assert wanted and wanted <= is_open
    assert is_open - wanted <= needed("multicluster")


def test_a_may_is_named_where_the_platform_needs_it() -> None:
    """etcd's clients: Tectonic lets them in if one likes, and here the masters do, from masters."""
    stack = machines("multicluster", "tectonic", False)
    (rule,) = [r for r in stack.contract.rules if r.target == "master" and r.opens("tcp", 2379)]
    assert (rule.source, rule.origin, rule.why) == ("master", "reference", "")
    assert rule.row == "Tectonic generic platform: Master Nodes, Ingress, row 6"
    assert not any(r.opens("tcp", 10255) for r in stack.contract.rules)


def test_a_should_is_a_may_under_strict() -> None:
    for strict in (False, True):
        rules = machines("multicluster", "tectonic", strict).contract.rules
        heapster = [r for r in rules if r.opens("tcp", 4194)]
        exporter = [r for r in rules if r.opens("tcp", 9100) and r.source in ("node", "master", "worker")]
        assert bool(heapster) is not strict and exporter


@architectures
@others
@strictness
def test_every_rule_has_its_row_or_its_reason(profile: str, architecture: str, strict: bool) -> None:
    stack = machines(architecture, profile, strict)
    rules = stack.contract.rules
    names = {e.name for e in entries(profiles.document(profile, architecture))}
    assert all(r.row in names and not r.why for r in rules if r.origin == "reference")
    assert all(r.why and not r.row for r in rules if r.origin == "derived")
    assert {r.origin for r in rules} == {"reference", "derived"}
    # What the profile does not know: RKE2's supervisor, or NFS and GitLab.
    assert any(r.target == "nfs" and r.by == "NFS" and r.why for r in rules)


@architectures
def test_the_default_is_the_references_own_table(architecture: str) -> None:
    stack = plan(architecture, network={"strict": False})
    names = {e.name for e in entries(f"opstella_{architecture}")}
    written = [r for r in stack.contract.rules if r.origin == "reference"]
    assert {r.row for r in written} == names and len(written) == len(names)


@pytest.mark.toolchain
@profile_of
@strictness
def test_the_text_of_every_ruleset_says_the_same(profile: str, strict: bool) -> None:
    """From a node, an operator and a stranger, at the ends of what the profile's own rules name."""
    stack = machines("multicluster", profile, strict)
    found = stack.topology
    ends = {end for r in stack.contract.rules for interval in r.intervals for end in interval}
    for host in some(found):
        openings = network.openings(host, stack.contract)
        filters = parse(nftables.ruleset(host, stack.contract))
        for source in (found.clusters[0].masters[1].address, OPERATOR, STRANGER):
            for port in ends | {end + 1 for end in ends}:
                for protocol in ("tcp", "udp"):
                    allowed = network.allows(openings, IPv4Network(source), protocol, port) is not None
                    assert filters.lets_in(source, protocol, port) == allowed, f"{host.name} {protocol}/{port} from {source}"


# What is told


def said(profile: str, architecture: str = "multicluster", strict: bool = False) -> str:
    stack = machines(architecture, profile, strict)
    return "\n".join(remarks(profile, architecture, strict, stack.contract.needs))


@architectures
@profile_of
def test_every_finding_is_told_with_its_proposal_unless_it_is_taken(profile: str, architecture: str) -> None:
    text = said(profile, architecture)
    found = findings(profiles.document(profile, architecture))
    assert found
    for finding in found:
        remedy = f"corrected: {finding.proposal}" if finding.always else f"proposal: {finding.proposal} (network.strict: true)"
        assert f"{finding.what} ({finding.table}, row " in text and remedy in text
    assert said(profile, architecture, strict=True) == ""


def test_what_a_document_leaves_out_is_told() -> None:
    assert "no protocol is named for 9345, 80, 443; taken as TCP" in said("opstella", "standalone")
    assert "no protocol is named for 2379, 179, 9098, 9090; taken as TCP" in said("opstella")
    assert "VXLAN over TCP (Kubernetes Master & Worker Nodes, row 3); corrected: UDP" in said("opstella")


def test_what_nothing_uses_is_told() -> None:
    assert "uses 4240, 8472, 4244" not in said("rke2-cilium")  # these have a finding of their own
    assert "10257" not in said("rke2-cilium") and "10259" not in said("rke2-cilium")
    assert "nothing of the platform uses 179, 9098, 9099 on node, which the profile opens" in said("opstella")
    assert "nothing of the platform uses 111, 33333 on nfs, which the profile opens" in said("opstella")
    assert "10250" not in said("opstella") and "5473" not in said("opstella")
    assert "nothing of the platform uses 32000-32002 on master, which the profile opens" in said("tectonic")
    assert "nothing of the platform uses 4200, 4201, 4223, 4234, 4203, 4219, 4222 on master" in said("deckhouse")


def test_the_plan_tells_it_where_machines_have_a_packet_filter() -> None:
    told = [w for w in plan(network={"profile": "rke2-cilium", "strict": False}).warnings if w.startswith("network.profile")]
    assert any("etcd is open to anyone" in w for w in told)
    without = plan(network={"profile": "rke2-cilium", "strict": False}, firewall={"enabled": False})
    assert not [w for w in without.warnings if w.startswith("network.profile")]


# Coverage


def rule(target: str, source: str, *ports: int, ranges: tuple[tuple[int, int], ...] = (), protocols: tuple[str, ...] = ("tcp",)) -> Rule:
    return Rule(target=target, protocols=protocols, ports=ports, ranges=ranges, source=source, purpose="p")  # type: ignore[arg-type]


def test_a_need_is_covered_by_several_rules_together() -> None:
    need = rule("node", "node", 80, 443)
    parts = [rule(t, s, ranges=((1, 1000),)) for t in ("master", "worker") for s in ("master", "worker")]
    assert profiles.covers(parts, need)
    for missing in range(4):
        assert not profiles.covers(parts[:missing] + parts[missing + 1 :], need)
    assert profiles.covers([rule("all", "any", 80, 443)], need)
    assert not profiles.covers([rule("all", "any", 80, 443)], rule("node", "node", 80, protocols=("tcp", "udp")))
    assert not profiles.covers([rule("all", "any", 80)], need)
    assert not profiles.covers([rule("node", "node", 80, 443)], rule("all", "node", 80))
    assert not profiles.covers([rule("node", "node", 80)], rule("node", "any", 80))
    assert not profiles.covers([rule("haproxy", "any", 80)], rule("haproxy", "peers", protocols=("vrrp",)))


def test_rules_meet_where_they_share_a_packet() -> None:
    need = rule("node", "node", 80)
    assert profiles.meet(rule("worker", "master", ranges=((1, 80),)), need)
    assert profiles.meet(rule("all", "any", 80), need) and profiles.meet(need, rule("worker", "any", 80))
    assert not profiles.meet(rule("haproxy", "any", 80), need)
    assert not profiles.meet(rule("worker", "pods", 80), need)
    assert not profiles.meet(rule("worker", "node", 81), need)
    assert not profiles.meet(rule("worker", "node", 80, protocols=("udp",)), need)


# What tools ask of the machines


@architectures
@profile_of
@strictness
def test_what_a_tool_asks_of_the_nodes_is_open_to_it(profile: str, architecture: str, strict: bool) -> None:
    """A tool's pods arrive with their own address on their own node, and with that node's on another."""
    stack = machines(architecture, profile, strict)
    found = stack.topology
    flows = [f for rs in tools(architecture).values() for r in rs for f in r.flows if f.peer == NODES and not f.inbound]
    assert {port for flow in flows for port in flow.ports} >= {9100, 10250}
    cluster = found.clusters[0]
    for node in (cluster.masters[0], cluster.workers[0]):
        openings = network.openings(node, stack.contract)
        for source in (cluster.settings.pod_subnet[7], cluster.workers[-1].address):
            for port in {port for flow in flows for port in flow.ports}:
                if port == ETCD_METRICS and node.role == "worker":
                    continue  # where there is no etcd
                assert network.allows(openings, IPv4Network(source), "tcp", port), f"{node.name}:{port} from {source}"


@cache
def tools(architecture: str) -> Mapping[str, tuple[Release, ...]]:
    return plan(architecture).releases
