"""Checks of labels and taints: what the kubelet, RKE2 and the API server accept, and what belongs to them alone; and of
sizes that a machine's software does not run in.

Sources: kubernetes, pkg/apis/core/validation (ValidateTaints: one taint per key and effect) and
pkg/controller/nodelifecycle (which owns the taints of node.kubernetes.io); rancher/rke2 (the roles of a node).
"""

from __future__ import annotations

from collections.abc import Iterator

from config.clusters import Nodes
from config.errors import Problem, key
from config.model import Settings

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
# What a node is, as its kubelet and RKE2 report it: schedulers, volumes and the program's own placement go by these.
OWNED_LABELS = {
    "kubernetes.io/hostname": "the kubelet sets it to the node's name",
    **dict.fromkeys(
        ("kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch"),
        "the kubelet sets it to what the machine is",
    ),
    **dict.fromkeys(
        (CONTROL_PLANE, "node-role.kubernetes.io/etcd", "node-role.kubernetes.io/master"),
        "RKE2 sets it on masters, and workers are known by its absence",
    ),
}
OWNED_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
# RKE2's stated minimum for any node ("Requirements": 2 CPU, 4 GB).
RKE2_MINIMUM_CPU, RKE2_MINIMUM_MEMORY_GB = 2, 4
# GitLab's "Installation system requirements" recommend 4 CPU and 8 GB, and 2.5 GB of disk for the package alone. In less than
# 4 GB it does not run. An upgrade holds the package, its archive and the former one beside the system.
GITLAB_MINIMUM = {"cpu": 2, "memoryGb": 4, "diskGb": 10}


def check_nodes(settings: Settings) -> Iterator[Problem]:
    """A problem for each label and taint that a node cannot be given."""
    for name, cluster in settings.enabled_clusters.items():
        for group, nodes in (("masters", cluster.masters), ("workers", cluster.workers)):
            yield from _labels(key("clusters", name, group), nodes)
            yield from _taints(key("clusters", name, group, "taints"), nodes)


def check_sizes(settings: Settings) -> Iterator[Problem]:
    """A problem for each group of nodes that is smaller than RKE2 can run in."""
    for name, cluster in settings.enabled_clusters.items():
        for role, nodes in (("masters", cluster.masters), ("workers", cluster.workers)):
            cpu, memory_gb = max(nodes.cpu, RKE2_MINIMUM_CPU), max(nodes.memory_gb, RKE2_MINIMUM_MEMORY_GB)
            if (cpu, memory_gb) != (nodes.cpu, nodes.memory_gb):
                yield Problem(
                    key("clusters", name, role),
                    f"{nodes.cpu} CPU and {nodes.memory_gb} GB are below RKE2's minimum of "
                    f"{RKE2_MINIMUM_CPU} CPU and {RKE2_MINIMUM_MEMORY_GB} GB",
                    f"write cpu: {cpu} and memoryGb: {memory_gb} or more",
                    {("clusters", name, role, "cpu"): cpu, ("clusters", name, role, "memoryGb"): memory_gb},
                )


def check_gitlab(settings: Settings) -> Iterator[Problem]:
    """A problem if GitLab's machine is smaller than GitLab can run in."""
    given = settings.gitlab
    sizes = {"cpu": given.cpu, "memoryGb": given.memory_gb, "diskGb": given.disk_gb}
    enough = {name: max(size, GITLAB_MINIMUM[name]) for name, size in sizes.items()}
    if enough != sizes:
        yield Problem(
            key("gitlab"),
            f"{given.cpu} CPU, {given.memory_gb} GB memory and {given.disk_gb} GB disk are below what GitLab runs in: "
            f"{GITLAB_MINIMUM['cpu']} CPU, {GITLAB_MINIMUM['memoryGb']} GB and {GITLAB_MINIMUM['diskGb']} GB (GitLab recommends 4 CPU and 8 GB)",
            "write " + ", ".join(f"{name}: {size}" for name, size in enough.items()) + ", or more",
            {("gitlab", name): size for name, size in enough.items()},
        )


def _labels(where: str, nodes: Nodes) -> Iterator[Problem]:
    given = {f"{where}.labels": nodes.labels, **{f"{where}.nodeLabels.{n}": of for n, of in nodes.node_labels.items()}}
    for path, labels in given.items():
        for label in labels:
            if label in OWNED_LABELS:
                yield Problem(
                    path,
                    f"the label '{label}' cannot be set: {OWNED_LABELS[label]}",
                    f"remove it, or write a label of your own, such as example.com/{label.rpartition('/')[2]}",
                )


def _taints(where: str, nodes: Nodes) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for number, taint in enumerate(nodes.taints):
        if taint.key.startswith(OWNED_TAINTS):
            yield Problem(
                f"{where}[{number}].key",
                f"the taint '{taint.key}' cannot be set: Kubernetes sets and removes taints of this prefix by the node's state",
                f"remove it, or write a key of your own, such as example.com/{taint.key.rpartition('/')[2]}",
            )
        if (taint.key, taint.effect) in seen:
            yield Problem(
                f"{where}[{number}]",
                f"'{taint.key}' with effect {taint.effect} is listed twice, and the kubelet does not start with that",
                "remove one of the two",
            )
        seen.add((taint.key, taint.effect))
