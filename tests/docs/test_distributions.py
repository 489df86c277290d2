"""The page about systems and phases says no more than there are files that run them."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_what_virtual_machines_run_are_the_systems_that_the_page_names() -> None:
    systems = (ROOT / "lab/kernel/__main__.py").read_text()
    named = {s for cells in PROOFS.values() for s, proofs in cells.items() if any(p.way == distributions.MACHINE for p in proofs)}
    assert named == {"Debian 12", "Debian 13"} and '("debian-12", "debian-13")' in systems
