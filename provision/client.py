"""HTTP for the provisioning Jobs: Python's standard library only, for these files run in a bare Python image.

Waits while a service starts, speaks JSON and forms, and fails with a page of what, where, why and what to do. No secret
is printed: whatever `secret` read, or `hide` was given, is blanked in every message. Lies beside the scripts, which
say `from client import …`.

Environment: `CA_FILE`, PEM bundle to verify servers with (the system's own when unset); `SECRETS`, folder of the
mounted secrets (/opstella/secrets); `PATIENCE`, seconds to wait for a service that does not answer yet (300).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTING = (502, 503, 504)
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 30.0
EXCERPT = 400  # characters of an answer that an error shows

_hidden: set[str] = set()


class Failure(Exception):
    """What went wrong, where, why, and what to do about it; each a phrase without a full stop."""

    def __init__(self, what: str, where: str, why: str, do: str) -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.do = what, where, why, do

    def __str__(self) -> str:
        return blank(f"error: {self.what}\n  where: {self.where}\n  why: {self.why}\n  what to do: {self.do}")


class Refused(Failure):
    """The service answered, with a status that was not expected: `status`, and its `answer`."""

    def __init__(self, what: str, where: str, why: str, do: str, answer: Answer) -> None:
        super().__init__(what, where, why, do)
        self.answer, self.status = answer, answer.status


@dataclass(frozen=True)
class Answer:
    """A service's answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; None for none. Raises ValueError for anything else."""
        return json.loads(self.body) if self.body.strip() else None


def hide(value: str) -> str:
    """`value`, which no message shows from now on, neither as it is nor encoded for a URL or a basic login."""
    if len(value) >= 4:
        _hidden.update({value, urllib.parse.quote(value, safe=""), base64.b64encode(value.encode()).decode()})
    return value


