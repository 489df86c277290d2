"""The contract as Cilium's host policies: what the nodes of a cluster let in, by the network plugin too.

A CiliumClusterwideNetworkPolicy for each role, with a rule for each flow, described by its purpose and its reason. They
allow what the nodes' packet filter (plan/network.py) allows, and need two settings of Cilium (plan/rke2.py sets them):
`hostFirewall.enabled`, and `policyCIDRMatchMode: [nodes]`, without which no CIDR is ever a node of the cluster.

How Cilium weighs a connection to a node (its "Host Policies", "Layer 3" and "Layer 4"):

- A node that a policy selects drops what no rule of any policy allows. What goes out is not touched, nor are answers,
  nor what a machine says to itself.
- A CIDR is whoever has such an address, except for pods: they are known by their labels, whatever their address.
- A connection to a NodePort is judged by that port, as long as kube-proxy and not Cilium implements Services.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from typing import Any

import yaml

from plan.contract.flow import Flow
from plan.topology import ClusterHosts

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_SELECTORS = {"master": "Exists", "worker": "DoesNotExist"}
"""By role, of the label that every server has, and no agent."""
_POD = {"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}]}
_MOST_PORTS = 40  # of one list of ports
# Types of the same messages that the nodes' packet filter takes from anyone.
_ICMP = {"IPv4": (3, 8, 11, 12), "IPv6": (1, 2, 3, 4, 128, 130, 133, 134, 135, 136)}


def host_policies(flows: Sequence[Flow], cluster: ClusterHosts) -> list[dict[str, Any]]:
    """What the masters and the workers of `cluster` let in, of `flows` of the whole stack, as Kubernetes objects.

    Part of the pods' network alone is more than Cilium can tell apart: such a source lets no pod in.
    """
    own = [flow for flow in flows if flow.cluster == cluster.name]
    return [_policy(role, [f for f in own if f.role == role], cluster.settings.pod_subnet) for role in _SELECTORS]


def as_yaml(flows: Sequence[Flow], clusters: Sequence[ClusterHosts]) -> str:
    """The policies of `clusters`, for `kubectl apply --filename FILE`, each in its own; a comment says whose."""
    return "".join(f"# cluster {cluster.name}\n{_text(host_policies(flows, cluster))}" for cluster in clusters)


def _text(objects: Sequence[dict[str, Any]]) -> str:
    return yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=4096, explicit_start=True)


class _Plain(yaml.SafeDumper):
    """Writes what stands in several places out in each: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _policy(role: str, flows: Sequence[Flow], pods: IPv4Network) -> dict[str, Any]:
    selector = {"matchExpressions": [{"key": CONTROL_PLANE, "operator": _SELECTORS[role]}]}
    icmp = {
        "fromEntities": ["all"],
        "icmps": [{"fields": [{"family": family, "type": t} for family, types in _ICMP.items() for t in types]}],
    }
    told = [("ICMP: echo requests, and the errors that connections need", [icmp])]
    # VRRP has no ports; no node speaks it.
    told += [(f"{flow.rule.purpose}: {flow.reason}", list(_rules(flow, pods))) for flow in flows if flow.rule.intervals]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": f"opstella-{role}s"},
        "specs": [{"description": text, "nodeSelector": selector, "ingress": rules} for text, rules in told if rules],
    }


def _rules(flow: Flow, pods: IPv4Network) -> Iterator[dict[str, Any]]:
    """One for each kind of source: Cilium takes no two in one rule."""
    ports = _ports(flow)
    if not flow.sources:
        yield {"fromEntities": ["all"], "toPorts": ports}
        return
    yield {"fromCIDRSet": [{"cidr": str(network)} for network in flow.sources], "toPorts": ports}
    if any(pods.subnet_of(network) for network in flow.sources):
        yield {"fromEndpoints": [_POD], "toPorts": ports}


def _ports(flow: Flow) -> list[dict[str, Any]]:
    every = [
        {"port": str(low), **({"endPort": high} if high > low else {}), "protocol": protocol.upper()}
        for protocol in flow.rule.protocols
        for low, high in flow.rule.intervals
    ]
    return [{"ports": every[first : first + _MOST_PORTS]} for first in range(0, len(every), _MOST_PORTS)]
