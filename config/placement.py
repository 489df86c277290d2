"""Which clusters carry a tool, and the names under which its services are reached there.

A place is the user's (opstella:tools.NAME.clusters), else the reference's, as far as the stack has such clusters. A
service of a tool that lives in one cluster has the plain key (`argocd`) under opstella:domains; of one that lives in
several, a key in each (`argocdDev`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from config.model import Settings, Tool
from config.reference import ARCHITECTURES, DEFAULT_LABELS, FOLLOWS, MAIN, PLACES, SERVICES, SEVERAL

# What the place of a tool follows from.
PLACES_READ = ("architecture", "clusters", "clusters.*.enabled", "tools.*.enabled", "tools.*.clusters.**")


@dataclass(frozen=True, kw_only=True)
class Service:
    """What users open in one cluster. `key` stands under opstella:domains; `kind` is its key where it is alone."""

    key: str
    kind: str
    label: str
    tool: str | None
    cluster: str | None
    """None: GitLab, on its own machine."""


def clusters_of(settings: Settings, tool: str) -> tuple[str, ...]:
    """The clusters that carry `tool`, in the order of the settings.

    Where all of its places are left out, the first: `check_homeless` refuses that, unless the tool is left out as well,
    and then its names still are names.
    """
    there = settings.enabled_clusters
    chosen = {cluster for one in FOLLOWS.get(tool, (tool,)) for cluster in _chosen(settings, one)}
    return tuple(cluster for cluster in there if cluster in chosen) or tuple(there)[:1]


def default_clusters(settings: Settings, tool: str) -> tuple[str, ...]:
    """Where `tool` lives if the user says nothing, also in clusters that are switched off."""
    if tool not in PLACES:
        return tuple(settings.clusters)
    if settings.architecture == "multicluster":
        return PLACES[tool]
    # With clusters of the user's own, the reference's names count where they exist, and the first is the main one.
    first = next(iter(settings.enabled_clusters), None)
    named = [first if c == MAIN and c not in settings.clusters else c for c in PLACES[tool]]
    found = tuple(c for c in dict.fromkeys(named) if c in settings.clusters)
    return found or tuple(c for c in (first,) if c)


def may_live_in_several(tool: str) -> bool:
    """Whether several clusters may run `tool` at once."""
    return tool not in PLACES or tool in SEVERAL


def services(settings: Settings) -> tuple[Service, ...]:
    """Every service that has a place: those of the settings in their order, then those with a default label."""
    found = {service.key: service for service in _services(settings)}
    order = [*(k for k in settings.domains if k in found), *(k for k in found if k not in settings.domains)]
    return tuple(found[k] for k in order)


def same_key(settings: Settings) -> Iterator[tuple[str, Service, Service]]:
    """Keys that two services would share, because their clusters' names differ in '-' only."""
    seen: dict[str, Service] = {}
    for service in _services(settings):
        if service.key in seen:
            yield service.key, seen[service.key], service
        seen.setdefault(service.key, service)


def service_key(kind: str, cluster: str) -> str:
    """The key of a service in one of several clusters: `minioApi` in `observability` is `minioApiObservability`."""
    return kind + "".join(part[:1].upper() + part[1:] for part in cluster.split("-"))


def _chosen(settings: Settings, tool: str) -> tuple[str, ...]:
    written = settings.tools.get(tool, Tool()).clusters
    return default_clusters(settings, tool) if written is None else written


def _services(settings: Settings) -> Iterator[Service]:
    labels: Mapping[str, str] = settings.domains
    yield Service(key="gitlab", kind="gitlab", label=labels["gitlab"], tool=None, cluster=None)
    for tool, kinds in SERVICES.items():
        places = clusters_of(settings, tool)
        for kind in kinds:
            default = ARCHITECTURES[settings.architecture]["domains"].get(kind, DEFAULT_LABELS[kind])
            for cluster in places:
                alone = len(places) == 1
                key = kind if alone else service_key(kind, cluster)
                label = labels.get(key, default if alone else f"{DEFAULT_LABELS[kind]}-{cluster}")
                yield Service(key=key, kind=kind, label=label, tool=tool, cluster=cluster)
