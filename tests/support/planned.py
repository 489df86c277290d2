"""Plans for tests, each made once for the same settings: tests only read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from config.model import Settings
from plan.plan import Plan, build

Read = Callable[[str, dict[str, Any]], Settings]


def planned(read: Read, architecture: str, written: Mapping[str, Any]) -> Plan:
    """The plan of `read(architecture, written)`, as the stack of the architecture's name."""
    text = json.dumps(written, default=str)
    # A file may hold something else the next time.
    if "file:" in text:
        return _plan(read(architecture, dict(written)), architecture)
    return _kept(read, architecture, text)


@lru_cache(maxsize=128)
def _kept(read: Read, architecture: str, text: str) -> Plan:
    return _plan(read(architecture, json.loads(text)), architecture)


def _plan(settings: Settings, architecture: str) -> Plan:
    return build(settings, f"opstella/{architecture}")
