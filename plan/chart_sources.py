"""Which chart archives a stack installs, and the digests that the settings hold them to (opstella:media.chartDigests).

Nothing is fetched here: components/chart_archives.py does that, and compares.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from config.errors import REMOVE, Problem, Rename, key
from plan.tools import catalogue
from plan.tools.model import Release

Releases = Mapping[str, Sequence[Release]]


@dataclass(frozen=True, kw_only=True)
class ChartSource:
    """Where the chart of `tool` comes from: `repository` is a URL, `digest` is `sha256:…` of its archive where it is pinned."""

    tool: str
    chart: str
    version: str
    repository: str
    digest: str | None = None

    @property
    def setting(self) -> str:
        """The setting that pins it."""
        return key("media.chartDigests", self.tool)

    @property
    def file(self) -> str:
        """Name of a file that holds its archive and no other. Only pinned ones have one."""
        assert self.digest, self.tool
        return f"{self.chart}-{self.version}-{self.digest.replace(':', '-')}.tgz"


def chart_sources(releases: Releases, digests: Mapping[str, str]) -> tuple[ChartSource, ...]:
    """One for each tool of any cluster whose chart is not one of this project, by name."""
    every = {
        r.name: r for of_cluster in releases.values() for r in of_cluster
    }  # a tool has one version in all clusters
    return tuple(
        ChartSource(tool=name, chart=r.chart, version=r.version, repository=r.repository, digest=digests.get(name))
        for name, r in sorted(every.items())
        if r.repository
    )


def check(releases: Releases, digests: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for each digest that pins nothing: whoever wrote it counts on it."""
    charts = {r.chart: r.name for of_cluster in releases.values() for r in of_cluster}
    deployed = {r.name: r.repository for of_cluster in releases.values() for r in of_cluster}
    for name in digests:
        path = ("media", "chartDigests", name)
        if name not in catalogue.NAMES:
            close = charts.get(name) or next(iter(difflib.get_close_matches(name.lower(), catalogue.NAMES, 1)), None)
            if close and close not in digests:
                fix, change = (
                    f"write the tool's name, as in opstella:tools: did you mean {close}?",
                    {path: Rename(close)},
                )
            else:
                fix, change = "remove it; `./opstella charts` lists them all", {path: REMOVE}
            yield Problem(key(*path), f"there is no tool '{name}'", fix, change)
        elif name not in deployed and deployed:
            fix = f"remove it, or deploy {name} ({key('tools', name)})"
            yield Problem(
                key(*path),
                f"no cluster of this stack carries {name}, so that the digest pins nothing",
                fix,
                {path: REMOVE},
            )
        elif name in deployed and not deployed[name]:
            what = f"the chart of {name} is a folder of this project and has no archive"
            yield Problem(
                key(*path), what, "remove it; the revision of this project says what is in it", {path: REMOVE}
            )


def unpinned(sources: Sequence[ChartSource]) -> Iterator[str]:
    """A warning where some charts are pinned and others are not: a tool that came later, most likely."""
    left = [source.tool for source in sources if not source.digest]
    if left and len(left) < len(sources):
        yield (
            f"media.chartDigests pins the archives of some charts, and not of {', '.join(left)}; `./opstella charts` prints "
            "the digests of all"
        )
