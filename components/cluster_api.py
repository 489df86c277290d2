"""The API of one cluster, asked directly: for what no resource of the engine says."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Request = Callable[[str, str], Any]
"""`(method, path)` to the answer: JSON as data, anything else as text; None for what is not there."""


def requests(kubeconfig: str) -> Request:
    """A function that asks the API server of `kubeconfig`, which names one user with a client certificate.

    It raises RuntimeError when the API server does not answer, or refuses.
    """
    config = yaml.safe_load(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=_text(cluster["certificate-authority-data"]))
    with tempfile.TemporaryDirectory(prefix="opstella-") as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        key.touch(mode=0o600)
        certificate.write_text(_text(user["client-certificate-data"]), encoding="utf-8")
        key.write_text(_text(user["client-key-data"]), encoding="utf-8")
        context.load_cert_chain(certificate, key)

    def request(method: str, path: str) -> Any:
        asked = urllib.request.Request(cluster["server"] + path, method=method)
        try:
            with urllib.request.urlopen(asked, context=context, timeout=30) as answer:
                if answer.headers.get_content_type() == "application/json":
                    return json.load(answer)
                return answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RuntimeError(
                f"{method} {cluster['server']}{path} answers {error.code}; run `pulumi up` again"
            ) from None
        except OSError as error:
            raise RuntimeError(
                f"{method} {cluster['server']}{path}: {error}; the cluster's API must answer here: check its load balancer "
                "and its masters, then run `pulumi up` again"
            ) from None

    return request


def _text(data: str) -> str:
    return base64.b64decode(data).decode()
