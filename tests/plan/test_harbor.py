"""Harbor's way out: what it hands on, by which proxy, and where its scanner has its databases from."""

from __future__ import annotations

from typing import Any

import pytest

from plan import media
from plan.plan import Plan
from plan.tools import harbor
from plan.tools.model import Release
from tests.plan.stacks import plan, read

PROXY = {"http": "http://192.168.9.9:3128", "https": "http://192.168.9.9:3129"}


def airgap(**more: Any) -> dict[str, Any]:
    """The section `media` of a stack in an air gap."""
    return {
        "source": "airgap",
        "artifacts": "https://media.example.com/opstella",
        "chartRepository": "https://charts.example.com",
        "sha256": dict.fromkeys(media.required_artifacts(read()), "0" * 64),
        **more,
    }


def found(stack: Plan) -> Release:
    return next(r for releases in stack.releases.values() for r in releases if r.name == harbor.NAME)


def proxied(release: Release) -> object:
    (job,) = release.jobs
    return job.environment["PROXIED"]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, "docker.io quay.io ghcr.io registry.k8s.io"),
        ({"media": airgap()}, ""),
        ({"media": airgap(registryMirror="https://registry.example.com")}, ""),
        ({"media": {"registryMirror": "https://registry.example.com"}}, ""),
    ],
)
def test_public_registries_are_handed_on_only_where_there_is_a_way_to_them(sections: dict[str, Any], expected: str) -> None:
    stack = plan(**sections)
    assert proxied(found(stack)) == expected
    assert (stack.registry is not None) == bool(expected), "nodes ask Harbor for what it hands on, and for nothing else"


def test_what_leaves_the_cluster_goes_through_the_proxy() -> None:
    stack = plan(proxy=PROXY)
    release = found(stack)
    given = release.values["proxy"]
    assert (given["httpProxy"], given["httpsProxy"]) == (PROXY["http"], PROXY["https"])
    assert given["components"] == ["core", "jobservice", "trivy"]
    directly = given["noProxy"].split(",")
    for inside in ("127.0.0.1", "localhost", ".svc", ".cluster.local", ".devops.example.com", "172.16.72.0/22", "172.16.76.0/22"):
        assert inside in directly, given["noProxy"]
    (outside,) = (flow for flow in release.flows if flow.why.startswith("registries"))
    assert outside.ports == (443, 3128, 3129), "the network policy lets it reach the proxies"


def test_without_a_proxy_nothing_is_said_of_one() -> None:
    assert "proxy" not in found(plan()).values


def test_the_scanner_has_the_public_databases_online() -> None:
    release = found(plan())
    trivy = release.values["trivy"]
    assert trivy["enabled"] and not trivy["offlineScan"] and "dbRepository" not in trivy and harbor.NO_SCANS not in release.missing


def test_an_air_gap_has_no_scanner_without_databases_and_says_so() -> None:
    release = found(plan(media=airgap()))
    assert release.values["trivy"]["enabled"] is False
    assert "harbor-trivy" not in {workload.name for workload in release.workloads}
    assert harbor.NO_SCANS in release.missing and "opstella:media.trivyDatabases" in harbor.NO_SCANS


@pytest.mark.parametrize("section", [airgap, dict])
def test_databases_come_from_the_folder_that_is_named(section: Any) -> None:
    """The remedy of the message, too: with it, nothing is missing."""
    release = found(plan(media=section(trivyDatabases="registry.example.com:5000/trivy")))
    trivy = release.values["trivy"]
    assert trivy["enabled"] is True and harbor.NO_SCANS not in release.missing
    assert trivy["dbRepository"] == ["registry.example.com:5000/trivy/trivy-db"]
    assert trivy["javaDBRepository"] == ["registry.example.com:5000/trivy/trivy-java-db"]
    assert trivy["offlineScan"] is (section is airgap)
    assert 5000 in {port for flow in release.flows if flow.why.startswith("registries") for port in flow.ports}
    assert "harbor-trivy" in {workload.name for workload in release.workloads}
