"""Sizing: what the machines add up to, beside the totals that the reference prints.

The printed totals add one node of each row; they do not multiply by the number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from plan.topology import Host


@dataclass(frozen=True, kw_only=True)
class Total:
    """Machines, CPU cores, memory and disk in GB."""

    nodes: int
    cpu: int
    memory_gb: int
    disk_gb: int


PRINTED = {
    "standalone": Total(nodes=10, cpu=11, memory_gb=24, disk_gb=260),
    "multicluster": Total(nodes=36, cpu=36, memory_gb=68, disk_gb=1520),
}


def total(hosts: Iterable[Host]) -> Total:
    """The true sum over all machines."""
    hosts = tuple(hosts)
    return Total(
        nodes=len(hosts),
        cpu=sum(h.cpu for h in hosts),
        memory_gb=sum(h.memory_gb for h in hosts),
        disk_gb=sum(h.disk_gb for h in hosts),
    )
