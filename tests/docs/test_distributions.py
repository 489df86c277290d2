"""The page about systems and phases says no more than there are files that run them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import distributions
from docs.distributions import PROOFS, ROOT, SYSTEMS, WAYS


def test_the_page_is_what_the_module_says() -> None:
    assert distributions.FILE.read_text(encoding="utf-8") == distributions.page(), "write it again: python -m docs.distributions"


def test_every_phase_has_its_row_and_every_cell_a_known_system() -> None:
    assert set(PROOFS) == {path.stem for path in (ROOT / "scripts").glob("*.sh")} - {"lib"}
    assert {system for cells in PROOFS.values() for system in cells} <= set(SYSTEMS)


def test_every_cell_names_a_file_that_runs_the_phase() -> None:
    for phase, cells in PROOFS.items():
        for system, proofs in cells.items():
            for proof in proofs:
                text = "".join(p.read_text(errors="ignore") for p in files(ROOT / proof.file))
                assert proof.way in WAYS and re.search(rf"[\"'/]{phase}[\"'.]|\b{phase}\b", text), (phase, system, proof.file)


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]


def test_virtual_machines_are_named_where_their_last_run_ended_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        "| debian-12 | prepare | nfs | 12 changed | unchanged | unchanged | 9 / 3 / 3 |",
        "| debian-12 | prepare | bastion | 9 changed | failed |  | 9 / 3 / – |",
        "| debian-12 | nfs | nfs | failed |  |  | 9 / – / – |",
        "| debian-13 | confirm | nfs | 2 changed | unchanged | unchanged | 9 / 3 / 3 |",
    ]
    monkeypatch.setattr(distributions, "KERNEL", tmp_path)
    assert distributions.kernel_runs() == {} and "machine (" not in distributions.page()
    (tmp_path / "debian-12.md").write_text("\n".join(rows[:3]))
    (tmp_path / "debian-13.md").write_text(rows[3])
    assert distributions.kernel_runs() == {
        ("Debian 12", "prepare"): ("first run",),
        ("Debian 13", "confirm"): ("first run", "second run", "after a reboot"),
    }
    text = distributions.page()
    assert "machine (first run): `lab/kernel/phases.py`" in text
    assert "machine (first run, second run, after a reboot): `lab/kernel/phases.py`" in text
    assert "the kernel's server" not in text, "the server's run failed"


def test_what_virtual_machines_may_run_are_the_systems_of_the_lab() -> None:
    systems = (ROOT / "lab/kernel/__main__.py").read_text()
    named = {s for cells in PROOFS.values() for s, proofs in cells.items() if any(p.way == distributions.MACHINE for p in proofs)}
    assert named == {"Debian 12", "Debian 13"} and '("debian-12", "debian-13")' in systems