def blank(text: str) -> str:
    """`text` without the secrets read so far."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def environment(name: str, default: str | None = None) -> str:
    """The environment variable `name`. Raises Failure when it is unset and has no default."""
    value = os.environ.get(name, default)
    if value is None:
        raise Failure(
            f"the variable {name} is not set", "the Job's environment", "nothing to work with", "give it to the Job"
        )
    return value


def secret(name: str, key: str) -> str:
    """The key of a mounted Secret, without the line break at its end. Raises Failure when it is not there."""
    path = Path(os.environ.get("SECRETS", "/opstella/secrets"), name, key)
    try:
        return hide(path.read_text(encoding="utf-8").rstrip("\n"))
    except OSError as error:
        raise Failure(
            f"the secret {name} has no readable {key}",
            str(path),
            error.strerror or type(error).__name__,
            "mount the Secret with this key",
        ) from None


def basic(username: str, password: str) -> str:
    """Value of the header Authorization for a basic login."""
    return "Basic " + hide(base64.b64encode(f"{username}:{hide(password)}".encode()).decode())


def bearer(token: str) -> str:
    """Value of the header Authorization for a token."""
    return f"Bearer {hide(token)}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Client:
    """Requests to one service below `base`, with `headers` on each; they may be changed later (a fresh token).

    A service that refuses connections, has no address yet, or answers 502, 503 or 504 is asked again until `patience`
    seconds are over. Redirects are answers, never followed: a login page is not what an API's caller wants.
    """

    def __init__(
        self,
        base: str,
        *,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        patience: float | None = None,
        pause: float = PAUSE_SECONDS,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.base = base.rstrip("/")
        self.headers = dict(headers or {})
        self.patience = float(os.environ.get("PATIENCE", "300")) if patience is None else patience
        self.pause, self.timeout = pause, timeout
        handlers: list[Any] = [_NoRedirect(), urllib.request.ProxyHandler({})]
        ca_file = ca_file or os.environ.get("CA_FILE") or None
        if self.base.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_trust(ca_file)))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, **more: Any) -> Any:
        """The JSON of a GET."""
        return self.request("GET", path, **more).json()

    def post(self, path: str, data: Any = None, **more: Any) -> Any:
        """The JSON that answers a POST of `data` as JSON (or of `form`)."""
        return self.request("POST", path, data=data, **more).json()

    def put(self, path: str, data: Any = None, **more: Any) -> Any:
        """The JSON that answers a PUT of `data` as JSON."""
        return self.request("PUT", path, data=data, **more).json()

    def delete(self, path: str, **more: Any) -> None:
        """DELETE."""
        self.request("DELETE", path, **more)

    def find(self, path: str, **more: Any) -> Any | None:
        """The JSON of a GET, None where the service says 404."""
        answer = self.request("GET", path, also=(404,), **more)
        return None if answer.status == 404 else answer.json()

    def request(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        also: tuple[int, ...] = (),
    ) -> Answer:
        """One request: `data` as JSON, `form` as a form, or `body` as it is, of `content_type`.

        `path` is below `base` (or a whole URL on the same service). `also` are statuses outside 2xx that the caller
        deals with. Raises Refused for any other status, and Failure when the service cannot be reached.
        """
        sent = {**self.headers, **(headers or {})}
        if data is not None:
            body, content_type = json.dumps(data).encode(), content_type or "application/json"
        elif form is not None:
            body, content_type = urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
        if content_type:
            sent["Content-Type"] = content_type
        url = path if path.startswith(("http://", "https://")) else self.base + path
        where = f"{method} {url.partition('?')[0]}"  # a query may hold what nobody should read
        if query:
            url += ("&" if "?" in url else "?") + urllib.parse.urlencode(query)
        answer = self._patiently(method, url, where, body, sent)
        if 200 <= answer.status < 300 or answer.status in also:
            return answer
        excerpt = blank(" ".join(answer.text.split()))[:EXCERPT]
        raise Refused(
            f"the service answered {answer.status}",
            where,
            excerpt or "it gave no reason",
            _advice(answer.status),
            answer,
        )

    def _patiently(self, method: str, url: str, where: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = self._once(method, url, body, headers)
                if answer.status not in STARTING or time.monotonic() >= deadline:
                    return answer
                reason = f"it answered {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                reason, fatal = _reason(error)
                if fatal or time.monotonic() >= deadline:
                    waited = "" if fatal else f" for {self.patience:.0f} s"
                    raise Failure(
                        f"the service cannot be reached{waited}",
                        where,
                        reason,
                        "check the CA bundle that the Job is given"
                        if fatal
                        else "look at its pods (kubectl describe, kubectl logs) and at the network policies in between",
                    ) from None
            time.sleep(min(self.pause, max(0.0, deadline - time.monotonic())))

    def _once(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())


def _answer(status: int, headers: Any, body: bytes) -> Answer:
    return Answer(status, {name.lower(): value for name, value in headers.items()}, body)


def _trust(ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Failure(
            "the CA bundle cannot be read", str(ca_file), str(error), "mount the bundle and name its file in CA_FILE"
        ) from None
    # Since 3.13 Python asks authorities for key usages and key identifiers, which no other client here does: a company's
    # root may lack them, and what it issued is trusted everywhere else.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _reason(error: Exception) -> tuple[str, bool]:
    """Why a request got no answer, and whether waiting is useless (a certificate does not become valid)."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}", True
    if isinstance(cause, socket.gaierror):
        return "its name has no address", False
    if isinstance(cause, (TimeoutError, socket.timeout)):
        return "no answer in time", False
    return str(cause) or type(cause).__name__, False


def _advice(status: int) -> str:
    if status in (401, 403):
        return "check the credential that the Job is given, and that it was not changed in the tool"
    if status in STARTING or status >= 500:
        return "look at the service's own log, then let the Job run again"
    return "compare the tool's version with the one that this stack was made for"


class Report:
    """What a run changed, a line each; the last line says how much, or that there was nothing to change."""

    def __init__(self) -> None:
        self.changes: list[str] = []

    def did(self, text: str) -> None:
        """A change that was made."""
        self.changes.append(text)
        print(blank(f"changed: {text}"), flush=True)

    def close(self) -> None:
        """The last line."""
        print(f"{len(self.changes)} changes" if self.changes else "nothing to change", flush=True)


def main(run: Callable[[Report], None]) -> int:
    """Runs a script; its exit status: 1 with the error's page on stderr, never with a stack trace."""
    report = Report()
    try:
        run(report)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except Exception as error:  # an answer of another form than expected, a file that is not there
        trace = traceback.extract_tb(error.__traceback__)[-1]
        print(
            Failure(
                "the script met something that it does not know",
                f"{Path(trace.filename).name}, line {trace.lineno} ({trace.name})",
                f"{type(error).__name__}: {error}",
                _advice(400),
            ),
            file=sys.stderr,
        )
        return 1
    report.close()
    return 0
