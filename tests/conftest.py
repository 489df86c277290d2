"""What every test starts from."""

from __future__ import annotations

import asyncio
import warnings

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Gives the thread an event loop, as the engine's program has: `asyncio.run` of another test takes it away, and
    an Output cannot be made without one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())
