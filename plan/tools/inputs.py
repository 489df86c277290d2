"""From a stack's settings to the inputs of each cluster's tools."""

from __future__ import annotations

from types import MappingProxyType

from config.model import Settings
from config.placement import clusters_of
from plan import dns, endpoints, media, network, pki, proxies
from plan.haproxy import KUBERNETES_API
from plan.tools import catalogue
from plan.tools.model import Override, ToolInputs, WayOut
from plan.topology import ClusterHosts, Topology


def tool_inputs(settings: Settings, topology: Topology, cluster: ClusterHosts) -> ToolInputs:
    """The inputs of `cluster`'s tools. A cluster with several masters runs two of what serves users, and three instances
    of each database, as far as it has workers for them: two pods on one node survive no more than one does."""
    records = dns.records(settings, topology)
    names = {r.kind: r.name for r in records if r.cluster == cluster.name}
    nodes = (*cluster.masters, *cluster.workers)
    several, workers = len(cluster.masters) > 1, len(cluster.workers)
    return ToolInputs(
        domain=settings.domain,
        hosts=MappingProxyType(names),
        nfs_server=str(cluster.nfs.address),
        nfs_path=cluster.settings.nfs.path,
        tools=tuple(name for name in catalogue.NAMES if cluster.name in clusters_of(settings, name)),
        certificate="provided" if settings.tls.source == "provided" else "cert-manager",
        replicas=min(2, workers) if several else 1,
        database_instances=min(3, workers) if several else 1,
        load_balancer=str(cluster.entrance),
        load_balancers=tuple(str(c.entrance) for c in topology.clusters),
        ingress_balancers=tuple(str(host.address) for host in cluster.load_balancers),
        chart_repository=settings.media.chart_repository,
        metrics_server=settings.kubernetes.metrics_server,
        nodes_mirror=media.harbor_first(settings),
        ca_bundle=pki.bundle_name(settings),
        trivy_databases=media.trivy_databases(settings),
        airgap=settings.media.source == "airgap",
        proxy=_way_out(settings),
        cluster=cluster.name,
        clusters=tuple(c.name for c in topology.clusters),
        apis=MappingProxyType(
            {c.name: f"https://{dns.api_name(settings, c.name)}:{KUBERNETES_API}" for c in topology.clusters}
        ),
        places=MappingProxyType({r.service: r.cluster for r in records if r.cluster}),
        all_hosts=MappingProxyType({r.service: r.name for r in records}),
        workers=workers,
        masters=tuple(str(m.address) for m in cluster.masters),
        machines=tuple(str(n.address) for n in nodes),
        gitlab=str(topology.gitlab.address),
        machine_networks=tuple(map(str, network.machine_networks(settings, topology))),
        pod_network=str(cluster.settings.pod_subnet),
        service_network=str(cluster.settings.service_subnet),
        identity=settings.identity,
        object_store=settings.object_store,
        vault=settings.vault,
        alerts=settings.alerts,
        argocd=settings.argocd,
        gitlab_runner=settings.gitlab_runner,
        opstella=settings.opstella,
        overrides=MappingProxyType(
            {
                name: Override(
                    enabled=tool.enabled,
                    placed=tool.clusters is not None,
                    version=tool.version,
                    values=tool.values,
                    replicas=tool.replicas,
                    storage=tool.storage,
                    timeout_seconds=tool.timeout_seconds,
                )
                for name, tool in settings.tools.items()
            }
        ),
    )


def _way_out(settings: Settings) -> WayOut | None:
    out = media.proxies(settings)
    if not out:
        return None
    return WayOut(
        http=settings.proxy.http or "",
        https=settings.proxy.https or "",
        no_proxy=proxies.no_proxy(settings),
        ports=tuple(sorted({endpoints.of_url(url)[1] for url in out})),
    )
