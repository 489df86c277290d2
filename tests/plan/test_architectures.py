"""Invariants of any architecture: the plan of random valid stack files, and some of them deployed against a double."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.placement import clusters_of
from config.reference import PLACES, SEVERAL
from plan import haproxy, keepalived, network, nftables
from plan.plan import Plan
from plan.tools import catalogue, telemetry, waves
from plan.tools.inputs import tool_inputs
from plan.tools.model import Release
from plan.tools.needs import ITSELF
from plan.tools.sources import Bcrypt, Composed, Generated
from plan.tools.wiring import needs_of
from tests.plan.architectures import architectures, followed, written
from tests.plan.packet_filter import parse
from tests.plan.stacks import examples
from tests.plan.test_network import PORTS, expected, peers
from tests.plan.test_policies import Pod, passes
from tests.plan.test_rendered import led_to
from tests.support.platform import deployed
from tests.support.stack import Recording

# As docs/architectures.md tells.
PLANNED, DEPLOYED = 150, 4
BOTH = ("tcp", "udp")
Architecture = tuple[dict[str, Any], Plan]
drawn: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def figure(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prints how many architectures were drawn, and of what sizes."""
    yield
    sizes = ", ".join(f"{count} of {size}" for size, count in sorted(drawn.items()) if size[0].isdigit())
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        shared = f"{drawn['shared']} with a shared load balancer"
        print(f"\narchitectures drawn: {drawn['planned']} planned ({sizes}; {shared}), {drawn['deployed']} deployed")


def every(stack: Plan) -> Iterator[tuple[str, Release]]:
    return ((cluster, release) for cluster, releases in stack.releases.items() for release in releases)


@pytest.mark.toolchain
@examples(PLANNED)
@given(architectures, st.integers(0))
def test_the_plan_of_any_architecture(drawn_one: Architecture, seed: int) -> None:
    values, stack = drawn_one
    drawn["planned"] += 1
    drawn[f"{len(stack.topology.clusters)} clusters"] += 1
    drawn["shared"] += any(len(balancer.clusters) > 1 for balancer in stack.topology.load_balancers)
    every_host_once(values, stack)
    networks_are_disjoint(values, stack)
    every_tool_has_its_place_and_needs(stack)
    every_load_balancer_leads_to_each_cluster_behind_it(stack)
    every_name_is_recorded_once(stack)
    every_password_has_an_owner(stack)
    logins_lead_to_names_of_the_platform(stack)
    agents_reach_every_store(stack)
    every_flow_passes_both_sides(stack)
    every_host_flow_has_a_rule(stack, Random(seed))


def every_host_once(values: dict[str, Any], stack: Plan) -> None:
    hosts = stack.topology.hosts
    assert len({h.name for h in hosts}) == len({h.address for h in hosts}) == len(hosts)
    described = {name: c for name, c in values["clusters"].items() if c.get("enabled", True)}
    assert [c.name for c in stack.topology.clusters] == list(described)
    balancers = [c.get("loadBalancer", {}) for c in described.values()]
    own = sum(b.get("count", 1) for b in balancers if "sharedWith" not in b)
    assert len(hosts) == 2 + own + sum(1 + c["masters"]["count"] + c["workers"]["count"] for c in described.values())
    for host in hosts:
        assert host.address in host.subnet
        assert host.address not in (host.subnet.network_address, host.subnet.broadcast_address)
    for cluster in stack.topology.clusters:
        assert len(cluster.masters) % 2 == 1
        assert {h.cluster for h in (*cluster.nodes, cluster.nfs)} == {cluster.name}
        owner = values["clusters"][cluster.name].get("loadBalancer", {}).get("sharedWith", cluster.name)
        assert {b.cluster for b in cluster.load_balancers} == {owner}


