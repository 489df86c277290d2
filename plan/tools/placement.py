"""Placement: whether a cluster has nodes for the pods of its tools.

Masters carry the taint of the control plane, so nodes for tools are workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from config.clusters import Taint
from config.errors import Problem, key
from plan.tools.model import Release
from plan.topology import ClusterHosts

KEEPS_OFF = ("NoSchedule", "NoExecute")


def check(cluster: ClusterHosts, releases: Sequence[Release]) -> list[Problem]:
    """A problem for taints of the workers that leave tools without a node, and for pods that need more workers."""
    return [*_taints(cluster, releases), *_apart(len(cluster.workers), releases)]


def _taints(cluster: ClusterHosts, releases: Sequence[Release]) -> Iterator[Problem]:
    """All workers have the same taints, so that one which a tool does not tolerate leaves it nowhere to run."""
    for taint in cluster.settings.workers.taints:
        if taint.effect not in KEEPS_OFF:
            continue
        out = sorted(release.name for release in releases if not _runs(release, taint))
        if out:
            yield Problem(
                key("clusters", cluster.name, "workers.taints"),
                f"every worker has the taint {taint.key}={taint.value}:{taint.effect}, and masters take no tools: "
                f"no node is left for {', '.join(out)}",
                "write effect: PreferNoSchedule, or remove the taint",
            )


def _apart(workers: int, releases: Sequence[Release]) -> Iterator[Problem]:
    for release in releases:
        most = max((w.replicas for w in release.workloads if w.apart), default=0)
        if most > workers:
            yield Problem(
                key("tools", release.name, "replicas"),
                f"{most} replicas of {release.name} need {most} workers, because no two of them run on one node, and "
                f"there {'is' if workers == 1 else 'are'} {workers}",
                f"write {workers} or less, or raise the workers' count",
            )


def _runs(release: Release, taint: Taint) -> bool:
    """Whether the pods of `release` run on a node with `taint`. Those of databases and Jobs, which the program makes
    itself, tolerate nothing; those of its chart what every list of tolerations in its values says."""
    databases = any(manifest.body["kind"] == "Cluster" for manifest in release.before)
    if databases or release.jobs:
        return False
    lists = list(_tolerations(release.values))
    return bool(lists) and all(any(_tolerates(one, taint) for one in of) for of in lists)


def _tolerations(values: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    for name, value in values.items():
        if name == "tolerations" and isinstance(value, list | tuple):
            yield value
        elif isinstance(value, Mapping):
            yield from _tolerations(value)


def _tolerates(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """As Kubernetes matches them: without a key, or without an effect, any."""
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.key)
    return (toleration.get("key"), toleration.get("value", "")) == (taint.key, taint.value)
