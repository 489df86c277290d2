"""Sizes that a user gives to a tool: each changes something, or is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from config.errors import ConfigurationError
from plan.tools.catalogue import catalogue
from plan.tools.model import Override, Release
from tests.plan.test_tools import INPUTS


def sized(tool: str, **sizes: int) -> Release:
    inputs = replace(INPUTS, overrides={tool: Override(**sizes)})
    return next(release for release in catalogue(inputs) if release.name == tool)


def test_pods() -> None:
    release = sized("keycloak", replicas=3)
    assert release.values["replicas"] == 3
    assert [w.replicas for w in release.workloads] == [3]
    assert "PodDisruptionBudget" in {m.body["kind"] for m in (*release.before, *release.after)}


def test_the_size_of_a_database_is_the_users() -> None:
    database = next(m for m in sized("keycloak", storage=33).before if m.body["kind"] == "Cluster")
    assert database.body["spec"]["storage"]["size"] == "33Gi"


def test_the_size_of_a_volume_is_the_users() -> None:
    assert "33Gi" in repr(sized("minio", storage=33).values)


@pytest.mark.parametrize("size", [1, 49])
@pytest.mark.parametrize(
    ("tool", "field", "message"),
    [
        ("traefik", "replicas", "opstella:tools.traefik.replicas: the number of traefik's pods is fixed"),
        ("traefik", "storage", "opstella:tools.traefik.storage: traefik keeps nothing on a volume"),
        ("argo-cd", "storage", "opstella:tools.argo-cd.storage: argo-cd keeps nothing on a volume"),
    ],
)
def test_a_size_that_changes_nothing_is_refused(tool: str, field: str, message: str, size: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sized(tool, **{field: size})
    assert str(caught.value.problems[0]).startswith(message) and len(caught.value.problems) == 1


@pytest.mark.parametrize("field", ["replicas", "storage"])
def test_the_default_written_out_is_no_fault(field: str) -> None:
    assert sized("keycloak", **{field: 1 if field == "replicas" else 5})
