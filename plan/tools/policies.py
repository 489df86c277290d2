"""NetworkPolicies: nothing reaches a tool, and a tool reaches nothing, but by a flow that the catalogue declares.

Each release has one policy for all pods of its namespace (deny both ways, name resolution, and the flows of no
particular pods), and one for each set of pods that flows name. Policies add up, so releases may share a namespace.
The annotation WHY of each lists its flows' reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, Literal

from plan.network import METADATA
from plan.tools import jobs
from plan.tools.model import Manifest, Release, ToolInputs
from plan.tools.needs import DNS, ITSELF, KUBERNETES_API, MONITORS, NODES, OUTSIDE, PUBLIC, Flow

API_PORT = 6443
INGRESS = "traefik"
WORDS = (KUBERNETES_API, OUTSIDE, ITSELF, NODES, PUBLIC, DNS)
WHY = "opstella.io/why"
RESOLUTION = (
    Flow(peer=DNS, ports=(53,), protocol="UDP", why="name resolution"),
    Flow(peer=DNS, ports=(53,), why="name resolution, of long answers"),
)
"""Of every pod."""
Direction = Literal["ingress", "egress"]
Labels = tuple[tuple[str, str], ...]
Peer = Mapping[str, Any]


@dataclass
class _Rules:
    """Of one set of pods: (direction, protocol, ports) to peers, and the reasons."""

    peers: dict[tuple[Direction, str, tuple[int, ...]], list[Peer]] = field(default_factory=dict)
    reasons: set[str] = field(default_factory=set)

    def add(self, direction: Direction, flow: Flow, other: str, peers: Sequence[Peer]) -> None:
        """What `flow` opens to or from `peers`, which people call `other`."""
        known = self.peers.setdefault((direction, flow.protocol, tuple(sorted(set(flow.ports)))), [])
        known += [peer for peer in peers if peer not in known]
        self.reasons.add(f"{'from' if direction == 'ingress' else 'to'} {other}: {flow.why}")

    def of(self, direction: Direction) -> list[dict[str, Any]]:
        word = "from" if direction == "ingress" else "to"
        return [
            {word: list(peers), "ports": [{"protocol": protocol, "port": port} for port in ports]}
            for (way, protocol, ports), peers in self.peers.items()
            if way == direction and peers
        ]


def policies(inputs: ToolInputs, releases: Sequence[Release]) -> dict[str, tuple[Manifest, ...]]:
    """By release, the policies of a cluster. A flow to a release that the cluster does not carry is none here."""
    by_name = {release.name: release for release in releases}
    rules: dict[str, dict[Labels, _Rules]] = {name: {(): _Rules()} for name in by_name}

    def open_(
        release: str, pods: Mapping[str, str], direction: Direction, flow: Flow, other: str, peers: Sequence[Peer]
    ) -> None:
        rules[release].setdefault(tuple(sorted(pods.items())), _Rules()).add(direction, flow, other, peers)

    for release in releases:
        for flow in flows_of(release):
            own: Direction = "ingress" if flow.inbound else "egress"
            other: Direction = "egress" if flow.inbound else "ingress"
            if flow.peer in by_name:
                there = by_name[flow.peer]
                open_(release.name, flow.pods, own, flow, flow.peer, [_namespace(there.namespace, flow.peer_pods)])
                open_(flow.peer, flow.peer_pods, other, flow, release.name, [_namespace(release.namespace, flow.pods)])
            elif flow.peer == ITSELF:
                open_(release.name, flow.pods, own, flow, ITSELF, [_pods(flow.peer_pods)])
                open_(release.name, flow.peer_pods, other, flow, ITSELF, [_pods(flow.pods)])
            elif flow.peer == KUBERNETES_API:
                for one, peers in _api(inputs, flow):
                    open_(release.name, one.pods, own, one, flow.peer, peers)
            elif flow.peer in WORDS:
                open_(release.name, flow.pods, own, flow, flow.peer, _addresses(inputs, flow))
    return {
        name: (
            *(_manifest(name, by_name[name].namespace, labels, own) for labels, own in of_pods.items()),
            *(_further(inputs, by_name[name], namespace) for namespace in by_name[name].further_namespaces),
        )
        for name, of_pods in rules.items()
    }


def _further(inputs: ToolInputs, release: Release, namespace: str) -> Manifest:
    """The policy of a further namespace."""
    rules = _Rules()
    for flow in flows_of_further(release, namespace):
        rules.add("egress", flow, flow.peer, _addresses(inputs, flow))
    return _manifest(namespace, namespace, (), rules)


def flows_of(release: Release) -> Iterator[Flow]:
    """All that the pods of `release`'s own namespace need: what it declares, and what follows from that."""
    yield from RESOLUTION
    yield from release.flows
    for job in release.jobs:
        pods = {jobs.LABEL: job.name}
        yield from (replace(flow, pods=pods) for flow in job.flows)
        if job.rules or job.cluster_rules:
            yield Flow(peer=KUBERNETES_API, ports=(API_PORT,), pods=pods, why="objects that the Job has rights to")
    if release.ports_for_ingress:
        yield Flow(peer=INGRESS, ports=release.ports_for_ingress, inbound=True, why="what comes in by its public names")
    if release.ports_for_metrics:
        for monitor in MONITORS:
            # Its own metrics too: one who scrapes is scraped.
            peer = ITSELF if monitor == release.name else monitor
            yield Flow(peer=peer, ports=release.ports_for_metrics, inbound=True, why="metrics")


