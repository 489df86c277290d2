"""CloudNativePG: the operator for the tools' PostgreSQL databases."""

from __future__ import annotations

from plan import versions
from plan.tools import csi_driver_nfs
from plan.tools.common import image, merge, resources
from plan.tools.model import Manifest, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import Database

NAME, NAMESPACE = "cloudnative-pg", "cnpg-system"
REGISTRY = "ghcr.io"


def _values(inputs: ToolInputs) -> Values:
    values: Values = {
        "crds": {"create": True},
        "replicaCount": inputs.replicas,
        "resources": resources("50m", "100Mi", "256Mi"),
    }
    if inputs.image_registry:
        values = merge(values, {"image": {"repository": image(inputs, REGISTRY, "cloudnative-pg/cloudnative-pg")}})
    return values


def cluster(inputs: ToolInputs, database: Database, namespace: str) -> Manifest:
    """The PostgreSQL cluster of `database`, in its tool's namespace.

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
                "imageName": image(inputs, REGISTRY, f"cloudnative-pg/postgresql:{versions.POSTGRESQL.version}"),
                # The budget of a single instance would let no node be drained.
                "enablePDB": inputs.database_instances > 1,
                "storage": {"storageClass": inputs.storage_class, "size": database.storage},
                "resources": resources(database.cpu, database.memory, database.memory_limit),
                "bootstrap": {"initdb": initdb},
            },
        },
    )


def storage_needs(inputs: ToolInputs) -> tuple[str, ...]:
    """The release that makes the inputs' StorageClass; none where the user named a class of their own."""
    default = ToolInputs.__dataclass_fields__["storage_class"].default
    return (csi_driver_nfs.NAME,) if inputs.storage_class == default else ()


def release(inputs: ToolInputs) -> Release:
    """The operator, for all namespaces. It makes the certificates of its webhook itself."""
    chart = versions.CLOUDNATIVE_PG
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=chart.name,
        version=chart.version,
        repository=chart.repository,
        values=_values(inputs),
        crds=("clusters.postgresql.cnpg.io",),
        workloads=(Workload(kind="Deployment", name="cloudnative-pg", namespace=NAMESPACE),),
    )


TOOL = Tool(name=NAME, release=release)