def networks_are_disjoint(values: dict[str, Any], stack: Plan) -> None:
    clusters = [c.settings for c in stack.topology.clusters]
    for cluster in clusters:
        for one, other in combinations((cluster.subnet, cluster.pod_subnet, cluster.service_subnet), 2):
            assert not one.overlaps(other)
    for one, other in combinations(clusters, 2):
        for a, b in ((one, other), (other, one)):
            assert not any(a.subnet.overlaps(n) for n in (b.subnet, b.pod_subnet, b.service_subnet))
            if values["network"]["mesh"]:
                assert not any(a.pod_subnet.overlaps(n) for n in (b.pod_subnet, b.service_subnet))


def every_load_balancer_leads_to_each_cluster_behind_it(stack: Plan) -> None:
    clusters = stack.topology.clusters
    entrances = [c.entrance for c in clusters]
    assert len(set(entrances)) == len(entrances)
    assert sorted(c.name for b in stack.topology.load_balancers for c in b.clusters) == sorted(c.name for c in clusters)
    for balancer in stack.topology.load_balancers:
        text = haproxy.configuration(balancer)
        for cluster in balancer.clusters:
            assert all(cluster.entrance in host.subnet for host in balancer.hosts)
            held = [keepalived.values(balancer, host).get("virtual_addresses", []) for host in balancer.hosts]
            assert all(str(cluster.entrance) in h for h in held) or [h.address for h in balancer.hosts] == [cluster.entrance]
            for port, backend in led_to(text, str(cluster.entrance)).items():
                nodes = cluster.masters if port in ("6443", "9345") else cluster.workers
                (body,) = re.findall(rf"^backend {backend}\n((?: .+\n)*)", text, re.M)
                assert re.findall(r"server \S+ (\S+):(?!.* backup)", body) == [str(n.address) for n in nodes]


def every_tool_has_its_place_and_needs(stack: Plan) -> None:
    for tool in catalogue.NAMES:
        carrying = [cluster for cluster, release in every(stack) if release.name == tool]
        assert set(carrying) <= set(clusters_of(stack.settings, tool)), tool
        if tool in PLACES and tool not in SEVERAL:
            assert len(carrying) <= 1, tool
        chosen = stack.settings.tools.get(tool)
        if tool in PLACES and tool not in ("opstella", "gitlab-runner") and (chosen is None or chosen.enabled):
            assert sorted(carrying) == sorted(clusters_of(stack.settings, tool)), tool
    for releases in stack.releases.values():
        done: set[str] = set()
        for release in releases:
            assert set(needs_of(release)) <= done, release.name
            done.add(release.name)
        found = waves.waves(releases)
        assert sorted(name for wave in found for name in wave) == sorted(done)


def every_name_is_recorded_once(stack: Plan) -> None:
    names = [record.name for record in stack.records]
    assert len(set(names)) == len(names)
    balancers = {c.name: c.entrance for c in stack.topology.clusters}
    where = {record.name: record for record in stack.records}
    served = [(cluster, host) for cluster, r in every(stack) for host in (r.host, *r.other_hosts) if host]
    assert len({host for _, host in served}) == len(served)
    for cluster, host in served:
        assert (where[host].cluster, where[host].address) == (cluster, balancers[cluster])
        label, _, domain = host.partition(".")
        assert label and domain == stack.settings.domain  # which is what `*.domain` stands for


def every_password_has_an_owner(stack: Plan) -> None:
    owned: dict[str, set[str]] = {}
    for cluster, release in every(stack):
        for password in release.passwords:
            assert password.name not in owned.setdefault(cluster, set()), f"{cluster}: two are called {password.name}"
            owned[cluster].add(password.name)
    for cluster, release in every(stack):
        for secret in release.secrets:
            for key, source in secret.data.items():
                wanted: list[tuple[str, str]] = []
                if isinstance(source, Generated):
                    wanted = [(source.cluster or cluster, source.password)]
                elif isinstance(source, Bcrypt):
                    wanted = [(cluster, source.password)]
                elif isinstance(source, Composed):
                    wanted = [(cluster, name) for name in source.passwords]
                for owner, name in wanted:
                    assert name in owned.get(owner, set()), f"{cluster}/{secret.name}.{key}: {owner} has no {name}"


