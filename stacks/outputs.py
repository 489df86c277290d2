"""What a stack tells: where everything is, how to get in, and what the user has to know or still do."""

from __future__ import annotations

from typing import Any

from plan.plan import Plan, missing, sizing_data
from stacks.platform import Platform


def outputs(plan: Plan, platform: Platform) -> dict[str, Any]:
    """Name to value of every stack output; credentials and kubeconfigs are secrets."""
    single = len(platform.clusters) == 1
    return {
        "urls": _urls(plan),
        "kubernetes_api": {name: cluster.nodes.api_url for name, cluster in platform.clusters.items()},
        "kubeconfigs": {name: cluster.nodes.kubeconfig for name, cluster in platform.clusters.items()},
        "credentials": {
            "gitlab": {"url": platform.gitlab.url, "username": "root", "password": platform.gitlab.root_password},
            **{
                tool if single else f"{tool}-{name}": value
                for name, cluster in platform.clusters.items()
                for tool, value in cluster.tools.credentials.items()
            },
        },
        "ca_bundle": platform.pki.ca_bundle,
        "dns_records": {r.name: str(r.address) for r in plan.records},
        "host_keys": {name: host.host_key for name, host in platform.fleet.hosts.items()},
        "sizing": sizing_data(plan),
        "missing": missing(plan),
    }


def _urls(plan: Plan) -> dict[str, str]:
    """Service key to URL, of what this stack deploys."""
    hosts = {h for releases in plan.releases.values() for r in releases for h in (r.host, *r.other_hosts)}
    return {r.service: f"https://{r.name}" for r in plan.records if r.service == "gitlab" or r.name in hosts}
