"""Variables that a release's workload names twice: rendered once, and taken away where they were deployed twice."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from components import helm_lists
from tests.support.api_server import ROOT
from tests.support.platform import reference

RELEASE = "kubernetes:helm.sh/v3:Release"
KEY = {"secretKeyRef": {"name": "addresses", "key": "trivy"}}
PLAIN = """
# Source: chart/templates/plain.yaml
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
data:
  text: |
    ---
    kind: Deployment
"""


def workload(*env: dict[str, Any], kind: str = "StatefulSet") -> dict[str, Any]:
    container = {"name": "main", "env": list(env)}
    pod: dict[str, Any] = {"spec": {"containers": [container], "initContainers": [{"name": "first"}]}}
    spec = {"jobTemplate": {"spec": {"template": pod}}} if kind == "CronJob" else {"template": pod}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "harbor-trivy"}, "spec": spec}


def variables(text: str) -> list[dict[str, Any]]:
    """Of the only workload of `text`."""
    (document,) = (d for d in yaml.safe_load_all(text) if d and d["kind"] != "ConfigMap")
    spec = document["spec"].get("jobTemplate", {}).get("spec", document["spec"])
    return spec["template"]["spec"]["containers"][0]["env"]


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "DaemonSet", "Job", "CronJob"])
def test_the_last_of_each_variable_is_rendered(kind: str) -> None:
    doubled = workload(
        {"name": "URL", "value": "of the chart"}, {"name": "LEVEL", "value": "1e3"}, {"name": "URL", "valueFrom": KEY}, kind=kind
    )
    text = f"---{PLAIN}---\n{yaml.safe_dump(doubled)}"
    rendered = helm_lists.render(text)
    assert variables(rendered) == [{"name": "LEVEL", "value": "1e3"}, {"name": "URL", "valueFrom": KEY}]
    assert rendered.startswith(f"---{PLAIN}---"), "what names nothing twice stays as it is, to the letter"
    assert helm_lists.render(rendered) == rendered


def test_what_names_nothing_twice_stays_as_it_is() -> None:
    text = f"---{PLAIN}---\n{yaml.safe_dump(workload({'name': 'URL', 'value': 'x'}))}---\n"
    assert helm_lists.render(text) == text


def test_the_program_is_what_helm_runs_it_as() -> None:
    text = yaml.safe_dump(workload({"name": "URL", "value": "a"}, {"name": "URL", "value": "b"}))
    done = subprocess.run(
        [ROOT / helm_lists.POST_RENDERER], input=text, capture_output=True, text=True, check=True, cwd="/", timeout=60
    )
    assert variables(done.stdout) == [{"name": "URL", "value": "b"}]


class Api:
    """Stands in for an API server with one StatefulSet of `release`."""

    def __init__(self, release: str, *env: dict[str, Any]) -> None:
        live = workload(*env)
        live["metadata"]["annotations"] = {"meta.helm.sh/release-name": release}
        self.items, self.deleted = [live], []

    def request(self, method: str, path: str) -> dict[str, Any] | None:
        if method == "DELETE":
            self.deleted.append(path)
            return {}
        return {"items": self.items if path == "/apis/apps/v1/namespaces/harbor/statefulsets" else []}


@pytest.mark.parametrize(
    ("release", "names", "deleted"),
    [("harbor", ("URL", "URL"), 1), ("harbor", ("URL", "OTHER"), 0), ("harbor", (), 0), ("somebody", ("URL", "URL"), 0)],
)
def test_only_what_helm_cannot_change_is_deleted(
    monkeypatch: pytest.MonkeyPatch, release: str, names: tuple[str, ...], deleted: int
) -> None:
    api = Api(release, *({"name": name, "value": "x"} for name in names))
    monkeypatch.setattr(helm_lists, "_requests", lambda kubeconfig: api.request)
    told = helm_lists.clear("kubeconfig", "harbor", "harbor")
    path = "/apis/apps/v1/namespaces/harbor/statefulsets/harbor-trivy?propagationPolicy=Background"
    assert api.deleted == [path] * deleted
    assert told == ["statefulsets harbor/harbor-trivy (twice in it: URL)"] * deleted


def test_harbor_alone_is_rendered_so() -> None:
    told = {r.name: r.inputs.get("postrender") for r in reference("standalone").of_type(RELEASE)}
    assert {name for name, program in told.items() if program} == {"standalone-tools-harbor"}
    assert told["standalone-tools-harbor"] == helm_lists.POST_RENDERER == "components/last-value-wins"