def flows_of_further(release: Release, namespace: str) -> tuple[Flow, ...]:
    """All that pods of a further namespace need."""
    return (*RESOLUTION, *release.further_flows.get(namespace, ()))


def _api(inputs: ToolInputs, flow: Flow) -> Iterator[tuple[Flow, list[Peer]]]:
    """The API server: on the masters' addresses, and behind the first address of the services."""
    masters = [_block(address) for address in inputs.masters]
    if flow.inbound:
        # Its connections to a pod of another node leave by the overlay's own interface, whose address is of the pods'.
        yield flow, [*masters, _block(inputs.pod_network)]
        return
    yield flow, masters
    service = ip_network(inputs.service_network)[1]
    yield replace(flow, ports=(443,)), [_block(str(service))]


def _addresses(inputs: ToolInputs, flow: Flow) -> list[Peer]:
    if flow.peer == DNS:
        return [_namespace("kube-system", {})]
    if flow.peer == OUTSIDE:
        inside = [inputs.pod_network, inputs.service_network, *inputs.machine_networks, *map(str, METADATA)]
        return [{"ipBlock": {"cidr": "0.0.0.0/0", **({} if flow.inbound else {"except": inside})}}]
    if flow.peer == NODES:
        return [_block(address) for address in inputs.machines]
    balancers = inputs.load_balancers or ((inputs.load_balancer,) if inputs.load_balancer else ())
    return [_block(address) for address in (*balancers, *((inputs.gitlab,) if inputs.gitlab else ()))]


def _block(address: str) -> Peer:
    return {"ipBlock": {"cidr": str(ip_network(address))}}


def _pods(labels: Mapping[str, str]) -> Peer:
    return {"podSelector": _selector(labels)}


def _namespace(name: str, labels: Mapping[str, str]) -> Peer:
    selected = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    return {**selected, **(_pods(labels) if labels else {})}


def _selector(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"matchLabels": dict(labels)} if labels else {}


def _manifest(release: str, namespace: str, labels: Labels, rules: _Rules) -> Manifest:
    suffix = "".join("-" + re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") for _, value in labels)
    name = f"{release}{suffix}"
    ways = {way: made for way in ("ingress", "egress") if (made := rules.of(way))}  # type: ignore[arg-type]
    # Of particular pods, only what is added; of all, both ways are named, so that all else is denied.
    types = ["Ingress", "Egress"] if not labels else [way.capitalize() for way in ways]
    return Manifest(
        name=f"{namespace}-policy-{name}",
        namespace=namespace,
        needs=(),
        body={
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace, "annotations": {WHY: "; ".join(sorted(rules.reasons))}},
            "spec": {"podSelector": _selector(dict(labels)), "policyTypes": types, **ways},
        },
    )
