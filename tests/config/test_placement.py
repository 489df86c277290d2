"""Where tools live: the reference's places, the user's, and the names of their services."""

from __future__ import annotations

from typing import Any

import pytest

from config.load import from_values
from config.model import Settings
from config.pem import ENCRYPTED
from config.placement import clusters_of, service_key, services
from config.reference import FOLLOWS, PLACES, SERVICES, SEVERAL
from plan.tools import catalogue

OWN = {name: {"subnet": f"10.0.{number}.0/24"} for number, name in enumerate(("main", "observability", "dev"))}


def read(architecture: str = "multicluster", **sections: Any) -> Settings:
    least = {"architecture": architecture, "domain": "devops.example.com", "ssh": {"privateKey": ENCRYPTED}}
    return from_values({**least, **sections}, "test")


def names(settings: Settings, tool: str) -> dict[str, tuple[str, str | None]]:
    return {s.key: (s.label, s.cluster) for s in services(settings) if s.tool == tool}


def test_the_tables_are_the_catalogues() -> None:
    """What users open is a service of the reference; no service is of a tool that there is not."""
    keys = {tool.name: tool.domain_key for tool in catalogue.TOOLS if tool.name not in FOLLOWS}
    assert {name for name, key in keys.items() if key} == set(SERVICES)
    assert {name: key for name, key in keys.items() if key} == {tool: kinds[0] for tool, kinds in SERVICES.items()}
    assert set(SERVICES) <= set(PLACES)
    assert set(FOLLOWS) <= set(catalogue.NAMES)
    assert set(SEVERAL) <= set(PLACES)


@pytest.mark.parametrize(
    ("tool", "places"),
    [
        ("argo-cd", ("dev", "prd")),
        ("minio", ("devsecops", "observability")),
        ("mimir", ("observability",)),
        ("gitlab-runner", ("dev",)),
        ("harbor", ("devsecops",)),
        ("vault-unsealer", ("devsecops",)),
        ("oauth2-proxy", ("observability",)),
        ("alloy", ("devsecops", "observability", "dev", "prd")),
    ],
)
def test_the_references_places(tool: str, places: tuple[str, ...]) -> None:
    assert clusters_of(read(), tool) == places


@pytest.mark.parametrize(
    ("tool", "places"),
    [
        ("harbor", ("main",)),
        ("minio", ("main", "observability")),
        ("grafana", ("observability",)),
        ("argo-cd", ("dev",)),
        ("alloy", ("main", "observability", "dev")),
    ],
)
def test_the_references_names_count_where_there_are_such_clusters(tool: str, places: tuple[str, ...]) -> None:
    assert clusters_of(read("custom", clusters=OWN), tool) == places


@pytest.mark.parametrize("tool", [*PLACES, "alloy", "oauth2-proxy"])
def test_otherwise_the_first_cluster_carries_what_there_is_one_of(tool: str) -> None:
    assert clusters_of(read("custom", clusters={"only": OWN["main"]}), tool) == ("only",)
    clusters = {name: OWN[own] for name, own in (("b", "main"), ("a", "dev"))}
    assert clusters_of(read("custom", clusters=clusters), tool) == (("b",) if tool != "alloy" else ("b", "a"))


def test_what_follows_moves_along() -> None:
    moved = read(tools={"vault": {"clusters": ["prd"]}, "loki": {"clusters": ["dev"]}})
    assert clusters_of(moved, "vault-unsealer") == ("prd",)
    assert clusters_of(moved, "oauth2-proxy") == ("observability", "dev")


def test_a_cluster_that_is_left_out_carries_nothing() -> None:
    without = read(clusters={"prd": {"enabled": False}})
    assert list(without.enabled_clusters) == ["devsecops", "observability", "dev"]
    assert clusters_of(without, "argo-cd") == ("dev",)
    assert names(without, "argo-cd") == {"argocd": ("argocd", "dev")}


def test_a_service_in_several_clusters_has_a_key_in_each() -> None:
    spread = read(tools={"minio": {"clusters": ["dev", "observability"]}}, domains={"minioDev": "objects"})
    assert names(spread, "minio") == {
        "minioObservability": ("minio-obs", "observability"),  # the reference's own label
        "minioApiObservability": ("minio-obs-api", "observability"),
        "minioDev": ("objects", "dev"),
        "minioApiDev": ("minio-api-dev", "dev"),
    }


def test_a_service_in_one_cluster_has_the_plain_key() -> None:
    assert names(read(tools={"argo-cd": {"clusters": ["prd"]}}), "argo-cd") == {"argocd": ("argocd", "prd")}
    assert service_key("minioApi", "edge-2-north") == "minioApiEdge2North"


def test_each_cluster_of_a_mesh_has_networks_of_its_own() -> None:
    """What the user gives stays, and is given to no other."""
    mesh = read(network={"mesh": True}, clusters={"observability": {"podSubnet": "172.16.80.0/22"}})
    found = {name: (str(c.pod_subnet), str(c.service_subnet)) for name, c in mesh.clusters.items()}
    assert found == {
        "devsecops": ("172.16.72.0/22", "172.16.76.0/22"),
        "observability": ("172.16.80.0/22", "172.16.92.0/22"),
        "dev": ("172.16.96.0/22", "172.16.100.0/22"),
        "prd": ("172.16.104.0/22", "172.16.108.0/22"),
    }


def test_without_a_mesh_clusters_may_share_their_inner_networks() -> None:
    assert {str(c.pod_subnet) for c in read().clusters.values()} == {"172.16.72.0/22"}


def test_a_tool_that_is_left_out_keeps_a_name_where_its_cluster_is_left_out_too() -> None:
    """What names it (an issuer, a variable) is planned before the error page says that it is missing."""
    without = read(
        clusters={"observability": {"enabled": False}},
        tools={tool: {"enabled": False} for tool in ("loki", "grafana", "tempo", "mimir")},
    )
    assert names(without, "loki") == {"loki": ("loki", "devsecops")}
