"""The whole plan of a stack, and its form as JSON for what stands outside of Pulumi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from config.errors import ConfigurationError
from config.model import Settings
from plan import dns, expiry, images, lines, media, network, pki, sizing
from plan.chart_sources import ChartSource, chart_sources, unpinned
from plan.checks import Draft, own_values, problems
from plan.contract.contract import Contract
from plan.tools import budget, harbor, keycloak, opstella, projects, volumes, waves
from plan.tools.inputs import tool_inputs
from plan.tools.model import ClusterAccountKeys, ClusterAuthority, Manifest, Release
from plan.topology import Host, Topology
from plan.warnings import warnings


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `settings` imply. `stack` is `project/stack`, the identity that hosts are marked with."""

    stack: str
    settings: Settings
    topology: Topology
    ca: pki.CaTree
    records: tuple[dns.Record, ...]
    total: sizing.Total
    contract: Contract
    """Who may talk to whom."""
    releases: Mapping[str, tuple[Release, ...]]
    """By cluster, in an order in which needs come first."""
    charts: tuple[ChartSource, ...]
    """Where the charts of all releases come from, by tool, and what their archives are held to."""
    projects: Mapping[str, tuple[Manifest, ...]]
    """By cluster, the objects of the projects of opstella:kubernetes.projects."""
    budgets: Mapping[str, budget.Budget]
    """By cluster, what its tools request and what its workers have."""
    warnings: tuple[str, ...]

    @property
    def issuer(self) -> str | None:
        """URL of the realm of all tools, None where no cluster carries Keycloak."""
        host = self._host_of(keycloak.NAME)
        return host and f"https://{host}/realms/{self.settings.identity.realm}"

    def clusters_verified(self, kind: type[ClusterAuthority] | type[ClusterAccountKeys]) -> frozenset[str]:
        """The clusters of which some Secret of the platform's tools holds what `kind` stands for."""
        releases = [release for of_cluster in self.releases.values() for release in of_cluster]
        secrets = [secret for r in releases for secret in (*r.secrets, *(s for job in r.jobs for s in job.secrets))]
        return frozenset(source.cluster for s in secrets for source in s.data.values() if isinstance(source, kind))

    @property
    def registry(self) -> str | None:
        """Name of the Harbor that the nodes ask for images first, None where there is none or they are not to."""
        return self._host_of(harbor.NAME) if media.harbor_first(self.settings) else None

    def _host_of(self, tool: str) -> str | None:
        """The name of `tool` in the first cluster that carries it."""
        every = (release for releases in self.releases.values() for release in releases)
        return next((release.host for release in every if release.name == tool), None)


def build(settings: Settings, stack: str, today: date | None = None) -> Plan:
    """The plan of valid `settings`. Raises ConfigurationError for what only the plan can know to be missing.

    `today` is the day that versions and certificates are compared with; without one, none is warned of.
    """
    draft = Draft(settings)
    if found := problems(draft):
        raise ConfigurationError(found, f"configuration of {stack}")
    machines = draft.topology
    charts = chart_sources(draft.releases, settings.media.chart_digests)
    return Plan(
        stack=stack,
        settings=settings,
        topology=machines,
        ca=draft.authorities,
        records=dns.records(settings, machines),
        total=sizing.total(machines.hosts),
        contract=draft.contract,
        releases=draft.releases,
        charts=charts,
        projects={c.name: projects.manifests(settings, tool_inputs(settings, machines, c)) for c in machines.clusters},
        budgets=draft.budgets,
        warnings=(
            *warnings(draft.contract),
            *volumes.beyond(machines, draft.releases),
            *unpinned(charts),
            *images.unheld(draft.releases, settings.media.image_digests, own_values(settings)),
            *_past_their_end(draft, today),
            *(expiry.warnings(settings, today) if today else ()),
        ),
    )


def _past_their_end(draft: Draft, today: date | None) -> tuple[str, ...]:
    if today is None:
        return ()
    given = (draft.settings, draft.releases, today)
    return (*lines.pinned_past_their_end(*given), *lines.chosen_past_their_end(*given))


def missing(plan: Plan) -> list[str]:
    """What the user still has to give for everything to be there, a sentence each; of tools that are left out too."""
    app = plan.settings.tools.get(opstella.NAME)
    absent = opstella.missing(plan.settings.opstella) if app is None or app.enabled else ()
    deployed = [sentence for releases in plan.releases.values() for r in releases for sentence in r.missing]
    return list(dict.fromkeys([*absent, *deployed]))


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON data; addresses as text, sizes in cores and GB."""
    return {
        "stack": plan.stack,
        "domain": plan.settings.domain,
        "ssh": {"user": plan.settings.ssh.user, "port": plan.settings.ssh.port, "sudo": plan.settings.ssh.sudo},
        "hosts": [_host(h, plan) for h in plan.topology.hosts],
        "subnets": sorted({str(h.subnet) for h in plan.topology.hosts}),
        "clusters": [
            {
                "name": c.name,
                "load_balancer": str(c.entrance),
                "pods": str(c.settings.pod_subnet),
                "load_balancers": [b.name for b in c.load_balancers],
                "nfs": {"address": str(c.nfs.address), "path": c.settings.nfs.path, "server": c.settings.nfs.server},
                "masters": [m.name for m in c.masters],
                "workers": [w.name for w in c.workers],
            }
            for c in plan.topology.clusters
        ],
        "dns": [{"name": r.name, "address": str(r.address), "service": r.service} for r in plan.records],
        "sizing": sizing_data(plan),
        "releases": {name: [_release(r) for r in releases] for name, releases in plan.releases.items()},
        "order": {name: waves.as_data(releases) for name, releases in plan.releases.items()},
        "artifacts": list(media.required_artifacts(plan.settings)),
        "missing": missing(plan),
        "warnings": list(plan.warnings),
    }


def sizing_data(plan: Plan) -> dict[str, Any]:
    """The true totals, beside those the reference prints for the architecture (None where it prints none), and what
    the tools of each cluster request of its workers."""
    printed = sizing.PRINTED.get(plan.settings.architecture)
    return {
        "true": asdict(plan.total),
        "printed_by_the_reference": asdict(printed) if printed else None,
        "tools": {cluster: budget.as_data(found) for cluster, found in plan.budgets.items()},
    }


def _release(release: Release) -> dict[str, Any]:
    return {
        "name": release.name,
        "namespace": release.namespace,
        "chart": release.chart,
        "version": release.version,
        "host": release.host,
        "workloads": [asdict(workload) for workload in release.workloads],
    }


def _host(host: Host, plan: Plan) -> dict[str, Any]:
    return {
        "name": host.name,
        "role": host.role,
        "cluster": host.cluster,
        "address": str(host.address),
        "prefix_length": host.subnet.prefixlen,
        "cpu": host.cpu,
        "memory_gb": host.memory_gb,
        "disk_gb": host.disk_gb,
        "inbound": [_opening(opening, "from") for opening in network.openings(host, plan.contract)],
        **(
            {"outbound": [_opening(opening, "to") for opening in network.exits(host, plan.contract)]}
            if plan.settings.network.egress.enforce
            else {}
        ),
    }


def _opening(opening: network.Opening, where: str) -> dict[str, Any]:
    rule = opening.rule
    return {
        "protocols": list(rule.protocols),
        "ports": list(rule.ports),
        "ranges": [list(r) for r in rule.ranges],
        where: [str(n) for n in opening.networks] or ["any"],
        "purpose": rule.purpose,
        "origin": rule.origin,
        "why": rule.why,
        "row": rule.row,
    }
