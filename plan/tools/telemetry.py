"""Where logs, metrics and traces go, seen from one cluster.

A tenant of Loki, Tempo and Mimir is a cluster: agents send its name (from other clusters, the door of agents.py says it
for them), readers name all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plan.tools.common import elsewhere
from plan.tools.model import ToolInputs, Values
from plan.tools.needs import Bucket, Flow, StorageAccess

Store = Literal["loki", "tempo", "mimir"]
DataSource = Literal["loki", "tempo", "mimir", "alertmanager"]
"""What Grafana reads."""

TENANT_HEADER = "X-Scope-OrgID"
LOKI_PORT, TEMPO_PORT, MIMIR_PORT = 3100, 3200, 8080
"""Ports of their pods: Mimir's is its gateway's, whose service answers at 80."""
OTLP_GRPC, OTLP_HTTP = 4317, 4318
SIGNALS: dict[Store, str] = {"loki": "logs", "tempo": "traces", "mimir": "metrics"}
"""What each store keeps."""
ALERTMANAGER_NAMESPACE, ALERTMANAGER_SERVICE, ALERTMANAGER_PORT = (
    "monitoring",
    "kube-prometheus-stack-alertmanager",
    9093,
)
ALERTMANAGER = f"http://{ALERTMANAGER_SERVICE}.{ALERTMANAGER_NAMESPACE}.svc.cluster.local:{ALERTMANAGER_PORT}"

# Names of variables, and of the keys of the Secret that holds them.
ACCESS_KEY, SECRET_KEY = "S3_ACCESS_KEY", "S3_SECRET_KEY"

BACKENDS: dict[Store, tuple[str, int]] = {
    "loki": ("loki", LOKI_PORT),
    "tempo": ("tempo", TEMPO_PORT),
    "mimir": ("mimir-gateway", 80),
}
"""Store (also the service key, the tool, the namespace) to the service that answers queries and its port."""
READING: dict[Store, tuple[str, ...]] = {
    "loki": tuple(
        f"/loki/api/v1/{name}"
        for name in (
            "labels", "label", "query", "query_range", "series", "tail", "index", "patterns", "detected_field",
            "detected_fields", "detected_labels", "format_query", "drilldown-limits", "status/buildinfo",
        )
    ),
    "tempo": (
        "/api/echo", "/api/search", "/api/v2/search", "/api/traces", "/api/v2/traces", "/api/metrics/query",
        "/api/metrics/query_range", "/api/status/buildinfo",
    ),
    "mimir": tuple(
        f"/prometheus/api/v1/{name}"
        for name in (
            "labels", "label", "query", "query_range", "query_exemplars", "series", "metadata", "read", "cardinality",
            "format_query", "rules", "alerts", "status/buildinfo",
        )
    ),
}  # fmt: skip
"""What a person may ask a store for, at its public name: paths, and what lies below them.

By every method these only read: a query may come by POST. The stores have no rights of their own, so that everything else
(pushes, deletions, rules, shutdowns, some of them by GET too) is not routed there at all. Loki 3.7, Tempo 2.10 and Mimir:
"HTTP API" of their documentation.
"""
ASKED: dict[DataSource, dict[str, tuple[str, ...]]] = {
    "loki": {
        "GET": (
            *READING["loki"], "/loki/api/v1/rules", "/api/prom/rules", "/prometheus/api/v1/rules", "/prometheus/api/v1/alerts",
        ),
        "POST": READING["loki"],
    },
    "tempo": {"GET": READING["tempo"]},
    "mimir": {"GET": (*READING["mimir"], "/prometheus/config/v1/rules"), "POST": READING["mimir"]},
    "alertmanager": {"GET": tuple(f"/api/v2/{name}" for name in ("alerts", "receivers", "silence", "status"))},
}  # fmt: skip
"""What Grafana may ask for: by method, paths, and what lies below them. By another method some of these would write.

Whoever has a login may have Grafana send what they like: its proxy refuses to viewers what a plugin lists for editors, of
Loki and Prometheus also what no list has by POST, PUT and DELETE. By GET it passes on every path, to Tempo by every
method; the resources of its Prometheus plugin send any path by POST. Rules and silences are shown, and changed nowhere
here. Grafana 13: pkg/api/pluginproxy/ds_proxy.go, pkg/promlib/client, pkg/services/ngalert/api/lotex_*.go.
"""


@dataclass(frozen=True, kw_only=True)
class Sink:
    """A store that this cluster sends to. `url` has no path; `cluster` is the one behind whose ingress it is."""

    url: str
    cluster: str | None = None


def service(store: Store) -> str:
    """URL of `store` inside of the cluster that carries it."""
    name, port = BACKENDS[store]
    return f"http://{name}.{store}.svc.cluster.local" + (f":{port}" if port != 80 else "")


def sink(inputs: ToolInputs, store: Store) -> Sink | None:
    """Where this cluster sends: to its own `store`, else to the one that another cluster serves, else nowhere."""
    if store in inputs.present:
        return Sink(url=service(store))
    cluster = elsewhere(inputs, store, store)
    return cluster and Sink(url=f"https://{inputs.all_hosts[store]}", cluster=cluster)


def served_elsewhere(inputs: ToolInputs) -> dict[Store, str]:
    """The stores that this cluster reaches in another one, and which cluster that is."""
    sinks = ((store, sink(inputs, store)) for store in BACKENDS)
    return {store: there.cluster for store, there in sinks if there and there.cluster}


def beside_grafana(inputs: ToolInputs) -> tuple[DataSource, ...]:
    """What Grafana reads in its own cluster; empty where that is not this one."""
    if "grafana" not in inputs.present:
        return ()
    near: tuple[DataSource, ...] = tuple(store for store in BACKENDS if store in inputs.present)
    return (*near, "alertmanager") if {"mimir", "kube-prometheus-stack"} <= inputs.present else near


def grafana(inputs: ToolInputs) -> str | None:
    """URL of the platform's Grafana, where people see what an alert is about."""
    return f"https://{inputs.all_hosts['grafana']}" if "grafana" in inputs.all_hosts else None


def tenants(inputs: ToolInputs) -> str:
    """Value of the tenant header of a reader: every cluster, as a query over several tenants names them."""
    return "|".join(sorted({*inputs.clusters, inputs.cluster}))


def from_secret(name: str) -> list[Values]:
    """`envFrom` with all keys of the Secret `name`."""
    return [{"secretRef": {"name": name}}]


def storage(store: Store, secret: str, *buckets: str) -> StorageAccess:
    """The credential of `store` for its buckets, in a Secret whose keys are names of variables."""
    return StorageAccess(
        user=store,
        buckets=tuple(Bucket(name=name) for name in buckets),
        secret=secret,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        near=True,
    )


def to_alertmanager(inputs: ToolInputs) -> tuple[Flow, ...]:
    """Of a ruler: to Alertmanager, where the cluster carries it."""
    if "kube-prometheus-stack" not in inputs.present:
        return ()
    return (Flow(peer="kube-prometheus-stack", ports=(ALERTMANAGER_PORT,), why="alerts of its rules"),)
