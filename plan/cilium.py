"""Cilium in a cluster: what RKE2's servers apply for it."""

from __future__ import annotations

from functools import lru_cache

from plan.cni import chart_config
from plan.contract.cilium import as_yaml
from plan.contract.contract import Contract
from plan.contract.flow import Flow, flows
from plan.topology import ClusterHosts


def manifests(contract: Contract, cluster: ClusterHosts) -> dict[str, str]:
    """By file name; none where another network plugin is chosen.

    RKE2 tries a file again until it is taken: the kind of host policies is there when Cilium is.
    """
    if contract.settings.kubernetes.cni != "cilium":
        return {}
    guarded = contract.settings.firewall.enabled
    return {
        "opstella-cilium.yaml": _chart(guarded, encrypted=contract.settings.kubernetes.encrypt_pods),
        **({"opstella-host-policies.yaml": as_yaml(_flows(contract), [cluster], contract)} if guarded else {}),
    }


@lru_cache(maxsize=1)
def _flows(contract: Contract) -> tuple[Flow, ...]:
    """Found once for all clusters: they are those of every machine."""
    return flows(contract)


def _chart(host_firewall: bool, *, encrypted: bool) -> str:
    """Values of RKE2's packaged chart, beyond its own."""
    values = {
        "hostFirewall": {"enabled": host_firewall},
        # Otherwise no CIDR is ever a node: tools name the masters and the nodes by their addresses.
        "policyCIDRMatchMode": ["nodes"],
        # kube-proxy stays: the machines' packet filter guards NodePorts where kube-proxy rewrites them, in netfilter.
        "kubeProxyReplacement": False,
        **({"encryption": {"enabled": True, "type": "wireguard"}} if encrypted else {}),
    }
    return chart_config("rke2-cilium", values)
