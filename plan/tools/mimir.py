"""Mimir: metrics in the object store, one tenant a cluster, and the evaluation of the alerting rules.

The classic architecture: distributors push to ingesters. The chart's own default puts Kafka between them, which takes
three settings to leave out. It has no login of its own: oauth2-proxy stands in front.
"""

from __future__ import annotations

from plan import versions
from plan.limits import METRICS_BODY
from plan.tools import agents, cloudnative_pg, readers, telemetry
from plan.tools.common import OBJECT_STORE, merge, replicas_of, resources, storage_of, tokenless
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, Flow

NAME = NAMESPACE = "mimir"
DOMAIN_KEY = "mimir"
S3_SECRET = "mimir-s3"
ACCOUNT = "mimir-without-token"  # the chart's own would put a token of the API into every pod
BLOCKS, RULES = "mimir-blocks", "mimir-ruler"
RETENTION = "30d"
GRPC, GOSSIP = 9095, 7946

# Part (the chart's key), kind of its workload, CPU, memory, limit of the memory.
PARTS: tuple[tuple[str, str, str, str, str], ...] = (
    ("gateway", "Deployment", "20m", "32Mi", "128Mi"),
    ("distributor", "Deployment", "50m", "128Mi", "512Mi"),
    ("ingester", "StatefulSet", "100m", "512Mi", "2Gi"),
    ("querier", "Deployment", "50m", "128Mi", "1Gi"),
    ("query_frontend", "Deployment", "20m", "64Mi", "256Mi"),
    ("query_scheduler", "Deployment", "20m", "64Mi", "256Mi"),
    # Its chart makes the request the limit of Go's heap: with less, half of its CPU goes into collecting garbage.
    ("store_gateway", "StatefulSet", "50m", "512Mi", "1Gi"),
    ("compactor", "StatefulSet", "50m", "128Mi", "1Gi"),
    # It reserves a gigabyte of addresses, not of memory, to be collected less often: its heap may grow as far.
    ("ruler", "Deployment", "50m", "128Mi", "1536Mi"),
)


def _replicas(inputs: ToolInputs) -> dict[str, int]:
    """Pods of each part. An ingester's data are on no other one until the next upload, so several means three."""
    several = replicas_of(inputs, NAME)
    counts = {part: several for part, *_ in PARTS}
    return counts | {"ingester": 1 if several == 1 else max(3, several), "compactor": 1}


def _configuration(inputs: ToolInputs, ingesters: int) -> Values:
    alertmanager = telemetry.ALERTMANAGER if "kube-prometheus-stack" in inputs.present else None
    grafana = telemetry.grafana(inputs)
    return {
        "ingest_storage": {"enabled": False},
        "distributor": {"remote_timeout": "2s"},  # the chart's five seconds are Kafka's
        "ingester": {
            "push_grpc_method_enabled": True,
            "ring": {"replication_factor": min(ingesters, 3)},
        },
        "store_gateway": {"sharding_ring": {"replication_factor": 1}},
        "common": {
            "storage": {
                "backend": "s3",
                "s3": {
                    "endpoint": OBJECT_STORE,
                    "region": "us-east-1",
                    "insecure": True,
                    # Mimir puts them in itself, from its environment.
                    "access_key_id": f"${{{telemetry.ACCESS_KEY}}}",
                    "secret_access_key": f"${{{telemetry.SECRET_KEY}}}",
                },
            }
        },
        "blocks_storage": {"backend": "s3", "s3": {"bucket_name": BLOCKS}},
        "ruler_storage": {"backend": "s3", "s3": {"bucket_name": RULES}},
        # The link of an alert. Mimir appends its own path, which nothing answers; behind `#` it is only remembered.
        **({"ruler": {"external_url": f"{grafana}/alerting/list#rule"}} if grafana else {}),
        "tenant_federation": {"enabled": True},
        "limits": {
            "compactor_blocks_retention_period": RETENTION,
            "ingestion_rate": 50000,
            "ingestion_burst_size": 500000,
            "max_global_series_per_user": 1000000,
            "max_global_exemplars_per_user": 100000,  # none, by default
            "out_of_order_time_window": "5m",  # a target changes its scraper when a node goes
            **({"ruler_alertmanager_client_config": {"alertmanager_url": alertmanager}} if alertmanager else {}),
            "ruler_max_rules_per_rule_group": 100,
            "ruler_max_rule_groups_per_tenant": 200,
        },
        "usage_stats": {"enabled": False},
    }


def _values(inputs: ToolInputs, replicas: dict[str, int]) -> Values:
    values: Values = {
        part: {"replicas": replicas[part], "resources": resources(cpu, memory, limit)}
        for part, _, cpu, memory, limit in PARTS
    }
    volume = {"enabled": True, "size": storage_of(inputs, NAME, "5Gi"), "storageClass": inputs.storage_class}
    for part in ("ingester", "store_gateway", "compactor"):
        values[part]["persistentVolume"] = volume
    alone = {"zoneAwareReplication": {"enabled": False}}
    return merge(
        values,
        {
            "kafka": {"enabled": False},
            "serviceAccount": {"create": False, "name": ACCOUNT},
            "minio": {"enabled": False},
            "rollout_operator": {"enabled": False},
            "ingester": alone,
            "store_gateway": alone,
            "alertmanager": {"enabled": False},  # alerts go to the one of kube-prometheus-stack
            "overrides_exporter": {"enabled": False},
            "chunks-cache": {"enabled": False},
            "index-cache": {"enabled": False},
            "metadata-cache": {"enabled": False},
            "results-cache": {"enabled": False},
            "global": {
                "dnsService": "rke2-coredns-rke2-coredns",  # RKE2's name for it; the gateway's nginx asks it
                "extraEnvFrom": telemetry.from_secret(S3_SECRET),
            },
            "gateway": {
                "nginx": {
                    "image": {"tag": versions.NGINX_IMAGE.version},
                    "config": {"clientMaxBodySize": f"{METRICS_BODY.value}M"},
                }
            },
            "mimir": {"structuredConfig": _configuration(inputs, replicas["ingester"])},
        },
    )


def release(inputs: ToolInputs) -> Release:
    """Mimir's parts one by one, as its chart has them; the gateway is the one address of all."""
    door = agents.door(inputs, "mimir") + readers.door(inputs, "mimir")
    replicas = _replicas(inputs)
    return Release.of(
        versions.MIMIR,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, replicas),
        needs=cloudnative_pg.storage_needs(inputs),
        storage=(telemetry.storage(NAME, S3_SECRET, BLOCKS, RULES),),
        flows=(
            Flow(peer=ITSELF, ports=(telemetry.MIMIR_PORT, GRPC, GOSSIP), why="its parts, and the ring that they form"),
            *telemetry.to_alertmanager(inputs),
        ),
        ports_for_ingress=(telemetry.MIMIR_PORT, *door.ports),
        ports_for_metrics=(telemetry.MIMIR_PORT,),
        # The chart brings the disruption budgets of its own parts.
        workloads=tuple(
            Workload(
                kind="StatefulSet" if kind == "StatefulSet" else "Deployment",
                name=f"{NAME}-{part.replace('_', '-')}",
                namespace=NAMESPACE,
                replicas=replicas[part],
                cpu=cpu,
                memory=memory,
            )
            for part, kind, cpu, memory, _ in PARTS
        ),
        before=(tokenless(ACCOUNT, NAMESPACE),),
        secrets=door.secrets,
        passwords=door.passwords,
        after=door.after,
        domain_key=DOMAIN_KEY,
        host=inputs.hosts[DOMAIN_KEY],
        path=telemetry.READING["mimir"][0],
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
