"""Versions that a user pins past their vendors' end are warned of, by the day that the plan is given."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from plan import lines
from plan.plan import build
from tests.plan.stacks import read

TODAY = date(2026, 12, 1)


def warned(today: date | None = TODAY, **sections: Any) -> list[str]:
    every = build(read("standalone", **sections), "opstella/test", today).warnings
    return [w for w in every if w.startswith(("kubernetes.version", "gitlab.version", "tools.", "versions:"))]


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
    assert lines.gitlab_end(*line) == end


def test_gitlab_past_its_end() -> None:
    [warning] = warned(gitlab={"version": "19.1.4"})
    assert warning.startswith("gitlab.version: GitLab 19.1 gets no more security fixes since 2026-09-17")
    assert warned(gitlab={"version": "19.4.0"}) == []


def test_a_chart_of_an_older_line() -> None:
    [warning] = warned(tools={"traefik": {"version": "39.0.2"}})
    assert warning.startswith("tools.traefik.version: the chart 39.0.2 is older than 41.3.0")
    assert warned(tools={"traefik": {"version": "41.3.1"}}) == []


def test_what_the_program_chose_itself_is_not_exempt() -> None:
    assert warned() == []
    assert any(w.startswith("versions: postgresql 18") for w in warned(date(2031, 1, 1)))
