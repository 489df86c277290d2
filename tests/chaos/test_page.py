"""The table in the documents: rows come and are replaced, targets are judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chaos import engine
from chaos.faults import FAULTS, Target
from chaos.page import Row, clients, judged, lost, rows_of, table, with_rows
from chaos.requests import Figures
from chaos.watch import Seen

ROW = Row(
    fault="b", done="a | b", clients="0 of 5", recovered="by itself", lost="none", target="met: x", measured="today"
)
EMPTY = "# Title\n\n<!-- rows -->\n<!-- end of rows -->\n\nAfter.\n"
PAGE = Path(__file__).resolve().parents[2] / "docs/chaos.md"


def seen(gap: float = 0.1, failed: int = 0, gone: list[int] | None = None, kind: str = "write") -> Seen:
    calm = Figures(asked=100, failed=0, gap=0.1, spread=0, errors={})
    troubled = Figures(asked=50, failed=failed, gap=gap, spread=1.5, errors={"time-out": failed})
    return Seen(
        cluster="one", figures={"read": calm, "ingress": calm, kind: troubled}, acknowledged=40, lost=gone or []
    )


def test_a_row_comes_back_as_it_went_in() -> None:
    page = with_rows(EMPTY, [ROW], ["a", "b"])
    assert rows_of(page) == [ROW]
    assert page.startswith("# Title\n") and page.endswith("\nAfter.\n")


def test_a_fault_measured_again_replaces_its_row_and_no_other() -> None:
    other = replace(ROW, fault="a")
    page = with_rows(with_rows(EMPTY, [ROW, other], ["a", "b"]), [replace(ROW, done="new")], ["a", "b"])
    assert rows_of(page) == [other, replace(ROW, done="new")]
    assert with_rows(page, [], ["a", "b"]) == page


def test_a_row_of_a_fault_that_is_no_more_goes() -> None:
    assert rows_of(with_rows(with_rows(EMPTY, [ROW], ["b"]), [], ["a"])) == []


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        with_rows("# Title\n", [ROW], ["b"])


def test_every_line_of_the_table_has_the_same_cells() -> None:
    lines = table([ROW, ROW]).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {8}


@pytest.mark.parametrize(
    ("target", "what", "kept"),
    [
        (Target.REACHABLE, seen(gap=5.0, failed=9), True),
        (Target.REACHABLE, seen(gap=5.1), False),
        (Target.REACHABLE, seen(gap=9, kind="ingress"), True),
        (Target.REACHABLE, seen(gone=[7]), False),
        (Target.NO_FAILURE, seen(), True),
        (Target.NO_FAILURE, seen(failed=1), False),
        (Target.NO_FAILURE, seen(failed=1, kind="ingress"), False),
        (Target.SINGLE, seen(gap=60, failed=50), True),
        (Target.SINGLE, seen(gone=[7]), False),
    ],
)
def test_targets(target: Target, what: Seen, kept: bool) -> None:
    assert judged(target, [what]).startswith("met: " if kept else "MISSED: ")


def test_one_cluster_that_misses_is_enough() -> None:
    assert judged(Target.REACHABLE, [seen(), seen(gap=6)]).startswith("MISSED")


def test_losses_are_counted_and_named() -> None:
    assert lost([seen(), seen()]) == "none of 80 acknowledged writes"
    assert lost([seen(gone=[3, 9])]) == "of 40 acknowledged writes one: 3, 9"


def test_clients_are_told_of_by_kind_and_by_cluster() -> None:
    text = clients([seen(gap=2.04, failed=3)])
    assert "writes: 3 of 50 failed over 1.5 s (3 time-out), longest gap 2.0 s" in text
    assert "reads: 0 of 100 failed, longest gap 0.1 s" in text and "one: " not in text
    assert clients([seen(), seen()]).count("one: ") == 2


def test_the_page_has_a_row_for_every_fault_that_could_be_made() -> None:
    names = [*(fault.name for fault in FAULTS), *engine.FAULTS]
    assert len(names) == len(set(names))
    rows = rows_of(PAGE.read_text(encoding="utf-8"))
    assert [row.fault for row in rows] == [name for name in names if name in {row.fault for row in rows}]
    assert not [row.fault for row in rows if row.target.startswith("MISSED")]
