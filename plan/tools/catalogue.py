"""The catalogue: which tools there are, and the releases of one cluster in the order they are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from config.errors import ConfigurationError, Problem, key
from plan.tools import argo_cd, cert_manager, cloudnative_pg, csi_driver_nfs, keycloak, traefik
from plan.tools.common import merge
from plan.tools.model import Override, Release, Tool, ToolInputs

# In an order in which every tool's needs come before it; a test holds it to that.
TOOLS: tuple[Tool, ...] = (
    csi_driver_nfs.TOOL,
    cert_manager.TOOL,
    traefik.TOOL,
    cloudnative_pg.TOOL,
    keycloak.TOOL,
    argo_cd.TOOL,
)
NAMES: tuple[str, ...] = tuple(tool.name for tool in TOOLS)


def check(names: Iterable[str]) -> list[Problem]:
    """A problem for each of `names` (the keys of opstella:tools) that is no tool."""
    return [
        Problem(key("tools", name), f"there is no tool '{name}'", f"name one of {', '.join(NAMES)}, or remove the key")
        for name in names
        if name not in NAMES
    ]


def catalogue(inputs: ToolInputs) -> tuple[Release, ...]:
    """The releases of one cluster, needs before what needs them.

    Raises ConfigurationError: an unknown tool is overridden, or a tool is wanted whose name or needs are
    left out.
    """
    problems = check(inputs.overrides)
    wanted = NAMES if inputs.tools is None else inputs.tools
    tools = [t for t in TOOLS if t.name in wanted and inputs.overrides.get(t.name, Override()).enabled]
    problems += [
        Problem(
            key("domains", tool.domain_key),
            f"{tool.name} needs a name, and the service {tool.domain_key} has none here",
            f"name the service, or set {key('tools', tool.name, 'enabled')} to false",
        )
        for tool in tools
        if tool.domain_key is not None and tool.domain_key not in inputs.hosts
    ]
    if problems:
        raise ConfigurationError(problems, "tools")
    inputs = replace(inputs, present=frozenset(tool.name for tool in tools))
    releases = [_release(tool, inputs) for tool in tools]
    there = {release.name for release in releases}
    problems = [
        Problem(
            key("tools", need, "enabled"),
            f"{release.name} needs {need}, which is left out",
            f"enable {need}, or set {key('tools', release.name, 'enabled')} to false as well",
        )
        for release in releases
        for need in release.needs
        if need not in there
    ]
    if problems:
        raise ConfigurationError(problems, "tools")
    return tuple(releases)


def _release(tool: Tool, inputs: ToolInputs) -> Release:
    release = tool.release(inputs)
    override = inputs.overrides.get(tool.name, Override())
    return replace(
        release,
        version=override.version or release.version,
        repository=release.repository and (inputs.chart_repository or release.repository),
        values=merge(release.values, override.values),
    )
