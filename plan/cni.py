"""The network plugin of the clusters: what its agents open between the nodes.

As RKE2 configures them (rancher/rke2-charts, packages/rke2-calico: VXLAN, BGP off; packages/rke2-cilium: VXLAN, which is
Cilium's own choice, no Hubble, no metrics). Cilium's agents send echo requests too, which every machine takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

from config.model import Kubernetes
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
WIREGUARD = MappingProxyType({"calico": 51820, "cilium": 51871})


def flows(kubernetes: Kubernetes) -> tuple[Rule, ...]:
    """What the agents of the chosen plugin open between the nodes."""
    found = FLOWS[kubernetes.cni]
    if not kubernetes.encrypt_pods:
        return found
    why = "what pods of different nodes say to each other is encrypted"
    name = f"{kubernetes.cni.capitalize()} WireGuard"
    return (
        *found,
        need(kubernetes.cni.capitalize(), "node", "node", (WIREGUARD[kubernetes.cni],), name, why, protocols=("udp",)),
    )


def chart_config(chart: str, values: Mapping[str, Any]) -> str:
    """A HelmChartConfig: `values` laid over those of RKE2's packaged `chart`."""
    config = {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChartConfig",
        "metadata": {"name": chart, "namespace": "kube-system"},
        "spec": {"valuesContent": yaml.safe_dump(dict(values), sort_keys=False)},
    }
    return yaml.safe_dump(config, sort_keys=False)


def calico(kubernetes: Kubernetes) -> dict[str, str]:
    """What servers apply for Calico, by file name: a node's address is the one that it registered with, `node-ip`.

    Without it the operator takes the first address that it finds on a node, and the tunnel of a machine with two network
    cards may run through the wrong one. The operator writes that choice of its own into the Installation of a running
    cluster, and takes no two at once (tigera/operator, validateNodeAddressDetection), so it is switched off by name.
    """
    detection = {"firstFound": False, "kubernetes": "NodeInternalIP"}
    values: dict[str, Any] = {"installation": {"calicoNetwork": {"nodeAddressAutodetectionV4": detection}}}
    if kubernetes.encrypt_pods:
        values["felixConfiguration"] = {"wireguardEnabled": True}
    return {"opstella-calico.yaml": chart_config("rke2-calico", values)}
