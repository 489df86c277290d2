"""What a tool needs and does not find: switched off, or placed in other clusters only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from config.errors import Problem, key
from plan.tools import minio_buckets
from plan.tools.model import Override, Release, ToolInputs
from plan.tools.needs import EXTERNAL, is_elsewhere


def missing_needs(releases: Sequence[Release], inputs: ToolInputs) -> Iterator[Problem]:
    """A problem for each need that no release of the cluster is."""
    there = {release.name for release in releases}
    wanting: dict[str, list[str]] = {}
    for release in releases:
        for need in dict.fromkeys((*release.needs, *(n for job in release.jobs for n in job.needs))):
            if need not in there and need not in EXTERNAL and not is_elsewhere(need):
                wanting.setdefault(need, []).append(release.name)
    for need, tools in wanting.items():
        if _placed_elsewhere(need, inputs):
            yield _not_here(tools, need, inputs.cluster)
        else:
            yield from (left_out(tool, need, inputs) for tool in tools)


def left_out(tool: str, need: str, inputs: ToolInputs) -> Problem:
    """`tool`, in the cluster of `inputs`, needs `need`."""
    if _placed_elsewhere(need, inputs):
        return _not_here([tool], need, inputs.cluster)
    return Problem(
        key("tools", need, "enabled"),
        f"{tool} needs {need}, which is left out",
        f"enable {need}, or set {key('tools', tool, 'enabled')} to false as well",
    )


def far_store(tool: str, where: str, inputs: ToolInputs) -> Problem:
    """`tool` reaches an object store of its own cluster only, and the nearest is in the cluster `where`."""
    store = minio_buckets.NAME
    return Problem(
        key("tools", store, "clusters"),
        f"{tool} stands in {inputs.cluster} and keeps its data in an object store beside it; {store} is in {where}",
        f"add {inputs.cluster} to it, or place {tool} where {store} is: {key('tools', tool, 'clusters')}",
    )


def nameless_gitlab(tool: str) -> Problem:
    """`tool` needs GitLab, which stands on its own machine."""
    return Problem(
        key("domains", "gitlab"),
        f"{tool} needs gitlab, which has no name here",
        f"name the service, or set {key('tools', tool, 'enabled')} to false",
    )


def _placed_elsewhere(need: str, inputs: ToolInputs) -> bool:
    on = inputs.overrides.get(need, Override()).enabled
    return on and inputs.tools is not None and need not in inputs.tools


def _not_here(tools: Sequence[str], need: str, cluster: str) -> Problem:
    *most, last = tools
    named, verb = (f"{', '.join(most)} and {last}", "need") if most else (last, "needs")
    return Problem(
        key("tools", need, "clusters"),
        f"{named} in cluster {cluster} {verb} {need} there, and it is placed in other clusters only",
        f"add {cluster} to it, or place elsewhere what needs it: {key('tools', tools[0], 'clusters')}",
    )
