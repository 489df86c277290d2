"""What keeps a workload available: a budget for disruptions, and more pods under load."""

from __future__ import annotations

from collections.abc import Iterator

from plan.tools.model import Manifest, Release, Values, Workload

MIN_PODS, CPU_PERCENT = 2, 70
SCALE_UP_SECONDS, SCALE_DOWN_SECONDS = 60, 300


def pods(workload: Workload, workers: int) -> tuple[int, int]:
    """Fewest and most pods of `workload`; a DaemonSet has one on each worker.

    Autoscaling needs a second worker, and more pods than workers would not make anything more available.
    """
    if workload.kind == "DaemonSet":
        return workers, workers
    if workload.autoscale is None or workers < MIN_PODS:
        return workload.replicas, workload.replicas
    fewest = max(workload.replicas, MIN_PODS)
    return fewest, max(fewest, min(workload.autoscale, workers))


def manifests(release: Release, workers: int) -> Iterator[Manifest]:
    """A PodDisruptionBudget for each workload of several pods, a HorizontalPodAutoscaler for each that may grow."""
    for workload in release.workloads:
        fewest, most = pods(workload, workers)
        if workload.kind == "DaemonSet":
            continue
        if fewest > 1 and workload.selector:
            spec: Values = {"maxUnavailable": 1, "selector": {"matchLabels": dict(workload.selector)}}
            yield _manifest("policy/v1", "PodDisruptionBudget", workload, spec)
        if most > fewest:
            yield _manifest("autoscaling/v2", "HorizontalPodAutoscaler", workload, _scaling(workload, fewest, most))


def _scaling(workload: Workload, fewest: int, most: int) -> Values:
    target = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": workload.kind, "name": workload.name},
        "minReplicas": fewest,
        "maxReplicas": most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": SCALE_UP_SECONDS},
            "scaleDown": {"stabilizationWindowSeconds": SCALE_DOWN_SECONDS},
        },
    }


def _manifest(api_version: str, kind: str, workload: Workload, spec: Values) -> Manifest:
    return Manifest(
        name=f"{workload.namespace}-{workload.name}-{'budget' if kind.startswith('Pod') else 'scaling'}",
        namespace=workload.namespace,
        needs=(),
        body={
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": workload.name, "namespace": workload.namespace},
            "spec": spec,
        },
    )
