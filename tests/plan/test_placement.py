"""Placement: pods with volumes stay off masters, pods that cannot share a node have enough of them, and every tool has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from config.errors import ConfigurationError
from plan import nfs, rke2
from plan.tools.catalogue import NAMES
from tests.plan.stacks import plan
from tests.support.platform import every_tool

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
ONE_WORKER = {
    "architecture": "custom",
    "clusters": {
        "one": {"subnet": "192.168.72.0/24", "masters": {"count": 3}, "workers": {"count": 1, "cpu": 16, "memoryGb": 64}}
    },
}


def tolerations(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name, value in values.items():
        if name == "tolerations":
            yield from value
        elif isinstance(value, Mapping):
            yield from tolerations(value)


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
@pytest.mark.parametrize(
    ("given", "others"),
    [
        ([], []),
        ([{"key": "CriticalAddonsOnly", "effect": "NoExecute"}], ["CriticalAddonsOnly=:NoExecute"]),
    ],
)
def test_masters_take_no_pods_that_do_not_ask_for_them(
    architecture: str, given: list[dict[str, str]], others: list[str]
) -> None:
    """The share is exported to workers only: on a master, a pod with a volume would wait for it for ever."""
    name = "standalone" if architecture == "standalone" else "prd"
    stack = plan(architecture, clusters={name: {"masters": {"taints": given}}})
    cluster = next(c for c in stack.topology.clusters if c.name == name)
    for master in cluster.masters:
        assert str(master.address) + "(" not in nfs.exports(cluster)
        config = rke2.node_config(cluster, master, stack.settings.kubernetes, "api.x")
        assert config["node-taint"] == [f"{CONTROL_PLANE}=:NoSchedule", *others]
    assert all(not worker.taints for worker in cluster.workers)


def test_the_users_value_of_the_masters_taint_stays() -> None:
    taint = {"key": CONTROL_PLANE, "value": "true", "effect": "NoSchedule"}
    (cluster,) = plan(clusters={"standalone": {"masters": {"taints": [taint]}}}).topology.clusters
    assert [(t.key, t.value, t.effect) for t in cluster.masters[0].taints] == [(CONTROL_PLANE, "true", "NoSchedule")]


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_no_tool_but_the_collector_tolerates_masters(architecture: str) -> None:
    """A tool that does, and has a volume, would have to keep off masters by an affinity, as csi-driver-nfs does."""
    stack = plan(architecture, **every_tool())
    releases = [release for of in stack.releases.values() for release in of]
    assert {release.name for release in releases} == set(NAMES)
    assert {r.name for r in releases if list(tolerations(r.values))} == {"alloy"}
    assert all("tolerations" not in repr(m.body) for r in releases for m in (*r.before, *r.after))


def test_one_worker_gets_one_pod_of_everything() -> None:
    """The case of three masters and a single worker: the second pod of the driver's controller would find the port of
    its probe taken on the worker, and the second Loki wants another node."""
    stack = plan(**ONE_WORKER)
    workloads = [w for release in stack.releases["one"] for w in release.workloads]
    assert {w.name for w in workloads if w.replicas > 1} == set()
    databases = [m for r in stack.releases["one"] for m in r.before if m.body["kind"] == "Cluster"]
    assert databases and {m.body["spec"]["instances"] for m in databases} == {1}
    assert stack.releases["one"][0].values["controller"]["replicas"] == 1


@pytest.mark.parametrize(("workers", "pods", "instances"), [(1, 1, 1), (2, 2, 2), (3, 2, 3), (5, 2, 3)])
def test_a_cluster_of_several_masters_has_as_many_pods_as_workers_have_room_for(
    workers: int, pods: int, instances: int
) -> None:
    clusters = {"standalone": {"masters": {"count": 3}, "workers": {"count": workers, "cpu": 32, "memoryGb": 128}}}
    releases = {r.name: r for r in plan(clusters=clusters).releases["standalone"]}
    assert releases["csi-driver-nfs"].workloads[0].replicas == releases["loki"].workloads[0].replicas == pods
    found = [m for m in releases["keycloak"].before if m.body["kind"] == "Cluster"]
    assert [m.body["spec"]["instances"] for m in found] == [instances]


def test_pods_on_the_hosts_network_never_share_a_node() -> None:
    clusters = {"standalone": {"masters": {"count": 3}}}
    driver = next(r for r in plan(clusters=clusters).releases["standalone"] if r.name == "csi-driver-nfs")
    affinity = driver.values["controller"]["affinity"]
    (term,) = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term == {"labelSelector": {"matchLabels": {"app": "csi-nfs-controller"}}, "topologyKey": "kubernetes.io/hostname"}
    assert "nodeAffinity" in affinity


@pytest.mark.parametrize("tool", ["csi-driver-nfs", "loki"])
def test_more_replicas_than_workers_are_refused_where_no_two_share_a_node(tool: str) -> None:
    def stack(replicas: int) -> None:
        plan(**ONE_WORKER, tools={tool: {"replicas": replicas}})

    with pytest.raises(ConfigurationError) as caught:
        stack(2)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"opstella:tools.{tool}.replicas: 2 replicas of {tool} need 2 workers")
    assert problem.fix.startswith("write 1 or less")
    stack(1)  # as the remedy says


# Labels


@pytest.mark.parametrize(
    "label",
    ["node-role.kubernetes.io/infra", "kubernetes.io/role", "app.kubernetes.io/part-of", "topology.kubernetes.io/zone",
     "node-restriction.kubernetes.io/x", "kops.k8s.io/instancegroup"],
)  # fmt: skip
def test_labels_of_the_namespaces_of_kubernetes_are_set_through_the_api_alone(label: str) -> None:
    """A kubelet that is told to register with most of them ends at once."""
    stack = plan(clusters={"standalone": {"workers": {"labels": {label: "a", "example.com/zone": "b", "disk": "ssd"}}}})
    (cluster,) = stack.topology.clusters
    config = rke2.node_config(cluster, cluster.workers[0], stack.settings.kubernetes, "api.x")
    assert config["node-label"] == ["disk=ssd", "example.com/zone=b"]
    assert (label, "a") in cluster.workers[0].labels  # which node.sh sets


def test_a_node_without_labels_of_its_own_registers_with_none() -> None:
    stack = plan(clusters={"standalone": {"workers": {"labels": {"kubernetes.io/role": "worker"}}}})
    (cluster,) = stack.topology.clusters
    assert "node-label" not in rke2.node_config(cluster, cluster.workers[0], stack.settings.kubernetes, "api.x")


# Taints of all workers


def tainted(effect: str, **sections: Any) -> dict[str, Any]:
    taints = [{"key": "dedicated", "value": "tools", "effect": effect}]
    return {"clusters": {"standalone": {"workers": {"taints": taints}}}, **sections}


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_a_taint_that_leaves_tools_without_a_node_is_refused(effect: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(**tainted(effect))
    (problem,) = caught.value.problems
    assert problem.key == "opstella:clusters.standalone.workers.taints"
    assert f"every worker has the taint dedicated=tools:{effect}" in problem.what
    named = problem.what.rpartition(" for ")[2].split(", ")
    assert {"csi-driver-nfs", "keycloak", "loki"} <= set(named) and "alloy" not in named
    assert problem.fix == "write effect: PreferNoSchedule, or remove the taint"
    assert plan(**tainted("PreferNoSchedule"))


@pytest.mark.parametrize(
    ("toleration", "runs"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"key": "dedicated", "value": "tools", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "value": "other"}, False),
        ({"key": "dedicated", "value": "tools", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_tool_that_the_user_lets_tolerate_the_taint_has_nodes(toleration: dict[str, str], runs: bool) -> None:
    given = {"csi-driver-nfs": {"values": {"controller": {"tolerations": [toleration]}}}}
    others = {name: {"enabled": False} for name in NAMES if name not in ("csi-driver-nfs", "alloy")}
    if runs:
        assert plan(**tainted("NoSchedule", tools={**others, **given}))
        return
    with pytest.raises(ConfigurationError) as caught:
        plan(**tainted("NoSchedule", tools={**others, **given}))
    assert caught.value.problems[0].what.endswith("no node is left for csi-driver-nfs")
