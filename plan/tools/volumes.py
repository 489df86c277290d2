"""What the volumes of a cluster's tools ask for, against the disk of the NFS machine on which they lie. GB of 2**30 bytes.

NFS holds no volume to its size. So more than there is may be promised, and is until it is used: a warning, not a fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plan.quantities import number_of
from plan.tools import availability
from plan.tools.model import Release, ToolInputs
from plan.topology import Topology

_CLASS = ToolInputs.__dataclass_fields__["storage_class"].default
_SHOWN = 3


def asked(release: Release, workers: int) -> int:
    """The sum of its volumes and of its databases', rounded up; a volume of pods that are several counts as often.

    Which pods have it is the chart's affair: where they differ in number, the fewest count.
    """
    pods = [availability.pods(w, workers)[0] for w in release.workloads if w.kind == "StatefulSet"]
    total = sum(_in_values(release.values, _CLASS)) * min(pods, default=1)
    for manifest in release.before:
        if manifest.body["kind"] == "Cluster":
            spec = manifest.body["spec"]
            total += spec["instances"] * sum(_in_values(spec["storage"], _CLASS))
    return math.ceil(total)


def beyond(topology: Topology, releases: Mapping[str, Sequence[Release]]) -> Iterator[str]:
    """A sentence for each cluster whose tools' volumes are together larger than the disk of its NFS machine."""
    for cluster in topology.clusters:
        sizes = {r.name: size for r in releases.get(cluster.name, ()) if (size := asked(r, len(cluster.workers)))}
        total, disk = sum(sizes.values()), cluster.nfs.disk_gb
        if total > disk:
            largest = sorted(sizes.items(), key=lambda row: (-row[1], row[0]))
            shown = ", ".join(f"{name} {size}" for name, size in largest[:_SHOWN]) + (" and others" if len(largest) > _SHOWN else "")
            yield (
                f"clusters.{cluster.name}.nfs.diskGb: the tools' volumes add up to at least {total} GB ({shown}), and the disk has {disk} GB; NFS "
                f"holds no volume to its size, so that the disk may be full while each has room. Give it {total} or more, or "
                "make volumes smaller (tools.NAME.storage)"
            )


def _in_values(values: Any, storage_class: str) -> Iterator[float]:
    """The size of each volume that `values` describe, in GB, of those of the platform's own storage class."""
    if isinstance(values, Mapping):
        if values.get("enabled") is False:
            return
        own = values.get("storageClass") or values.get("storageClassName")
        storage_class = own if isinstance(own, str) else storage_class
        for name, value in values.items():
            if name in ("size", "requestedSize", "storage") and isinstance(value, str):
                if storage_class == _CLASS:
                    yield _gb(value)
            else:
                yield from _in_values(value, storage_class)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _in_values(value, storage_class)


def _gb(quantity: str) -> float:
    """GB of a Kubernetes quantity; 0 for a text that is none, or not that of a disk."""
    return number_of(quantity) / 2**30 if re.fullmatch(r"\d+(\.\d+)?(Mi|Gi|Ti|M|G|T)", quantity) else 0
