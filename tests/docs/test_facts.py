"""Pages against the code they speak of: counts, components, and the table of the phases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import facts
from tests.support.platform import reference
from tests.support.sent import sent

ROOT = Path(__file__).parents[2]
PHASES = ROOT / "scripts/README.md"
_NAMES = re.compile(r"^\s*(require|require_text|optional)\s+(.+)$", re.MULTILINE)


@pytest.mark.toolchain  # records four clusters
def test_counts_are_those_of_the_program() -> None:
    counts = {architecture: facts.resources(architecture) for architecture in ("standalone", "multicluster")}
    for page in {page for page, _, _ in facts.PLACES}:
        assert (ROOT / page).read_text(encoding="utf-8") == facts.with_counts(page, counts), (
            f"{page} is behind the program; write its counts again: python -m docs.facts"
        )


def test_every_component_is_in_the_table_of_the_architecture() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "components").glob("*.py"))
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r'super\(\).__init__\("(opstella:\w+:\w+)"', code))
    assert len(kinds) >= 9
    named = {kind for kind in kinds if f"`{kind}`" in page or f"`{kind.rsplit(':', 1)[1]}`" in page}
    assert named == kinds


def read_by(phase: str) -> set[str]:
    """The values that the script of `phase` declares, or what a defaulted list of them names."""
    text = (ROOT / f"scripts/{phase}.sh").read_text(encoding="utf-8")
    found: set[str] = set()
    for kind, line in _NAMES.findall(text):
        # `optional NAME DEFAULT`: only the first word is a name. Numbered values are those of a list that has its own name.
        found.update(line.split()[:1] if kind == "optional" else [w for w in line.split() if "$" not in w])
    return found


@pytest.mark.parametrize("phase", sorted(f.stem for f in (ROOT / "scripts").glob("*.sh") if f.stem != "lib"))
def test_the_table_of_the_phases_names_every_value(phase: str) -> None:
    rows = [row for row in PHASES.read_text(encoding="utf-8").splitlines() if row.startswith(f"| `{phase}`")]
    assert len(rows) == 1, f"scripts/README.md has no row for {phase}"
    spans = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"`([^`]+)`", rows[0]))))
    assert read_by(phase) <= spans, f"scripts/README.md, row {phase}: {sorted(read_by(phase) - spans)} missing"


@pytest.mark.toolchain  # records four clusters
def test_no_value_is_sent_that_its_phase_does_not_read() -> None:
    unread: set[tuple[str, str]] = set()
    for command in reference("multicluster").of_type("command:remote:Command"):
        what = sent(command)
        for name in what.values:
            # A name may be put together: `manifest_$n`, `package_url$kind`.
            stem = re.sub(r"_(\d+|rpm)$", "", name)
            reads = rf"V\[\"?{name}\"?\]|\blist {name}\b|\b{stem}_?\$"
            if not re.search(reads, what.program):
                unread.add((what.phase, name))
    assert unread == set()
