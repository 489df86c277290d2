"""One experiment: calm, fault, undone, all as before, writes read back."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from chaos.cluster import Cluster
from chaos.faults import Fault
from chaos.lab import Lab, wait_until
from chaos.page import Row, clients, judged, lost
from chaos.watch import watch

_CALM_SECONDS = 5
_WHOLE_SECONDS = 300


def experiment(
    lab: Lab, fault: Fault, cluster: Cluster, outputs: dict[str, Any], measured: str, keep: Path | None = None
) -> Row:
    """Does `fault` to `cluster` and tells what came of it. Raises ChaosError, NotHere; the fault is undone in any case.

    Into the folder `keep` goes every request of the probes.
    """
    every = [Cluster(lab, c["name"]) for c in lab.plan["clusters"]]
    watched = [c for c in every if c.name != cluster.name] if fault.elsewhere else [cluster]
    with contextlib.ExitStack() as stack:
        if fault.ready:
            stack.enter_context(fault.ready(cluster))
        for one in {c.name: c for c in (cluster, *watched)}.values():
            _whole(one, time.time() - 30)
        watches = [
            stack.enter_context(watch(one, outputs, keep and keep / f"{fault.name}-{one.name}.jsonl"))
            for one in watched
        ]
        calm = time.monotonic()
        time.sleep(_CALM_SECONDS)
        began = time.monotonic()
        with fault.do(cluster) as notes:
            time.sleep(fault.seconds)
            undone = time.time()
            lasted = time.monotonic() - began
        _whole(cluster, undone)
        whole = time.monotonic()
        # What failed last has begun by now; its patience ends before the figures are made.
        time.sleep(_CALM_SECONDS)
        noise = sum(f.failed for w in watches for f in w.so_far(calm, began).values())
        seen = [w.end(began, whole) for w in watches]
    done, *recovered = notes
    recovered.append(f"all as before {whole - began:.0f} s after its beginning ({lasted:.0f} s held)")
    if noise:
        recovered.append(f"{noise} requests had failed in the {_CALM_SECONDS} s before it")
    return Row(
        fault=fault.name, done=done, clients=clients(seen), recovered="; ".join(recovered), lost=lost(seen),
        target=judged(fault.target, seen), measured=measured,
    )  # fmt: skip


def _whole(cluster: Cluster, since: float) -> float:
    return wait_until(f"{cluster.name} is as before", lambda: cluster.missing(since), _WHOLE_SECONDS)
