"""Alloy's configuration: what it reads on its node and in its cluster, and where it sends it.

Every Alloy has the same text. What is a node's own (log files, journal, its pods' metrics) each one reads for itself;
what is the cluster's (ServiceMonitors, events, rules) they share out among themselves, so that nothing comes twice.
"""

from __future__ import annotations

from plan import audit
from plan.tools import agents, telemetry
from plan.tools.alloy_otlp import otlp
from plan.tools.alloy_syntax import Block, Expression, Value, render
from plan.tools.common import CA_FILE, OBJECT_STORE
from plan.tools.model import ToolInputs
from plan.tools.telemetry import Sink

NODE = Expression('sys.env("HOSTNAME")')  # the chart sets it to the node's name
SCRAPE_INTERVAL = "30s"
# A container port of such a name answers at /metrics (the last is Keycloak's). What lies in the namespaces below has
# ServiceMonitors instead.
METRICS_PORT_NAME = "(.+-)?metrics|http-internal"
MONITORED_OTHERWISE = "kube-system|monitoring"
_SHARED = Block("clustering", None, {"enabled": True})


def _rule(**attributes: Value) -> Block:
    return Block("rule", None, attributes)


def _copy(source: str, target: str) -> Block:
    return _rule(source_labels=(source,), target_label=target)


_POD_LABELS = (
    _copy("__meta_kubernetes_namespace", "namespace"),
    _copy("__meta_kubernetes_pod_name", "pod"),
    _copy("__meta_kubernetes_pod_container_name", "container"),
    _copy("__meta_kubernetes_pod_node_name", "node"),
)
_APP = _rule(
    source_labels=("__meta_kubernetes_pod_label_app_kubernetes_io_name", "__meta_kubernetes_pod_label_app"),
    separator=";",
    regex="([^;]+).*|;(.+)",
    replacement="$1$2",
    target_label="app",
)


def _pods() -> tuple[Block, ...]:
    """The pods of this node, which logs and metrics both start from."""
    selector = Block("selectors", None, {"role": "pod", "field": Expression('"spec.nodeName=" + sys.env("HOSTNAME")')})
    return (Block("discovery.kubernetes", "pods", {"role": "pod"}, (selector,)),)


def _access(inputs: ToolInputs, sink: Sink, store: telemetry.Store) -> tuple[Block, ...]:
    """How another cluster's store is trusted, and how this one is let in; inside a cluster none of it is needed."""
    if sink.cluster is None:
        return ()
    login: dict[str, Value] = {"username": agents.user(inputs.cluster), "password_file": f"{agents.FOLDER}/{store}"}
    return (Block("basic_auth", None, login), Block("tls_config", None, {"ca_file": CA_FILE}))


def _endpoint(inputs: ToolInputs, sink: Sink, store: telemetry.Store, path: str, **attributes: Value) -> Block:
    return Block("endpoint", None, {"url": f"{sink.url}{path}", **attributes}, _access(inputs, sink, store))


def _logs(inputs: ToolInputs, sink: Sink) -> tuple[Block, ...]:
    to_loki = (Expression("loki.write.loki.receiver"),)
    path = "/var/log/pods/*$1/*.log"
    uid = _rule(
        source_labels=("__meta_kubernetes_pod_uid", "__meta_kubernetes_pod_container_name"),
        separator="/",
        replacement=path,
        target_label="__path__",
    )
    static = _rule(  # a pod that the kubelet runs from a file: its folder has the file's hash in the place of the uid
        source_labels=(
            "__meta_kubernetes_pod_annotation_kubernetes_io_config_hash",
            "__meta_kubernetes_pod_container_name",
        ),
        separator="/",
        regex="(.+/.+)",
        replacement=path,
        target_label="__path__",
    )
    unit = (_copy("__journal__systemd_unit", "unit"), _copy("__journal_priority_keyword", "level"))
    return (
        Block(
            "loki.write",
            "loki",
            {"external_labels": {"cluster": inputs.cluster}},
            (_endpoint(inputs, sink, "loki", "/loki/api/v1/push", tenant_id=inputs.cluster),),
        ),
        Block(
            "discovery.relabel",
            "logs",
            {"targets": Expression("discovery.kubernetes.pods.targets")},
            (*_POD_LABELS, _APP, uid, static),
        ),
        Block("local.file_match", "pods", {"path_targets": Expression("discovery.relabel.logs.output")}),
        Block(
            "loki.source.file",
            "pods",
            {
                "targets": Expression("local.file_match.pods.targets"),
                "forward_to": (Expression("loki.process.pods.receiver"),),
            },
        ),
        Block(
            "loki.process",
            "pods",
            {"forward_to": to_loki},
            (Block("stage.cri"), Block("stage.label_drop", None, {"values": ("filename",)})),
        ),
        # Of the API, which servers alone have: a node without the file has nothing to read.
        Block(
            "local.file_match",
            "audit",
            {"path_targets": ({"__path__": audit.LOG, "job": "kubernetes-audit", "node": NODE},)},
        ),
        Block(
            "loki.source.file",
            "audit",
            {
                "targets": Expression("local.file_match.audit.targets"),
                "forward_to": (Expression("loki.process.audit.receiver"),),
            },
        ),
        Block(
            "loki.process",
            "audit",
            {"forward_to": to_loki},
            (Block("stage.label_drop", None, {"values": ("filename",)}),),
        ),
        Block("loki.relabel", "journal", {"forward_to": ()}, unit),
        Block(
            "loki.source.journal",
            "host",
            {
                "path": "/var/log/journal",
                "max_age": "12h",
                "labels": {"job": "journal", "node": NODE},
                "relabel_rules": Expression("loki.relabel.journal.rules"),
                "forward_to": to_loki,
            },
        ),
        Block(
            "loki.source.kubernetes_events",
            "cluster",
            {"job_name": "kubernetes-events", "log_format": "logfmt", "forward_to": to_loki},
            (_SHARED,),
        ),
    )


