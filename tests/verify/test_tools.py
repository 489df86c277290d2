"""The checks of the tools, on what an API server would answer: a platform in order, and every way in which it is not."""

from __future__ import annotations

import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from plan.quantities import number_of
from plan.tools.model import Manifest, Release, Workload
from plan.tools.needs import Job
from tests.config import material
from tests.support.platform import plan_of
from verify import policies, tools
from verify.runner import CheckFailed
from verify.stack import Stack
from verify.tools import Amount, ask, requests, tool_checks

RELEASE = Release(
    name="tool", namespace="space", chart="c", version="1", repository="https://charts.example.com", values={},
    workloads=(Workload(kind="Deployment", name="web", namespace="space", replicas=2, selector={"app": "web"}),),
    before=(
        Manifest(
            name="db", needs=(), namespace="space", wait_for="condition=Ready",
            body={"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "db", "namespace": "space"}},
        ),
    ),
    after=(
        Manifest(
            name="budget", needs=(), namespace="space",
            body={"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "space"}},
        ),
    ),
    jobs=(Job(name="realm", image="i", command=(), files={}),),
    api_services=("v1.tool.example.com",),
    host="tool.example.com", path="/health",
)  # fmt: skip
PLAN = {"sizing": {"tools": {"one": {"tools": {"tool": {"cpu_millicores": 1250, "memory_mib": 1024}}}}}}
SPACE = "/api/v1/namespaces/space"
WEB = "/apis/apps/v1/namespaces/space/deployments/web"
DATABASE = "/apis/postgresql.cnpg.io/v1/namespaces/space/clusters/db"
JOB = "/apis/batch/v1/namespaces/space/jobs/realm"
API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1.tool.example.com"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/space/networkpolicies"
BUDGET = "/apis/policy/v1/namespaces/space/poddisruptionbudgets/web"
DNS = {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}], "ports": [{"port": 53}]}
HEALTHY: dict[str, Any] = {
    f"{SPACE}/secrets?labelSelector=owner%3Dhelm%2Cname%3Dtool%2Cstatus%3Ddeployed": {"items": [{}]},
    WEB: {"metadata": {"name": "web", "namespace": "space"}, "spec": {"replicas": 2},
          "status": {"availableReplicas": 2, "observedGeneration": 1}},
    DATABASE: {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
    API_SERVICE: {"status": {"conditions": [{"type": "Available", "status": "True"}]}},
    JOB: {"status": {"conditions": [{"type": "Complete", "status": "True"}]}},
    POLICIES: {"items": [
        {"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [DNS]}},
        {"metadata": {"name": "web"}, "spec": {"podSelector": {"a": "b"}, "policyTypes": ["Ingress"]}},
    ]},
    BUDGET: {},
}  # fmt: skip


class Answers:
    """An API that answers from a map of paths."""

    def __init__(self, there: dict[str, Any]) -> None:
        self.there = there

    def find(self, path: str) -> Any:
        return self.there.get(path)

    def get(self, path: str) -> Any:
        if path not in self.there:
            raise CheckFailed(f"{path} is not there")
        return self.there[path]

    def collection(self, version: str, kind: str, namespace: str | None) -> str | None:
        return f"/apis/{version}/namespaces/{namespace}/{kind.lower()}s"


def checked(there: dict[str, Any], status: int | OSError, monkeypatch: pytest.MonkeyPatch) -> str:
    """The line of the one tool."""

    def answer(*_: object) -> int:
        if isinstance(status, OSError):
            raise status
        return status

    monkeypatch.setattr(tools, "ask", answer)
    stack = Stack(
        name="s", plan=PLAN, releases={"one": (RELEASE,)}, outputs={"ca_bundle": ""}, private_key="", public_address=None
    )
    check, _ = tool_checks(stack, {"name": "one", "workers": ["w"], "load_balancer": "10.0.0.1"}, Answers(there))  # type: ignore[arg-type]
    assert check.name == "one: tool"
    return check.run()


def test_a_tool_in_order_is_one_line_with_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(HEALTHY, 302, monkeypatch) == (
        "https://tool.example.com/health, 1 workload, 1 database, 1 API service, 1 Job done, 2 network policies, 1 disruption budget"
    )


def without(path: str) -> Callable[[dict[str, Any]], None]:
    return lambda there: there.pop(path) and None


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda there: there.__setitem__(path, value)


FAULTS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (put(next(iter(HEALTHY)), {"items": []}), "release space/tool is not deployed"),
    (without(WEB), "Deployment web is not there"),
    (lambda there: there[WEB]["status"].update(availableReplicas=1), "Deployment space/web has 1 of 2"),
    (without(DATABASE), "Cluster space/db is not there"),
    (put(DATABASE, {"status": {}}), "Cluster space/db is not Ready: no word of it"),
    (put(DATABASE, {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no disk"}]}}), "is not Ready: no disk"),
    (without(JOB), "Job space/realm is not complete: not there"),
    (put(JOB, {"status": {}}), "Job space/realm is not complete: not ended"),
    (put(JOB, {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "Late", "message": "no answer"}]}}),
     "is not complete: Late: no answer"),
    (without(API_SERVICE), "APIService v1.tool.example.com is not there"),
    (put(API_SERVICE, {}), "APIService v1.tool.example.com is not available: no word of it"),
    (put(API_SERVICE, {"status": {"conditions": [{"type": "Available", "status": "False", "message": "no endpoints"}]}}),
     "is not available: no endpoints"),
    (lambda there: there[POLICIES]["items"].pop(0), "namespace space has no policy that denies by default"),
    (lambda there: there[POLICIES]["items"][0]["spec"].update(egress=[{}]), "no policy that denies by default"),
    # What a chart's own policy may open: everything, every pod on a port, every address.
    (lambda there: there[POLICIES]["items"][1]["spec"].update(ingress=[{}]),
     "NetworkPolicy space/web allows connections from everywhere, which the plan does not"),
    (lambda there: there[POLICIES]["items"][1]["spec"].update(ingress=[{"ports": [{"port": 8080}]}]),
     "allows connections from everywhere on 8080"),
    (lambda there: there[POLICIES]["items"][1]["spec"].update(ingress=[{"from": [{"namespaceSelector": {}}], "ports": [{"port": "metrics"}]}]),
     "allows connections from every pod or address on metrics"),
    (lambda there: there[POLICIES]["items"][1]["spec"].update(ingress=[{"from": [{}]}]), "connections from every pod"),
    (lambda there: there[POLICIES]["items"][1]["spec"].update(egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
     "allows connections to every pod or address"),
    (without(BUDGET), "PodDisruptionBudget space/web is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), FAULTS)
def test_a_fault_is_named(
    fault: Callable[[dict[str, Any]], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = deepcopy(HEALTHY)
    fault(there)
    with pytest.raises(CheckFailed, match=re.escape(message)):
        checked(there, 200, monkeypatch)


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "https://tool.example.com/health answers 404"), (503, "answers 503"), (OSError("refused"), "health: refused")],
)
def test_a_name_that_does_not_answer_is_named(status: int | OSError, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckFailed, match=message):
        checked(HEALTHY, status, monkeypatch)


def test_all_faults_stand_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {**HEALTHY, POLICIES: {"items": []}, JOB: {}}
    with pytest.raises(CheckFailed, match="realm is not complete.*; .*denies by default; .*answers 502"):
        checked(there, 502, monkeypatch)


# --- resources ---


def pod(namespace: str, node: str, cpu: str, memory: str, phase: str = "Running", owner: str = "ReplicaSet") -> dict[str, Any]:
    container = {"resources": {"requests": {"cpu": cpu, "memory": memory}}}
    meta = {"namespace": namespace, "ownerReferences": [{"kind": owner}]}
    return {"metadata": meta, "spec": {"nodeName": node, "containers": [container]}, "status": {"phase": phase}}


def table(pods: list[dict[str, Any]], memory: str = "10Gi") -> str:
    nodes = [{"metadata": {"name": n}, "status": {"allocatable": {"cpu": "4", "memory": memory}}} for n in ("w1", "w2", "m")]
    there = {"/api/v1/pods": {"items": pods}, "/api/v1/nodes": {"items": nodes}}
    stack = Stack(name="s", plan=PLAN, releases={"one": (RELEASE,)}, outputs={}, private_key="", public_address=None)
    *_, check = tool_checks(stack, {"name": "one", "workers": ["w1", "w2"], "load_balancer": ""}, Answers(there))  # type: ignore[arg-type]
    return check.run()


def test_what_pods_on_workers_ask_for_is_summed_by_namespace() -> None:
    told = table(
        [pod("space", "w1", "250m", "1Gi"), pod("space", "w2", "1", "512Mi"), pod("kube-system", "w1", "100m", "256Mi"),
         pod("space", "m", "2", "2Gi", owner="DaemonSet"), pod("space", "w1", "3", "3Gi", "Succeeded")]
    )  # fmt: skip
    assert told.splitlines()[0] == "3 pods ask for 17 % of the CPU and 9 % of the memory of the workers"
    rows = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in told.splitlines()[2:]}
    assert rows["space"] == "1.25      1.25     1.50 Gi     1.00 Gi  more than planned"
    assert rows["others"] == "0.10               0.25 Gi"
    assert rows["together"].endswith("more than planned") and rows["workers"].split() == ["have", "8.00", "20.00", "Gi"]


def test_what_runs_on_a_master_counts_unless_every_node_has_one() -> None:
    assert table([pod("space", "m", "1250m", "1Gi")]).startswith("1 pods ask for 16 %")
    assert table([pod("space", "m", "1", "1Gi", owner="DaemonSet"), pod("a", "m", "1", "1Gi", owner="Node")]).startswith("0 pods")


def test_what_is_asked_for_as_planned_is_not_marked() -> None:
    assert "more than planned" not in table([pod("space", "w1", "1250m", "1Gi")])


def test_more_than_the_workers_have_fails_with_the_table() -> None:
    with pytest.raises(CheckFailed, match=r"more than the workers have\n(.|\n)*space +1\.00 +1\.25 +3\.00 Gi"):
        table([pod("space", "w1", "1", "3Gi")], memory="1Gi")


def test_a_pod_asks_for_what_runs_at_once() -> None:
    def container(cpu: str, **more: Any) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}, **more}

    spec = {"containers": [container("100m"), container("200m")]}
    assert requests({"spec": spec}).cpu == pytest.approx(0.3)
    assert requests({"spec": {**spec, "initContainers": [container("1")]}}).cpu == 1
    # A sidecar runs beside the others.
    assert requests({"spec": {**spec, "initContainers": [container("1", restartPolicy="Always")]}}).cpu == pytest.approx(1.3)
    assert requests({"spec": {"containers": [{}]}}) == Amount()


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("2", 2), ("1Gi", 2**30), ("512Mi", 2**29), ("1k", 1000), ("0", 0), ("1.5", 1.5)]
)
def test_quantities(text: str, number: float) -> None:
    assert number_of(text) == pytest.approx(number)


