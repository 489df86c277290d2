"""What comes after what: releases of a cluster by their needs, and clusters by releases that wait for another one's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plan.tools.model import Release
from plan.tools.needs import EXTERNAL, is_elsewhere


def ordered(releases: Sequence[Release]) -> tuple[Release, ...]:
    """`releases` with needs first, otherwise in the order given. Raises ValueError: some need each other."""
    left, done, names = list(releases), [], set[str]()
    while left:
        ready = next((r for r in left if set(needs_of(r)) <= names), None)
        if ready is None:
            circle = "; ".join(f"{r.name} needs {', '.join(n for n in needs_of(r) if n not in names)}" for r in left)
            raise ValueError(f"the catalogue's releases need each other in a circle: {circle}")
        left.remove(ready)
        done.append(ready)
        names.add(ready.name)
    return tuple(done)


def needs_of(release: Release) -> tuple[str, ...]:
    """Every release of its cluster that must stand before `release` can be complete, without itself."""
    manifests = [n for m in (*release.before, *release.after) for n in m.needs]
    jobs = [n for job in release.jobs for n in job.needs]
    return tuple(
        n
        for n in dict.fromkeys((*release.needs, *manifests, *jobs))
        if n != release.name and n not in EXTERNAL and not is_elsewhere(n)
    )


def cluster_order(releases: Mapping[str, Sequence[Release]]) -> tuple[str, ...]:
    """The clusters, each after those whose releases its own wait for. Raises ValueError: they wait for one another."""
    waits = {
        cluster: {need.partition("/")[0] for r in of_cluster for need in r.needs if is_elsewhere(need)}
        for cluster, of_cluster in releases.items()
    }
    done: list[str] = []
    while len(done) < len(waits):
        ready = [cluster for cluster, awaited in waits.items() if cluster not in done and awaited <= set(done)]
        if not ready:
            left = "; ".join(f"{c} waits for {', '.join(sorted(waits[c]))}" for c in waits if c not in done)
            raise ValueError(f"clusters wait for one another in a circle: {left}")
        done += ready
    return tuple(done)
