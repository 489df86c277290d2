"""What Cilium's host firewall lets in, by its documentation: policies weighed by hand, without Cilium.

"Host Policies", "Layer 3 Policies" and "Layer 4 Policies" of Cilium 1.19, with `policyCIDRMatchMode: [nodes]`. Knows the
fields that the plan's policies use, and raises ValueError for any other. It says nothing about a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

NAMESPACE = "k8s:io.kubernetes.pod.namespace"


@dataclass(frozen=True)
class Peer:
    """Who opens a connection. Cilium knows a pod by its labels, anyone else by the address."""

    address: IPv4Address
    pod: bool = False


Ports = Mapping[str, Sequence[tuple[int, int]]]
"""By protocol, what is let in, each as first and last; of `icmp`, the types."""


def opened(policies: Sequence[Mapping[str, Any]], labels: Mapping[str, str], peer: Peer) -> Ports:
    """What a node with `labels` lets in from `peer`.

    The first policy that selects a node makes it drop whatever none of them allows.
    """
    rules = [rule for policy in policies for rule in _specs(policy) if _selects(rule["nodeSelector"], labels)]
    if not rules:
        return {"tcp": [(1, 65535)], "udp": [(1, 65535)], "icmp": [(0, 255)]}
    found: dict[str, list[tuple[int, int]]] = {}
    for part in (part for rule in rules for part in rule["ingress"]):
        if _from(part, peer):
            for protocol, low, high in _to(part):
                found.setdefault(protocol, []).append((low, high))
    return found


def lets_in(
    policies: Sequence[Mapping[str, Any]], labels: Mapping[str, str], peer: Peer, protocol: str, port: int
) -> bool:
    """Whether a node with `labels` takes a connection; `port` is the type where `protocol` is icmp."""
    return any(low <= port <= high for low, high in opened(policies, labels, peer).get(protocol, ()))


def _specs(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if (policy["apiVersion"], policy["kind"]) != ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"):
        raise ValueError(f"no host policy: {policy['kind']}")
    _known(policy, {"apiVersion", "kind", "metadata", "specs"})
    for rule in policy["specs"]:
        _known(rule, {"description", "nodeSelector", "ingress"})
    return list(policy["specs"])


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    _known(selector, {"matchExpressions"})
    answers = {"Exists": lambda key: key in labels, "DoesNotExist": lambda key: key not in labels}
    return all(answers[e["operator"]](e["key"]) for e in selector["matchExpressions"])


def _from(part: Mapping[str, Any], peer: Peer) -> bool:
    _known(part, {"fromEntities", "fromCIDRSet", "fromEndpoints", "toPorts", "icmps"})
    (kind,) = part.keys() & {"fromEntities", "fromCIDRSet", "fromEndpoints"}  # Cilium refuses two in one rule
    if kind == "fromEntities":
        if part[kind] != ["all"]:
            raise ValueError(f"entities {part[kind]}")
        return True
    if kind == "fromCIDRSet":
        return not peer.pod and any(peer.address in IPv4Network(one["cidr"]) for one in part[kind])
    return peer.pod and any(_selects(one, {NAMESPACE: "any"}) for one in part[kind])


def _to(part: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    (kind,) = part.keys() & {"toPorts", "icmps"}  # the same holds for these
    if kind == "icmps":
        fields = [field for one in part[kind] for field in one["fields"]]
        yield from (("icmp", field["type"], field["type"]) for field in fields if field["family"] == "IPv4")
        return
    for one in part[kind]:
        if not 0 < len(one["ports"]) <= 40:
            raise ValueError(f"{len(one['ports'])} ports in one list")
        for port in one["ports"]:
            yield port["protocol"].lower(), int(port["port"]), port.get("endPort", int(port["port"]))


def _known(given: Mapping[str, Any], fields: set[str]) -> None:
    if unknown := set(given) - fields:
        raise ValueError(f"fields that this evaluation does not know: {sorted(unknown)}")
