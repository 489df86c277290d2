"""Releases of a plan, rendered by the real Helm from the packed doubles of their charts."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from components import helm_lists
from lab.charts.package import Loader, definition_places, package
from plan import versions
from plan.tools.common import merge
from plan.tools.model import Release
from tests.support.api_server import ROOT, executable

KUBERNETES = versions.RKE2.version.removeprefix("v").partition("+")[0]
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet")
Object = dict[str, Any]


class Refused(Exception):
    """helm said no; the text is what it printed."""


def small_definitions(folder: Path) -> Path:
    """One small definition a chart; the tools' own come from Go modules, and most of what is tested needs none."""
    for chart in definition_places():
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"things.{chart}.test"},
            "spec": {"group": f"{chart}.test", "description": "text with {{ braces }} that no template may touch"},
        }
        (folder / f"{chart}.yaml").write_text("---\n" + yaml.safe_dump(definition))
    return folder


def repository(folder: Path) -> Path:
    """Every double packed into `folder`/charts, with small definitions."""
    for name in ("definitions", "charts"):
        (folder / name).mkdir()
    package(folder / "charts", small_definitions(folder / "definitions"))
    return folder / "charts"


@functools.cache
def _helm() -> Path:
    return executable("helm", "helm")


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
    """Run helm. Raises Refused with its standard error."""
    done = subprocess.run(
        [_helm(), *arguments, *(["-f", "-"] if values is not None else [])],
        input=json.dumps(values) if values is not None else None,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(charts: Path, release: Release, values: Mapping[str, Any] | None = None) -> list[Object]:
    """The objects of `release`, hooks and definitions included."""
    chart = charts / f"{release.chart}-{release.version}.tgz" if release.repository else ROOT / release.chart
    after = ("--post-renderer", ROOT / helm_lists.POST_RENDERER) if release.last_value_wins else ()
    text = helm(
        "template", release.name, chart, "--namespace", release.namespace, "--kube-version", KUBERNETES, "--include-crds", *after,
        values=merge(release.values, values or {}),
    )  # fmt: skip
    documents = [document for document in yaml.load_all(text, Loader=Loader) if document]
    return [item for document in documents for item in (document["items"] if document["kind"] == "List" else [document])]


def found(objects: list[Object], kind: str) -> dict[str, Object]:
    """Name to object, of one kind."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """What stands there (`Kind/name`), and its pod template, of everything that makes pods."""
    for o in objects:
        spec = o.get("spec", {})
        if o["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        elif o["kind"] not in (*WORKLOADS, "Job"):
            continue
        yield f"{o['kind']}/{o['metadata']['name']}", spec["template"]


def pods(objects: list[Object]) -> Iterator[Object]:
    """The pod specs."""
    for _, template in templates(objects):
        yield template["spec"]
