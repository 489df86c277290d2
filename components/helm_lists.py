"""Variables that a workload of a Helm release names twice: a chart's own, and the one of the values that is to win.

Kubernetes takes the last one. Helm cannot change such a list later: it merges lists by name, so an update is refused
("The order in patch list … doesn't match"), or loses both. So the release is rendered with the last one only (`render`,
by the program `last-value-wins` beside this file, as Helm's post-renderer), and workloads that were deployed with both
are deleted before an update of their release, which makes them again (`clear`).
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from components.cluster_api import requests as _requests

POST_RENDERER = "components/last-value-wins"
"""Relative to the project's folder, where the engine runs its providers: the state must not depend on where that is."""
_RELEASE = "meta.helm.sh/release-name"
_WORKLOADS = ("deployments", "statefulsets", "daemonsets")
_KIND = re.compile(r"^kind:\s*[\"']?(?:Deployment|StatefulSet|DaemonSet|Job|CronJob)\b", re.MULTILINE)
_SEPARATOR = re.compile(r"^---[ \t]*$", re.MULTILINE)


def render(text: str) -> str:
    """The documents of `text` with the last of each variable only; a document without a double one stays as it is.

    A changed document is written as JSON, which is YAML too and keeps text that looks like a number what it is.
    """
    return "---".join(_document(part) for part in _SEPARATOR.split(text))


def _document(text: str) -> str:
    if not _KIND.search(text):
        return text
    workload = yaml.safe_load(text)
    doubled = [container for container in _containers(workload) if _doubled(container)]
    for container in doubled:
        last = {entry["name"]: number for number, entry in enumerate(container["env"])}
        container["env"] = [entry for number, entry in enumerate(container["env"]) if last[entry["name"]] == number]
    return f"\n{json.dumps(workload, indent=1)}\n" if doubled else text


def _containers(workload: Any) -> Iterator[dict[str, Any]]:
    spec = workload.get("spec") or {}
    template = (spec.get("jobTemplate") or {}).get("spec", spec).get("template") or {}
    pod = template.get("spec") or {}
    yield from pod.get("initContainers") or ()
    yield from pod.get("containers") or ()


def _doubled(container: dict[str, Any]) -> list[str]:
    """The variables that `container` names more than once."""
    counts = Counter(entry["name"] for entry in container.get("env") or ())
    return sorted(name for name, count in counts.items() if count > 1)


def clear(kubeconfig: str, namespace: str, release: str) -> list[str]:
    """Deletes the workloads of `release` that Helm cannot change; their volumes stay. Returns what was deleted.

    Raises RuntimeError when the API server does not answer, or refuses.
    """
    request = _requests(kubeconfig)
    deleted = []
    for kind in _WORKLOADS:
        path = f"/apis/apps/v1/namespaces/{namespace}/{kind}"
        for workload in (request("GET", path) or {}).get("items", []):
            meta = workload["metadata"]
            if (meta.get("annotations") or {}).get(_RELEASE) != release:
                continue
            names = sorted({name for container in _containers(workload) for name in _doubled(container)})
            if names:
                request("DELETE", f"{path}/{meta['name']}?propagationPolicy=Background")
                deleted.append(f"{kind} {namespace}/{meta['name']} (twice in it: {', '.join(names)})")
    return deleted


if __name__ == "__main__":
    sys.stdout.write(render(sys.stdin.read()))
