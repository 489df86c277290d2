"""Network policies: what is denied, and that a declared flow, and nothing else, is open on both sides.

A small model of how Kubernetes weighs policies says what may pass; it is not how the policies are made.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan.tools import flow_table
from plan.tools import policies as module
from plan.tools.catalogue import NAMES
from plan.tools.model import Release, ToolInputs
from plan.tools.needs import ITSELF, KUBERNETES_API, NODES, OUTSIDE, PUBLIC, Flow, Job
from tests.plan.stacks import plan

INPUTS = ToolInputs(
    domain="x.example.com", hosts={}, nfs_server="n", nfs_path="/",
    masters=("192.168.72.15",), machines=("192.168.72.15", "192.168.72.16"), gitlab="192.168.72.14",
    load_balancers=("192.168.72.12",), pod_network="172.16.72.0/22", machine_networks=("192.168.72.0/23",), service_network="172.16.76.0/22",
)  # fmt: skip


@dataclass(frozen=True)
class Pod:
    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


def release(name: str, **changes: Any) -> Release:
    plain = Release(name=name, namespace=f"{name}-space", chart=name, version="1", repository=None, values={})
    return replace(plain, **changes)


def made(*releases: Release) -> list[dict[str, Any]]:
    return [m.body for of_one in module.policies(INPUTS, releases).values() for m in of_one]


def _chosen(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())


def _is(peer: dict[str, Any], other: Pod | str, own: Pod) -> bool:
    if isinstance(other, str):
        block = peer.get("ipBlock")
        if block is None:
            return False
        inside = ip_address(other) in ip_network(block["cidr"])
        return inside and not any(ip_address(other) in ip_network(n) for n in block.get("except", []))
    if "ipBlock" in peer:
        return False
    namespace = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": own.namespace}})
    named = _chosen(namespace, {"kubernetes.io/metadata.name": other.namespace})
    return named and _chosen(peer.get("podSelector", {}), other.labels)


def _side(bodies: list[dict[str, Any]], own: Pod, way: str, other: Pod | str, port: int, protocol: str) -> bool:
    """Whether the policies on `own` let it through in one direction."""
    on_it = [
        b["spec"] for b in bodies
        if b["metadata"]["namespace"] == own.namespace and _chosen(b["spec"]["podSelector"], own.labels)
    ]  # fmt: skip
    weighing = [spec for spec in on_it if way.capitalize() in spec["policyTypes"]]
    if not weighing:
        return True
    word = "from" if way == "ingress" else "to"
    return any(
        {"protocol": protocol, "port": port} in rule["ports"] and any(_is(peer, other, own) for peer in rule[word])
        for spec in weighing
        for rule in spec.get(way, [])
    )


def passes(bodies: list[dict[str, Any]], source: Pod | str, target: Pod | str, port: int, protocol: str = "TCP") -> bool:
    out = isinstance(source, str) or _side(bodies, source, "egress", target, port, protocol)
    into = isinstance(target, str) or _side(bodies, target, "ingress", source, port, protocol)
    return out and into


A, B, C = Pod("a-space"), Pod("b-space"), Pod("c-space")


def test_nothing_passes_that_no_flow_declares() -> None:
    bodies = made(release("a"), release("b"))
    for source, target in ((A, B), (B, A), (A, A), (A, C), (C, A), ("192.168.72.15", A), (A, "203.0.113.9"), (A, "192.168.72.15")):
        assert not passes(bodies, source, target, 443), (source, target)
    for body in bodies:
        assert body["spec"]["policyTypes"] == ["Ingress", "Egress"] and body["spec"]["podSelector"] == {}


def test_names_can_always_be_resolved() -> None:
    bodies = made(release("a"))
    assert passes(bodies, A, Pod("kube-system"), 53, "UDP") and passes(bodies, A, Pod("kube-system"), 53)
    assert not passes(bodies, A, Pod("kube-system"), 443) and not passes(bodies, A, B, 53, "UDP")


def test_a_flow_opens_both_sides_and_one_direction() -> None:
    bodies = made(release("a", flows=(Flow(peer="b", ports=(80,), why="w"),)), release("b"))
    assert passes(bodies, A, B, 80)
    assert not passes(bodies, B, A, 80) and not passes(bodies, A, B, 81) and not passes(bodies, C, B, 80)


def test_an_inbound_flow_opens_both_sides_too() -> None:
    bodies = made(release("a"), release("b", flows=(Flow(peer="a", ports=(80,), inbound=True, why="w"),)))
    assert passes(bodies, A, B, 80) and not passes(bodies, B, A, 80)


def test_pods_narrow_each_side() -> None:
    flow = Flow(peer="b", ports=(5432,), pods={"app": "web"}, peer_pods={"app": "db"}, why="w")
    bodies = made(release("a", flows=(flow,)), release("b"))
    web, db = Pod("a-space", {"app": "web"}), Pod("b-space", {"app": "db"})
    assert passes(bodies, web, db, 5432)
    assert not passes(bodies, A, db, 5432) and not passes(bodies, web, B, 5432)
    # What is narrower than the namespace is still denied all else.
    assert not passes(bodies, web, C, 80) and not passes(bodies, C, db, 80)


def test_a_namespace_of_its_own() -> None:
    bodies = made(release("a", flows=(Flow(peer=ITSELF, ports=(6379,), peer_pods={"app": "cache"}, why="w"),)))
    assert passes(bodies, A, Pod("a-space", {"app": "cache"}), 6379)
    assert not passes(bodies, A, A, 6379) and not passes(bodies, C, Pod("a-space", {"app": "cache"}), 6379)


def test_the_api_server() -> None:
    out = made(release("a", flows=(Flow(peer=KUBERNETES_API, ports=(6443,), why="w"),)))
    assert passes(out, A, "192.168.72.15", 6443) and passes(out, A, "172.16.76.1", 443)
    assert not passes(out, A, "192.168.72.16", 6443) and not passes(out, A, "172.16.76.2", 443)
    into = made(release("a", flows=(Flow(peer=KUBERNETES_API, ports=(9443,), inbound=True, why="w"),)))
    assert passes(into, "192.168.72.15", A, 9443)
    # From a master to another node's pod, by way of the overlay.
    assert passes(into, "172.16.72.1", A, 9443)
    assert not passes(into, "192.168.72.16", A, 9443) and not passes(into, "192.168.72.15", A, 443)


def test_outside_public_names_and_nodes() -> None:
    bodies = made(release("a", flows=(Flow(peer=OUTSIDE, ports=(443,), why="w"),)))
    assert passes(bodies, A, "203.0.113.9", 443)
    assert not passes(bodies, A, "172.16.72.9", 443) and not passes(bodies, A, "172.16.76.9", 443)
    # Neither the machines nor what clouds tell those who run on them is outside.
    for address in ("192.168.72.12", "192.168.72.11", "192.168.73.200", "169.254.169.254", "168.63.129.16", "100.100.100.200"):
        assert not passes(bodies, A, address, 443), address
    bodies = made(release("a", flows=(Flow(peer=PUBLIC, ports=(443,), why="w"),)))
    assert passes(bodies, A, "192.168.72.12", 443) and passes(bodies, A, "192.168.72.14", 443)
    assert not passes(bodies, A, "203.0.113.9", 443)
    bodies = made(release("a", flows=(Flow(peer=NODES, ports=(10250,), why="w"),)))
    assert passes(bodies, A, "192.168.72.16", 10250) and not passes(bodies, A, "192.168.72.12", 10250)
    bodies = made(release("a", flows=(Flow(peer=OUTSIDE, ports=(8443,), inbound=True, why="w"),)))
    assert passes(bodies, "192.168.72.12", A, 8443)


def test_the_ingress_and_those_who_read_metrics() -> None:
    tool = release("a", ports_for_ingress=(8080,), ports_for_metrics=(9090,))
    bodies = made(tool, release("traefik"), release("alloy"))
    traefik, alloy = Pod("traefik-space"), Pod("alloy-space")
    assert passes(bodies, traefik, A, 8080) and passes(bodies, alloy, A, 9090)
    assert not passes(bodies, traefik, A, 9090) and not passes(bodies, alloy, A, 8080)
    # Without them, nothing stays open.
    assert not passes(made(tool), traefik, A, 8080)


def test_one_who_reads_metrics_reads_its_own() -> None:
    bodies = made(release("alloy", ports_for_metrics=(12345,)))
    assert passes(bodies, Pod("alloy-space"), Pod("alloy-space"), 12345)


def test_a_job_has_what_its_tool_has_and_its_own() -> None:
    job = Job(
        name="provision", image="i", command=(), files={}, flows=(Flow(peer="b", ports=(80,), why="w"),),
        rules=({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},),
    )  # fmt: skip
    bodies = made(release("a", jobs=(job,), flows=(Flow(peer="b", ports=(81,), why="w"),)), release("b"))
    pod = Pod("a-space", {"opstella.io/job": "provision"})
    assert passes(bodies, pod, B, 80) and passes(bodies, pod, B, 81)
    assert not passes(bodies, A, B, 80)
    assert passes(bodies, pod, "192.168.72.15", 6443) and not passes(bodies, A, "192.168.72.15", 6443)


flows = st.builds(
    Flow,
    peer=st.sampled_from(("r0", "r1", "r2", "gone", ITSELF, KUBERNETES_API, OUTSIDE, PUBLIC, NODES)),
    ports=st.lists(st.integers(1, 5), min_size=1, max_size=2).map(tuple),
    inbound=st.booleans(),
    pods=st.sampled_from(({}, {"app": "x"})),
    peer_pods=st.sampled_from(({}, {"app": "x"})),
    why=st.sampled_from(("a reason", "another")),
)


@given(st.lists(st.lists(flows, max_size=4).map(tuple), min_size=3, max_size=3))
@settings(deadline=None)
def test_between_pods_passes_what_is_declared_and_nothing_else(declared: list[tuple[Flow, ...]]) -> None:
    releases = [release(f"r{n}", flows=own) for n, own in enumerate(declared)]
    bodies = made(*releases)
    pods = [Pod(f"r{n}-space", labels) for n in range(3) for labels in ({}, {"app": "x"})]

    def covered(flow: Flow, owner: Release, source: Pod, target: Pod, port: int) -> bool:
        own, other = (target, source) if flow.inbound else (source, target)
        peer = owner.name if flow.peer == ITSELF else flow.peer
        return (
            port in flow.ports
            and own.namespace == owner.namespace
            and other.namespace == f"{peer}-space"
            and all(own.labels.get(k) == v for k, v in flow.pods.items())
            and all(other.labels.get(k) == v for k, v in flow.peer_pods.items())
        )

    def opened(source: Pod, target: Pod, port: int) -> bool:
        """Each side may be opened by another flow: what passes is what both sides let through."""
        out = any(covered(f, r, source, target, port) for r in releases for f in r.flows)
        return out

    for source in pods:
        for target in pods:
            for port in range(1, 6):
                if opened(source, target, port):
                    assert passes(bodies, source, target, port), (source, target, port)
                elif not any(port in f.ports for r in releases for f in r.flows):
                    assert not passes(bodies, source, target, port), (source, target, port)


@given(st.lists(st.lists(flows, max_size=4).map(tuple), min_size=3, max_size=3))
@settings(deadline=None)
def test_policies_are_well_formed(declared: list[tuple[Flow, ...]]) -> None:
    releases = [release(f"r{n}", flows=own) for n, own in enumerate(declared)]
    bodies = made(*releases)
    names = [(b["metadata"]["namespace"], b["metadata"]["name"]) for b in bodies]
    assert len(names) == len(set(names))
    for body in bodies:
        for way, word in (("ingress", "from"), ("egress", "to")):
            for rule in body["spec"].get(way, []):
                # An empty list of peers or ports would mean all of them.
                assert rule[word] and rule["ports"]
                assert way.capitalize() in body["spec"]["policyTypes"]
    assert bodies == made(*releases)


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_every_namespace_of_a_tool_denies_and_every_flow_has_a_known_peer(architecture: str) -> None:
    for releases in plan(architecture).releases.values():
        for one in releases:
            found = [m.body for m in one.before if m.body["kind"] == "NetworkPolicy"]
            deny = [b for b in found if b["spec"]["podSelector"] == {} and b["spec"]["policyTypes"] == ["Ingress", "Egress"]]
            assert [b["metadata"]["namespace"] for b in deny] == [one.namespace, *one.further_namespaces]
            for flow in (*one.flows, *(f for job in one.jobs for f in job.flows)):
                assert flow.peer in (*NAMES, *module.WORDS), f"{one.name}: {flow}"
                assert flow.ports, f"{one.name}: {flow}"


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_every_flow_says_why_and_is_declared_once(architecture: str) -> None:
    for releases in plan(architecture).releases.values():
        for one in releases:
            flows = [*module.flows_of(one), *(f for of_one in one.further_flows.values() for f in of_one)]
            for flow in flows:
                assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 .,:/()'_-]{4,69}(?<![. ])", flow.why), f"{one.name}: {flow}"
            declared = [
                (f.peer, f.ports, f.protocol, f.inbound, tuple(f.pods.items()), tuple(f.peer_pods.items()))
                # Of the public names there are many, for as many reasons.
                + ((f.why,) if f.peer == PUBLIC else ())
                for f in module.flows_of(one)
            ]
            assert not [flow for flow, times in Counter(declared).items() if times > 1], one.name


def test_a_policy_says_why_on_both_sides() -> None:
    flow = Flow(peer="b", ports=(5432,), pods={"app": "web"}, why="its data")
    bodies = made(release("a", flows=(flow,)), release("b"))
    a, web, b = (body["metadata"]["annotations"][module.WHY] for body in bodies)
    names = "to dns: name resolution; to dns: name resolution, of long answers"
    assert (a, web, b) == (names, "to b: its data", f"from a: its data; {names}")


def test_the_table_has_a_row_for_each_flow_that_opens_something() -> None:
    data = Flow(peer="b", ports=(81, 80), peer_pods={"app": "db"}, why="its data")
    there = release(
        "a", flows=(data, Flow(peer="gone", ports=(1,), why="w")),
        ports_for_metrics=(9000,), further_namespaces={"jobs": "baseline"},
        further_flows={"jobs": (Flow(peer=OUTSIDE, ports=(443,), protocol="UDP", pods={"x": "y"}, why="downloads"),)},
    )  # fmt: skip
    found = [row for row in flow_table.rows({"blue": [there, release("b"), release("alloy")]}) if row[5] != "dns"]
    assert all(len(row) == len(flow_table.COLUMNS) for row in found)
    assert found == [
        ("blue", "a", "a-space", "", "out", "b (app=db)", "tcp", "80, 81", "its data"),
        ("blue", "a", "a-space", "", "in", "alloy", "tcp", "9000", "metrics"),
        ("blue", "a", "jobs", "x=y", "out", "outside", "udp", "443", "downloads"),
    ]


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_the_table_has_all_that_policies_open(architecture: str) -> None:
    """Every port of a tool's policies stands in a row of its namespace, or in one that another's flow opened there."""
    made_of = plan(architecture)
    rows = flow_table.rows(made_of.releases)
    for cluster, releases in made_of.releases.items():
        told = {int(port) for row in rows if row[0] == cluster for port in row[7].split(", ")} | {443}
        own = {name for release in releases for name in (release.namespace, *release.further_namespaces)}
        assert {row[2] for row in rows if row[0] == cluster} == own
        bodies = [m.body for r in releases for m in r.before]
        for policy in (body for body in bodies if module.WHY in body["metadata"].get("annotations", {})):
            for way in ("ingress", "egress"):
                assert {p["port"] for rule in policy["spec"].get(way, []) for p in rule["ports"]} <= told


def test_what_the_ingress_serves_can_be_reached() -> None:
    """Each release with a host declares the ports that the ingress sends to, itself or by one that fronts it."""
    (releases,) = plan().releases.values()
    bodies = [m.body for r in releases for m in r.before if m.body["kind"] == "NetworkPolicy"]
    fronted = {"loki", "tempo", "mimir"}  # behind oauth2-proxy
    for one in releases:
        if one.host and one.name not in fronted:
            assert one.ports_for_ingress, one.name
            namespace = next(r.namespace for r in releases if r.name == "traefik")
            labels = [b["spec"]["podSelector"].get("matchLabels", {}) for b in bodies if b["metadata"]["namespace"] == one.namespace]
            for port in one.ports_for_ingress:
                assert any(passes(bodies, Pod(namespace), Pod(one.namespace, own), port) for own in ({}, *labels)), one.name


METADATA = "169.254.169.254"


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_no_pod_reaches_a_machine_but_by_a_flow_of_its_own(architecture: str) -> None:
    """Whatever a tool may do outside, and pipelines may: the metadata and the machines are no part of it."""
    stack = plan(architecture)
    machines = {str(host.address): host.role for host in stack.topology.hosts}
    for cluster in stack.topology.clusters:
        bodies = [m.body for r in stack.releases[cluster.name] for m in r.before if module.WHY in m.body["metadata"].get("annotations", {})]
        pods = {
            (b["metadata"]["namespace"], tuple(sorted(b["spec"]["podSelector"].get("matchLabels", {}).items()))) for b in bodies
        }
        for namespace, labels in pods:
            pod = Pod(namespace, dict(labels))
            assert not any(passes(bodies, pod, METADATA, port) for port in (80, 443)), pod
            for address, role in machines.items():
                opened = {p for p in (22, 80, 443, 2049, 2379, 6443, 9100, 9345, 10250) if passes(bodies, pod, address, p)}
                public = {"haproxy": {443, 6443}, "gitlab": {443, 6443}, "master": {2381, 6443, 9100, 10250}, "worker": {9100, 10250}}
                assert opened <= public.get(role, set()), (pod, role, opened)


def test_servers_that_settings_name_among_the_machines_are_outside() -> None:
    mail = {"smarthost": "192.168.72.200:25", "sender": "a@example.com", "to": ["b@example.com"]}
    stack = plan(network={"neighbours": ["192.168.72.128/26"]}, alerts={"mail": mail})
    bodies = [m.body for r in stack.releases["standalone"] for m in r.before if module.WHY in m.body["metadata"].get("annotations", {})]
    job = Pod("gitlab-jobs")
    assert passes(bodies, job, "192.168.72.130", 443) and passes(bodies, job, "192.168.72.200", 443)
    assert not passes(bodies, job, "192.168.72.127", 443) and not passes(bodies, job, "192.168.72.201", 443)


def test_a_neighbour_is_never_one_of_the_machines() -> None:
    stack = plan(network={"neighbours": ["192.168.72.0/24"]}, dns={"servers": ["192.168.72.11"]})
    bodies = [m.body for r in stack.releases["standalone"] for m in r.before if module.WHY in m.body["metadata"].get("annotations", {})]
    job = Pod("gitlab-jobs")
    assert passes(bodies, job, "192.168.72.201", 80)
    for host in stack.topology.hosts:
        assert not passes(bodies, job, str(host.address), 80), host.name
