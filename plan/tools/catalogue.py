"""The catalogue: which tools there are, and the releases of one cluster in the order they are made."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from config.errors import REMOVE, ConfigurationError, Problem, Rename, key
from plan.tools import (
    alloy,
    argo_cd,
    cert_manager,
    cloudnative_pg,
    compatibility,
    csi_driver_nfs,
    defectdojo,
    gitlab_runner,
    grafana,
    harbor,
    headlamp,
    keycloak,
    kube_prometheus_stack,
    loki,
    metrics_server,
    mimir,
    minio,
    oauth2_proxy,
    opstella,
    sized,
    sonarqube,
    tempo,
    traefik,
    trust_manager,
    valkey,
    vault,
    vault_unsealer,
    velero,
)
from plan.tools.common import merge
from plan.tools.model import Override, Release, Tool, ToolInputs
from plan.tools.wiring import CACHE, DATABASES, Member, wire

# In an order in which every tool's needs come before it; a test holds it to that.
TOOLS: tuple[Tool, ...] = (
    csi_driver_nfs.TOOL,
    cert_manager.TOOL,
    metrics_server.TOOL,
    traefik.TOOL,
    cloudnative_pg.TOOL,
    keycloak.TOOL,
    minio.TOOL,
    valkey.TOOL,
    kube_prometheus_stack.TOOL,
    velero.TOOL,
    harbor.TOOL,
    loki.TOOL,
    mimir.TOOL,
    tempo.TOOL,
    grafana.TOOL,
    alloy.TOOL,
    headlamp.TOOL,
    trust_manager.TOOL,
    argo_cd.TOOL,
    vault_unsealer.TOOL,
    vault.TOOL,
    sonarqube.TOOL,
    defectdojo.TOOL,
    gitlab_runner.TOOL,
    opstella.TOOL,
    oauth2_proxy.TOOL,
)
NAMES: tuple[str, ...] = tuple(tool.name for tool in TOOLS)


def check(names: Iterable[str]) -> list[Problem]:
    """A problem for each of `names` (the keys of opstella:tools) that is not a tool."""
    return [_unknown(name) for name in names if name not in NAMES]


def _unknown(name: str) -> Problem:
    close = difflib.get_close_matches(name.lower(), NAMES, 1)
    what = f"there is no tool '{name}'"
    if close:
        return Problem(key("tools", name), what, f"did you mean {close[0]}?", {("tools", name): Rename(close[0])})
    fix = f"remove it; the tools are: {', '.join(sorted(NAMES))}"
    return Problem(key("tools", name), what, fix, {("tools", name): REMOVE})


def catalogue(inputs: ToolInputs) -> tuple[Release, ...]:
    """The releases of one cluster, taken alone: what lies in others of the platform is counted on.

    Raises as `platform` does.
    """
    return platform({inputs.cluster: inputs})[inputs.cluster]


def platform(clusters: Mapping[str, ToolInputs]) -> dict[str, tuple[Release, ...]]:
    """The releases of every cluster, with all that their needs imply, needs before what needs them.

    Raises ConfigurationError: an unknown tool is overridden, a tool is wanted whose name or needs are left out, a size
    changes nothing, two tools have one name, or a version is known not to work.
    """
    releases, problems = assembled(clusters)
    if problems:
        raise ConfigurationError(problems, "tools")
    return releases


def assembled(clusters: Mapping[str, ToolInputs]) -> tuple[dict[str, tuple[Release, ...]], list[Problem]]:
    """What `platform` returns, and all that it would raise. No releases where some tool cannot be planned at all."""
    problems: list[Problem] = []
    members: dict[str, Member] = {}
    whole = True
    for cluster, inputs in clusters.items():
        problems += check(inputs.overrides)
        wanted = NAMES if inputs.tools is None else inputs.tools
        enabled = [t for t in TOOLS if t.name in wanted and inputs.overrides.get(t.name, Override()).enabled]
        tools = [t for t in enabled if t.wanted(inputs)]
        carrying = replace(inputs, present=frozenset(tool.name for tool in tools))
        releases = []
        for tool in tools:
            if tool.domain_key is not None and tool.domain_key not in inputs.hosts:
                problems.append(_nameless(tool))
                whole = False
                continue
            try:
                problems += sized.ignored(tool, carrying, _release)
                releases.append(_release(tool, carrying))
            except ConfigurationError as error:
                problems += error.problems
                whole = False
        members[cluster] = Member(inputs=carrying, releases=_in_use(releases, inputs))
    declared = [release for member in members.values() for release in member.releases]
    problems += [*_names_taken_twice(declared), *compatibility.check(declared)]
    wired: dict[str, tuple[Release, ...]] = {}
    if whole:  # else what others need of that tool would be missed
        try:
            wired = wire(members)
        except ConfigurationError as error:
            problems += error.problems
    return wired, list(dict.fromkeys(problems))


def _in_use(releases: Sequence[Release], inputs: ToolInputs) -> tuple[Release, ...]:
    """`releases` without providers that nobody of their cluster uses: they answer nowhere else. One that the user
    placed stays."""
    used = {
        CACHE: any(release.caches for release in releases if release.name != CACHE),  # its own checks are none
        DATABASES: any(release.databases for release in releases),
    }
    return tuple(r for r in releases if used.get(r.name, True) or inputs.overrides.get(r.name, Override()).placed)


def _names_taken_twice(releases: Iterable[Release]) -> Iterator[Problem]:
    """A problem for each host name under which users would reach two tools."""
    owner: dict[str, str] = {}
    for release in releases:
        for host in (*((release.host,) if release.host else ()), *release.other_hosts):
            first = owner.setdefault(host, release.name)
            if first != release.name:
                yield Problem(
                    key("domains", release.domain_key),
                    f"{host} is the name of {first} and of {release.name}",
                    f"give each a name of its own, or set {key('tools', release.name, 'enabled')} to false",
                )


def _nameless(tool: Tool) -> Problem:
    return Problem(
        key("domains", tool.domain_key),
        f"{tool.name} needs a name, and the service {tool.domain_key} has none here",
        f"name the service, or set {key('tools', tool.name, 'enabled')} to false",
    )


def _release(tool: Tool, inputs: ToolInputs) -> Release:
    override = inputs.overrides.get(tool.name, Override())
    release = sized.databases(tool.release(inputs), override)
    workloads = release.workloads
    if not metrics_server.served(inputs):
        workloads = tuple(replace(workload, autoscale=None) for workload in workloads)  # there is nothing to go by
    return replace(
        release,
        workloads=workloads,
        version=override.version or release.version,
        repository=release.repository and (inputs.chart_repository or release.repository),
        values=merge(release.values, override.values),
        timeout_seconds=override.timeout_seconds or release.timeout_seconds,
    )
