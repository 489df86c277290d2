"""What a kubeconfig says that names one cluster, and one user with a client certificate."""

from __future__ import annotations

import base64
import ssl
import tempfile
from pathlib import Path
from typing import Any

import yaml


def server(kubeconfig: str) -> str:
    """URL of the cluster's API server."""
    return str(_cluster(kubeconfig)["server"])


def authority(kubeconfig: str) -> str:
    """The certificate (PEM) that the API server is verified by."""
    return _text(_cluster(kubeconfig)["certificate-authority-data"])


def tls_context(kubeconfig: str) -> ssl.SSLContext:
    """What verifies the API server, and shows it the user's certificate."""
    user = yaml.safe_load(kubeconfig)["users"][0]["user"]
    context = ssl.create_default_context(cadata=authority(kubeconfig))
    with tempfile.TemporaryDirectory(prefix="opstella-") as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        key.touch(mode=0o600)
        certificate.write_text(_text(user["client-certificate-data"]), encoding="utf-8")
        key.write_text(_text(user["client-key-data"]), encoding="utf-8")
        context.load_cert_chain(certificate, key)
    return context


def _cluster(kubeconfig: str) -> dict[str, Any]:
    return yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]


def _text(data: str) -> str:
    return base64.b64decode(data).decode()
