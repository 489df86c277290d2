"""The part of Alloy's configuration that takes what applications send by OTLP."""

from __future__ import annotations

from plan.tools import agents, telemetry
from plan.tools.alloy_syntax import Block, Expression, Value
from plan.tools.common import CA_FILE
from plan.tools.model import ToolInputs
from plan.tools.telemetry import Sink


def _traces(inputs: ToolInputs, sink: Sink) -> tuple[Block, ...]:
    """To Tempo by OTLP over HTTP, which an ingress can pass on by its path."""
    headers = {telemetry.TENANT_HEADER: inputs.cluster}
    if sink.cluster is None:
        near: dict[str, Value] = {"endpoint": f"http://tempo.tempo.svc.cluster.local:{telemetry.OTLP_HTTP}"}
        client = Block("client", None, {**near, "headers": headers})
        return (Block("otelcol.exporter.otlphttp", "tempo", None, (client,)),)
    file: dict[str, Value] = {"filename": f"{agents.FOLDER}/tempo", "is_secret": True}
    login: dict[str, Value] = {"username": agents.user(inputs.cluster), "password": Expression("local.file.tempo.content")}
    far: dict[str, Value] = {
        "endpoint": sink.url,
        "headers": headers,
        "auth": Expression("otelcol.auth.basic.tempo.handler"),
    }
    trust = Block("tls", None, {"ca_file": CA_FILE})
    return (
        Block("local.file", "tempo", file),
        Block("otelcol.auth.basic", "tempo", None, (Block("client_auth", None, login),)),
        Block("otelcol.exporter.otlphttp", "tempo", None, (Block("client", None, far, (trust,)),)),
    )


def otlp(inputs: ToolInputs, traces: Sink | None, metrics: Sink | None, logs: Sink | None) -> tuple[Block, ...]:
    """What applications send by OTLP, with the names of their pods."""
    wanted = {"traces": traces, "metrics": metrics, "logs": logs}
    exporters = {
        "traces": "otelcol.exporter.otlphttp.tempo.input",
        "metrics": "otelcol.exporter.prometheus.mimir.input",
        "logs": "otelcol.exporter.loki.loki.input",
    }
    there = [signal for signal, sink in wanted.items() if sink is not None]

    def output(to: dict[str, str]) -> Block:
        return Block("output", None, {signal: (Expression(to[signal]),) for signal in there})

    def all_to(component: str) -> Block:
        return output(dict.fromkeys(there, component))

    found = [
        Block(
            "otelcol.receiver.otlp",
            "default",
            None,
            (
                Block("grpc", None, {"endpoint": f"0.0.0.0:{telemetry.OTLP_GRPC}"}),
                Block("http", None, {"endpoint": f"0.0.0.0:{telemetry.OTLP_HTTP}"}),
                all_to("otelcol.processor.k8sattributes.default.input"),
            ),
        ),
        Block(
            "otelcol.processor.k8sattributes",
            "default",
            None,
            (
                Block(
                    "extract",
                    None,
                    {
                        "metadata": (
                            "k8s.namespace.name", "k8s.pod.name", "k8s.pod.uid", "k8s.deployment.name", "k8s.node.name",
                        )
                    },
                ),
                all_to("otelcol.processor.batch.default.input"),
            ),
        ),
        Block("otelcol.processor.batch", "default", None, (output(exporters),)),
    ]  # fmt: skip
    if traces is not None:
        found += _traces(inputs, traces)
    if metrics is not None:
        to_mimir = (Expression("prometheus.remote_write.mimir.receiver"),)
        found.append(Block("otelcol.exporter.prometheus", "mimir", {"forward_to": to_mimir}))
    if logs is not None:
        found.append(Block("otelcol.exporter.loki", "loki", {"forward_to": (Expression("loki.write.loki.receiver"),)}))
    return tuple(found)
