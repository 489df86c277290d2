"""Tempo: traces in the object store, one tenant a cluster, and the metrics that follow from them.

It has no login of its own: oauth2-proxy stands in front.
"""

from __future__ import annotations

from plan import versions
from plan.tools import agents, cloudnative_pg, readers, telemetry
from plan.tools.common import OBJECT_STORE, merge, resources, storage_of
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import Flow

NAME = NAMESPACE = "tempo"
DOMAIN_KEY = "tempo"
S3_SECRET = "tempo-s3"
TRACES = "tempo-traces"
RETENTION = "72h"
CPU, MEMORY = "50m", "256Mi"


def _metrics() -> Values:
    """Span metrics and service graphs go to Mimir, each under its trace's tenant: Tempo adds the header itself."""
    return {
        "metricsGenerator": {
            "enabled": True,
            "storage": {
                "path": "/var/tempo/generator/wal",
                "remote_write": [{"url": f"{telemetry.service('mimir')}/api/v1/push", "send_exemplars": True}],
            },
            "traces_storage": {"path": "/var/tempo/generator/traces"},
        },
        "overrides": {"defaults": {"metrics_generator": {"processors": ["service-graphs", "span-metrics"]}}},
    }


def _values(inputs: ToolInputs) -> Values:
    values: Values = {
        "tempo": {
            "multitenancyEnabled": True,
            "reportingEnabled": False,
            "memBallastSizeMbs": 0,
            "retention": RETENTION,
            "extraArgs": {"config.expand-env": "true"},
            "extraEnvFrom": telemetry.from_secret(S3_SECRET),
            "storage": {
                "trace": {
                    "backend": "s3",
                    "s3": {
                        "bucket": TRACES,
                        "endpoint": OBJECT_STORE,
                        "insecure": True,
                        "forcepathstyle": True,
                        # Tempo puts them in itself, from its environment.
                        "access_key": f"${{{telemetry.ACCESS_KEY}}}",
                        "secret_key": f"${{{telemetry.SECRET_KEY}}}",
                    },
                }
            },
            "resources": resources(CPU, MEMORY, "1Gi"),
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        },
        "securityContext": {
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "serviceAccount": {"automountServiceAccountToken": False},
        "persistence": {
            "enabled": True,
            "size": storage_of(inputs, NAME, "10Gi"),
            "storageClassName": inputs.storage_class,
        },
    }
    if "mimir" in inputs.present:
        values = merge(values, {"tempo": _metrics()})
    return values


def release(inputs: ToolInputs) -> Release:
    """One process: the chart's Tempo has no ring to share traces over several."""
    door = agents.door(inputs, "tempo") + readers.door(inputs, "tempo")
    to_mimir = (
        (Flow(peer="mimir", ports=(telemetry.MIMIR_PORT,), why="metrics that it makes of traces"),)
        if "mimir" in inputs.present
        else ()
    )
    return Release.of(
        versions.TEMPO,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=cloudnative_pg.storage_needs(inputs),
        storage=(telemetry.storage(NAME, S3_SECRET, TRACES),),
        flows=to_mimir,
        ports_for_ingress=(telemetry.TEMPO_PORT, *door.ports),
        ports_for_metrics=(telemetry.TEMPO_PORT,),
        workloads=(Workload(kind="StatefulSet", name="tempo", namespace=NAMESPACE, cpu=CPU, memory=MEMORY),),
        secrets=door.secrets,
        passwords=door.passwords,
        after=door.after,
        domain_key=DOMAIN_KEY,
        host=inputs.hosts[DOMAIN_KEY],
        path=telemetry.READING["tempo"][0],
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
