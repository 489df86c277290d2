"""How Grafana reads what has no rights of its own: whatever a login has it send, only what reads arrives."""

from __future__ import annotations

import posixpath
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from plan.plan import Plan
from plan.tools import readers, telemetry, traefik
from plan.tools.model import Release
from plan.tools.policies import WHY
from tests.plan.stacks import plan
from tests.plan.test_identity import CHANGING
from tests.plan.test_policies import Pod, passes

STACKS = {"standalone": plan(), "multicluster": plan("multicluster")}
FAR = plan("multicluster", tools={"grafana": {"clusters": ["devsecops"]}})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SOURCES = ("loki", "tempo", "mimir", "alertmanager")
# Source to namespace, and to the ports that its pods have.
PODS = {"loki": "loki", "tempo": "tempo", "mimir": "mimir", "alertmanager": "monitoring"}
PORTS = (80, 3100, 3200, 4317, 4318, 7946, 8080, 9093, 9094, 9095, 9411, 14268)
# What Grafana 13 asks by itself, from its data sources' code and that of its alerting: explore and dashboards, live tail,
# search, the service map, exemplars, the lists of rules and alerts, its checks of a source.
ASKED = {
    "loki": (
        ("GET", "/loki/api/v1/query_range"), ("POST", "/loki/api/v1/query_range"), ("GET", "/loki/api/v1/query"),
        ("GET", "/loki/api/v1/tail"), ("GET", "/loki/api/v1/labels"), ("GET", "/loki/api/v1/label/app/values"),
        ("GET", "/loki/api/v1/series"), ("POST", "/loki/api/v1/series"), ("GET", "/loki/api/v1/index/stats"),
        ("GET", "/loki/api/v1/index/volume"), ("GET", "/loki/api/v1/index/volume_range"), ("GET", "/loki/api/v1/patterns"),
        ("GET", "/loki/api/v1/detected_fields"), ("GET", "/loki/api/v1/detected_field/x/values"),
        ("GET", "/loki/api/v1/detected_labels"), ("GET", "/loki/api/v1/format_query"),
        ("GET", "/loki/api/v1/status/buildinfo"), ("GET", "/loki/api/v1/drilldown-limits"),
        ("GET", "/api/prom/rules"), ("GET", "/loki/api/v1/rules/ns/group"), ("GET", "/prometheus/api/v1/rules"),
        ("GET", "/prometheus/api/v1/alerts"),
    ),
    "tempo": (
        ("GET", "/api/echo"), ("GET", "/api/search"), ("GET", "/api/search/tags"), ("GET", "/api/v2/search/tags"),
        ("GET", "/api/v2/search/tag/resource.service.name/values"), ("GET", "/api/traces/0af7651916cd43dd8448eb211c80319c"),
        ("GET", "/api/v2/traces/0af7651916cd43dd8448eb211c80319c"), ("GET", "/api/metrics/query_range"),
        ("GET", "/api/status/buildinfo"),
    ),
    "mimir": (
        ("POST", "/prometheus/api/v1/query"), ("GET", "/prometheus/api/v1/query"), ("POST", "/prometheus/api/v1/query_range"),
        ("POST", "/prometheus/api/v1/query_exemplars"), ("POST", "/prometheus/api/v1/series"),
        ("POST", "/prometheus/api/v1/labels"), ("GET", "/prometheus/api/v1/label/pod/values"),
        ("GET", "/prometheus/api/v1/metadata"), ("GET", "/prometheus/api/v1/status/buildinfo"),
        ("GET", "/prometheus/api/v1/rules"), ("GET", "/prometheus/api/v1/alerts"), ("GET", "/prometheus/config/v1/rules"),
        ("GET", "/prometheus/config/v1/rules/alloy%2Fmonitoring%2Fx/group"),
    ),
    "alertmanager": (
        ("GET", "/api/v2/status"), ("GET", "/api/v2/alerts"), ("GET", "/api/v2/alerts/groups"), ("GET", "/api/v2/silences"),
        ("GET", "/api/v2/silence/0af7651916cd43dd"), ("GET", "/api/v2/receivers"),
    ),
}  # fmt: skip
# Lists by GET, of what another method would change.
LISTED = {"loki": ("/loki/api/v1/rules", "/api/prom/rules"), "mimir": ("/prometheus/config/v1/rules",)}
FORBIDDEN = {
    **CHANGING,
    "alertmanager": ("/-/reload", "/-/ready", "/debug/pprof/heap", "/metrics", "/api/v1/alerts", "/"),
}
SILENCED = (("POST", "/api/v2/silences"), ("DELETE", "/api/v2/silence/0af7651916cd43dd"), ("POST", "/api/v2/alerts"))


def release(stack: Plan, cluster: str, name: str) -> Release:
    return next(r for r in stack.releases[cluster] if r.name == name)


