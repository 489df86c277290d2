"""Release lines: until when the vendors keep up what a user may pin, and what to say of a version past that.

The plan reads no clock: `today` comes from whoever asks. The versions that the program chooses itself are in
`plan.versions`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from config.errors import key
from config.model import Settings
from plan import versions
from plan.tool_lines import gitlab_end, parts, past_its_end
from plan.tools.catalogue import TOOLS
from plan.tools.model import Release
from plan.version import Chart, Version

# kubernetes.io, Patch Releases: 14 months from a minor version's first release. By minor version of Kubernetes 1.
KUBERNETES = {
    30: date(2025, 7, 15),
    31: date(2025, 11, 11),
    32: date(2026, 2, 28),
    33: date(2026, 6, 28),
    34: date(2026, 10, 27),
    35: date(2027, 2, 28),
    36: date(2027, 6, 28),
}


def pinned_past_their_end(settings: Settings, releases: dict[str, tuple[Release, ...]], today: date) -> Iterator[str]:
    """One sentence for each version in `settings` that nobody keeps up any longer on the day `today`."""
    pinned = settings.kubernetes.version
    if pinned is not None:
        minor = int(pinned.split(".")[1])
        # Older than the table is older than all of it.
        end = KUBERNETES.get(minor, min(KUBERNETES.values()) if minor < min(KUBERNETES) else None)
        ended = f"gets no more fixes since {end}" if minor in KUBERNETES else f"got its last fixes before {end}"
        if end is not None and today > end:
            yield (
                f"kubernetes.version: {pinned} is of Kubernetes 1.{minor}, which {ended}; the next minor "
                f"version is 1.{minor + 1}{_until(minor + 1)}, and a cluster is upgraded by one minor version at a time. This "
                f"program's own choice is {versions.RKE2.version}"
            )
    gitlab = settings.gitlab.version
    if gitlab is not None:
        major, minor = (int(part) for part in gitlab.split(".")[:2])
        end = gitlab_end(major, minor)
        if today > end:
            yield (
                f"gitlab.version: GitLab {major}.{minor} gets no more security fixes since {end}; this program's own choice is "
                f"{versions.GITLAB.version}, and the required stops on the way are in GitLab's upgrade path"
            )
    yield from _older_charts(settings, releases, today)


def _until(minor: int) -> str:
    return f" (until {KUBERNETES[minor]})" if minor in KUBERNETES else ""


def _older_charts(settings: Settings, releases: dict[str, tuple[Release, ...]], today: date) -> Iterator[str]:
    """Charts past their line's end, and older than the ones chosen: vendors keep up the newest line, and values are read by
    the chosen one's keys."""
    deployed = _charts(releases)
    for tool in TOOLS:
        override, chart = settings.tools.get(tool.name), deployed.get(tool.name)
        pinned = override.version if override is not None else None
        if pinned is None or chart is None:
            continue
        where = _setting("tools", tool.name, "version")
        if ended := past_its_end(chart.name, pinned, today):
            yield f"{where}: the chart {pinned} {ended}. This program's own choice is {chart.version} ({chart.app_version})"
        elif parts(pinned)[:2] < parts(chart.version)[:2]:
            yield (
                f"{where}: the chart {pinned} is older than {chart.version}, which "
                f"this program chose on {chart.chosen}; its vendor keeps up: {chart.support}"
            )


def _charts(releases: dict[str, tuple[Release, ...]]) -> dict[str, Chart]:
    """Tool to the row of its chart, of the tools that are deployed."""
    charts = {chart.name: chart for chart in versions.CHARTS}
    return {r.name: charts[r.chart] for of_cluster in releases.values() for r in of_cluster if r.chart in charts}


def _setting(*path: str) -> str:
    """The path of a setting without its namespace, as warnings name it."""
    return key(*path).partition(":")[2]


def chosen_past_their_end(settings: Settings, releases: dict[str, tuple[Release, ...]], today: date) -> Iterator[str]:
    """One sentence for each of the program's own versions that is used and whose end is known and over."""
    deployed = {chart.name: tool for tool, chart in _charts(releases).items()}
    for row in versions.ALL:
        if row.end_of_life is None or today <= row.end_of_life:
            continue
        where, pinned = _chosen_by(settings, row, deployed)
        if pinned is not None or isinstance(row, Chart) and row.name not in deployed:
            continue
        what = f"{row.name} {row.version}" + (f" ({row.app_version})" if isinstance(row, Chart) else "")
        instead = f"; pin a later version by {where} as soon as there is one" if where else ""
        yield f"versions: {what}, chosen on {row.chosen}, reached its end on {row.end_of_life}{instead}"


def _chosen_by(settings: Settings, row: Version, deployed: dict[str, str]) -> tuple[str, str | None]:
    """The setting that takes another version than `row`, empty where there is none, and what it is set to."""
    if row is versions.RKE2:
        return _setting("kubernetes", "version"), settings.kubernetes.version
    if row is versions.GITLAB:
        return _setting("gitlab", "version"), settings.gitlab.version
    tool = deployed.get(row.name)
    if tool is None:
        return "", None
    override = settings.tools.get(tool)
    return _setting("tools", tool, "version"), override.version if override is not None else None
