"""What a preview costs: beside an empty program with the same imports, and as the number of workers grows."""

from __future__ import annotations

import math
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.engine import ROOT, Run, run
from plan.tools import catalogue

# The same SDKs, with those of their lazily loaded parts that the program uses.
_EMPTY = """\
import pulumi
import pulumi_command.local
import pulumi_command.remote
import pulumi_kubernetes
import pulumi_random
import pulumi_tls
import pydantic
import yaml

pulumi_kubernetes.Provider
pulumi_kubernetes.apiextensions.CustomResource
pulumi_kubernetes.core.v1.Namespace
pulumi_kubernetes.helm.v3.Release
pulumi_kubernetes.meta.v1.ObjectMetaArgs
"""
_REPEATS = 3
"""The median of so many counts, after one that warms the caches; of the largest, which takes minutes, one."""
_WORKERS = (10, 100, 1000)
# What stands before everything else: storage, certificates, ingress, databases, login, deployments.
_BASE = ("csi-driver-nfs", "cert-manager", "traefik", "cloudnative-pg", "keycloak", "argo-cd")
_LEFT_OUT = tuple(name for name in catalogue.NAMES if name not in _BASE)


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured."""
    with tempfile.TemporaryDirectory(prefix="opstella-bench-") as name:
        folder = Path(name)
        environment = {"PULUMI_BACKEND_URL": f"file://{folder}/state", "PULUMI_CONFIG_PASSPHRASE": "bench"}
        (folder / "state").mkdir()
        empty = _median(_project(folder / "empty", _EMPTY), environment, "empty")
        yield f"empty program, same imports   preview {empty.seconds:6.2f} s   program {empty.program_mib:5.0f} MiB"
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        for what, left_out in (("standalone, base tools only ", _LEFT_OUT), ("standalone, all tools       ", ())):
            reference = _preview(folder, environment, key, None, left_out)
            yield (
                f"{what}  preview {reference.seconds:6.2f} s   program {reference.program_mib:5.0f} MiB"
                f"   {reference.seconds / empty.seconds:.2f} times the empty program (target: at most 3)"
            )
        times = []
        for workers in _WORKERS:
            grown = _preview(folder, environment, key, workers)
            times.append(grown.seconds)
            yield (
                f"{workers:5} workers                 preview {grown.seconds:6.2f} s   program {grown.program_mib:5.0f} MiB"
                f"   all processes {grown.processes_mib:5.0f} MiB"
            )
        yield (
            f"growth, least squares over {_WORKERS}: exponent {_exponent(times):.2f} of the whole time, "
            f"{_exponent([t - empty.seconds for t in times]):.2f} of the time above the empty program (target: at most 1.1)"
        )


def _project(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: opstella\nruntime: python\n")
    (folder / "__main__.py").write_text(program)
    return folder


def _preview(
    folder: Path, environment: dict[str, str], key: Path, workers: int | None, left_out: tuple[str, ...] = ()
) -> Run:
    """A preview of this checkout's program: the standalone reference, or another number of workers, or fewer tools."""
    document = yaml.safe_load((ROOT / "Pulumi.standalone.yaml").read_text())
    document.pop("encryptionsalt", None)
    settings = document["config"]
    settings["opstella:ssh"]["privateKey"] = f"file:{key}"
    if workers:
        # Wide enough for all of them; the rest of the settings is the reference's.
        settings["opstella:clusters"] = {
            "standalone": {
                "subnet": "192.168.64.0/20", "podSubnet": "10.128.0.0/13", "serviceSubnet": "10.96.0.0/16",
                "workers": {"count": workers},
            }
        }  # fmt: skip
    if left_out:
        settings["opstella:tools"] = {name: {"enabled": False} for name in left_out}
    stack = f"workers-{workers or 'reference'}{'-base' if left_out else ''}"
    # A project of its own beside the checkout, so that no stack file is written there.
    project = folder / stack
    project.mkdir()
    for part in (
        "Pulumi.yaml",
        "__main__.py",
        "charts",
        "components",
        "config",
        "plan",
        "provision",
        "scripts",
        "stacks",
    ):
        (project / part).symlink_to(ROOT / part)
    (project / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump(document))
    return _median(project, environment, stack, 1 if workers == _WORKERS[-1] else _REPEATS)


def _median(folder: Path, environment: dict[str, str], stack: str, repeats: int = _REPEATS) -> Run:
    run(["stack", "init", stack], folder=folder, environment=environment)
    arguments = ["preview", "--stack", stack]
    warm_up = repeats > 1
    runs = [run(arguments, folder=folder, environment=environment) for _ in range(repeats + warm_up)][warm_up:]
    middle = statistics.median(r.seconds for r in runs)
    return next(r for r in runs if r.seconds == middle)


def _exponent(times: list[float]) -> float:
    """The slope of log(time) over log(workers)."""
    x, y = [math.log(n) for n in _WORKERS], [math.log(t) for t in times]
    return statistics.linear_regression(x, y).slope