def home(stack: Plan, name: str) -> str:
    return next(cluster for cluster, releases in stack.releases.items() if any(r.name == name for r in releases))


def bodies(stack: Plan, cluster: str, kind: str) -> list[dict[str, Any]]:
    return [m.body for r in stack.releases[cluster] for m in (*r.before, *r.after) if m.body["kind"] == kind]


def policies_of(stack: Plan, cluster: str) -> list[dict[str, Any]]:
    """Those of the tools' flows, beside which Alloy alone has one, for applications."""
    found = bodies(stack, cluster, "NetworkPolicy")
    flows = [body for body in found if WHY in body["metadata"].get("annotations", {})]
    assert {body["metadata"]["namespace"] for body in found if body not in flows} <= {"alloy"}
    return flows


def sources(stack: Plan) -> dict[str, dict[str, Any]]:
    values = release(stack, home(stack, "grafana"), "grafana").values
    return {source["uid"]: source for source in values["datasources"]["datasources.yaml"]["datasources"]}


def matches(rule: str, host: str, method: str, path: str) -> bool:
    """Whether Traefik takes a request for that of `rule`: by its documentation, and with its treatment of paths, in which
    `..` is resolved and an encoded slash is none."""
    cleaned = posixpath.normpath(path) if path != "/" else path
    by = {
        "Host": lambda value: host == value,
        "Method": lambda value: method == value,
        "PathPrefix": cleaned.startswith,
        "PathRegexp": lambda value: re.search(value, cleaned) is not None,
    }
    words = re.sub(r"(\w+)\(`([^`]*)`\)", lambda found: str(by[found[1]](found[2])), rule)
    words = words.replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    assert set(re.findall(r"\w+", words)) <= {"True", "False", "and", "or", "not"}, words
    return bool(eval(words))  # noqa: S307


def routed(stack: Plan, cluster: str, entry: str, host: str, method: str, path: str) -> list[str]:
    """`namespace/service:port` of each IngressRoute that takes the request."""
    return [
        f"{body['metadata']['namespace']}/{service['name']}:{service['port']}"
        for body in bodies(stack, cluster, "IngressRoute")
        if entry in body["spec"]["entryPoints"]
        for route in body["spec"]["routes"]
        if matches(route["match"], host, method, path)
        for service in route["services"]
    ]


def asked(stack: Plan, source: str, method: str, path: str) -> list[str]:
    """Where a request of Grafana's for `path` of `source` ends: by the address that it is given for it."""
    url = urlsplit(sources(stack)[source]["url"])
    # The part that a source's address has of its own.
    own = url.path.removesuffix("/prometheus") if source == "mimir" else url.path
    if stack is not FAR:
        cluster = home(stack, "grafana")
        assert (url.scheme, url.port, own) == ("http", traefik.READERS_PORT, "")
        return routed(stack, cluster, traefik.READERS, url.hostname or "", method, path)
    assert (url.scheme, url.port, own) == ("https", None, readers.PATH)
    return routed(stack, home(stack, source), traefik.SECURE, url.hostname or "", method, f"{own}{path}")


BACKENDS = {
    "loki": "loki/loki:3100", "tempo": "tempo/tempo:3200", "mimir": "mimir/mimir-gateway:80",
    "alertmanager": "monitoring/kube-prometheus-stack-alertmanager:9093",
}  # fmt: skip
CASES = [(name, source) for name in STACKS for source in SOURCES] + [("far", source) for source in SOURCES[:3]]
EACH = pytest.mark.parametrize(("name", "source"), CASES)


def stack_of(name: str) -> Plan:
    return FAR if name == "far" else STACKS[name]


@EACH
def test_what_grafana_asks_arrives(name: str, source: str) -> None:
    for method, path in ASKED[source]:
        assert asked(stack_of(name), source, method, path) == [BACKENDS[source]], f"{method} {path}"


@EACH
def test_what_changes_a_store_does_not(name: str, source: str) -> None:
    stack = stack_of(name)
    for method in METHODS:
        for path in FORBIDDEN[source]:
            shown = method == "GET" and path.startswith(LISTED.get(source, ()))
            assert asked(stack, source, method, path) == ([BACKENDS[source]] if shown else []), f"{method} {path}"
    for method, path in SILENCED if source == "alertmanager" else ():
        assert asked(stack, source, method, path) == [], f"{method} {path}"


@EACH
def test_no_path_leads_out_of_what_is_read(name: str, source: str) -> None:
    """Neither as it is, nor with slashes that the store may decode."""
    start = ASKED[source][0][1]
    up = "/".join([".."] * start.count("/"))
    for path in FORBIDDEN[source]:
        for method in ("POST", "DELETE"):
            assert asked(stack_of(name), source, method, f"{start}/{up}{path}") == []
            assert asked(stack_of(name), source, method, f"{start}/{f'{up}{path}'.replace('/', '%2F')}") == []


