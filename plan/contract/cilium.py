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

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

import yaml

from plan import network
from plan.contract.contract import Contract
from plan.contract.flow import Flow
from plan.topology import ClusterHosts

Allowed = tuple[tuple[int, int], ...]
"""Ports, as first and last, in order."""
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


def pod_policy(contract: Contract, cluster: ClusterHosts) -> dict[str, Any]:
    """What no pod of `cluster` may open to machines and to the cloud's metadata, whatever other policies allow.

    It only denies: `enableDefaultDeny` keeps pods that nothing else selects as open as they were.
    """
    allowed: dict[tuple[Allowed, Allowed], list[IPv4Network]] = {}
    opened = network.of_pods(cluster, contract)
    for address in network.machine_addresses(contract.topology):
        for part in _parts(address, opened):
            ports = tuple(
                tuple(sorted(i for o in opened if _leads(o, part) and p in o.rule.protocols for i in o.rule.intervals))
                for p in ("tcp", "udp")
            )
            allowed.setdefault(ports, []).append(part)  # type: ignore[arg-type]
    name_servers: tuple[Allowed, Allowed] = (((53, 53),), ((53, 53),))
    told = [
        ("machines: only what is for anyone, or declared by a tool", list(allowed.items())),
        ("the cloud's metadata: only name servers", [(name_servers, list(network.METADATA))]),
    ]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "opstella-pods"},
        "specs": [
            {
                "description": text,
                "endpointSelector": {},
                "enableDefaultDeny": {"ingress": False, "egress": False},
                "egressDeny": [
                    {
                        "toCIDRSet": [{"cidr": str(n)} for n in collapse_addresses(networks)],
                        "toPorts": _lists(
                            _port(protocol, low, high)
                            for protocol, ports in zip(("TCP", "UDP"), open_, strict=True)
                            for low, high in _rest(ports)
                        ),
                    }
                    for open_, networks in rules
                ],
            }
            for text, rules in told
        ],
    }


def _leads(opening: network.Opening, to: IPv4Network) -> bool:
    return any(to.subnet_of(n) for n in opening.networks)


def _parts(whole: IPv4Network, openings: Sequence[network.Opening]) -> Iterator[IPv4Network]:
    """`whole` in parts of which each opening leads to all addresses or to none."""
    if whole.prefixlen < 32 and any(n.subnet_of(whole) and n != whole for o in openings for n in o.networks):
        for half in whole.subnets():
            yield from _parts(half, openings)
    else:
        yield whole


def _rest(ports: Allowed) -> Iterator[tuple[int, int]]:
    """All other ports, as first and last; `ports` are in order."""
    free = 1
    for low, high in ports:
        if free < low:
            yield free, low - 1
        free = max(free, high + 1)
    if free <= 65535:
        yield free, 65535


def as_yaml(flows: Sequence[Flow], clusters: Sequence[ClusterHosts], contract: Contract) -> str:
    """The policies of `clusters`, for `kubectl apply --filename FILE`, each in its own; a comment says whose."""
    return "".join(
        f"# cluster {cluster.name}\n{_text([*host_policies(flows, cluster), pod_policy(contract, cluster)])}"
        for cluster in clusters
    )


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
    rule = flow.rule
    return _lists(_port(protocol.upper(), low, high) for protocol in rule.protocols for low, high in rule.intervals)


def _port(protocol: str, low: int, high: int) -> dict[str, Any]:
    return {"port": str(low), **({"endPort": high} if high > low else {}), "protocol": protocol}


def _lists(ports: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    every = list(ports)
    return [{"ports": every[first : first + _MOST_PORTS]} for first in range(0, len(every), _MOST_PORTS)]
