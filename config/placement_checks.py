"""Cross-field checks of where tools live: clusters that exist and are there, and one place for what there is one of."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import Problem, key
from config.model import Settings
from config.placement import clusters_of, default_clusters, may_live_in_several, same_key, service_key, services
from config.reference import ARCHITECTURES, FOLLOWS, PLACES, SERVICES, SEVERAL

# What every cluster's agents ship to.
_STORES = ("loki", "tempo", "mimir")


def check_places(settings: Settings) -> Iterator[Problem]:
    """Places that the user wrote."""
    for name, tool in settings.tools.items():
        if tool.clusters is None:
            continue
        where = key("tools", name, "clusters")
        if name in FOLLOWS:
            yield Problem(
                where,
                f"{name} runs wherever {' or '.join(FOLLOWS[name])} does, and has no place of its own",
                f"remove it; to move it, write {key('tools', FOLLOWS[name][0], 'clusters')}",
            )
            continue
        if not tool.clusters:
            yield Problem(
                where,
                f"the list is empty: {name} would run nowhere",
                f"name a cluster, or set {key('tools', name, 'enabled')} to false",
            )
        for index, cluster in enumerate(tool.clusters):
            yield from _place(settings, name, f"{where}[{index}]", cluster, tool.clusters[:index])
        if len(set(tool.clusters)) > 1 and not may_live_in_several(name):
            yield Problem(
                where,
                f"there is one {name} on a platform, and it is placed in {_and(tool.clusters)}",
                f"name one of them; several clusters may run {_and(SEVERAL)}, and what no user opens",
            )


def _place(settings: Settings, tool: str, where: str, cluster: str, before: tuple[str, ...]) -> Iterator[Problem]:
    there = ", ".join(settings.enabled_clusters) or "none"
    if cluster not in settings.clusters:
        yield Problem(
            where, f"{tool} is placed in '{cluster}', and there is no cluster of that name", f"name one of: {there}"
        )
    elif cluster not in settings.enabled_clusters:
        yield Problem(
            where,
            f"{tool} is placed in '{cluster}', which {key('clusters', cluster, 'enabled')} leaves out",
            f"enable the cluster, or name one of: {there}",
        )
    elif cluster in before:
        yield Problem(where, f"{tool} is placed in '{cluster}' twice", "name each cluster once")


def check_homeless(settings: Settings) -> Iterator[Problem]:
    """Tools whose places by default are all switched off; one problem for each cluster that has to do with it."""
    there = set(settings.enabled_clusters)
    homeless: dict[str, list[str]] = {}
    for tool in PLACES:
        chosen = settings.tools.get(tool)
        places = default_clusters(settings, tool)
        if (chosen and (not chosen.enabled or chosen.clusters is not None)) or not there.isdisjoint(places):
            continue
        for cluster in places:
            homeless.setdefault(cluster, []).append(tool)
    for cluster, tools in homeless.items():
        others, shipped = list(settings.enabled_clusters), [tool for tool in _STORES if tool in tools]
        if not others:
            continue  # reported already
        ships = f"; {_and(others)} would ship to {_and(shipped)} there" if shipped else ""
        yield Problem(
            key("clusters", cluster, "enabled"),
            f"the cluster is left out, and {_and(tools)} would run there{ships}",
            f"enable it, place each elsewhere ({key('tools', tools[0], 'clusters')}: [{others[0]}]), or leave each out "
            f"({key('tools', tools[0], 'enabled')}: false)",
        )


def check_domains(settings: Settings) -> Iterator[Problem]:
    """Keys that stand for a service of this stack, each label once."""
    served = {service.key: service for service in services(settings)}
    default = ARCHITECTURES[settings.architecture]["domains"]
    kinds = {kind: tool for tool, of in SERVICES.items() for kind in of}
    for service, label in settings.domains.items():
        # A label that the reference has for a place where the tool does not live means nothing.
        if service in served or label == default.get(service):
            continue
        places = clusters_of(settings, kinds[service]) if service in kinds else ()
        if len(places) > 1:
            own = [service_key(service, cluster) for cluster in places]
            yield Problem(
                key("domains", service),
                f"{kinds[service]} runs in {_and(places)}, and each needs a name of its own",
                f"write {_and(own)} instead",
            )
            continue
        yield Problem(
            key("domains", service),
            f"architecture '{settings.architecture}' has no service of that name"
            if service not in default and service not in kinds
            else "no cluster has this service, by the places of the tools",
            f"the services are: {', '.join(served)}",
        )
    by_label: dict[str, str] = {}
    for name, service in served.items():
        if service.label in by_label:
            yield Problem(
                key("domains", name),
                f"'{service.label}' is the name of {by_label[service.label]} too",
                "give each service a name of its own",
            )
        by_label.setdefault(service.label, name)
    for name, one, other in same_key(settings):
        yield Problem(
            key("domains", name),
            f"the {one.kind} of cluster '{one.cluster}' and the {other.kind} of cluster '{other.cluster}' would both be "
            "called that",
            "give the clusters names that differ in more than '-'",
        )


def _and(names: tuple[str, ...] | list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
