"""What the platform does not work without: the flows that its components and tools declare, each with its reason.

A component declares them beside what it configures (`FLOWS` of plan/rke2.py, haproxy.py, nfs.py …), a tool in its release
(plan/tools/needs.py), from which its NetworkPolicies are made too. Here those of tools are said in the words of machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from config.model import Settings
from plan import access, chrony, cni, dns, gitlab, haproxy, keepalived, media, nfs, rke2
from plan.contract.rule import Rule, Source, Target, need
from plan.tools import harbor, keycloak
from plan.tools.model import Release
from plan.tools.needs import KUBERNETES_API, NODES, PUBLIC, Flow
from plan.topology import Topology

Releases = Mapping[str, Sequence[Release]]
"""By cluster."""
_TO_GITLAB = (gitlab.HTTP, gitlab.HTTPS, gitlab.SSH)
_TO_BALANCERS = (80, 443, haproxy.KUBERNETES_API)


def needs(settings: Settings, topology: Topology, releases: Releases) -> tuple[Rule, ...]:
    """Every flow between machines, those of components first."""
    names = {release.name for of_cluster in releases.values() for release in of_cluster}
    every = [
        *access.flows(settings), *haproxy.FLOWS, *keepalived.FLOWS, *rke2.FLOWS, *cni.flows(settings.kubernetes),
        *nfs.FLOWS, *gitlab.FLOWS, *_of_platform(settings, topology, names), *_of_tools(topology, releases),
    ]  # fmt: skip
    return tuple(_once(every, topology))


def exits(settings: Settings, topology: Topology) -> tuple[Rule, ...]:
    """What machines open to whoever is none of the stack's machines."""
    inside = [
        replace(
            need(
                "Kubernetes", "node", "outside", (), "pods and services",
                "kubelets and the API server ask pods, which have addresses of their own",
                protocols=("tcp", "udp"), networks=(cluster.settings.pod_subnet, cluster.settings.service_subnet),
            ),
            ranges=((1, 65535),), clusters=(cluster.name,),
        )
        for cluster in topology.clusters
    ]  # fmt: skip
    return (*dns.flows(settings), *chrony.flows(settings.time), *media.flows(settings), *inside)


def _of_platform(settings: Settings, topology: Topology, names: set[str]) -> Iterator[Rule]:
    """What machines use of tools, by the public names: where users reach them."""
    clusters = tuple(cluster.name for cluster in topology.clusters)
    if keycloak.NAME in names:
        yield gitlab.LOGIN
        why = "API servers ask Keycloak for the keys that log-ins are signed with"
        yield replace(need("RKE2", "platform", "haproxy", (443,), "OIDC", why), clusters=clusters)
    if "minio" in names:
        yield gitlab.OBJECTS
    if harbor.NAME in names and media.harbor_first(settings):
        why = "containerd asks the platform's Harbor for images first"
        yield replace(need("RKE2", "platform", "haproxy", (443,), "registry", why), clusters=clusters)


def _of_tools(topology: Topology, releases: Releases) -> Iterator[Rule]:
    """The flows of tools that lead to machines: a pod that leaves its node has the node's address, else its own."""
    for cluster in topology.clusters:
        for release in releases.get(cluster.name, ()):
            further = (flow for flows in release.further_flows.values() for flow in flows)
            flows = (*release.flows, *further, *(flow for job in release.jobs for flow in job.flows))
            for flow in flows:
                if not flow.inbound:
                    yield from _of_flow(release.name, cluster.name, flow)


def _of_flow(tool: str, cluster: str, flow: Flow) -> Iterator[Rule]:
    def made(target: Target, source: Source, ports: Iterable[int]) -> Iterator[Rule]:
        if chosen := tuple(ports):
            protocol: Literal["tcp", "udp"] = "udp" if flow.protocol == "UDP" else "tcp"
            rule = need(tool, source, target, chosen, flow.why, flow.why, protocols=(protocol,))
            yield replace(rule, clusters=(cluster,))

    if flow.peer in (NODES, KUBERNETES_API):
        for source in ("node", "pods"):
            yield from made("master", source, (p for p in flow.ports if p in rke2.OF_MASTERS))  # type: ignore[arg-type]
            yield from made("node", source, (p for p in flow.ports if p not in rke2.OF_MASTERS))  # type: ignore[arg-type]
    if flow.peer == PUBLIC:
        yield from made("haproxy", "platform", (p for p in flow.ports if p in _TO_BALANCERS))
        yield from made("gitlab", "platform", (p for p in flow.ports if p in _TO_GITLAB))


def _once(every: Iterable[Rule], topology: Topology) -> Iterator[Rule]:
    """What is declared in several clusters once, with all of them; with none where it is all that there are."""
    found: dict[Rule, list[str]] = {}
    for rule in every:
        found.setdefault(replace(rule, clusters=()), []).extend(rule.clusters)
    for rule, clusters in found.items():
        everywhere = rule.source != "platform" and len(set(clusters)) == len(topology.clusters)
        yield replace(rule, clusters=() if everywhere else tuple(dict.fromkeys(clusters)))
