"""The steady client: `python -m chaos.probe`, run inside the lab's network.

The first line of its standard input says what to ask (JSON, `Order`). It then prints a line for each request (JSON,
the fields of `Request`), every one over a new connection and without a second try. When a second line or the end of the
input arrives, it ends, reads every acknowledged write back, removes what it wrote, and prints `{"acknowledged", "lost"}`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chaos.requests import Request, lost
from components.kubeconfig import server, tls_context

PATIENCE = 2.0
"""Seconds from the first packet to the end of the answer, after which a request has failed."""
NAMESPACE = "opstella-chaos"
_READ_BACK_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to ask: the API server of `kubeconfig` (a file), and the ingress at `ingress` (address and name), if any.

    `rates` are requests a second by kind: `read`, `write`, `ingress`.
    """

    kubeconfig: str
    authorities: str
    ingress: tuple[str, str] | None
    rates: dict[str, float]


class Refused(Exception):
    """An answer of another status than the wanted one; the message is the status."""


class Endpoint:
    """One address that answers HTTPS; its certificate is verified for `name`."""

    def __init__(self, address: str, port: int, name: str, context: ssl.SSLContext) -> None:
        self._address, self._port, self._name, self._context = address, port, name, context

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float = PATIENCE) -> tuple[int, bytes]:
        """Status and content, over a connection of its own. Raises OSError or http.client.HTTPException."""
        end = time.monotonic() + seconds
        plain = socket.create_connection((self._address, self._port), timeout=seconds)
        try:
            plain.settimeout(max(end - time.monotonic(), 0.001))
            with self._context.wrap_socket(plain, server_hostname=self._name) as secure:
                secure.settimeout(max(end - time.monotonic(), 0.001))
                connection = http.client.HTTPConnection(self._name)
                connection.sock = secure
                text = None if body is None else json.dumps(body)
                connection.request(method, path, text, {"Content-Type": "application/json", "Connection": "close"})
                answer = connection.getresponse()
                return answer.status, answer.read()
        finally:
            plain.close()


def api(kubeconfig: Path) -> Endpoint:
    """The API server of a kubeconfig whose one user has a client certificate."""
    text = kubeconfig.read_text(encoding="utf-8")
    url = urlsplit(server(text))
    return Endpoint(str(url.hostname), url.port or 443, str(url.hostname), tls_context(text))


class Writer:
    """Numbered ConfigMaps, and which of them were acknowledged: answered with 201."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._api, self._lock = endpoint, threading.Lock()
        self._number, self.acknowledged = 0, list[int]()
        self._own_namespace()

    def write(self) -> None:
        with self._lock:
            self._number += 1
            number = self._number
        meta = {"name": f"write-{number}", "labels": {"opstella.io/chaos": "write"}}
        status, _ = self._api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", {"metadata": meta})
        if status != 201:
            raise Refused(f"status {status}")
        with self._lock:
            self.acknowledged.append(number)

    def lost(self) -> list[int]:
        """The acknowledged ones that are not there. The list is asked of etcd's quorum, not of a cache."""
        content = self._insist(
            "GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector=opstella.io/chaos", None, (200,)
        )
        names = [item["metadata"]["name"] for item in json.loads(content)["items"]]
        return lost(self.acknowledged, (int(name.removeprefix("write-")) for name in names))

    def remove(self) -> None:
        self._insist("DELETE", f"/api/v1/namespaces/{NAMESPACE}", None, (200, 202, 404))

    def _own_namespace(self) -> None:
        """One that is there still is another run's: it goes, and takes a while for it, with all that was written then."""
        end = time.monotonic() + _READ_BACK_SECONDS
        made = {"metadata": {"name": NAMESPACE}}
        while b"AlreadyExists" in self._insist("POST", "/api/v1/namespaces", made, (201, 409)):
            if time.monotonic() > end:
                raise Refused(f"the namespace {NAMESPACE} of a run before is still there after {_READ_BACK_SECONDS} s")
            self._insist("DELETE", f"/api/v1/namespaces/{NAMESPACE}", None, (200, 202, 404, 409))
            time.sleep(0.5)

    def _insist(self, method: str, path: str, body: Any, wanted: tuple[int, ...]) -> bytes:
        """What prepares and what looks afterwards is no measurement: it may be tried again."""
        end = time.monotonic() + _READ_BACK_SECONDS
        while True:
            try:
                status, content = self._api.ask(method, path, body, seconds=20)
                if status in wanted:
                    return content
                said = f"status {status}: {content[:200]!r}"
            except (OSError, http.client.HTTPException) as error:
                said = str(error)
            if time.monotonic() > end:
                raise Refused(f"{method} {path} for {_READ_BACK_SECONDS} s: {said}")
            time.sleep(0.5)


def reason(error: Exception) -> str:
    """An error as a client would name it, in few words, so that equal ones can be counted."""
    match error:
        case Refused():
            return str(error)
        case TimeoutError():
            return "time-out"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError() | ssl.SSLEOFError() | http.client.RemoteDisconnected() | BrokenPipeError():
            return "cut off"
        case ssl.SSLError():
            return "TLS: " + (error.reason or type(error).__name__)
        case OSError() if error.strerror:
            return error.strerror.lower()
    return type(error).__name__


def main() -> int:
    order = Order(**json.loads(sys.stdin.readline()))
    # A client is another machine: what the lab makes of its processors is not to slow it down.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    endpoint = api(Path(order.kubeconfig))
    writer = Writer(endpoint)
    asks: dict[str, Callable[[], None]] = {
        "read": lambda: _wanted(endpoint, f"/api/v1/namespaces/{NAMESPACE}"),
        "write": writer.write,
    }
    if order.ingress:
        address, name = order.ingress
        ingress = Endpoint(address, 443, name, ssl.create_default_context(cadata=order.authorities))
        # Any status is an answer: which tools stand behind it is another matter.
        asks["ingress"] = lambda: _wanted(ingress, "/", None)
    said = threading.Lock()

    def once(kind: str) -> None:
        began, error = time.monotonic(), ""
        try:
            asks[kind]()
        except Exception as failure:  # a request that breaks in any way is one that a client would have lost
            error = reason(failure)
        with said:
            print(json.dumps(asdict(Request(kind=kind, began=began, ended=time.monotonic(), error=error))), flush=True)

    stop = threading.Event()
    with ThreadPoolExecutor(128) as pool:
        clocks = [threading.Thread(target=_steadily, args=(stop, order.rates[kind], pool, once, kind)) for kind in asks]
        for clock in clocks:
            clock.start()
        sys.stdin.readline()
        stop.set()
        for clock in clocks:
            clock.join()
    try:
        print(json.dumps({"acknowledged": len(writer.acknowledged), "lost": writer.lost()}), flush=True)
    finally:
        writer.remove()
    return 0


def _wanted(endpoint: Endpoint, path: str, wanted: int | None = 200) -> None:
    status, _ = endpoint.ask("GET", path)
    if wanted not in (None, status):
        raise Refused(f"status {status}")


def _steadily(
    stop: threading.Event, rate: float, pool: ThreadPoolExecutor, once: Callable[[str], None], kind: str
) -> None:
    """Begins `rate` requests a second, however long each of them takes."""
    following = time.monotonic()
    while not stop.wait(max(following - time.monotonic(), 0)):
        pool.submit(once, kind)
        following += 1 / rate


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
