"""Checks of labels and taints: what the kubelet, RKE2 and the API server accept, and what belongs to them alone.

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


def check_nodes(settings: Settings) -> Iterator[Problem]:
    """A problem for each label and taint that a node cannot be given."""
    for name, cluster in settings.enabled_clusters.items():
        for group, nodes in (("masters", cluster.masters), ("workers", cluster.workers)):
            yield from _labels(key("clusters", name, group), nodes)
            yield from _taints(key("clusters", name, group, "taints"), nodes)


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
