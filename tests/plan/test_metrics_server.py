"""Who serves the resource metrics, and what becomes of the autoscalers: RKE2's metrics-server, the catalogue's, nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plan import rke2
from plan.plan import Plan
from plan.tools import metrics_server
from plan.tools.model import ToolInputs
from tests.plan.stacks import plan

INPUTS = ToolInputs(domain="x.example.com", hosts={}, nfs_server="n", nfs_path="/", metrics_server="catalogue")


def stack(served_by: str) -> Plan:
    """Two clusters' worth of pods that may grow need an architecture of several masters."""
    return plan("multicluster", kubernetes={"metricsServer": served_by})


def autoscalers(of: Plan) -> list[str]:
    return [
        manifest.name
        for releases in of.releases.values()
        for release in releases
        for manifest in release.after
        if manifest.body["kind"] == "HorizontalPodAutoscaler"
    ]


def server(of: Plan) -> dict[str, Any]:
    cluster = of.topology.clusters[0]
    return rke2.node_config(cluster, cluster.masters[0], of.settings.kubernetes, "api.x")


@pytest.mark.parametrize(
    ("served_by", "disabled", "deployed"),
    [("rke2", None, False), ("catalogue", ["rke2-metrics-server"], True), ("none", ["rke2-metrics-server"], False)],
)
def test_one_serves_or_none(served_by: str, disabled: list[str] | None, deployed: bool) -> None:
    made = stack(served_by)
    assert server(made).get("disable") == disabled
    for releases in made.releases.values():
        assert ("metrics-server" in {release.name for release in releases}) == deployed
    assert bool(autoscalers(made)) == (served_by != "none")
    assert any("no HorizontalPodAutoscaler" in warning for warning in made.warnings) == (served_by == "none")


def test_agents_are_told_nothing_of_it() -> None:
    made = stack("none")
    cluster = made.topology.clusters[0]
    assert "disable" not in rke2.node_config(cluster, cluster.workers[0], made.settings.kubernetes, "api.x")


def test_without_metrics_what_may_grow_keeps_the_number_of_its_pods() -> None:
    def pods(of: Plan) -> dict[str, int]:
        return {f"{row.tool} {name}": number for b in of.budgets.values() for row in b.rows for name, number, _ in row.pods}

    told = {w.name: w for rs in stack("none").releases.values() for r in rs for w in r.workloads}
    assert all(workload.autoscale is None for workload in told.values())
    assert pods(stack("none")).keys() == pods(stack("rke2")).keys()


def test_certificates_are_verified_on_both_sides() -> None:
    values = metrics_server.release(INPUTS).values
    assert values["apiService"]["insecureSkipTLSVerify"] is False
    issuer = values["tls"]["certManager"]["existingIssuer"]
    assert issuer == {"enabled": True, "kind": "ClusterIssuer", "name": INPUTS.cluster_issuer}
    assert "args" not in values  # --kubelet-insecure-tls above all


def test_several_pods_stand_on_different_nodes() -> None:
    assert "affinity" not in metrics_server.release(INPUTS).values
    values = metrics_server.release(replace(INPUTS, replicas=2)).values
    (preferred,) = values["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"]["labelSelector"]["matchLabels"] == metrics_server.LABELS
