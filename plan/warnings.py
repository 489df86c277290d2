"""What the user should know about the plan, though it is no fault: the reference's own traps among it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from urllib.parse import urlsplit

from config.checks import node_mask
from config.model import Settings
from config.placement import services
from config.services_checks import unused
from plan import access, proxies, sizing
from plan.contract.contract import Contract
from plan.contract.remarks import remarks
from plan.topology import Topology

# RKE2's resource profiling: what a server used with a few hundred pods.
PROFILED_SERVER_MEMORY_GB = 5


def warnings(contract: Contract) -> tuple[str, ...]:
    """One sentence each."""
    settings, topology = contract.settings, contract.topology
    found = []
    printed, true = sizing.PRINTED.get(settings.architecture), sizing.total(topology.hosts)
    if printed and printed != true:
        found.append(
            f"sizing: the machines add up to {true.nodes} nodes, {true.cpu} CPU, {true.memory_gb} GB memory and "
            f"{true.disk_gb} GB disk; the reference prints {printed.nodes}, {printed.cpu}, {printed.memory_gb} and "
            f"{printed.disk_gb}, because it does not multiply its rows by their number of nodes"
        )
    for cluster in topology.clusters:
        masters = cluster.settings.masters
        if masters.memory_gb < PROFILED_SERVER_MEMORY_GB:
            found.append(
                f"clusters.{cluster.name}.masters: {masters.memory_gb} GB is RKE2's stated minimum, its profiling "
                f"shows 4.8 to 5.0 GB in use on servers; {PROFILED_SERVER_MEMORY_GB + 1} GB or more is safer"
            )
        if node_mask(cluster.settings) != 24:
            found.append(
                f"clusters.{cluster.name}.podSubnet: {cluster.settings.pod_subnet} has too few /24 blocks for "
                f"{len(cluster.nodes)} nodes; each gets a /{node_mask(cluster.settings)}"
            )
        if len(cluster.masters) == 1:
            found.append(f"clusters.{cluster.name}.masters: a single master; its loss stops the cluster's API")
    found += access.warnings(topology)
    pods = {c.settings.pod_subnet for c in topology.clusters}
    if len(pods) < len(topology.clusters):
        found.append("clusters share one pod network: fine until they are joined by a mesh")
    if not settings.firewall.operator_networks and settings.firewall.enabled:
        found.append(
            "firewall.operatorNetworks is empty: the bastion's SSH and the load balancer's API are open to anyone who "
            "can reach them"
        )
    if settings.firewall.enabled:
        chosen = settings.network
        found += remarks(chosen.profile, settings.architecture, chosen.strict, contract.needs)
    if settings.network.egress.enforce and settings.media.source == "airgap" and not settings.network.egress.rules:
        found.append(
            "network.egress.enforce: no rule leads to the machines' package mirror, which the settings do not name; if they "
            "have one beside the installation media, write it into network.egress.rules"
        )
    if settings.media.source == "airgap" and settings.media.registry_mirror is None:
        found.append(
            "media.registryMirror is not named: in an air gap nodes would pull the tools' images, which RKE2's archives do "
            "not hold, from the web; name a registry that holds what `./opstella images` lists"
        )
    found += [*_circular(settings), *_without_effect(settings, topology)]
    if settings.kubernetes.metrics_server == "none":
        found.append(
            "kubernetes.metricsServer is none: the API serves no resource metrics, so that no HorizontalPodAutoscaler is "
            "made and `kubectl top` has no answer"
        )
    if settings.proxy.http or settings.proxy.https:
        found += [
            f"proxy: {name} does not use it; let its pods out directly to {proxies.PAST[name]}"
            for name in proxies.past(settings)
        ]
    if left := unused(settings):
        found.append(
            f"secrets: no setting names {', '.join(left)}; name it where it is wanted, or remove it: "
            f"pulumi config rm --path opstella:secrets.{left[0]}"
        )
    return tuple(found)


def _circular(settings: Settings) -> Iterator[str]:
    """What the platform's own services are to be installed from, before they are there."""
    own = {f"{service.label}.{settings.domain}": service.key for service in services(settings)}
    media = settings.media
    for name, url in (("artifacts", media.artifacts), ("chartRepository", media.chart_repository), ("registryMirror", media.registry_mirror)):
        host = urlsplit(url or "").hostname or ""
        if host in own:
            yield f"media.{name}: {host} is the name of domains.{own[host]}, which would be installed from there; name one outside of this platform"


def _without_effect(settings: Settings, topology: Topology) -> Iterator[str]:
    """What is written for something that is not there, or that is not so large."""
    machines = [host.name for host in topology.hosts]
    for name in settings.ssh.host_keys:
        if name not in machines:
            close = difflib.get_close_matches(name, machines, 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            yield f"ssh.hostKeys.{name}: no machine has that name, so the key is held to none{meant}"
    for network in settings.network.neighbours:
        if not any(network.overlaps(cluster.subnet) for cluster in settings.enabled_clusters.values()):
            yield f"network.neighbours: {network} is in no subnet of machines, and pods reach what is there in any case"
    for name, project in settings.kubernetes.projects.items():
        for cluster in topology.clusters:
            workers = cluster.settings.workers
            cpu, memory_gb = workers.count * workers.cpu, workers.count * workers.memory_gb
            here = project.clusters is None or cluster.name in project.clusters
            if here and (project.cpu > cpu or project.memory_gb > memory_gb):
                yield (
                    f"kubernetes.projects.{name}: its {project.cpu} CPU and {project.memory_gb} GB are more than all workers of "
                    f"{cluster.name} have, {cpu} CPU and {memory_gb} GB"
                )
