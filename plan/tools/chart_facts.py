"""What the real charts render with the values of this plan, as facts: charts/NAME-VERSION.yaml beside this file.

They are written by `python -m lab.charts.facts` from the real charts, and hold no text of theirs. The plan reads from
them what pods cannot start without, and which images they are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "charts"
WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet")
Facts = Mapping[str, Any]


@cache
def renderings(chart: str, version: str) -> tuple[Facts, ...]:
    """The facts of each shape of `chart`; none for another version than the pinned one, or a chart of this project."""
    return tuple(_read(chart, version).get("renderings", ()))


@cache
def image_pins(chart: str, version: str) -> Mapping[str, Mapping[str, str]]:
    """By which values keys the chart takes the digests of its images: image as it is rendered, to keys and their form
    (`plan.images.Form`). An image that is not in there is pulled by its tag."""
    return _read(chart, version).get("pins", {})


def were_tried(chart: str, version: str) -> bool:
    """Whether it is known which images of the chart take a digest, and which do not."""
    return "pins" in _read(chart, version)


@cache
def _read(chart: str, version: str) -> Facts:
    file = FOLDER / f"{chart}-{version}.yaml"
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER) if file.exists() else {}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def references(rendering: Facts) -> frozenset[tuple[str, str]]:
    """(kind, name) of what pods of `rendering` do not start without, and the chart itself does not make."""
    own = {f"{kind}/{name}" for kind, names in rendering.get("made", {}).items() for name in names}
    named = {reference for pod in rendering.get("pods", {}).values() for reference in pod.get("references", ())}
    return frozenset((kind, name) for kind, _, name in (one.partition("/") for one in named - own))


@cache
def mounted(chart: str, version: str) -> frozenset[tuple[str, str]]:
    """The references of every shape of `chart`."""
    return frozenset(one for rendering in renderings(chart, version) for one in references(rendering))
