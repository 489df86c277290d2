"""Grafana's data sources, and how one leads to another: from a log line to its trace, its metrics, and back."""

from __future__ import annotations

from plan.tools import readers, telemetry
from plan.tools.model import ToolInputs, Values

LOKI, TEMPO, MIMIR, ALERTMANAGER = "loki", "tempo", "mimir", "alertmanager"
"""Identifiers that dashboards and data sources name one another by."""

# What applications write in many ways: trace_id=…, traceID: …, "traceId":"…"
TRACE_ID = '[tT]race_?[iI][dD]["=: ]+([0-9a-f]{16,32})'
_RATE = "sum(rate(traces_spanmetrics_calls_total{$$__tags}[5m]))"


_STORES: dict[str, telemetry.Store] = {LOKI: "loki", TEMPO: "tempo", MIMIR: "mimir"}


def _source(uid: str, name: str, kind: str, url: str, data: Values, tenants: str | None) -> Values:
    source: Values = {
        "uid": uid,
        "name": name,
        "type": kind,
        "url": url,
        "access": "proxy",
        "editable": False,
        "isDefault": uid == MIMIR,
        "jsonData": data,
    }
    if tenants:
        # Grafana stores the value of any header encrypted; that of this one is no secret.
        data["httpHeaderName1"] = telemetry.TENANT_HEADER
        source["secureJsonData"] = {"httpHeaderValue1": tenants}
    return source


def _loki(there: frozenset[str]) -> Values:
    if TEMPO not in there:
        return {}
    # Grafana would put a variable of its own environment in the place of one dollar sign.
    link = {"datasourceUid": TEMPO, "url": "$${__value.raw}", "urlDisplayLabel": "Trace"}
    return {
        "derivedFields": [
            {"name": "traceID", "matcherType": "regex", "matcherRegex": TRACE_ID, **link},
            {"name": "trace_id", "matcherType": "label", "matcherRegex": "trace_id", **link},
        ]
    }


def _tempo(there: frozenset[str]) -> Values:
    around = {"spanStartTimeShift": "-5m", "spanEndTimeShift": "5m"}
    data: Values = {"nodeGraph": {"enabled": True}}
    if LOKI in there:
        tags = [{"key": "k8s.namespace.name", "value": "namespace"}, {"key": "k8s.pod.name", "value": "pod"}]
        data["tracesToLogsV2"] = {
            "datasourceUid": LOKI, "filterByTraceID": True, "filterBySpanID": False, "tags": tags, **around,
        }  # fmt: skip
    if MIMIR in there:
        data["tracesToMetrics"] = {
            "datasourceUid": MIMIR,
            "tags": [{"key": "service.name", "value": "service"}],
            "queries": [{"name": "Requests a second", "query": _RATE}],
            **around,
        }
        data["serviceMap"] = {"datasourceUid": MIMIR}
    return data


def _mimir(there: frozenset[str]) -> Values:
    data: Values = {"prometheusType": "Mimir", "httpMethod": "POST", "timeInterval": "30s"}
    if TEMPO in there:
        # The first is Tempo's own name for it, the second that of OpenTelemetry's libraries.
        data["exemplarTraceIdDestinations"] = [{"name": n, "datasourceUid": TEMPO} for n in ("traceID", "trace_id")]
    if ALERTMANAGER in there:
        data |= {"manageAlerts": True, "alertmanagerUid": ALERTMANAGER}
    return data


def _far(source: Values, store: telemetry.Store, sink: telemetry.Sink) -> Values:
    """`source` by the door of another cluster's `store`; the password is a variable of Grafana's environment."""
    url = source["url"].replace(readers.url(store), f"{sink.url}{readers.PATH}")
    secret = {**source.get("secureJsonData", {}), "basicAuthPassword": f"${readers.variable(store)}"}
    return {**source, "url": url, "basicAuth": True, "basicAuthUser": readers.READER, "secureJsonData": secret}


def data_sources(inputs: ToolInputs) -> list[Values]:
    """Grafana's provisioning of the platform's stores, here or in another cluster, under lasting identifiers."""
    sinks = {uid: sink for uid, store in _STORES.items() if (sink := telemetry.sink(inputs, store))}
    there = frozenset(sinks)
    if "mimir" in inputs.present and "kube-prometheus-stack" in inputs.present:
        there |= {ALERTMANAGER}
    tenants = telemetry.tenants(inputs)
    found = {
        MIMIR: lambda: _source(
            MIMIR, "Metrics", "prometheus", f"{readers.url('mimir')}/prometheus", _mimir(there), tenants
        ),
        LOKI: lambda: _source(LOKI, "Logs", "loki", readers.url("loki"), _loki(there), tenants),
        TEMPO: lambda: _source(TEMPO, "Traces", "tempo", readers.url("tempo"), _tempo(there), tenants),
        ALERTMANAGER: lambda: _source(
            ALERTMANAGER, "Alerts", "alertmanager", readers.url("alertmanager"),
            {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}, None,
        ),
    }  # fmt: skip
    made = {uid: make() for uid, make in found.items() if uid in there}
    for uid, sink in sinks.items():
        if sink.cluster:
            made[uid] = _far(made[uid], _STORES[uid], sink)
    return list(made.values())
