"""The Kubernetes API through a kubeconfig: reading only, by the standard library."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from verify.runner import CheckFailed


class Api:
    """A cluster's API, its certificate verified by the kubeconfig's CA."""

    def __init__(self, kubeconfig: str) -> None:
        config = yaml.safe_load(kubeconfig)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        self._context = ssl.create_default_context(cadata=_text(cluster["certificate-authority-data"]))
        with tempfile.TemporaryDirectory(prefix="opstella-verify-") as folder:
            certificate, key = Path(folder, "certificate"), Path(folder, "key")
            key.touch(mode=0o600)
            certificate.write_text(_text(user["client-certificate-data"]), encoding="utf-8")
            key.write_text(_text(user["client-key-data"]), encoding="utf-8")
            self._context.load_cert_chain(certificate, key)

    def get(self, path: str) -> Any:
        """The object at `path`, such as /api/v1/nodes. Raises CheckFailed."""
        try:
            with urllib.request.urlopen(self.server + path, context=self._context, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise CheckFailed(f"{self.server}{path} answers {error.code}: {error.read(300).decode(errors='replace')}") from None
        except OSError as error:
            raise CheckFailed(f"{self.server}{path} does not answer: {error}") from None


def _text(data: str) -> str:
    return base64.b64decode(data).decode()


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
