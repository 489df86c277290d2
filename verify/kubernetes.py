"""The Kubernetes API through a kubeconfig, for reading."""

from __future__ import annotations

from typing import Any

from components.cluster_api import requests
from components.kubeconfig import server
from verify.runner import CheckFailed


class Api:
    """A cluster's API, its certificate verified by the kubeconfig's CA."""

    def __init__(self, kubeconfig: str, balancers: tuple[str, ...] = ()) -> None:
        """`balancers` are the resources of the load balancers in front of it."""
        self.server = server(kubeconfig)
        self._balancers = balancers
        self._request = requests(kubeconfig, "run the checks again")
        self._kinds: dict[str, dict[str, Any]] = {}

    def get(self, path: str) -> Any:
        """The object at `path`, such as /api/v1/nodes. Raises CheckFailed."""
        found = self.find(path)
        if found is None:
            raise CheckFailed(f"{self.server}{path} is not there")
        return found

    def collection(self, version: str, kind: str, namespace: str | None) -> str | None:
        """The path of `kind` in the API `version`, such as `apps/v1`; None where the server knows none."""
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if version not in self._kinds:
            found = self.find(group) or {"resources": []}
            self._kinds[version] = {r["kind"]: r for r in found["resources"] if "/" not in r["name"]}
        resource = self._kinds[version].get(kind)
        if resource is None:
            return None
        inside = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        return f"{group}{inside}/{resource['name']}"

    def find(self, path: str) -> Any:
        """The object at `path`, or None where there is none. Raises CheckFailed."""
        try:
            return self._request("GET", path)
        except RuntimeError as error:
            raise CheckFailed(str(error), repair=self._balancers) from None


def ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))


def unavailable(workload: dict[str, Any]) -> str | None:
    """Why a Deployment, StatefulSet or DaemonSet is not fully available; None when it is."""
    kind, status = workload["kind"], workload.get("status", {})
    if kind == "DaemonSet":
        wanted, there = status.get("desiredNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted = workload["spec"].get("replicas", 1)
        there = status.get("availableReplicas", status.get("readyReplicas", 0))
    meta = workload["metadata"]
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        return f"{kind} {meta['namespace']}/{meta['name']} has not been looked at by its controller"
    return None if there >= wanted else f"{kind} {meta['namespace']}/{meta['name']} has {there} of {wanted}"
