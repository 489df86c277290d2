"""Loki: logs in the object store, one tenant a cluster. It has no login of its own: oauth2-proxy stands in front."""

from __future__ import annotations

from plan import versions
from plan.tools import agents, cloudnative_pg, readers, telemetry
from plan.tools.common import OBJECT_STORE, replicas_of, resources, storage_of
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, Flow

NAME = NAMESPACE = "loki"
DOMAIN_KEY = "loki"
S3_SECRET = "loki-s3"
CHUNKS, RULER = "loki-chunks", "loki-ruler"
RETENTION = "168h"  # a week
GRPC, GOSSIP = 9095, 7946
CPU, MEMORY = "100m", "384Mi"
LABELS = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/instance": NAME,
    "app.kubernetes.io/component": "single-binary",
}


def _configuration(inputs: ToolInputs, replicas: int) -> Values:
    ruler: Values = {"enable_api": True}
    if "kube-prometheus-stack" in inputs.present:
        ruler["alertmanager_url"] = telemetry.ALERTMANAGER
    if grafana := telemetry.grafana(inputs):
        # The link of an alert: its query in Grafana.
        ruler |= {"external_url": grafana, "datasource_uid": NAME}
    return {
        "auth_enabled": True,
        "commonConfig": {"replication_factor": 3 if replicas > 2 else 1},
        "schemaConfig": {
            "configs": [
                {
                    "from": "2026-01-01",
                    "store": "tsdb",
                    "object_store": "s3",
                    "schema": "v13",
                    "index": {"prefix": "loki_index_", "period": "24h"},
                }
            ]
        },
        "storage": {
            "type": "s3",
            "bucketNames": {"chunks": CHUNKS, "ruler": RULER},
            "s3": {
                "endpoint": OBJECT_STORE,
                "region": "us-east-1",
                "insecure": True,
                "s3ForcePathStyle": True,
                # Loki puts them in itself, from its environment.
                "accessKeyId": f"${{{telemetry.ACCESS_KEY}}}",
                "secretAccessKey": f"${{{telemetry.SECRET_KEY}}}",
            },
        },
        "limits_config": {
            "retention_period": RETENTION,
            "reject_old_samples": True,
            "reject_old_samples_max_age": RETENTION,
            "allow_structured_metadata": True,
            "volume_enabled": True,
            "ingestion_rate_mb": 16,
            "ingestion_burst_size_mb": 32,
            "max_query_series": 5000,
        },
        # The compactor deletes what is past its time, chunk by chunk: an expiry of the bucket's own would take files of
        # the index with it.
        "compactor": {"retention_enabled": True, "delete_request_store": "s3"},
        "querier": {"multi_tenant_queries_enabled": True},
        "rulerConfig": ruler,
        "analytics": {"reporting_enabled": False},
    }


def _values(inputs: ToolInputs, replicas: int) -> Values:
    off = {"replicas": 0}
    return {
        "deploymentMode": "Monolithic",
        "loki": _configuration(inputs, replicas),
        "singleBinary": {
            "replicas": replicas,
            "extraEnvFrom": telemetry.from_secret(S3_SECRET),
            "resources": resources(CPU, MEMORY, "1Gi"),
            "persistence": {"size": storage_of(inputs, NAME, "10Gi"), "storageClass": inputs.storage_class},
        },
        "write": off,
        "read": off,
        "backend": off,
        "gateway": {"enabled": False},
        "chunksCache": {"enabled": False},
        "resultsCache": {"enabled": False},
        "lokiCanary": {"enabled": False},
        "defaults": {"automountServiceAccountToken": False},
        "test": {"enabled": False},
        "sidecar": {"rules": {"enabled": False}},
    }


def release(inputs: ToolInputs) -> Release:
    """Loki as one process, several times where the cluster has several masters."""
    door = agents.door(inputs, "loki") + readers.door(inputs, "loki")
    replicas = replicas_of(inputs, NAME)
    return Release.of(
        versions.LOKI,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, replicas),
        needs=cloudnative_pg.storage_needs(inputs),
        storage=(telemetry.storage(NAME, S3_SECRET, CHUNKS, RULER),),
        flows=(
            Flow(peer=ITSELF, ports=(telemetry.LOKI_PORT, GRPC, GOSSIP), why="its parts, and the ring that they form"),
            *telemetry.to_alertmanager(inputs),
        ),
        ports_for_ingress=(telemetry.LOKI_PORT, *door.ports),
        ports_for_metrics=(telemetry.LOKI_PORT,),
        # The chart keeps the pods on different nodes, and brings no disruption budget.
        workloads=(
            Workload(
                kind="StatefulSet", name="loki", namespace=NAMESPACE, replicas=replicas, cpu=CPU, memory=MEMORY, apart=True,
                selector=LABELS,
            ),
        ),  # fmt: skip
        secrets=door.secrets,
        passwords=door.passwords,
        after=door.after,
        domain_key=DOMAIN_KEY,
        host=inputs.hosts[DOMAIN_KEY],
        path=telemetry.READING["loki"][0],
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
