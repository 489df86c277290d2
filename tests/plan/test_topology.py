"""Machines: the reference's, and the laws of names and addresses for any stack."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from plan.plan import Plan, build
from plan.topology import MASTERS_TAINT, Host
from tests.plan.stacks import examples, plan, read, stacks, written

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def sizes(hosts: tuple[Host, ...]) -> list[tuple[str, int, int, int]]:
    return [(h.name, h.cpu, h.memory_gb, h.disk_gb) for h in hosts]


def test_standalone_is_the_reference() -> None:
    hosts = plan().topology.hosts
    # "Specification" of the standalone architecture, one line a machine.
    assert sorted(sizes(hosts)) == sorted(
        [
            ("bastion", 1, 2, 20),
            ("haproxy", 1, 2, 20),
            ("nfs", 1, 2, 100),
            ("gitlab", 2, 4, 40),
            ("master-1", 2, 4, 40),
            *[(f"worker-{n}", 4, 10, 40) for n in range(1, 6)],
        ]
    )
    # The documented order of allocation, from machines.firstAddress 11 on.
    order = ["bastion", "haproxy", "nfs", "gitlab", "master-1", *(f"worker-{n}" for n in range(1, 6))]
    assert {h.name: str(h.address) for h in hosts} == {
        name: f"192.168.72.{number}" for number, name in enumerate(order, 11)
    }
    assert {str(h.subnet) for h in hosts} == {"192.168.72.0/24"}


def test_multicluster_is_the_reference() -> None:
    topology = plan("multicluster").topology
    # Per cluster: subnet, disk of the NFS share, workers and their cores. The DEV share's 100 GB follow from the
    # printed total of disks.
    rows = {
        "devsecops": ("192.168.72.0/24", 500, 3, 4),
        "observability": ("192.168.73.0/24", 500, 3, 4),
        "dev": ("192.168.74.0/24", 100, 3, 4),
        "prd": ("192.168.75.0/24", 100, 5, 6),
    }
    expected = [("bastion", 1, 2, 20), ("gitlab", 4, 8, 40)]
    for name, (_, disk, workers, cpu) in rows.items():
        expected += [(f"{name}-haproxy", 1, 2, 20), (f"{name}-nfs", 1, 2, disk)]
        expected += [(f"{name}-master-{n}", 2, 4, 20) for n in (1, 2, 3)]
        expected += [(f"{name}-worker-{n}", cpu, 8, 40) for n in range(1, workers + 1)]
    assert sorted(sizes(topology.hosts)) == sorted(expected)
    assert len(topology.hosts) == 36
    assert {c.name: {str(h.subnet) for h in (*c.nodes, c.nfs, *c.load_balancers)} for c in topology.clusters} == {
        name: {subnet} for name, (subnet, *_) in rows.items()
    }
    # Bastion and GitLab stand with the DevSecOps cluster.
    assert {str(h.subnet) for h in (topology.bastion, topology.gitlab)} == {"192.168.72.0/24"}
    assert {str(h.address) for h in topology.hosts if h.name.endswith("-haproxy")} == {
        "192.168.72.12", "192.168.73.11", "192.168.74.11", "192.168.75.11",
    }  # fmt: skip


def test_given_addresses_are_kept_and_skipped() -> None:
    cluster = {
        "loadBalancer": {"address": "192.168.72.200"},
        "workers": {"addresses": ["192.168.72.12", "192.168.72.9"], "count": 3},
    }
    topology = plan(bastion={"address": "192.168.72.14"}, clusters={"standalone": cluster}).topology
    assert {h.name: str(h.address).rpartition(".")[2] for h in topology.hosts} == {
        "bastion": "14", "haproxy": "200", "nfs": "11", "gitlab": "13", "master-1": "15",
        "worker-1": "12", "worker-2": "9", "worker-3": "16",
    }  # fmt: skip


def test_a_second_cluster_gives_every_machine_of_a_cluster_its_clusters_name() -> None:
    cluster = {"subnet": "10.0.0.0/24", "workers": {"count": 1, "cpu": 16, "memoryGb": 32}}
    alone = plan("custom", clusters={"one": cluster}).topology
    both = plan("custom", clusters={"one": cluster, "two": {**cluster, "subnet": "10.1.0.0/24"}}).topology
    assert [h.name for h in alone.hosts] == ["bastion", "gitlab", "haproxy", "nfs", "master-1", "master-2", "master-3",
                                             "worker-1"]  # fmt: skip
    assert {h.name.removeprefix("one-") for h in both.hosts if not h.name.startswith("two-")} == {
        h.name for h in alone.hosts
    }
    assert all(h.name.startswith(f"{h.cluster}-") for h in both.hosts if h.cluster)


@examples(30)
@given(stacks())
def test_every_machine_is_there_once(stack: Plan) -> None:
    topology = stack.topology
    own = {name: c.load_balancer for name, c in stack.settings.clusters.items() if not c.load_balancer.shared_with}
    counted = [(name, "haproxy", balancer.count) for name, balancer in own.items()]
    counted += [(c, "nfs", 1) for c in stack.settings.clusters]
    counted += [(name, "master", c.masters.count) for name, c in stack.settings.clusters.items()]
    counted += [(name, "worker", c.workers.count) for name, c in stack.settings.clusters.items()]
    expected = {(cluster, role): count for cluster, role, count in counted} | {
        (None, "bastion"): 1,
        (None, "gitlab"): 1,
    }
    found: dict[tuple[str | None, str], int] = {}
    for host in topology.hosts:
        found[host.cluster, host.role] = found.get((host.cluster, host.role), 0) + 1
    assert found == expected
    assert len({h.name for h in topology.hosts}) == len(topology.hosts)
    assert all(LABEL.fullmatch(h.name) for h in topology.hosts)
    for cluster in topology.clusters:
        assert len(cluster.masters) % 2 == 1
        assert cluster.nodes == cluster.masters + cluster.workers
        mine = {cluster.nfs, *cluster.nodes, *(cluster.load_balancers if cluster.name in own else ())}
        assert mine == set(cluster.own) == {h for h in topology.hosts if h.cluster == cluster.name}


@examples(30)
@given(stacks())
def test_addresses_are_unique_and_usable(stack: Plan) -> None:
    hosts = stack.topology.hosts
    assert len({h.address for h in hosts}) == len(hosts)
    first = next(iter(stack.settings.clusters.values()))
    for host in hosts:
        assert host.subnet == (stack.settings.clusters[host.cluster].subnet if host.cluster else first.subnet)
        assert host.address in host.subnet
        assert host.address not in (host.subnet.network_address, host.subnet.broadcast_address)


@examples(30)
@given(stacks())
def test_given_addresses_are_kept_and_the_others_allocated_upwards(stack: Plan) -> None:
    settings, topology = stack.settings, stack.topology
    assert settings.bastion.address in (None, topology.bastion.address)
    assert settings.gitlab.address in (None, topology.gitlab.address)
    for cluster in topology.clusters:
        given_addresses = cluster.settings
        balancers = tuple(b.address for b in cluster.load_balancers)
        assert given_addresses.load_balancer.given in ((), balancers)
        assert given_addresses.nfs.address in (None, cluster.nfs.address)
        for group, hosts in ((given_addresses.masters, cluster.masters), (given_addresses.workers, cluster.workers)):
            assert tuple(h.address for h in hosts[: len(group.addresses)]) == group.addresses
        rest = hosts_allocated(stack, cluster.name)
        assert rest == sorted(rest)
        assert all(n >= settings.machines.first_address for n in rest)


def hosts_allocated(stack: Plan, name: str) -> list[int]:
    """Host numbers that were not given, in the documented order."""
    settings, topology = stack.settings, stack.topology
    cluster = next(c for c in topology.clusters if c.name == name)
    own, first = cluster.settings, cluster is topology.clusters[0]
    machines = [
        *([(settings.bastion.address, topology.bastion)] if first else []),
        *((next(iter(own.load_balancer.given), None), h) for h in cluster.own if h.role == "haproxy"),
        (own.nfs.address, cluster.nfs),
        *([(settings.gitlab.address, topology.gitlab)] if first else []),
        *((None, h) for h in cluster.masters[len(own.masters.addresses) :]),
        *((None, h) for h in cluster.workers[len(own.workers.addresses) :]),
    ]
    return [int(h.address) - int(h.subnet.network_address) for given_one, h in machines if given_one is None]


def grown(values: dict[str, Any], cluster: str, group: str, by: int) -> Plan | None:
    """The stack with `by` more nodes at the end of a group, or None where they do not fit."""
    cluster_values = values["clusters"][cluster]
    group_values = cluster_values[group] | {"count": cluster_values[group]["count"] + by}
    changed = values | {"clusters": values["clusters"] | {cluster: cluster_values | {group: group_values}}}
    try:
        return plan("custom", **changed)
    except ConfigurationError:
        return None


def made(values: dict[str, Any]) -> Plan:
    try:
        return plan("custom", **values)
    except ConfigurationError:
        assume(False)
        raise


@pytest.mark.toolchain
@examples(30)
@given(written(), st.data())
def test_a_worker_more_moves_no_machine(values: dict[str, Any], data: st.DataObject) -> None:
    before = made(values)
    cluster = data.draw(st.sampled_from(sorted(values["clusters"])))
    after = grown(values, cluster, "workers", data.draw(st.integers(1, 3)))
    assume(after is not None)
    assert after is not None
    hosts = {h.name: h for h in after.topology.hosts}
    assert [hosts.get(h.name) for h in before.topology.hosts] == list(before.topology.hosts)


@pytest.mark.toolchain
@examples(30)
@given(written(), st.data())
def test_masters_more_move_at_most_their_clusters_allocated_workers(
    values: dict[str, Any], data: st.DataObject
) -> None:
    """Workers stand behind the masters in their subnet, so those whose address is not given do move."""
    before = made(values)
    name = data.draw(st.sampled_from(sorted(values["clusters"])))
    after = grown(values, name, "masters", 2)
    assume(after is not None)
    assert after is not None
    hosts = {h.name: h for h in after.topology.hosts}
    moved = {h.name for h in before.topology.hosts if hosts[h.name] != h}
    cluster = next(c for c in before.topology.clusters if c.name == name)
    assert moved <= {w.name for w in cluster.workers[len(cluster.settings.workers.addresses) :]}


def test_masters_more_do_move_allocated_workers() -> None:
    """What a user must know before adding masters to a running cluster: give its workers' addresses first."""
    alone, three = (
        {h.name: str(h.address) for h in plan(clusters={"standalone": {"masters": {"count": n}}}).topology.hosts}
        for n in (1, 3)
    )
    assert (alone["worker-1"], three["worker-1"]) == ("192.168.72.16", "192.168.72.18")


