"""The network plugin of the clusters: what its agents open between the nodes.

As RKE2 configures them (rancher/rke2-charts, packages/rke2-calico: VXLAN, BGP off; packages/rke2-cilium: VXLAN, which is
Cilium's own choice, no Hubble, no metrics). Cilium's agents send echo requests too, which every machine takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from plan.contract.rule import Rule, need

FLOWS: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {
        "calico": (
            need(
                "Calico", "node", "node", (4789,), "Calico VXLAN", "pods of different nodes talk through VXLAN",
                protocols=("udp",),
            ),
            need("Calico", "node", "node", (5473,), "Calico Typha", "each node's agent hears of changes from a Typha"),
        ),
        "cilium": (
            need(
                "Cilium", "node", "node", (8472,), "Cilium VXLAN", "pods of different nodes talk through VXLAN",
                protocols=("udp",),
            ),
            need("Cilium", "node", "node", (4240,), "Cilium health", "each node's agent asks the others whether they answer"),
        ),
    }
)  # fmt: skip
