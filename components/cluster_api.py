"""The API of one cluster, asked directly: for what no resource of the engine says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from components.kubeconfig import server, tls_context

Request = Callable[[str, str], Any]
"""`(method, path)` to the answer: JSON as data, anything else as text; None for what is not there."""


def requests(kubeconfig: str, remedy: str = "run `pulumi up` again") -> Request:
    """A function that asks the API server of `kubeconfig`, which names one user with a client certificate.

    It raises RuntimeError when the API server does not answer, or refuses; `remedy` is what to do when its cause is gone.
    """
    url, context = server(kubeconfig), tls_context(kubeconfig)

    def request(method: str, path: str) -> Any:
        asked = urllib.request.Request(url + path, method=method)
        try:
            with urllib.request.urlopen(asked, context=context, timeout=30) as answer:
                if answer.headers.get_content_type() == "application/json":
                    return json.load(answer)
                return answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RuntimeError(f"{method} {url}{path} answers {error.code}; {remedy}") from None
        except OSError as error:
            raise RuntimeError(
                f"{method} {url}{path}: {error}; the cluster's API must answer here: check its load balancer "
                f"and its masters, then {remedy}"
            ) from None

    return request
