"""The stack files of docs/architectures.md: each is valid as it stands, and its plan is what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.load import from_stack_file
from plan.plan import Plan, build
from tests.plan.test_architectures import DEPLOYED, PLANNED

PAGE = (Path(__file__).parents[2] / "docs/architectures.md").read_text()
FILES = dict(re.findall(r"^## (.+?)$.*?^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def planned(title: str, folder: Path) -> Plan:
    file = folder / "Pulumi.own.yaml"
    file.write_text(FILES[title])
    return build(from_stack_file(file), "opstella/own")


def carrying(stack: Plan, name: str) -> list[str]:
    return [cluster for cluster, releases in stack.releases.items() if any(r.name == name for r in releases)]


@pytest.mark.parametrize("title", FILES)
def test_every_file_has_a_plan(title: str, tmp_path: Path) -> None:
    stack = planned(title, tmp_path)
    assert {r.name for rs in stack.releases.values() for r in rs} >= {"keycloak", "grafana", "vault", "argo-cd"}


def test_there_are_four() -> None:
    assert list(FILES) == [
        "One highly available cluster",
        "Three clusters",
        "Two sites, one object store, a mesh",
        "Three clusters behind one pair of load balancers",
    ]


def test_one_highly_available_cluster(tmp_path: Path) -> None:
    (cluster,) = planned("One highly available cluster", tmp_path).topology.clusters
    assert [m.name for m in cluster.masters] == ["master-1", "master-2", "master-3"]


def test_three_clusters(tmp_path: Path) -> None:
    stack = planned("Three clusters", tmp_path)
    assert carrying(stack, "argo-cd") == ["staging", "production"] and carrying(stack, "loki") == ["platform"]
    names = {r.service: r.name for r in stack.records if r.kind == "argocd"}
    assert names == {"argocdStaging": "argocd-staging.devops.example.com", "argocdProduction": "cd.devops.example.com"}


def test_two_sites(tmp_path: Path) -> None:
    stack = planned("Two sites, one object store, a mesh", tmp_path)
    assert (carrying(stack, "vault"), carrying(stack, "minio")) == (["south"], ["north"])
    north, south = (c.settings for c in stack.topology.clusters)
    assert not north.pod_subnet.overlaps(south.pod_subnet)


def test_three_clusters_behind_one_pair_of_load_balancers(tmp_path: Path) -> None:
    stack = planned("Three clusters behind one pair of load balancers", tmp_path)
    (balancer,) = stack.topology.load_balancers
    assert [c.name for c in balancer.clusters] == ["platform", "staging", "production"]
    assert [h.name for h in stack.topology.hosts if h.role == "haproxy"] == ["platform-haproxy-1", "platform-haproxy-2"]
    records = {r.name.partition(".")[0]: str(r.address) for r in stack.records}
    assert (records["grafana"], records["argocd-staging"], records["argocd-production"]) == (
        "10.40.0.10", "10.40.0.7", "10.40.0.6",
    )  # fmt: skip


def test_the_figures_are_the_tests() -> None:
    assert f"The plan of {PLANNED} random architectures" in PAGE and f"and {DEPLOYED} are deployed" in PAGE
