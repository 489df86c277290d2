"""CloudNativePG: the operator for the tools' PostgreSQL databases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from plan import versions
from plan.tools import cert_manager, csi_driver_nfs
from plan.tools.common import beside_bundle, replicas_of, resources, spread
from plan.tools.model import CA_BUNDLE_KEY, Manifest, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, KUBERNETES_API, MONITORS, PUBLIC, Database, Flow
from plan.tools.sources import CaBundle, Clear, Generated, Secret

NAME, NAMESPACE = "cloudnative-pg", "cnpg-system"
STATUS_PORT, METRICS_PORT, WEBHOOK_PORT = 8000, 9187, 9443
AUTHORITY, AUTHORITY_FOLDER = {"key": "ca.crt", "path": "ca.crt"}, "/etc/opstella/database"
BACKUP_SECRET, BACKUP_RETENTION = "database-backups", "14d"
RELOAD: Mapping[str, str] = MappingProxyType({"cnpg.io/reload": ""})
"""Label of a Secret that instances read again when it changes."""


def _values(inputs: ToolInputs) -> Values:
    return {
        "crds": {"create": True},
        "replicaCount": replicas_of(inputs, NAME),
        "affinity": spread({"app.kubernetes.io/name": NAME}),
        "resources": resources("50m", "100Mi", "256Mi"),
    }


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The object store that backups go to: its URL, and the path of the bucket below it (`s3://…`).

    `foreign` names the cluster of the platform that holds the store's credential, None where it is the same.
    """

    endpoint: str
    path: str
    foreign: str | None = None


def cluster(inputs: ToolInputs, database: Database, namespace: str, archive: Archive | None = None) -> Manifest:
    """The PostgreSQL cluster of `database`, in its tool's namespace, backed up to `archive`.

    Applications reach the primary at the service `<name>-rw`, port 5432.
    """
    initdb: Values = {
        "database": database.database,
        "owner": database.owner,
        "secret": {"name": f"{database.name}-owner"},
    }
    if database.statements:
        initdb["postInitApplicationSQL"] = list(database.statements)
    return Manifest(
        name=database.name,
        namespace=namespace,
        needs=(NAME, *storage_needs(inputs)),
        wait_for="condition=Ready",
        timeout_seconds=900,
        body={
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": {"name": database.name, "namespace": namespace},
            "spec": {
                "instances": inputs.database_instances,
                "imageName": f"ghcr.io/cloudnative-pg/postgresql:{versions.POSTGRESQL.version}",
                # The budget of a single instance would let no node be drained.
                "enablePDB": inputs.database_instances > 1,
                "storage": {"storageClass": inputs.storage_class, "size": database.storage},
                "resources": resources(database.cpu, database.memory, database.memory_limit),
                "bootstrap": {"initdb": initdb},
                **({"certificates": _certificates(database, inputs)} if database.platform_certificate else {}),
                **({"backup": _backup(archive)} if archive else {}),
            },
        },
    )


def host(database: Database, namespace: str) -> str:
    """The primary, by the one name of it that an intermediate with name constraints may sign."""
    return f"{database.name}-rw.{namespace}.svc"


def _server_secret(database: Database) -> str:
    return f"{database.name}-tls"  # `-server` is the operator's own


def _authority_secret(database: Database, inputs: ToolInputs) -> str:
    return beside_bundle(f"{database.name}-authorities", inputs)


def _certificates(database: Database, inputs: ToolInputs) -> Values:
    return {"serverTLSSecret": _server_secret(database), "serverCASecret": _authority_secret(database, inputs)}


def authorities(database: Database, namespace: str, inputs: ToolInputs) -> Secret:
    """By what instances verify their primary: the bundle and not cert-manager's `ca.crt`, for libpq wants a chain up to a
    root, which may stand in the bundle alone."""
    name = _authority_secret(database, inputs)
    return Secret(name=name, namespace=namespace, data={AUTHORITY["key"]: CaBundle()}, labels=RELOAD)


def certificate(database: Database, namespace: str, inputs: ToolInputs) -> Manifest:
    """The server's certificate, signed by the stack's intermediate."""
    labels = {"labels": dict(RELOAD)}
    names = [host(database, namespace)]
    return cert_manager.certificate(_server_secret(database), namespace, names, inputs, secretTemplate=labels)


def _backup(archive: Archive) -> Values:
    # Deprecated since 1.26 in favour of a plugin, and still accepted by 1.30: the plugin would be one more controller,
    # with certificates of its own, for the same tools, which the "system" image of PostgreSQL carries.
    def from_secret(key: str) -> Values:
        return {"name": BACKUP_SECRET, "key": key}

    store: Values = {
        "destinationPath": archive.path,
        "endpointURL": archive.endpoint,
        "s3Credentials": {"accessKeyId": from_secret("ACCESS_KEY_ID"), "secretAccessKey": from_secret("SECRET_KEY")},
        "wal": {"compression": "gzip"},
        "data": {"compression": "gzip"},
    }
    if archive.endpoint.startswith("https:"):
        store["endpointCA"] = from_secret(CA_BUNDLE_KEY)
    return {"retentionPolicy": BACKUP_RETENTION, "barmanObjectStore": store}


