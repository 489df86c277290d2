"""Release lines of the tools, by the chart that carries them: until when each is kept up, as far as its project says.

A line begins at the first chart version that carries it; the mapping is read from the `Chart.yaml` of each version
(`appVersion`) in the chart's repository (`plan.versions`). Ends are those of the projects' own policies, by endoflife.date
(github.com/endoflife-date/endoflife.date, products/, August 2026) unless a table says more. None: the end depends on
releases that are still to come, or the project names none; of such a line nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

# docs.gitlab.com, Maintenance policy: a minor version on each third Thursday, x.0 in May, twelve to a major version;
# security fixes for the newest three.
_GITLAB_MAJOR, _GITLAB_YEAR, _GITLAB_KEPT = 18, 2025, 3
# Of the chart gitlab-runner, a minor version for each of GitLab's; 0.77 is that of GitLab 18.0.
_RUNNER_MINOR = 77


def gitlab_end(major: int, minor: int) -> date:
    """The day on which GitLab `major.minor` gets its last security fixes: that of the third minor version after it."""
    months = (major - _GITLAB_MAJOR) * 12 + minor + _GITLAB_KEPT + 4  # after January of the year of 18.0
    first = date(_GITLAB_YEAR + months // 12, months % 12 + 1, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 14)


@dataclass(frozen=True)
class Line:
    """`begins` is the first chart version that carries the line `name` of the software."""

    begins: str
    name: str
    end: date | None = None


def _runner() -> tuple[Line, ...]:
    lines = []
    for minor in range(_RUNNER_MINOR, _RUNNER_MINOR + 36):
        major, of_major = divmod(minor - _RUNNER_MINOR, 12)
        lines.append(Line(f"0.{minor}.0", f"{18 + major}.{of_major}", gitlab_end(18 + major, of_major)))
    return tuple(lines)


LINES: Mapping[str, tuple[str, tuple[Line, ...]]] = {
    # The three newest minor versions.
    "argo-cd": ("Argo CD", (
        Line("7.7.1", "2.13", date(2025, 8, 13)),
        Line("7.8.1", "2.14", date(2025, 11, 4)),
        Line("8.0.0", "3.0", date(2026, 2, 2)),
        Line("8.3.0", "3.1", date(2026, 5, 5)),
        Line("9.0.7", "3.2", date(2026, 8, 4)),
        Line("9.4.0", "3.3"),
        Line("9.5.13", "3.4"),
    )),
    # Until the second minor version after it.
    "cert-manager": ("cert-manager", (
        Line("1.16.0", "1.16", date(2025, 6, 10)),
        Line("1.17.0", "1.17", date(2025, 10, 7)),
        Line("1.18.0", "1.18", date(2026, 3, 10)),
        Line("1.19.0", "1.19", date(2026, 7, 8)),
        Line("1.20.0", "1.20"),
        Line("1.21.0", "1.21"),
    )),
    # cloudnative-pg.io, Supported releases: until three months after the next minor version.
    "cloudnative-pg": ("CloudNativePG", (
        Line("0.22.0", "1.24", date(2025, 5, 23)),
        Line("0.23.0", "1.25", date(2025, 8, 22)),
        Line("0.24.0", "1.26", date(2025, 11, 12)),
        Line("0.26.0", "1.27", date(2026, 3, 9)),
        Line("0.27.0", "1.28", date(2026, 6, 30)),
        Line("0.28.0", "1.29", date(2026, 9, 29)),
        Line("0.29.0", "1.30"),
    )),
    "gitlab-runner": ("GitLab Runner", _runner()),
    # Nine months; the last minor version of a major one 15 months.
    "grafana": ("Grafana", (
        Line("8.5.10", "11.3", date(2025, 7, 22)),
        Line("8.7.0", "11.4", date(2025, 9, 5)),
        Line("8.9.0", "11.5", date(2025, 10, 28)),
        Line("8.11.1", "11.6", date(2026, 6, 25)),
        Line("9.0.0", "12.0", date(2026, 2, 5)),
        Line("9.3.6", "12.1", date(2026, 4, 22)),
        Line("10.1.0", "12.2", date(2026, 6, 23)),
        Line("10.3.0", "12.3", date(2026, 8, 19)),
        Line("11.2.0", "12.4", date(2027, 5, 24)),
        Line("11.7.0", "13.0", date(2027, 1, 9)),
        Line("12.6.0", "13.1", date(2027, 3, 20)),
        Line("12.11.0", "13.2", date(2027, 5, 18)),
    )),
    # The three newest minor versions.
    "harbor": ("Harbor", (
        Line("1.15.0", "2.11", date(2025, 9, 17)),
        Line("1.16.0", "2.12", date(2026, 3, 20)),
        Line("1.17.0", "2.13"),
        Line("1.18.0", "2.14"),
        Line("1.19.0", "2.15"),
    )),
    # The newest minor version.
    "keycloakx": ("Keycloak", (
        Line("6.0.0", "26.0", date(2025, 1, 15)),
        Line("7.1.0", "26.2", date(2025, 7, 2)),
        Line("7.1.1", "26.3", date(2025, 9, 30)),
        Line("7.1.4", "26.4", date(2026, 1, 6)),
        Line("7.1.7", "26.5", date(2026, 4, 8)),
    )),
    # A Community Build gets its fixes in the next; the ends are those of the years.
    "sonarqube": ("SonarQube Community Build", (
        Line("2025.1.0", "25", date(2026, 1, 6)),
        Line("2026.1.0", "26"),
    )),
    # The newest minor version; the last one of a major version for a year more.
    "traefik": ("Traefik", (
        Line("31.0.0", "3.1", date(2024, 10, 28)),
        Line("33.0.0", "3.2", date(2025, 1, 6)),
        Line("34.0.0", "3.3", date(2025, 5, 5)),
        Line("35.3.0", "3.4", date(2025, 7, 23)),
        Line("37.0.0", "3.5", date(2025, 11, 7)),
        Line("37.3.0", "3.6", date(2026, 8, 16)),
        Line("40.0.0", "3.7"),
    )),
    # Three years, five for the last minor version of a major one.
    "valkey": ("Valkey", (
        Line("0.2.0", "8.1", date(2030, 3, 31)),
        Line("0.9.0", "9.0", date(2028, 10, 21)),
        Line("0.10.0", "9.1"),
    )),
    # The community's edition: until the next minor version.
    "vault": ("Vault", (
        Line("0.29.0", "1.18", date(2025, 3, 4)),
        Line("0.30.0", "1.19", date(2025, 6, 23)),
        Line("0.30.1", "1.20", date(2025, 10, 21)),
        Line("0.32.0", "1.21", date(2026, 4, 13)),
        Line("0.32.1", "2.0"),
    )),
}  # fmt: skip


def parts(version: str) -> tuple[int, ...]:
    """Major, minor and patch version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def line(chart: str, version: str) -> Line | None:
    """The line that `version` of a chart carries; None where nothing is known of the chart, or of one so old."""
    _, known = LINES.get(chart, ("", ()))
    return next((one for one in reversed(known) if parts(one.begins) <= parts(version)), None)


def past_its_end(chart: str, version: str, today: date) -> str | None:
    """What to say of a chart that carries a line which nobody keeps up any longer on the day `today`."""
    software, known = LINES.get(chart, ("", ()))
    carried = line(chart, version)
    if carried is None:
        # Older than the table is older than all of it.
        ends = [one.end for one in known[:1] if one.end is not None and today > one.end]
        return f"carries a {software} older than {known[0].name}, which got its last fixes before {ends[0]}" if ends else None
    if carried.end is None or today <= carried.end:
        return None
    after = known[known.index(carried) + 1 :]
    ahead = "no chart read by this program carries a later one"
    if after:
        until = f" (until {after[0].end})" if after[0].end else ""
        ahead = f"the next line is {after[0].name}{until}, from chart {after[0].begins} on"
    return f"carries {software} {carried.name}, which gets no more fixes since {carried.end}; {ahead}"
