"""Versions that a user pins past their vendors' end are warned of, by the day that the plan is given."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from plan import lines, tool_lines, versions
from plan.plan import build
from plan.tool_lines import LINES, line, parts, past_its_end
from plan.version import Chart
from tests.plan.stacks import read

TODAY = date(2026, 12, 1)


def warned(today: date | None = TODAY, **sections: Any) -> list[str]:
    """What is said of versions in the settings."""
    every = build(read("standalone", **sections), "opstella/test", today).warnings
    return [w for w in every if w.startswith(("kubernetes.version", "gitlab.version", "tools."))]


def own(today: date | None = TODAY, **sections: Any) -> list[str]:
    """What is said of the program's own choices, by the software's name."""
    every = build(read("standalone", **sections), "opstella/test", today).warnings
    return [w.split()[1] for w in every if w.startswith("versions:")]


def test_kubernetes_past_its_end_is_named_with_the_day_and_the_next_line() -> None:
    [warning] = warned(kubernetes={"version": "v1.34.8+rke2r1"})
    assert "Kubernetes 1.34, which gets no more fixes since 2026-10-27" in warning
    assert "the next minor version is 1.35 (until 2027-02-28)" in warning


def test_of_a_line_before_the_table_no_day_is_made_up() -> None:
    [warning] = warned(kubernetes={"version": "v1.20.1+rke2r1"})
    assert "Kubernetes 1.20, which got its last fixes before 2025-07-15; the next minor version is 1.21, and" in warning


@pytest.mark.parametrize(
    ("version", "today"),
    [("v1.34.8+rke2r1", date(2026, 10, 27)), ("v1.34.8+rke2r1", None), ("v1.35.9+rke2r1", TODAY), ("v1.99.0+rke2r1", TODAY)],
)
def test_one_that_is_kept_up_is_not(version: str, today: date | None) -> None:
    assert warned(today, kubernetes={"version": version}) == []


def test_one_older_than_the_table_is() -> None:
    [warning] = warned(kubernetes={"version": "v1.21.0+rke2r1"})
    assert warning.startswith("kubernetes.version: v1.21.0+rke2r1")


@pytest.mark.parametrize(
    ("line", "end"),
    # The third minor versions after them: 18.3 and 18.5 in 2025, 19.0 and 19.6 in 2026.
    [((18, 0), date(2025, 8, 21)), ((18, 2), date(2025, 10, 16)), ((18, 9), date(2026, 5, 21)), ((19, 3), date(2026, 11, 19))],
)
def test_gitlab_keeps_up_three_lines(line: tuple[int, int], end: date) -> None:
    assert tool_lines.gitlab_end(*line) == end


def test_gitlab_past_its_end() -> None:
    [warning] = warned(gitlab={"version": "19.1.4"})
    assert warning.startswith("gitlab.version: GitLab 19.1 gets no more security fixes since 2026-09-17")
    assert warned(gitlab={"version": "19.4.0"}) == []


def test_a_chart_of_an_older_line() -> None:
    [warning] = warned(tools={"alloy": {"version": "1.10.0"}})
    assert warning.startswith("tools.alloy.version: the chart 1.10.0 is older than 1.11.1")
    assert warned(tools={"alloy": {"version": "1.11.0"}}) == []


def test_a_chart_past_its_lines_end_is_named_with_the_day_and_the_next_line() -> None:
    [warning] = warned(tools={"argo-cd": {"version": "8.0.17"}})
    assert warning == (
        "tools.argo-cd.version: the chart 8.0.17 carries Argo CD 3.0, which gets no more fixes since 2026-02-02; the next line is "
        "3.1 (until 2026-05-05), from chart 8.3.0 on. This program's own choice is 10.1.1 (v3.4.4)"
    )
    [warning] = warned(tools={"traefik": {"version": "30.0.1"}})
    assert "carries a Traefik older than 3.1, which got its last fixes before 2024-10-28." in warning
    [warning] = warned(tools={"keycloak": {"version": "7.1.10"}})
    assert "Keycloak 26.5, which gets no more fixes since 2026-04-08; no chart read by this program carries a later one" in warning


@pytest.mark.parametrize(
    ("chart", "version", "said"),
    [
        # On the last day, and the day after it.
        ("cert-manager", "v1.19.4", (date(2026, 7, 8), date(2026, 7, 9))),
        ("gitlab-runner", "0.90.1", (date(2026, 9, 17), date(2026, 9, 18))),
        ("grafana", "8.11.4", (date(2026, 6, 25), date(2026, 6, 26))),
        ("cloudnative-pg", "0.28.2", (date(2026, 9, 29), date(2026, 9, 30))),
        ("vault", "0.29.1", (date(2025, 3, 4), date(2025, 3, 5))),
    ],
)
def test_the_last_day_of_a_line(chart: str, version: str, said: tuple[date, date]) -> None:
    assert [past_its_end(chart, version, day) is not None for day in said] == [False, True]


@pytest.mark.parametrize(
    ("chart", "version"), [("argo-cd", "9.4.3"), ("harbor", "1.18.2"), ("loki", "6.30.0"), ("velero", "1.0.0"), ("argo-cd", "99.0.0")]
)
def test_of_a_line_whose_end_is_not_known_nothing_is_said(chart: str, version: str) -> None:
    assert past_its_end(chart, version, date(2099, 1, 1)) is None


@pytest.mark.parametrize("chart", sorted(LINES))
def test_lines_stand_in_order_and_hold_what_the_program_chose(chart: str) -> None:
    begins = [parts(one.begins) for one in LINES[chart][1]]
    assert begins == sorted(set(begins))
    row = next(row for row in versions.CHARTS if row.name == chart)
    carried = line(chart, row.version)
    assert carried is not None and row.end_of_life == carried.end
    # The build of SonarQube is a row of its own.
    software = versions.SONARQUBE_BUILD.version if chart == "sonarqube" else row.app_version
    assert f"{software.removeprefix('v')}.".startswith(f"{carried.name}.")


def test_the_rows_without_a_chart_end_with_their_lines() -> None:
    assert versions.RKE2.end_of_life == lines.KUBERNETES[int(versions.RKE2.version.split(".")[1])]
    major, minor = (int(part) for part in versions.GITLAB.version.split(".")[:2])
    assert versions.GITLAB.end_of_life == tool_lines.gitlab_end(major, minor)
    assert all(row.end_of_life is None for row in versions.CHARTS if isinstance(row, Chart) and row.name not in LINES)


def test_what_the_program_chose_itself_is_not_exempt() -> None:
    assert own(None) == []
    assert own() == ["gitlab", "keycloakx", "gitlab-runner"]
    assert {"rke2", "postgresql"} <= set(own(date(2031, 1, 1)))
    every = build(read("standalone"), "opstella/test", TODAY).warnings
    assert (
        "versions: gitlab 19.3.0, chosen on 2026-11-20, reached its end on 2026-11-19; pin a later version by gitlab.version as soon as "
        "there is one"
    ) in every


def test_what_another_version_takes_the_place_of_is() -> None:
    assert own(gitlab={"version": "19.6.0"}) == ["keycloakx", "gitlab-runner"]
    assert own(tools={"gitlab-runner": {"enabled": False}}) == ["gitlab", "keycloakx"]
    assert own(tools={"gitlab-runner": {"version": "0.95.0"}}) == ["gitlab", "keycloakx"]
    assert "rke2" not in own(date(2031, 1, 1), kubernetes={"version": "v1.99.0+rke2r1"})
