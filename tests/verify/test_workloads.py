"""What counts as available, as ready, and as a request that failed."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from verify.checks import _Probe
from verify.kubernetes import ready, unavailable
from verify.runner import CheckFailed


def workload(kind: str, status: dict[str, Any], replicas: int = 2, generation: int = 1) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"namespace": "n", "name": "w", "generation": generation},
        "spec": {} if kind == "DaemonSet" else {"replicas": replicas},
        "status": {"observedGeneration": 1, **status},
    }


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (workload("Deployment", {"availableReplicas": 2}), None),
        (workload("Deployment", {"availableReplicas": 1}), "Deployment n/w has 1 of 2"),
        (workload("Deployment", {}), "Deployment n/w has 0 of 2"),
        (workload("Deployment", {}, replicas=0), None),
        (workload("StatefulSet", {"availableReplicas": 2}), None),
        (workload("StatefulSet", {"readyReplicas": 1}), "StatefulSet n/w has 1 of 2"),
        (workload("DaemonSet", {"desiredNumberScheduled": 5, "numberAvailable": 5}), None),
        (workload("DaemonSet", {"desiredNumberScheduled": 5}), "DaemonSet n/w has 0 of 5"),
        # The figures are those of an older generation.
        (workload("Deployment", {"availableReplicas": 2}, generation=2), "Deployment n/w has not been looked at by its controller"),  # fmt: skip
    ],
)
def test_unavailable_says_why(found: dict[str, Any], why: str | None) -> None:
    assert unavailable(found) == why


def test_a_workload_that_nobody_has_looked_at_is_not_available() -> None:
    fresh = workload("DaemonSet", {})
    del fresh["status"]
    assert unavailable(fresh) == "DaemonSet n/w has not been looked at by its controller"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{"type": "Ready", "status": "True"}], True),
        ([{"type": "Ready", "status": "Unknown"}], False),
        ([{"type": "DiskPressure", "status": "True"}], False),
        (None, False),
    ],
)
def test_ready(conditions: list[dict[str, str]] | None, expected: bool) -> None:
    assert ready({"status": {} if conditions is None else {"conditions": conditions}}) is expected


def probed(*results: Exception | None) -> _Probe:
    """A probe after as many requests as there are `results`; the last one then repeats."""
    left = list(results)

    def request() -> None:
        result = left.pop(0) if len(left) > 1 else left[0]
        if result:
            raise result

    probe = _Probe(request)
    with probe:
        deadline = time.monotonic() + 20
        while probe.count() < len(results) and time.monotonic() < deadline:
            time.sleep(0.02)
    return probe


def test_requests_and_failures_are_counted() -> None:
    probe = probed(None, CheckFailed("refused"), None)
    assert probe.count() >= 3
    assert probe.failures() == 1


def test_a_request_that_breaks_is_a_failure_too() -> None:
    probe = probed(KeyError("notAfter"), None)
    assert probe.failures() == 1


def test_nothing_is_requested_after_the_context() -> None:
    probe = probed(None)
    before = probe.count()
    time.sleep(0.5)
    assert probe.count() == before


def test_a_request_counts_where_it_began() -> None:
    began = threading.Event()

    def slow() -> None:
        if not began.is_set():
            began.set()
            time.sleep(0.6)
            raise CheckFailed("hung")

    with (probe := _Probe(slow)):
        began.wait(5)
        time.sleep(0.1)
        later = time.monotonic()
        time.sleep(0.5)
    assert (probe.failures(until=later), probe.failures(later)) == (1, 0)
    assert probe.count(later) >= 1
