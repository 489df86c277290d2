"""The pages of the tools and of the budget say what the catalogue, the versions, the key lists and the plan say."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import budget, tools


def test_the_page_of_the_tools_is_up_to_date() -> None:
    written = tools.FILE.read_text(encoding="utf-8")
    assert written == tools.page(tools.plans(tools.with_metrics_server)), "write it again: python -m docs.tools"


def test_every_tool_has_a_row_and_every_chart_its_comparison() -> None:
    text = tools.page(tools.plans(tools.with_metrics_server))
    for name, (release, *_) in tools.releases(tools.plans(tools.with_metrics_server)).items():
        assert f"\n| {name} | " in text
        if release.repository:
            (row,) = [line for line in text.splitlines() if line.startswith(f"| {release.chart} {release.version} | 20")][:1]
            assert int(row.split(" | ")[2]) >= int(row.split(" | ")[3]) > 0, row


def test_leaves_are_counted_by_path() -> None:
    assert set(tools.leaves({"a": {"b": 1, "c": {}}, "d": [1]})) == {("a", "b"), ("a", "c"), ("d",)}


def test_a_list_of_keys_says_more_in_further_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/x-1.txt").write_text("# chart: x\n# version: 1\n# source: here\n# nearest: 0.9\n# of all\n# read: 2026-01-01\na scalar\n")
    monkeypatch.setattr(tools, "ROOM", tmp_path)
    assert tools.header("x", "1") == {
        "chart": "x", "version": "1", "source": "here", "read": "2026-01-01", "note": "nearest: 0.9 of all",
    }  # fmt: skip


def test_the_page_of_the_budget_is_up_to_date() -> None:
    written = budget.FILE.read_text(encoding="utf-8")
    assert written == budget.page(tools.plans()), "write it again: python -m docs.budget"


def test_the_page_of_the_budget_has_every_cluster_and_tool() -> None:
    found = tools.plans()
    text = budget.page(found)
    for plan in found:
        for cluster, releases in plan.releases.items():
            section = text[text.index(f": {cluster}\n" if len(plan.releases) > 1 else f"## {cluster}\n") :]
            section = section.partition("\n## ")[0]
            assert [line.split(" | ")[0][2:] for line in section.splitlines() if line.startswith("| ")][1:-4] == [
                release.name for release in releases
            ]
