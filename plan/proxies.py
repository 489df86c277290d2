"""The proxy of the settings for what runs on the platform; machines themselves get it from plan/hosts.py.

Each connection to something outside is in one of three groups: through the proxy, past it with a warning, or past it
because it is no HTTP. A test holds every tool's flows to this list.
"""

from __future__ import annotations

from types import MappingProxyType

from config.model import Settings
from config.placement import clusters_of

THROUGH = MappingProxyType(
    {
        "argo-cd": "Git and chart repositories, by the repository server",
        "gitlab-runner": "what pipelines download, by variables of each job",
        "harbor": "registries and Trivy's list of vulnerabilities, by core, the job service and Trivy",
    }
)
"""Tools that reach the outside through the proxy."""

PAST = MappingProxyType(
    {
        "defectdojo": "trackers and webhooks that people connect",
        "kube-prometheus-stack": "receivers of alerts",
        "sonarqube": "updates, and repositories that people import",
        "vault": "the key service that unseals it",
    }
)
"""Tools that do not, and what of theirs has to be reachable directly."""


def past(settings: Settings) -> tuple[str, ...]:
    """Those of `PAST` that the stack has and that may reach something outside."""
    asked = {
        "kube-prometheus-stack": bool(settings.alerts.webhook or settings.alerts.mail),
        "vault": settings.vault.unseal == "auto",
    }
    return tuple(name for name in PAST if clusters_of(settings, name) and asked.get(name, True))


def no_proxy(settings: Settings) -> str:
    """What is never fetched through the proxy: the stack's own networks and names, and what the user adds."""
    if not (settings.proxy.http or settings.proxy.https):
        return ""
    own = ["127.0.0.0/8", ".svc", ".cluster.local", f".{settings.domain}"]
    for cluster in settings.enabled_clusters.values():
        own += [str(cluster.subnet), str(cluster.pod_subnet), str(cluster.service_subnet)]
    return ",".join(dict.fromkeys([*own, *settings.proxy.no_proxy]))


def variables(http: str | None, https: str | None, excepted: str) -> dict[str, str]:
    """Environment variables by upper-case name, for programs that fetch something; empty without a proxy."""
    found = {name: url for name, url in (("HTTP_PROXY", http), ("HTTPS_PROXY", https)) if url}
    return {**found, "NO_PROXY": f"localhost,127.0.0.1,{excepted}"} if found else {}


def of_gitlab(settings: Settings) -> dict[str, str]:
    """`variables` of GitLab's machine."""
    return variables(settings.proxy.http, settings.proxy.https, no_proxy(settings))
