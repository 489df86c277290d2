"""Velero: what the API and the volumes hold, in the platform's object store.

The reference has databases archived continuously, etcd saved every six hours, images in the object store, and Vault
saved by a command of its own. That stands elsewhere (CloudNativePG, RKE2, Harbor, docs/vault.md); here is the rest,
each night: every object of the cluster, so that one namespace can be brought back without turning back etcd, and the
files of volumes that are kept nowhere else. They are read through the pods that mount them, as NFS has no snapshots.

It may do anything in the cluster: a restore makes whatever a backup holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

import yaml

from plan import versions
from plan.tools import kube_prometheus_stack, minio_buckets
from plan.tools.common import OBJECT_STORE, resources
from plan.tools.model import CA_BUNDLE_KEY, Manifest, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, Bucket, Flow, StorageAccess
from plan.tools.sources import CaBundle, Composed, Generated, Password, Secret

NAME = NAMESPACE = BUCKET = "velero"
S3_SECRET, CREDENTIALS_KEY = "velero-s3", "cloud"
# Velero's own name: without it, it makes one whose password is the same wherever Velero runs.
REPOSITORY_SECRET, REPOSITORY_PASSWORD = "velero-repo-credentials", "velero-repository"
LOCATION, POLICY, AGENT_CONFIGURATION = "default", "velero-volumes", "velero-node-agent"
METRICS_PORT = 8085
RETENTION_HOURS = 30 * 24
"""The reference keeps images for 30 days, and nothing of this kind longer."""
OBJECTS_AT, VOLUMES_AT = "40 1 * * *", "40 3 * * *"  # databases are saved between 2 and 3
CPU, MEMORY = "50m", "128Mi"
AGENT_CPU, AGENT_MEMORY = "10m", "64Mi"
BOUNDS = {"cpuRequest": CPU, "cpuLimit": "1", "memoryRequest": MEMORY, "memoryLimit": "1Gi"}
"""Of each pod that Velero itself starts, in its own words: none may grow into the tools' memory."""

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "minio": "holds the backups themselves",
        "harbor": "images are in the object store; its volumes are caches",
        "loki": "logs are in the object store",
        "mimir": "metrics are in the object store",
        "tempo": "traces are in the object store",
        "vault": "a copy of a running Raft store is none: vault operator raft snapshot save",
        "velero": "has no volumes",
    }
)
"""Namespaces whose volumes are not saved, and why."""


def _values(inputs: ToolInputs) -> Values:
    monitored = kube_prometheus_stack.NAME in inputs.present
    unprivileged: Values = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "initContainers": [
            {
                "name": "velero-plugin-for-aws",
                "image": f"{versions.VELERO_PLUGIN.name}:{versions.VELERO_PLUGIN.version}",
                "volumeMounts": [{"name": "plugins", "mountPath": "/target"}],
                "securityContext": unprivileged,
                "resources": resources(CPU, MEMORY),
            }
        ],
        "credentials": {"useSecret": True, "existingSecret": S3_SECRET},
        # Where backups go is an object of the stack, since the chart knows only a certificate in its values.
        "backupsEnabled": False,
        "snapshotsEnabled": False,
        "deployNodeAgent": True,
        "upgradeCRDs": False,
        "configuration": {
            "uploaderType": "kopia",
            "defaultBackupStorageLocation": LOCATION,
            # Of the Jobs that clean up a repository.
            "repositoryMaintenanceJob": {"repositoryConfigData": {"global": {"podResources": dict(BOUNDS)}}},
        },
        "containerSecurityContext": unprivileged,
        "resources": resources(CPU, MEMORY, "512Mi"),
        "nodeAgent": {
            "resources": resources(AGENT_CPU, AGENT_MEMORY, "512Mi"),
            "extraArgs": [f"--node-agent-configmap={AGENT_CONFIGURATION}"],
        },
        "metrics": {
            "enabled": True,
            "serviceMonitor": {"enabled": monitored},
            "nodeAgentPodMonitor": {"enabled": monitored},
        },
    }


def _endpoint(inputs: ToolInputs) -> str:
    """URL of the object store: the cluster's own, else the first of the platform, by its public name."""
    if minio_buckets.NAME in inputs.present:
        return f"http://{OBJECT_STORE}"
    api = {cluster: key for key, cluster in inputs.places.items() if key.startswith("minioApi")}
    first = next((api[cluster] for cluster in inputs.clusters if cluster in api), None)
    return f"https://{inputs.all_hosts[first]}" if first else f"http://{OBJECT_STORE}"


def _access(inputs: ToolInputs) -> StorageAccess:
    name = minio_buckets.user_of(NAME, inputs)
    password = f"s3-{name}"
    file = f"[default]\naws_access_key_id={name}\naws_secret_access_key={{{password}}}\n"
    return StorageAccess(
        user=name,
        buckets=(Bucket(name=BUCKET),),
        prefix=f"{inputs.cluster}/",
        secret=S3_SECRET,
        extra={CREDENTIALS_KEY: Composed(template=file, passwords=(password,)), CA_BUNDLE_KEY: CaBundle()},
    )


