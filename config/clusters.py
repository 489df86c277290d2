"""Settings of machines: bastion, GitLab, and the clusters with their nodes.

Sizes are whole CPU cores and GB (2**30 bytes).
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from config.types import (
    AbsolutePath,
    Address,
    Cpu,
    DnsLabel,
    Flag,
    Frozen,
    Gigabytes,
    GitLabVersion,
    HostName,
    LabelKey,
    LabelValue,
    Network,
    whole,
)


class Machine(Frozen):
    """One machine: its planned size and, if it is not to be allocated, its address."""

    cpu: Cpu = 1
    memory_gb: Gigabytes = 2
    disk_gb: Gigabytes = 20
    address: Address | None = None


class Bastion(Machine):
    """The one machine reached directly; every other one is reached through it."""

    public_address: HostName | None = None
    """Where the operator dials the bastion, if not at its address inside the subnet."""


class GitLab(Machine):
    """GitLab Omnibus on its own machine."""

    cpu: Cpu = 2
    memory_gb: Gigabytes = 4
    disk_gb: Gigabytes = 40
    edition: Literal["ce", "ee"] = "ce"
    version: GitLabVersion | None = None
    """`None` takes the version in plan/versions.py."""
    object_storage: Flag = True
    """Whether uploads, artifacts and packages lie in the platform's object store instead of on GitLab's own disk."""


class LoadBalancer(Machine):
    """A cluster's HAProxy: one machine, two that hold one virtual address between them, or another cluster's."""

    shared_with: DnsLabel | None = None
    """The cluster whose load balancer serves this one too, at `virtual_address`; this one has no such machine then."""
    count: Annotated[int, whole(1, 2)] = 1
    addresses: tuple[Address, ...] = ()
    """Of two machines, each one's; a single one's is `address`."""
    virtual_address: Address | None = None
    """What the cluster is reached at, instead of at a machine's own address."""

    @property
    def machines(self) -> int:
        """How many the cluster has of its own."""
        return 0 if self.shared_with else self.count

    @property
    def given(self) -> tuple[Address, ...]:
        """The machines' own addresses that are not to be allocated."""
        return self.addresses or ((self.address,) if self.address else ())


class Nfs(Machine):
    """A cluster's NFS server."""

    disk_gb: Gigabytes = 100
    server: Literal["kernel", "ganesha"] = "kernel"
    path: AbsolutePath = "/srv/nfs"


class Taint(Frozen):
    """A Kubernetes taint."""

    key: LabelKey
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class Nodes(Frozen):
    """A cluster's masters or workers, all of one size."""

    count: Annotated[int, whole(0, 5000)]
    cpu: Cpu
    memory_gb: Gigabytes
    disk_gb: Gigabytes = 40
    addresses: tuple[Address, ...] = ()
    """In the order of the nodes; nodes beyond the list are allocated from the subnet."""
    labels: dict[LabelKey, LabelValue] = {}
    taints: tuple[Taint, ...] = ()
    node_labels: dict[DnsLabel, dict[LabelKey, LabelValue]] = {}
    """Labels of single nodes, by node name, on top of `labels`."""


class Masters(Nodes):
    """A cluster's servers; the sizes of the multi-cluster reference where nothing else says them."""

    count: Annotated[int, whole(0, 5000)] = 3
    cpu: Cpu = 2
    memory_gb: Gigabytes = 4
    disk_gb: Gigabytes = 20


class Workers(Nodes):
    """A cluster's agents; the sizes of the multi-cluster reference where nothing else says them."""

    count: Annotated[int, whole(0, 5000)] = 3
    cpu: Cpu = 4
    memory_gb: Gigabytes = 8


class Cluster(Frozen):
    """One RKE2 cluster with its load balancer and its NFS server."""

    enabled: Flag = True
    """`false` leaves the cluster out, as if it were not described."""
    removable: Flag = False
    """Whether the cluster may be taken out, or destroyed, with the data it holds; `up` has to know it before that."""
    subnet: Network
    pod_subnet: Network = IPv4Network("172.16.72.0/22")
    service_subnet: Network = IPv4Network("172.16.76.0/22")
    load_balancer: LoadBalancer = LoadBalancer()
    nfs: Nfs = Nfs()
    masters: Masters = Masters()
    workers: Workers = Workers()
