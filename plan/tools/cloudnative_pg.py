"""CloudNativePG: the operator for the tools' PostgreSQL databases."""

from __future__ import annotations

from typing import Any

from plan import versions
from plan.tools import csi_driver_nfs
from plan.tools.common import image, merge, resources
from plan.tools.model import Manifest, Release, Tool, ToolInputs, Values, Workload

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


def database(
    inputs: ToolInputs, *, name: str, namespace: str, database: str, owner: str, secret: str, storage: str,
    resources: dict[str, Any],
) -> Manifest:  # fmt: skip
    """A PostgreSQL cluster with one database; `secret` is of type basic-auth and names `owner`.

    Applications reach the primary at the service `<name>-rw`, port 5432. `storage` is a Kubernetes quantity.
    """
    return Manifest(
        name=name,
        namespace=namespace,
        needs=(NAME, *storage_needs(inputs)),
        wait_for="condition=Ready",
        timeout_seconds=900,
        body={
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "instances": inputs.database_instances,
                "imageName": image(inputs, REGISTRY, f"cloudnative-pg/postgresql:{versions.POSTGRESQL.version}"),
                # The budget of a single instance would let no node be drained.
                "enablePDB": inputs.database_instances > 1,
                "storage": {"storageClass": inputs.storage_class, "size": storage},
                "resources": resources,
                "bootstrap": {"initdb": {"database": database, "owner": owner, "secret": {"name": secret}}},
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