def schedule(database: Database, namespace: str) -> Manifest:
    """A base backup every night, each database at a minute of its own; between them every WAL file is archived.

    It waits for nothing: the object store may stand later than the database, and what failed is tried again.
    """
    minute = sum(f"{namespace}/{database.name}".encode()) % 60
    return Manifest(
        name=f"{database.name}-nightly",
        namespace=namespace,
        needs=(NAME,),
        body={
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "ScheduledBackup",
            "metadata": {"name": database.name, "namespace": namespace},
            "spec": {
                "schedule": f"0 {minute} 2 * * *",  # seconds first
                "backupOwnerReference": "self",
                "cluster": {"name": database.name},
            },
        },
    )


def authority(database: str) -> tuple[Values, Values, str]:
    """By which a tool verifies its database: a volume with the certificate (without the key that lies beside it), its mount,
    and the file. CloudNativePG renews both, and the kubelet the file."""
    volume = {"name": "database-ca", "secret": {"secretName": f"{database}-ca", "items": [AUTHORITY]}}
    mount = {"name": "database-ca", "mountPath": AUTHORITY_FOLDER, "readOnly": True}
    return volume, mount, f"{AUTHORITY_FOLDER}/{AUTHORITY['path']}"


def owner_secret(database: Database, namespace: str) -> Secret:
    """The owner's login, for the tool and for the database itself."""
    return Secret(
        name=f"{database.name}-owner",
        namespace=namespace,
        type="kubernetes.io/basic-auth",
        data={"username": Clear(text=database.owner), "password": Generated(password=database.name)},
    )


def backup_secret(archive: Archive, user: str, namespace: str) -> Secret:
    """What the databases of a namespace log in with at the object store, as `user`."""
    return Secret(
        name=BACKUP_SECRET,
        namespace=namespace,
        data={
            "ACCESS_KEY_ID": Clear(text=user),
            "SECRET_KEY": Generated(password=f"s3-{user}", cluster=archive.foreign),
            CA_BUNDLE_KEY: CaBundle(),
        },
    )


def flows(database: Database, archive: Archive | None) -> tuple[Flow, ...]:
    """Connections of a database: its tool's, its instances' among themselves, the operator's, the archive's."""
    pods = {"cnpg.io/cluster": database.name}
    archived = "backups and write-ahead logs into the object store"
    store = () if archive is None else (Flow(peer="minio", ports=(9000,), pods=pods, why=archived),)
    if archive is not None and archive.foreign is not None:
        store = (Flow(peer=PUBLIC, ports=(443,), pods=pods, why=archived),)
    return (
        Flow(peer=ITSELF, ports=(5432,), peer_pods=pods, why="the tool's queries, and replication"),
        Flow(peer=ITSELF, ports=(STATUS_PORT,), pods=pods, peer_pods=pods, why="status of instances"),
        Flow(peer=NAME, ports=(5432, STATUS_PORT), inbound=True, pods=pods, why="set-up and status of instances"),
        Flow(peer=KUBERNETES_API, ports=(6443,), pods=pods, why="instances learn who is primary"),
        *(Flow(peer=m, ports=(METRICS_PORT,), inbound=True, pods=pods, why="metrics of a database") for m in MONITORS),
        *store,
    )


def storage_needs(inputs: ToolInputs) -> tuple[str, ...]:
    """The release that makes the inputs' StorageClass; none where the user named a class of their own."""
    default = ToolInputs.__dataclass_fields__["storage_class"].default
    return (csi_driver_nfs.NAME,) if inputs.storage_class == default else ()


def release(inputs: ToolInputs) -> Release:
    """The operator, for all namespaces. It makes the certificates of its webhook itself."""
    return Release.of(
        versions.CLOUDNATIVE_PG,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        crds=("clusters.postgresql.cnpg.io", "scheduledbackups.postgresql.cnpg.io"),
        workloads=(
            Workload(
                kind="Deployment", name="cloudnative-pg", namespace=NAMESPACE, replicas=replicas_of(inputs, NAME),
                cpu="50m", memory="100Mi", selector={"app.kubernetes.io/name": NAME},
            ),
        ),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="makes databases, and watches over them"),
            Flow(peer=KUBERNETES_API, ports=(WEBHOOK_PORT,), inbound=True, why="admission of databases and backups"),
        ),
        ports_for_metrics=(8080,),
    )


TOOL = Tool(name=NAME, release=release)
