"""The engine, and what else the benchmarks share: artifacts, settings without tools, growth."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bench.profile import EngineFailed, Profile, watch
from plan.tools.catalogue import NAMES

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / "lab/toolchain/pulumi"
WITHOUT_SAVING = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
"""Environment of an `up` that writes no state before its end: what saving costs is the difference."""
_SECONDS = 3600


def run(arguments: list[str], *, folder: Path, environment: Mapping[str, str]) -> Profile:
    """`pulumi ARGUMENTS` in `folder`. Raises EngineFailed."""
    return watch(
        [str(ENGINE), *arguments, "--non-interactive"],
        environment={**os.environ, **environment}, folder=folder, seconds=_SECONDS,
    )  # fmt: skip


def artifact(name: str) -> Path:
    """Folder of a built artifact. Raises EngineFailed."""
    done = subprocess.run([ROOT / "lab/toolchain/build", name], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise EngineFailed(f"the artifact {name} cannot be built\n{done.stderr[-2000:]}")
    return Path(done.stdout.strip())


def without_tools(keep: Collection[str] = ()) -> dict[str, Any]:
    """Settings that switch off every tool but those of `keep`."""
    return {"opstella:tools": {name: {"enabled": False} for name in NAMES if name not in keep}}


def exponent(counts: tuple[int, ...], times: list[float]) -> float:
    """How `times` grow with `counts`: the slope of log(time) over log(count), by least squares."""
    return statistics.linear_regression([math.log(n) for n in counts], [math.log(t) for t in times]).slope