@pytest.mark.parametrize("name", STACKS)
def test_each_name_that_grafana_asks_is_a_service_of_the_entry_point(name: str) -> None:
    stack = STACKS[name]
    values = release(stack, home(stack, "grafana"), "traefik").values
    port = values["ports"][traefik.READERS]
    found = {urlsplit(source["url"]).hostname for source in sources(stack).values()}
    # The chart puts its own name before that of a further Service.
    services = {f"traefik-{key}": service for key, service in values["service"]["additionalServices"].items()}
    assert found == {f"{service}.traefik.svc.cluster.local" for service in services} and len(found) == len(SOURCES)
    assert all(service == {"spec": {"type": "ClusterIP"}} for service in services.values()), "open to no machine"
    assert port["expose"] == {"default": False, **{key: True for key in values["service"]["additionalServices"]}}
    assert port["port"] == port["exposedPort"] == traefik.READERS_PORT and "nodePort" not in port


@pytest.mark.parametrize("stack", [*STACKS.values(), FAR], ids=[*STACKS, "far"])
def test_the_entry_point_for_readers_has_their_routes_and_no_others(stack: Plan) -> None:
    for cluster in stack.releases:
        ports = release(stack, cluster, "traefik").values["ports"]
        # Traefik puts what names no entry point at those that say so, and at every one where none does.
        assert {entry for entry, port in ports.items() if port.get("asDefault")} == {"web", traefik.SECURE}
        near = stack is not FAR and cluster == home(stack, "grafana")
        assert (traefik.READERS in ports) is near
        routes = bodies(stack, cluster, "IngressRoute")
        assert {b["metadata"]["namespace"] for b in routes if b["spec"]["entryPoints"] == [traefik.READERS]} == (
            set(PODS.values()) if near else set()
        )
        for body in bodies(stack, cluster, "Ingress"):
            assert not any("entrypoints" in key for key in body["metadata"].get("annotations", {}))


@pytest.mark.parametrize("stack", [*STACKS.values(), FAR], ids=[*STACKS, "far"])
def test_no_policy_lets_grafana_reach_a_store(stack: Plan) -> None:
    for cluster, releases in stack.releases.items():
        policies = policies_of(stack, cluster)
        labels = {
            (b["metadata"]["namespace"], tuple(sorted(b["spec"]["podSelector"].get("matchLabels", {}).items())))
            for b in policies
        } | {(r.namespace, ()) for r in releases}
        pods = [Pod(namespace, dict(own)) for namespace, own in labels]
        here = [pod for pod in pods if pod.namespace == "grafana"]
        for reader in here:
            for pod in pods:
                if pod.namespace in PODS.values():
                    assert not [port for port in PORTS if passes(policies, reader, pod, port)], (reader, pod)
        near = stack is not FAR and cluster == home(stack, "grafana")
        reaching = {pod.namespace for pod in pods if passes(policies, pod, Pod("traefik"), traefik.READERS_PORT)}
        assert reaching == ({"grafana"} if near else set()), "what this entry point answers has no login"
        for host in stack.topology.hosts:
            assert not passes(policies, str(host.address), Pod("traefik"), traefik.READERS_PORT)


@pytest.mark.parametrize("name", STACKS)
def test_traefik_reaches_what_grafana_reads_and_who_writes_goes_on(name: str) -> None:
    stack = STACKS[name]
    policies = policies_of(stack, home(stack, "grafana"))
    alertmanager = Pod("monitoring", {"app.kubernetes.io/name": "alertmanager"})
    for pod, port in (
        (Pod("loki"), telemetry.LOKI_PORT), (Pod("tempo"), telemetry.TEMPO_PORT), (Pod("mimir"), telemetry.MIMIR_PORT),
        (alertmanager, telemetry.ALERTMANAGER_PORT),
    ):  # fmt: skip
        assert passes(policies, Pod("traefik"), pod, port), pod
    assert not passes(policies, Pod("traefik"), Pod("monitoring"), telemetry.ALERTMANAGER_PORT)
    assert passes(policies, Pod("alloy"), Pod("loki"), telemetry.LOKI_PORT)
    assert passes(policies, Pod("alloy"), Pod("mimir"), telemetry.MIMIR_PORT)
    assert passes(policies, Pod("alloy"), Pod("tempo"), telemetry.OTLP_HTTP)
    assert passes(policies, Pod("tempo"), Pod("mimir"), telemetry.MIMIR_PORT)
    for ruler in ("loki", "mimir"):
        assert passes(policies, Pod(ruler), alertmanager, telemetry.ALERTMANAGER_PORT)