def logins_lead_to_names_of_the_platform(stack: Plan) -> None:
    names = {record.name for record in stack.records}
    clients = [client for _, release in every(stack) for client in release.clients]
    assert len({c.client_id for c in clients}) == len(clients)
    for client in clients:
        for uri in client.redirect_uris:
            assert uri.partition("://")[2].partition("/")[0].partition(":")[0] in {*names, "localhost"}, uri


def agents_reach_every_store(stack: Plan) -> None:
    names = {record.name: record.cluster for record in stack.records}
    carried = {(cluster, release.name) for cluster, release in every(stack)}
    for cluster in stack.topology.clusters:
        inputs = tool_inputs(stack.settings, stack.topology, cluster)
        for store in ("loki", "tempo", "mimir"):
            on = any(name == store for _, name in carried)
            sink = telemetry.sink(inputs, store)
            if (cluster.name, store) in carried:
                continue  # its own
            assert (sink is not None) == on, (cluster.name, store)
            if sink:
                assert (sink.cluster, store) in carried
                assert names[sink.url.removeprefix("https://")] == sink.cluster


def every_flow_passes_both_sides(stack: Plan) -> None:
    for releases in stack.releases.values():
        bodies = [m.body for r in releases for m in r.before if m.body["kind"] == "NetworkPolicy"]
        named = {release.name: release for release in releases}
        for release in releases:
            for flow in release.flows:
                there = release if flow.peer == ITSELF else named.get(flow.peer)
                if there is None:
                    continue
                own, other = Pod(release.namespace, dict(flow.pods)), Pod(there.namespace, dict(flow.peer_pods))
                source, target = (other, own) if flow.inbound else (own, other)
                for port in flow.ports:
                    assert passes(bodies, source, target, port, flow.protocol), f"{release.name}: {flow}"
            for port in release.ports_for_ingress:
                pods = [w.selector for w in release.workloads if w.selector] or [{}]
                assert any(passes(bodies, Pod("traefik"), Pod(release.namespace, dict(p)), port) for p in pods)


def every_host_flow_has_a_rule(stack: Plan, chosen: Random) -> None:
    """On one machine of each role and cluster, against some peers: the tables, the plan and its text are one."""
    everyone = peers(stack)
    hosts = {(host.role, host.cluster): host for host in stack.topology.hosts}.values()
    for host in chosen.sample(list(hosts), min(4, len(hosts))):
        found = network.openings(host, stack.contract)
        rules = parse(nftables.ruleset(host, stack.contract))
        for peer in chosen.sample(everyone, min(3, len(everyone))):
            wanted = expected(stack, host, peer)
            for protocol in BOTH:
                for port in PORTS:
                    assert rules.lets_in(peer.address, protocol, port) == ((protocol, port) in wanted), (
                        f"{host.name} {protocol}/{port} from {peer}"
                    )
        assert found


@pytest.mark.toolchain
@examples(DEPLOYED)
@given(written())
def test_any_architecture_is_deployed(values: dict[str, Any]) -> None:
    """The whole program against the engine's double: every host, release and password of the plan, once."""
    _, stack = followed(values)
    drawn["deployed"] += 1
    found = deployed(stack)
    assert_deployed(stack, found)


def assert_deployed(stack: Plan, found: Recording) -> None:
    urns = [resource.urn for resource in found.resources]
    assert len(set(urns)) == len(urns)
    names = {resource.name for resource in found.resources}
    assert {f"host-{host.name}" for host in stack.topology.hosts} <= names
    helm = sorted(r.name for r in found.of_type("kubernetes:helm.sh/v3:Release"))
    assert helm == sorted(f"{cluster}-tools-{release.name}" for cluster, release in every(stack))
    for cluster in stack.topology.clusters:
        assert {f"{cluster.name}-nodes-{node.name}-rke2" for node in cluster.nodes} <= names
    balancers = sorted(r.name for r in found.of_type("opstella:network:LoadBalancer"))
    assert balancers == sorted(f"{balancer.owner.name}-lb" for balancer in stack.topology.load_balancers)
