"""The evidence of what failed: against an API server on loopback that answers as a real one would."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pytest

from components import diagnosis
from components.diagnosis import Diagnosis, Evidence, Watch, look
from tests.support.platform import reference

PASSWORD = "Zm9vYmFyMTIzNDU2Nzg5MDEyMzQ1Njc4"


def pod(name: str, *, ready: bool = False, **status: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": {"name": name}, "status": {"phase": "Running", "conditions": [condition], **status}}


def waiting(name: str, reason: str, message: str = "", restarts: int = 0) -> dict[str, Any]:
    last = {"terminated": {"exitCode": 1, "reason": "Error"}} if restarts else {}
    state = {"waiting": {"reason": reason, "message": message}}
    return {"name": name, "ready": False, "restartCount": restarts, "state": state, "lastState": last}


class Cluster:
    """An API server's answers by path; what is not there answers 404."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.events = [
            {
                "metadata": {}, "type": "Warning", "reason": "BackOff", "message": f"attempt {n}",
                "lastTimestamp": f"2026-01-01T00:{n:02}:00Z", "involvedObject": {"kind": "Pod", "name": "tool-0"},
            }
            for n in reversed(range(30))
        ]  # fmt: skip
        self.put("secrets", [
            {"type": "Opaque", "data": {"password": base64.b64encode(PASSWORD.encode()).decode()}},
            {"type": "Opaque", "data": {"username": base64.b64encode(b"tool-0").decode()}},
        ])  # fmt: skip
        self.put("events", self.events)
        self.apps("statefulsets", [{"metadata": {"name": "tool"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}])

    def put(self, what: str, items: list[dict[str, Any]]) -> None:
        self.answers[f"/api/v1/namespaces/tool/{what}"] = {"items": items}

    def apps(self, what: str, items: list[dict[str, Any]]) -> None:
        self.answers[f"/apis/apps/v1/namespaces/tool/{what}"] = {"items": items}

    def log(self, name: str, text: str) -> None:
        self.answers[f"/api/v1/namespaces/tool/pods/{name}/log"] = text

    def request(self, method: str, path: str) -> Any:
        assert method == "GET"
        self.asked.append(path)
        return self.answers.get(urlsplit(path).path)


@pytest.fixture
def crashing() -> Cluster:
    cluster = Cluster()
    broken = pod("tool-0", containerStatuses=[waiting("app", "CrashLoopBackOff", "back-off 40s", 4)])
    cluster.put("pods", [broken, pod("tool-1", ready=True)])
    cluster.log("tool-0", "\n".join(f"line {n}" for n in range(40)) + f"\ncannot log in with {PASSWORD}\n")
    return cluster


def test_a_workload_its_reason_its_events_and_its_log(crashing: Cluster) -> None:
    evidence = Evidence()
    look(crashing.request, "tool", evidence)
    told = str(evidence)
    assert "StatefulSet tool/tool: 1 of 2 pods are ready" in told
    assert "pod tool-0: Running; app waits, CrashLoopBackOff: back-off 40s, restarted 4 times" in told
    assert "app ended before with 1 (Error)" in told
    assert "tool-1" not in told
    assert "Warning BackOff Pod/tool-0: attempt 29" in told and "attempt 9" not in told
    assert len(evidence.events) == diagnosis.LINES
    assert "last lines of tool-0/app:" in told and "line 39" in told and "line 20" not in told
    assert any("previous=true" in path for path in crashing.asked)


def test_no_value_of_a_secret_is_told(crashing: Cluster) -> None:
    crashing.events[0]["message"] = f"refused {PASSWORD}"
    crashing.put("events", crashing.events)
    evidence = Evidence()
    look(crashing.request, "tool", evidence)
    assert PASSWORD not in str(evidence)
    assert "cannot log in with (secret)" in str(evidence) and "refused (secret)" in str(evidence)
    assert "tool-0" in str(evidence)  # a user's name is none


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/6 nodes: too little memory"}]},
         "Pending; 0/6 nodes: too little memory"),
        ({"phase": "Pending", "containerStatuses": [waiting("app", "ImagePullBackOff", "not found")]},
         "Pending; app waits, ImagePullBackOff: not found"),
        ({"phase": "Pending", "initContainerStatuses": [
            {"name": "migrate", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]},
         "Pending; migrate ended with 3 (Error)"),
        ({"containerStatuses": [{"name": "app", "ready": False, "state": {"running": {}}}]}, "Running; app is not ready"),
        ({"phase": "Succeeded"}, ""),
    ],
)  # fmt: skip
def test_the_reason_of_a_pod(status: dict[str, Any], told: str) -> None:
    cluster = Cluster()
    cluster.put("pods", [pod("tool-0", **status)])
    evidence = Evidence()
    look(cluster.request, "tool", evidence)
    assert evidence.pods == ({"tool-0": told} if told else {})


