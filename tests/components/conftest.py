from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request: pytest.FixtureRequest) -> bool:
    """Each test that takes it runs in an update and in a preview, where no output of a new resource is known."""
    return bool(request.param)