# --- the question itself, over TLS ---


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" and self.headers["Host"] == "www.devops.example.com" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Port and authorities of a server with a certificate for any name of devops.example.com."""
    names = {name: tmp_path / str(file) for name, file in material.make(tmp_path).items()}
    chain = tmp_path / "full.pem"
    chain.write_text(names["leaf"].read_text() + names["chain"].read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, names["leaf_key"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], names["root"].read_text()
    server.shutdown()
    server.server_close()


def test_the_question_is_asked_under_the_name_and_verified(served: tuple[int, str], tmp_path: Path) -> None:
    port, root = served
    assert ask(root, "127.0.0.1", "www.devops.example.com", "/health", port=port) == 200
    assert ask(root, "127.0.0.1", "www.devops.example.com", "/other", port=port) == 404
    with pytest.raises(OSError, match="(?i)hostname mismatch"):
        ask(root, "127.0.0.1", "www.example.org", "/health", port=port)
    (tmp_path / "other").mkdir()
    other = material.make(tmp_path / "other")
    with pytest.raises(OSError, match="(?i)certificate verify failed"):
        ask((tmp_path / "other" / str(other["root"])).read_text(), "127.0.0.1", "www.devops.example.com", "/health", port=port)


@pytest.mark.parametrize("architecture", ("standalone", "multicluster"))
def test_no_policy_of_the_plan_opens_what_the_plan_does_not(architecture: str) -> None:
    for releases in plan_of(architecture).releases.values():
        for release in releases:
            for namespace in (release.namespace, *release.further_namespaces):
                own = policies.planned(releases, namespace)
                there = [{"metadata": {"name": name}, "spec": spec} for name, spec in own.items()]
                assert own and not list(policies.faults(there, own, namespace)), namespace
                # The ingress, and Alloy, which takes what applications of every namespace send.
                ports = {"traefik": "8000, 8443", "alloy": "4317, 4318"}.get(namespace)
                opened = list(policies.faults(there, {}, namespace))
                assert len(opened) == (ports is not None) and all(f"on {ports}," in one for one in opened)