def test_what_was_seen_of_pods_that_are_gone_stays(crashing: Cluster) -> None:
    """Helm takes a failed installation back before it says that it failed."""
    evidence = Evidence()
    look(crashing.request, "tool", evidence)
    crashing.apps("statefulsets", [])
    look(crashing.request, "tool", evidence)  # its pods are still ending
    crashing.put("pods", [])
    look(crashing.request, "tool", evidence)
    assert "CrashLoopBackOff" in str(evidence) and "line 39" in str(evidence)
    assert "StatefulSet tool/tool: 1 of 2" in str(evidence)


def test_a_container_without_a_log_is_told_without_it(crashing: Cluster) -> None:
    def request(method: str, path: str) -> Any:
        if path.partition("?")[0].endswith("/log"):
            raise RuntimeError("400")
        return crashing.request(method, path)

    evidence = Evidence()
    look(request, "tool", evidence)
    assert evidence.pods and not evidence.logs


@pytest.fixture
def server(crashing: Cluster) -> Iterator[str]:
    """`crashing` behind HTTP on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            found = crashing.request("GET", self.path)
            text = found if isinstance(found, str) else json.dumps(found)
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()


def test_a_watch_keeps_what_it_saw(server: str, crashing: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request as http

    seen = threading.Event()

    def request(method: str, path: str) -> Any:
        try:
            with http.urlopen(server + path, timeout=10) as answer:
                text = answer.read().decode()
                found = json.loads(text) if answer.headers.get_content_type() == "application/json" else text
        except http.HTTPError:  # type: ignore[attr-defined]
            found = None
        if path.endswith("/events"):
            seen.set()
        return found

    watch = Watch(request, "tool", seconds=0.01)
    assert seen.wait(30)
    crashing.put("pods", [])
    told = str(watch.conclude())
    assert "CrashLoopBackOff" in told and "line 39" in told and PASSWORD not in told


def test_a_watch_outlives_an_api_server_that_does_not_answer() -> None:
    asked = threading.Event()

    def request(method: str, path: str) -> Any:
        asked.set()
        raise RuntimeError("the API does not answer")

    watch = Watch(request, "tool", seconds=0.01)
    assert asked.wait(30)
    assert "the API does not answer" in str(watch.conclude())


def test_only_a_failure_is_told(crashing: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", told.append)
    monkeypatch.setattr(diagnosis, "requests", lambda kubeconfig: crashing.request)

    class Hook:
        def __init__(self, name: str, function: Any, opts: Any = None) -> None:
            self.function = function

    monkeypatch.setattr(pulumi, "ResourceHook", Hook)
    monkeypatch.setattr(pulumi, "ErrorHook", Hook)

    async def lives(inputs: dict[str, Any], *, fails: bool) -> None:
        found = Diagnosis("d", pulumi.Output.from_input("kubeconfig"))
        created = pulumi.ResourceHookArgs(urn="u", id="", name="release tool", type="t", new_inputs=inputs)
        await found.start.function(created)
        if fails:
            args = pulumi.ErrorHookArgs(urn="u", id="", name="release tool", type="t", new_inputs=inputs)
            assert await found.tell.function(args) is False
        else:
            await found.stop.function(created)
        assert not found._watches

    for inputs in ({"name": "tool", "namespace": "tool"}, {"metadata": {"name": "tool", "namespace": "tool"}}):
        asyncio.run(lives(inputs, fails=False))
        assert not told
        asyncio.run(lives(inputs, fails=True))
        assert len(told) == 1 and told.pop().startswith("release tool failed; in namespace tool:\nStatefulSet")


def test_everything_that_is_waited_for_is_watched() -> None:
    found = reference("standalone")
    watched = [r for r in found.resources if list(r.request.hooks.on_error) == ["standalone-tools-diagnosis-tell"]]
    kinds = {r.type.rpartition(":")[2] for r in watched}
    assert kinds >= {"Release", "Job", "Cluster"}
    for one in watched:
        assert "standalone-tools-diagnosis-start" in one.request.hooks.before_create
        assert list(one.request.hooks.after_create) == ["standalone-tools-diagnosis-stop"]