def test_labels_of_a_node_lie_over_those_of_its_group() -> None:
    workers = {
        "labels": {"example.com/zone": "a", "tier": "tools"},
        "nodeLabels": {"worker-2": {"example.com/zone": "b", "example.com/disk": "ssd"}},
        "taints": [{"key": "dedicated", "value": "tools", "effect": "PreferNoSchedule"}],
    }
    cluster = plan(clusters={"standalone": {"workers": workers}}).topology.clusters[0]
    assert cluster.workers[0].labels == (("example.com/zone", "a"), ("tier", "tools"))
    assert cluster.workers[1].labels == (("example.com/disk", "ssd"), ("example.com/zone", "b"), ("tier", "tools"))
    assert all(len(w.taints) == 1 and w.taints[0].key == "dedicated" for w in cluster.workers)
    assert cluster.masters[0].labels == () and cluster.masters[0].taints == (MASTERS_TAINT,)


@pytest.mark.parametrize(
    ("architecture", "cluster", "group", "node", "valid"),
    [
        ("standalone", "standalone", "workers", "worker-6", "worker-1, worker-2, worker-3, worker-4, worker-5"),
        ("standalone", "standalone", "masters", "worker-1", "master-1"),
        ("multicluster", "prd", "workers", "worker-1", "prd-worker-1, prd-worker-2, prd-worker-3, prd-worker-4"),
    ],
)
def test_labels_of_a_node_that_is_not_there_are_refused(
    architecture: str, cluster: str, group: str, node: str, valid: str
) -> None:
    settings = {"clusters": {cluster: {group: {"nodeLabels": {node: {"a": "b"}}}}}}
    with pytest.raises(ConfigurationError) as caught:
        plan(architecture, **settings)
    (problem,) = caught.value.problems
    assert problem.key == f"opstella:clusters.{cluster}.{group}.nodeLabels"
    assert f"'{node}'" in problem.what
    assert valid in problem.fix


def test_of_many_nodes_the_first_and_the_last_are_named() -> None:
    workers = {"count": 6, "nodeLabels": {"worker-7": {"a": "b"}}}
    with pytest.raises(ConfigurationError, match="name one of worker-1 to worker-6"):
        plan(clusters={"standalone": {"workers": workers}})


def test_the_groups_networks_hold_exactly_their_addresses() -> None:
    cluster = plan("multicluster").topology.clusters[3]
    for group, hosts in (
        ("master", cluster.masters),
        ("worker", cluster.workers),
        ("node", cluster.nodes),
        ("haproxy", cluster.load_balancers),
    ):
        assert sorted(a for n in cluster.networks[group] for a in n) == sorted(h.address for h in hosts)


def test_settings_are_not_touched() -> None:
    settings = read("multicluster")
    before = settings.model_dump_json()
    build(settings, "opstella/multicluster")
    assert settings.model_dump_json() == before
