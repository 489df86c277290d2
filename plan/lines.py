"""Release lines: until when the vendors keep up what a user may pin, and what to say of a version past that.

The plan reads no clock: `today` comes from whoever asks. The versions that the program chooses itself are in
`plan.versions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta

from config.errors import key
from config.model import Settings
from plan import versions
from plan.tools.catalogue import TOOLS
from plan.tools.model import Release
from plan.version import Chart

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
# docs.gitlab.com, Maintenance policy: a minor version on each third Thursday, x.0 in May, twelve to a major version;
# security fixes for the newest three.
_GITLAB_MAJOR, _GITLAB_YEAR, _GITLAB_KEPT = 18, 2025, 3


def gitlab_end(major: int, minor: int) -> date:
    """The day on which GitLab `major.minor` gets its last security fixes: that of the third minor version after it."""
    months = (major - _GITLAB_MAJOR) * 12 + minor + _GITLAB_KEPT + 4  # after January of the year of 18.0
    first = date(_GITLAB_YEAR + months // 12, months % 12 + 1, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 14)


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
    yield from _older_charts(settings, releases)


def _until(minor: int) -> str:
    return f" (until {KUBERNETES[minor]})" if minor in KUBERNETES else ""


def _older_charts(settings: Settings, releases: dict[str, tuple[Release, ...]]) -> Iterator[str]:
    """Charts older than the ones chosen: vendors keep up the newest line, and values are read by the chosen one's keys."""
    charts = {chart.name: chart for chart in versions.CHARTS}
    deployed = {r.name: charts.get(r.chart) for of_cluster in releases.values() for r in of_cluster}
    for tool in TOOLS:
        override, chart = settings.tools.get(tool.name), deployed.get(tool.name)
        pinned = override.version if override is not None else None
        if pinned is not None and chart is not None and _line(pinned) < _line(chart.version):
            yield (
                f"{key('tools', tool.name, 'version').partition(':')[2]}: the chart {pinned} is older than {chart.version}, which "
                f"this program chose on {chart.chosen}; its vendor keeps up: {chart.support}"
            )


def _line(version: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def chosen_past_their_end(today: date) -> Iterator[str]:
    """One sentence for each of the program's own versions whose end is known and over."""
    for row in versions.ALL:
        if row.end_of_life is not None and today > row.end_of_life:
            what = f"{row.name} {row.version}" + (f" ({row.app_version})" if isinstance(row, Chart) else "")
            yield f"versions: {what}, chosen on {row.chosen}, reached its end on {row.end_of_life}"
