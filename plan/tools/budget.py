"""The budget: what the tools of a cluster request, against what its workers have.

CPU in millicores, memory in MiB. What is counted are requests, by which Kubernetes places pods; limits are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from config.errors import Problem, key
from plan.tools import availability, jobs
from plan.tools.model import Release
from plan.tools.waves import waves

# What a worker does not have for tools. RKE2 reserves nothing by itself; this is for its kubelet, containerd, network plugin,
# kube-proxy and the kubelet's eviction threshold (100 MiB), as Calico's and RKE2's own requests and a margin. Cilium's agent
# requests nothing.
RESERVED_CPU, RESERVED_MEMORY = 350, 768
_MEMORY = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024, "": 1 / 2**20}


class Worker(Protocol):
    """A machine: cores, and GB of 2**30 bytes."""

    @property
    def cpu(self) -> int: ...
    @property
    def memory_gb(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Amount:
    """CPU in millicores, memory in MiB."""

    cpu: int = 0
    memory: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(cpu=self.cpu + other.cpu, memory=self.memory + other.memory)

    def times(self, number: int) -> Amount:
        return Amount(cpu=self.cpu * number, memory=self.memory * number)

    def fits(self, room: Amount) -> bool:
        return self.cpu <= room.cpu and self.memory <= room.memory

    def __str__(self) -> str:
        return f"{self.cpu / 1000:.2f} CPU and {self.memory / 1024:.1f} GB"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a tool requests: each of its pods by name (`Deployment x`), how many, and how much each."""

    tool: str
    pods: tuple[tuple[str, int, Amount], ...]

    @property
    def total(self) -> Amount:
        return sum((each.times(number) for _, number, each in self.pods), Amount())


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One cluster's. `jobs` is the most that provisioning Jobs request at the same time, while tools are deployed."""

    rows: tuple[Row, ...]
    jobs: Amount
    capacity: Amount
    largest: Amount
    """What the largest worker has for tools."""

    @property
    def total(self) -> Amount:
        return sum((row.total for row in self.rows), self.jobs)


def cpu(quantity: str) -> int:
    """Millicores of a Kubernetes quantity, `250m` or `2` or `0.5`. Raises ValueError for anything else."""
    if match := re.fullmatch(r"(\d+)m", quantity):
        return int(match[1])
    if re.fullmatch(r"\d+(\.\d{1,3})?", quantity):
        return round(float(quantity) * 1000)
    raise ValueError(f"'{quantity}' is no amount of CPU: write 250m, 2 or 0.5")


def memory(quantity: str) -> int:
    """MiB, rounded up, of a Kubernetes quantity: bytes, or with Ki, Mi or Gi. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", quantity)
    if match is None:
        raise ValueError(f"'{quantity}' is no amount of memory: write 256Mi or 2Gi")
    return -int(-int(match[1]) * _MEMORY[match[2]] // 1)


def budget(releases: Sequence[Release], workers: Sequence[Worker]) -> Budget:
    """The budget of a cluster's releases, wired, on its `workers`."""
    rooms = [
        Amount(cpu=max(0, w.cpu * 1000 - RESERVED_CPU), memory=max(0, w.memory_gb * 1024 - RESERVED_MEMORY))
        for w in workers
    ]
    each = Amount(cpu=cpu(jobs.CPU), memory=memory(jobs.MEMORY))
    with_jobs = {release.name for release in releases if release.jobs}
    together = max((len(with_jobs.intersection(wave)) for wave in waves(releases)), default=0)
    return Budget(
        rows=tuple(Row(tool=r.name, pods=tuple(_pods(r, len(workers)))) for r in releases),
        jobs=each.times(together),
        capacity=sum(rooms, Amount()),
        largest=max(rooms, key=lambda room: (room.memory, room.cpu), default=Amount()),
    )


def _pods(release: Release, workers: int) -> Iterator[tuple[str, int, Amount]]:
    for workload in release.workloads:
        fewest, _ = availability.pods(workload, workers)
        yield f"{workload.kind} {workload.name}", fewest, Amount(cpu=cpu(workload.cpu), memory=memory(workload.memory))
    for manifest in release.before:
        if manifest.body["kind"] == "Cluster":
            spec = manifest.body["spec"]
            asked = spec["resources"]["requests"]
            each = Amount(cpu=cpu(asked["cpu"]), memory=memory(asked["memory"]))
            yield f"database {manifest.name}", spec["instances"], each


def check(cluster: str, found: Budget, workers: int) -> list[Problem]:
    """A problem if the tools do not fit: the sums, by tool, what there is, and what to change. None without workers."""
    if not workers:
        return []
    problems = []
    where = key("clusters", cluster, "workers")
    if not found.total.fits(found.capacity):
        rows = sorted(found.rows, key=lambda row: (-row.total.memory, row.tool))
        shown = "; ".join(f"{row.tool} {row.total}" for row in rows if row.total != Amount())
        again = _workers_needed(found, workers)
        problems.append(
            Problem(
                where,
                f"the tools request {found.total}, and its {workers} {'worker has' if workers == 1 else 'workers have'} {found.capacity} for them. "
                f"By tool: {shown}; provisioning {found.jobs}",
                f"set count to {again} at this size, give the workers more cpu or memoryGb, or leave tools out, as many as it "
                f"takes, the largest first: {key('tools', rows[0].tool, 'enabled')} to false",
            )
        )
    for row in found.rows:
        for name, _, each in row.pods:
            if not each.fits(found.largest):
                problems.append(
                    Problem(
                        where,
                        f"a pod of {row.tool} ({name}) requests {each}, and no worker has more than {found.largest} for it",
                        f"give the workers more cpu or memoryGb, or set {key('tools', row.tool, 'enabled')} to false",
                    )
                )
    return problems


def _workers_needed(found: Budget, workers: int) -> int:
    """How many workers of the present average size would do; DaemonSets grow too, so one more than the sum says."""
    share = max(
        found.total.cpu / max(1, found.capacity.cpu), found.total.memory / max(1, found.capacity.memory)
    )
    return -int(-share * workers // 1) + 1


def as_data(found: Budget) -> dict[str, Any]:
    """The budget as plain JSON data: millicores and MiB."""
    return {
        "tools": {row.tool: _amount(row.total) for row in found.rows},
        "provisioning": _amount(found.jobs),
        "total": _amount(found.total),
        "capacity": _amount(found.capacity),
        "pods": {row.tool: {name: {"pods": n, **_amount(each)} for name, n, each in row.pods} for row in found.rows},
    }


def _amount(amount: Amount) -> Mapping[str, int]:
    return {"cpu_millicores": amount.cpu, "memory_mib": amount.memory}
