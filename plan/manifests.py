"""What the servers of a cluster apply by themselves, from files: RKE2 watches their folder, and tries one again until it is
taken."""

from __future__ import annotations

from plan import cilium, cni
from plan.contract.contract import Contract
from plan.topology import ClusterHosts


def manifests(contract: Contract, cluster: ClusterHosts) -> dict[str, str]:
    """Text by file name, of what does not depend on who logs in."""
    if contract.settings.kubernetes.cni == "calico":
        return cni.calico(contract.settings.kubernetes)
    return cilium.manifests(contract, cluster)
