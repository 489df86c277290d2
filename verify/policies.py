"""What the network policies of a tool's namespace let through that the plan did not ask for.

Policies add up: one that a chart, an operator or a person adds opens what all others close.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plan.tools.model import Release

Policy = Mapping[str, Any]
_EVERY = ("0.0.0.0/0", "::/0")


def planned(releases: Iterable[Release], namespace: str) -> dict[str, Policy]:
    """Name to spec of every policy that `releases` of one cluster have in `namespace`."""
    return {
        manifest.body["metadata"]["name"]: manifest.body["spec"]
        for release in releases
        for manifest in (*release.before, *release.after)
        if manifest.body["kind"] == "NetworkPolicy" and manifest.body["metadata"].get("namespace") == namespace
    }


def faults(policies: Iterable[Policy], plan: Mapping[str, Policy], namespace: str) -> Iterator[str]:
    """A sentence for each policy of `namespace` that opens more than the plan, and one if none denies by default."""
    closed = False
    for policy in policies:
        spec, name = policy["spec"], policy.get("metadata", {}).get("name", "without a name")
        # An empty rule allows everything.
        closed = closed or (
            not spec.get("podSelector")
            and {"Ingress", "Egress"} <= set(spec.get("policyTypes", ()))
            and all(spec.get("ingress", ()))
            and all(spec.get("egress", ()))
        )
        wanted = list(_open(plan.get(name, {})))
        if opened := [word for word in _open(spec) if word not in wanted]:
            yield (
                f"NetworkPolicy {namespace}/{name} allows {' and '.join(dict.fromkeys(opened))}, which the plan does not:"
                f" delete it, or switch it off in the values of the chart that makes it"
            )
    if not closed:
        yield f"namespace {namespace} has no policy that denies by default"


def _open(spec: Policy) -> Iterator[str]:
    """What `spec` opens to everybody, in words."""
    for way, peers, word in (("ingress", "from", "connections from"), ("egress", "to", "connections to")):
        for rule in spec.get(way) or ():
            if not rule.get(peers):
                yield f"{word} everywhere{_ports(rule)}"
            elif any(map(_everybody, rule[peers])):
                yield f"{word} every pod or address{_ports(rule)}"


def _everybody(peer: Mapping[str, Any]) -> bool:
    if "ipBlock" in peer:
        return peer["ipBlock"].get("cidr") in _EVERY and not peer["ipBlock"].get("except")
    every_namespace = "namespaceSelector" in peer and not peer["namespaceSelector"]
    return not peer or (every_namespace and not peer.get("podSelector"))


def _ports(rule: Mapping[str, Any]) -> str:
    ports = [str(port["port"]) for port in rule.get("ports") or () if "port" in port]
    return f" on {', '.join(ports)}" if ports else ""
