"""The list of images that a stack needs, against what the real charts render and what the plan starts itself."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError
from config.reference import overlay
from lab.charts.key_lists import key_list
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


EVERY = {name: f"sha256:{number:064x}" for number, name in enumerate(sorted(names(plan_of("standalone", every_tool()))), 1)}


def everything(**changes: Any) -> Plan:
    """The stack with every tool, and a digest of its own for each of its images."""
    return plan_of("standalone", overlay(every_tool(), {"media": {"imageDigests": EVERY}} | changes))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def test_a_charts_images_get_their_digests_by_the_keys_that_take_them() -> None:
    counted = 0
    for release in everything().releases["standalone"]:
        for image, keys in chart_facts.image_pins(release.chart, release.version).items():
            digest, tag = EVERY.get(images.complete(image)), image.rpartition(":")[2]
            if digest is None:
                assert images.complete(image).rpartition(":")[0] in images.NEVER_PULLED, image
                continue
            for path, form in keys.items():
                value: Any = release.values
                for part in path.split("."):
                    value = value[part]
                whole = {"digest": digest, "hex": digest[7:], "tag": f"{tag}@{digest}", "reference": f"{image}@{digest}"}
                assert value == whole[form], (release.name, path)
                counted += 1
    assert counted > 30


def test_no_digest_stands_anywhere_twice() -> None:
    for release in everything().releases["standalone"]:
        assert not [text for text in texts(release.values) if re.search(r"@sha256:[0-9a-f]+@|sha256:sha256", text)], release.name


def test_every_key_is_one_that_the_real_chart_has() -> None:
    for chart in versions.CHARTS:
        keys, found = key_list(chart.name, chart.version), chart_facts.image_pins(chart.name, chart.version)
        rendered = {
            image for one in chart_facts.renderings(chart.name, chart.version) for image in (*one.get("images", ()), *one.get("hook_images", ()))
        }
        assert set(found) <= rendered, chart.name
        for path in (path for of_image in found.values() for path in of_image):
            holders = [path.rpartition(".")[0][:end] for end in range(len(path)) if keys.get(path[:end]) == "map"]
            assert path in keys or holders or path.partition(".")[0] in SUB_CHARTS, (chart.name, path)


SUB_CHARTS = ("kube-state-metrics", "prometheus-node-exporter")


def test_the_images_that_the_runner_starts_get_theirs() -> None:
    plan = everything()
    (runner,) = (r for r in plan.releases["standalone"] if r.name == "gitlab-runner")
    own = tomllib.loads(runner.values["runners"]["config"])["runners"][0]["kubernetes"]
    debian = f"{versions.DEBIAN_IMAGE.name}:{versions.DEBIAN_IMAGE.version}"
    helper = f"registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:x86_64-v{versions.GITLAB_RUNNER.app_version}"
    assert (own["image"], own["helper_image"]) == (f"{debian}@{EVERY[debian]}", f"{helper}@{EVERY[helper]}")
    (plain,) = (r for r in plan_of("standalone", every_tool()).releases["standalone"] if r.name == "gitlab-runner")
    before = tomllib.loads(plain.values["runners"]["config"])
    assert before["runners"][0]["kubernetes"] == {k: v for k, v in own.items() if k != "helper_image"} | {"image": debian}
    assert names(plan) == {*EVERY}


def test_one_who_chooses_an_image_has_it_as_it_is() -> None:
    digests = {"docker.io/traefik:v3.7.11": DIGEST}
    chosen = {"image": {"tag": "v3.7.12"}}
    plan = plan_of("standalone", {"media": {"imageDigests": digests}, "tools": {"traefik": {"values": chosen}}})
    (traefik,) = (r for r in plan.releases["standalone"] if r.name == "traefik")
    assert traefik.values["image"].get("digest") is None and traefik.values["image"]["tag"] == "v3.7.12"
    (warning,) = (w for w in plan.warnings if "imageDigests" in w)
    assert 'imageDigests["docker.io/traefik:v3.7.11"]' in warning and "standalone/traefik" in warning
    assert not [w for w in with_digests(digests).warnings if "imageDigests" in w]


def test_a_digest_that_a_chart_takes_nowhere_is_told_and_listed() -> None:
    plan = everything()
    left = images.left_by_tag(plan.releases)
    told = [w for w in plan.warnings if w.startswith("media.imageDigests[")]
    assert {name for name in left if name in EVERY} == {w.split('"')[1] for w in told}
    listed = {one["image"]: one for one in images.as_data(plan.releases, EVERY, "v1")["images"]}
    for name, places in left.items():
        assert listed[name]["by_tag"] == [*places] and set(places) <= set(listed[name]["needed_by"])


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
    assert loki == {"image": "docker.io/grafana/loki:3.7.6", "digest": None, "needed_by": ["standalone/loki"], "by_tag": []}


def test_a_chart_that_was_never_read_makes_the_list_incomplete(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text((ROOT / "Pulumi.standalone.yaml").read_text() + '  opstella:tools: {loki: {version: 18.12.0}}\n')
    _, errors = said(capsys, "--config-file", str(file), status=1)
    assert "the images of the chart loki 18.12.0 are not in the list" in errors
    assert images_list.main(["--config-file", str(tmp_path / "none.yaml")]) == 1
