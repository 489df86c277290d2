"""The list of images that a stack needs, against what the real charts render and what the plan starts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError
from plan import images, images_list, versions
from plan.plan import Plan
from plan.tools import chart_facts
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

ROOT = Path(__file__).resolve().parents[2]
DIGEST = f"sha256:{'ab' * 32}"
OWN = {
    f"{one.name}:{one.version}": DIGEST for one in (versions.PYTHON_IMAGE, versions.MC_IMAGE, versions.MINIO_IMAGE)
} | {f"ghcr.io/cloudnative-pg/postgresql:{versions.POSTGRESQL.version}": DIGEST}


def names(plan: Plan) -> set[str]:
    return {image.name for image in images.images(plan.releases, {})}


def with_digests(digests: dict[str, str]) -> Plan:
    return plan_of("standalone", {"media": {"imageDigests": digests}})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_image_that_a_chart_renders_is_in_the_list(architecture: str) -> None:
    plan = plan_of(architecture, every_tool())
    listed, counted = names(plan), 0
    for releases in plan.releases.values():
        for release in releases:
            for rendering in chart_facts.renderings(release.chart, release.version):
                for pod in rendering["pods"].values():
                    for container in (*pod["containers"].values(), *pod.get("init", {}).values()):
                        counted += 1
                        assert images.complete(container["image"]) in listed, (release.name, container["image"])
            assert {images.complete(job.image) for job in release.jobs} <= listed, release.name
    assert counted > 40


def test_the_list_has_what_operators_and_the_runner_start() -> None:
    listed = names(plan_of("standalone", every_tool()))
    runner = versions.GITLAB_RUNNER.app_version
    assert {
        f"ghcr.io/cloudnative-pg/postgresql:{versions.POSTGRESQL.version}",
        "quay.io/prometheus/alertmanager:v0.34.0",
        f"registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:x86_64-v{runner}",
        f"registry.gitlab.com/gitlab-org/gitlab-runner:alpine-v{runner}",
        f"docker.io/grafana/mimir:{versions.MIMIR.app_version}",
        f"{versions.DEBIAN_IMAGE.name}:{versions.DEBIAN_IMAGE.version}",
        "registry.example.com/ui:1.0.0",
    } <= listed
    assert not [name for name in listed if name.rpartition(":")[0] in images.NEVER_PULLED]


def test_a_tool_that_is_left_out_needs_no_image() -> None:
    plan = plan_of("standalone", {"tools": {"defectdojo": {"enabled": False}}})
    assert not [name for name in names(plan) if "defectdojo" in name]


def test_no_image_has_a_tag_that_moves() -> None:
    moving = [name for name in names(plan_of("standalone", every_tool())) if images.floats(name)]
    assert moving == []


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("docker.io/nginxinc/nginx-unprivileged:1.29-alpine", True),
        ("docker.io/library/debian:stable-slim", True),
        ("docker.io/library/debian:trixie-20260803-slim", False),
        ("registry.example.com:5000/ui:1.2.3", False),
        ("registry.example.com:5000/ui", True),
        ("quay.io/minio/minio:RELEASE.2025-04-22T22-12-26Z", False),
        ("docker.io/grafana/loki:latest", True),
    ],
)
def test_which_tags_move(name: str, moves: bool) -> None:
    assert images.floats(name) is moves


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("sonarqube:1.0.0", "docker.io/library/sonarqube:1.0.0"),
        ("docker.io/traefik:v3.7.11", "docker.io/library/traefik:v3.7.11"),
        ("defectdojo/defectdojo-nginx:2.58.4", "docker.io/defectdojo/defectdojo-nginx:2.58.4"),
        ("registry:5000/a:1", "registry:5000/a:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("quay.io/a/b:1", "quay.io/a/b:1"),
    ],
)
def test_a_name_is_completed_as_container_runtimes_do(name: str, whole: str) -> None:
    assert images.complete(name) == whole == images.complete(whole)


def test_a_digest_stands_behind_every_reference_that_the_stack_writes() -> None:
    plan = with_digests(OWN)
    releases = {release.name: release for release in plan.releases["standalone"]}
    for release in releases.values():
        for job in release.jobs:
            assert job.image.endswith(f"@{DIGEST}"), job.name
    databases = [m.body["spec"] for r in releases.values() for m in r.before if m.body["kind"] == "Cluster"]
    assert databases and all(spec["imageName"].endswith(f"@{DIGEST}") for spec in databases)
    assert releases["minio"].values["image"]["tag"] == f"{versions.MINIO_IMAGE.version}@{DIGEST}"
    listed = {image.name: image for image in images.images(plan.releases, OWN)}
    assert all(listed[name].reference == f"{name}@{DIGEST}" for name in OWN)
    assert names(plan) == names(plan_of("standalone"))


def test_a_digest_of_an_image_that_nothing_needs_is_refused() -> None:
    wrong = "docker.io/grafana/loki:3.7.5"
    with pytest.raises(ConfigurationError) as error:
        with_digests({wrong: DIGEST})
    (problem,) = error.value.problems
    assert wrong in problem.key and f"no tool of this stack needs the image {wrong}" in problem.what
    assert "docker.io/grafana/loki:3.7.6" in problem.fix
    with_digests({"docker.io/grafana/loki:3.7.6": DIGEST})  # the remedy


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    assert images_list.main([*arguments]) == status
    found: Any = capsys.readouterr()
    return found.out, found.err


def test_the_command_prints_one_image_a_line_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = said(capsys, "--config-file", str(ROOT / "Pulumi.standalone.yaml"))
    lines = text.splitlines()
    assert lines == sorted(lines) and "docker.io/grafana/loki:3.7.6" in lines
    data = json.loads(said(capsys, "--json", "--config-file", str(ROOT / "Pulumi.standalone.yaml"))[0])
    assert [image["image"] for image in data["images"]] == lines
    assert data["rke2"] == {"version": versions.RKE2.version, "list": "rke2-images-all.linux-amd64.txt"}
    (loki,) = (image for image in data["images"] if "/loki:" in image["image"])
    assert loki == {"image": "docker.io/grafana/loki:3.7.6", "digest": None, "needed_by": ["standalone/loki"]}


def test_a_chart_that_was_never_read_makes_the_list_incomplete(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text((ROOT / "Pulumi.standalone.yaml").read_text() + '  opstella:tools: {loki: {version: 18.12.0}}\n')
    _, errors = said(capsys, "--config-file", str(file), status=1)
    assert "the images of the chart loki 18.12.0 are not in the list" in errors
    assert images_list.main(["--config-file", str(tmp_path / "none.yaml")]) == 1
