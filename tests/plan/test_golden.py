"""Rendered files byte by byte against tests/golden; golden.py says how to renew them."""

from __future__ import annotations

import pytest

from tests.plan.golden import FOLDER, rendered

FILES = rendered()


@pytest.mark.parametrize("name", FILES)
def test_file_is_the_golden_one(name: str) -> None:
    assert FILES[name].encode() == (FOLDER / name).read_bytes()


def test_every_golden_file_is_rendered() -> None:
    assert {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.is_file()} == set(FILES)