def _location(inputs: ToolInputs) -> Values:
    """Where backups go: below the cluster's own prefix, beyond which its credential does not reach."""
    url = _endpoint(inputs)
    store: Values = {"bucket": BUCKET, "prefix": inputs.cluster}
    if url.startswith("https:"):
        store["caCertRef"] = {"name": S3_SECRET, "key": CA_BUNDLE_KEY}
    return {
        "provider": "velero.io/aws",
        "default": True,
        "accessMode": "ReadWrite",
        "credential": {"name": S3_SECRET, "key": CREDENTIALS_KEY},
        "objectStorage": store,
        "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": url},
    }


def _schedule(name: str, at: str, template: Values) -> Manifest:
    kept: Values = {"storageLocation": LOCATION, "ttl": f"{RETENTION_HOURS}h0m0s", "snapshotVolumes": False}
    return _manifest("velero.io/v1", "Schedule", name, {"spec": {"schedule": at, "template": template | kept}}, needs=(NAME,))


def _manifest(api: str, kind: str, name: str, content: Values, needs: tuple[str, ...] = ()) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    body = {"apiVersion": api, "kind": kind, "metadata": metadata, **content}
    return Manifest(name=f"{NAME}-{kind.lower()}-{name}", namespace=NAMESPACE, needs=needs, body=body)


def _policy() -> Values:
    """Volumes that no backup takes: PostgreSQL's, of which only the archive is whole, and what goes with its pod."""
    skip = {"type": "skip"}
    roles = [{"pvcLabels": {"cnpg.io/pvcRole": role}} for role in ("PG_DATA", "PG_WAL", "PG_TABLESPACE")]
    conditions = [*roles, {"volumeTypes": ["emptyDir", "ephemeral"]}]
    return {"version": "v1", "volumePolicies": [{"conditions": each, "action": skip} for each in conditions]}


def _agent() -> Values:
    """One volume at a time on each node."""
    return {"loadConcurrency": {"globalConfig": 1}, "podResources": dict(BOUNDS)}


def release(inputs: ToolInputs) -> Release:
    """The server, an agent on every node, the location of the backups and two schedules.

    Agents read what the kubelet mounts, as root, so the namespace is privileged.
    """
    monitors = (kube_prometheus_stack.NAME,) if kube_prometheus_stack.NAME in inputs.present else ()
    policy = yaml.safe_dump(_policy(), sort_keys=False)
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
    return Release.of(
        versions.VELERO,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=monitors,
        pod_security="privileged",
        storage=(_access(inputs),),
        secrets=(
            Secret(
                name=REPOSITORY_SECRET,
                namespace=NAMESPACE,
                data={"repository-password": Generated(password=REPOSITORY_PASSWORD)},
            ),
        ),
        passwords=(Password(name=REPOSITORY_PASSWORD),),
        before=(
            _manifest("v1", "ConfigMap", POLICY, {"data": {"policy.yaml": policy}}),
            _manifest("v1", "ConfigMap", AGENT_CONFIGURATION, {"data": {"node-agent.json": json.dumps(_agent())}}),
        ),
        after=(
            _manifest("velero.io/v1", "BackupStorageLocation", LOCATION, {"spec": _location(inputs)}, needs=(NAME,)),
            _schedule("objects", OBJECTS_AT, {"includedNamespaces": ["*"], "defaultVolumesToFsBackup": False}),
            _schedule(
                "volumes",
                VOLUMES_AT,
                {
                    "includedNamespaces": ["*"],
                    "excludedNamespaces": sorted(LEFT_OUT),
                    "defaultVolumesToFsBackup": True,
                    "resourcePolicy": {"kind": "configmap", "name": POLICY},
                },
            ),
        ),
        crds=("backupstoragelocations.velero.io", "schedules.velero.io"),
        flows=(Flow(peer=KUBERNETES_API, ports=(6443,), why="backs objects up, and restores them"),),
        ports_for_metrics=(METRICS_PORT,),
        workloads=(
            Workload(
                kind="Deployment", name=NAME, namespace=NAMESPACE, cpu=CPU, memory=MEMORY, selector=labels | {"name": NAME},
            ),
            Workload(kind="DaemonSet", name="node-agent", namespace=NAMESPACE, cpu=AGENT_CPU, memory=AGENT_MEMORY),
        ),
    )  # fmt: skip


def wanted(inputs: ToolInputs) -> bool:
    """Whether the platform is to have an object store at all."""
    return any(service.startswith(minio_buckets.NAME) for service in inputs.all_hosts)


TOOL = Tool(name=NAME, release=release, wanted=wanted)
