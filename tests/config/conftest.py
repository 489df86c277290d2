from __future__ import annotations

from pathlib import Path

import pytest

from tests.config import material


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for `${name}` in a fixture file."""
    return material.make(tmp_path_factory.mktemp("material"))


@pytest.fixture
def ssh_key(names: dict[str, str]) -> str:
    return Path(names["ssh"]).read_text()
