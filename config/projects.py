"""Settings of projects: namespaces in which people of a group work, with their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.types import Cpu, DnsLabel, Frozen, Gigabytes, GroupName, whole


class Project(Frozen):
    """One namespace, its rights, its quota and its pod security. CPU in cores, sizes in GB (2**30 bytes)."""

    clusters: tuple[DnsLabel, ...] | None = None
    """Where the namespace is made; `None`: in every cluster."""
    groups: Annotated[tuple[GroupName, ...], Field(min_length=1)] = ("developers",)
    """Groups of the realm whose members work there, with Kubernetes' role `edit`."""
    cpu: Cpu = 4
    """Sum of what its pods may request."""
    memory_gb: Gigabytes = 8
    """Sum of what its pods may request, and use."""
    storage_gb: Gigabytes = 50
    """Sum of its volumes."""
    pods: Annotated[int, whole(1, 5000)] = 50
    pod_security: Literal["baseline", "restricted"] = "restricted"
    """Pod Security Standard that its pods are held to."""