def _minio(inputs: ToolInputs, part: str, to_mimir: dict[str, Value]) -> Block:
    """MinIO's port is no metrics port, and its metrics lie at paths of their own."""
    target: dict[str, Value] = {"__address__": OBJECT_STORE, "namespace": "minio", "cluster": inputs.cluster}
    attributes: dict[str, Value] = {
        "targets": (target,),
        "job_name": f"minio/{part}",
        "metrics_path": f"/minio/v2/metrics/{part}",
        "scrape_interval": "60s",
        **to_mimir,
    }
    return Block("prometheus.scrape", f"minio_{part}", attributes, (_SHARED,))


def _metrics(inputs: ToolInputs, sink: Sink) -> tuple[Block, ...]:
    to_mimir: dict[str, Value] = {"forward_to": (Expression("prometheus.remote_write.mimir.receiver"),)}
    keep = (
        _rule(source_labels=("__meta_kubernetes_pod_phase",), regex="Running", action="keep"),
        _rule(source_labels=("__meta_kubernetes_pod_container_port_name",), regex=METRICS_PORT_NAME, action="keep"),
        _rule(source_labels=("__meta_kubernetes_namespace",), regex=MONITORED_OTHERWISE, action="drop"),
        # Mimir's gateway is nginx, which has none behind a port of that name.
        _rule(
            source_labels=("__meta_kubernetes_namespace", "__meta_kubernetes_pod_container_name"),
            separator="/",
            regex="mimir/gateway",
            action="drop",
        ),
    )
    job = _rule(source_labels=("namespace", "app"), separator="/", target_label="job")
    # A label of the target's: what a source itself calls `cluster`, as a database does, becomes `exported_cluster`. An
    # external label would give way to it, and the metric would be in no cluster of the platform.
    cluster = _rule(target_label="cluster", replacement=inputs.cluster)
    found = [
        Block(
            "prometheus.remote_write",
            "mimir",
            {"external_labels": {"cluster": inputs.cluster}},
            (
                _endpoint(
                    inputs,
                    sink,
                    "mimir",
                    "/api/v1/push",
                    headers={telemetry.TENANT_HEADER: inputs.cluster},
                    send_exemplars=True,
                ),
            ),
        ),
        Block(
            "discovery.relabel",
            "metrics",
            {"targets": Expression("discovery.kubernetes.pods.targets")},
            (*keep, *_POD_LABELS, _APP, job, cluster),
        ),
        Block(
            "prometheus.scrape",
            "pods",
            {
                "targets": Expression("discovery.relabel.metrics.output"),
                "scrape_interval": SCRAPE_INTERVAL,
                **to_mimir,
            },
        ),
    ]
    if "minio" in inputs.present:
        found += [_minio(inputs, part, to_mimir) for part in ("cluster", "bucket")]
    if "kube-prometheus-stack" in inputs.present:
        every = Block("scrape", None, {"default_scrape_interval": SCRAPE_INTERVAL})
        found += [
            Block(f"prometheus.operator.{kind}", "all", to_mimir, (_SHARED, every, cluster))
            for kind in ("servicemonitors", "podmonitors")
        ]
        rules: dict[str, Value] = {
            "address": sink.url,
            "tenant_id": inputs.cluster,
            "external_labels": {"cluster": inputs.cluster},
        }
        found.append(Block("mimir.rules.kubernetes", "all", rules, _access(inputs, sink, "mimir")))
    return tuple(found)


def configuration(inputs: ToolInputs) -> str:
    """The text of config.alloy for every Alloy of the cluster; what has nowhere to go is left out."""
    logs, metrics, traces = (telemetry.sink(inputs, s) for s in ("loki", "mimir", "tempo"))
    blocks = [Block("logging", None, {"level": "info", "format": "logfmt"})]
    if logs or metrics:
        blocks += _pods()
    if logs:
        blocks += _logs(inputs, logs)
    if metrics:
        blocks += _metrics(inputs, metrics)
    if logs or metrics or traces:
        blocks += otlp(inputs, traces, metrics, logs)
    return render(tuple(blocks))
