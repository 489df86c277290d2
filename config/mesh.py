"""Pod and service networks of clusters that are joined by a mesh: each its own, where the user gives none."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from ipaddress import IPv4Network
from typing import Any

# The first cluster's are the reference's; a step on are the next one's.
_PODS, _SERVICES, _STEP = IPv4Network("172.16.72.0/22"), IPv4Network("172.16.76.0/22"), 2048
_LAST = IPv4Network("172.31.255.0/24").network_address  # of the private range they lie in


def with_networks(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, as written and not yet validated, with a network of its own for each cluster of a mesh.

    A network that is given, or that one of the machines lies in, is not given twice. Without a mesh, and where what is
    written cannot be read, nothing changes.
    """
    network, clusters = document.get("network"), document.get("clusters")
    if not (isinstance(network, dict) and network.get("mesh") is True and isinstance(clusters, dict)):
        return document
    given = list(_given(clusters))
    free = _free(given)
    changed = deepcopy(document)
    for cluster in changed["clusters"].values():
        if isinstance(cluster, dict) and ("podSubnet" not in cluster or "serviceSubnet" not in cluster):
            pair = next(free, None)
            if pair is not None:
                cluster.setdefault("podSubnet", str(pair[0]))
                cluster.setdefault("serviceSubnet", str(pair[1]))
    return changed


def _given(clusters: dict[str, Any]) -> Iterator[IPv4Network]:
    for cluster in clusters.values():
        for name in ("subnet", "podSubnet", "serviceSubnet"):
            try:
                yield IPv4Network(cluster[name])
            except (KeyError, TypeError, ValueError):
                continue


def _free(given: list[IPv4Network]) -> Iterator[tuple[IPv4Network, IPv4Network]]:
    number = 0
    while _SERVICES.network_address + number * _STEP < _LAST:
        pods, services = (
            IPv4Network((int(network.network_address) + number * _STEP, network.prefixlen))
            for network in (_PODS, _SERVICES)
        )
        if not any(network.overlaps(taken) for network in (pods, services) for taken in given):
            yield pods, services
        number += 1
