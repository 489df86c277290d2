"""Sizes that a user gives to a tool: `replicas` and `storage` of opstella:tools.NAME."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from config.errors import ConfigurationError, Problem, key
from plan.tools.model import Override, Release, Tool, ToolInputs

_MANY = 49  # pods, or GB: an odd number, which no tool has by itself


def databases(release: Release, override: Override) -> Release:
    """`release` with the user's size for its databases; its own volumes follow from `storage_of`."""
    if override.storage is None:
        return release
    size = f"{override.storage}Gi"
    return replace(release, databases=tuple(replace(database, storage=size) for database in release.databases))


def ignored(tool: Tool, inputs: ToolInputs, make: Callable[[Tool, ToolInputs], Release]) -> Iterator[Problem]:
    """A problem for each size given to `tool` that nothing in its release follows."""
    override = inputs.overrides.get(tool.name)
    if override is None:
        return

    def made(**sizes: int | None) -> Release | None:
        changed = replace(override, **sizes)
        try:
            return make(tool, replace(inputs, overrides={**inputs.overrides, tool.name: changed}))
        except ConfigurationError:
            return None  # whatever refuses a size follows it

    if override.replicas is not None and made(replicas=None) == made(replicas=_MANY) == made():
        yield Problem(
            key("tools", tool.name, "replicas"),
            f"the number of {tool.name}'s pods is fixed: {override.replicas} would change nothing",
            "remove it",
        )
    if override.storage is not None and made(storage=None) == made(storage=_MANY) == made():
        yield Problem(
            key("tools", tool.name, "storage"),
            f"{tool.name} keeps nothing on a volume: {override.storage} GB would change nothing",
            "remove it",
        )
