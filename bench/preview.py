"""What a preview costs: beside an empty program with the same imports, and as the number of workers grows."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.engine import ROOT, exponent, run, without_tools
from bench.profile import Profile
from config.reference import ARCHITECTURES

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
_PROGRAM = ("Pulumi.yaml", "__main__.py", "charts", "components", "config", "plan", "provision", "scripts", "stacks")
_REPEATS = 3
"""The median of so many counts, after one that warms the caches; of the largest, which takes minutes, one."""
_TO_CREATE = re.compile(r"^ *\+ (\d+) to create$", re.M)
_WORKERS = (10, 100, 1000)
_MACHINES = (36, 360, 1000)
# What stands before everything else: storage, certificates, ingress, databases, login, deployments.
_BASE = ("csi-driver-nfs", "cert-manager", "traefik", "cloudnative-pg", "keycloak", "argo-cd")
_ONLY_BASE = without_tools(keep=_BASE)


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured."""
    with tempfile.TemporaryDirectory(prefix="opstella-bench-") as name:
        folder = Path(name)
        environment = {"PULUMI_BACKEND_URL": f"file://{folder}/state", "PULUMI_CONFIG_PASSPHRASE": "bench"}
        (folder / "state").mkdir()
        empty = _median(_project(folder / "empty", _EMPTY), environment, "empty")
        yield f"empty program, same imports   preview {empty.seconds:6.2f} s   program {empty.program_mib:5.0f} MiB"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)

        def preview(
            name: str, settings: dict[str, Any], architecture: str = "standalone", repeats: int = _REPEATS
        ) -> Profile:
            project = _copy(folder, name, architecture, settings)
            return _median(project, environment, name, repeats)

        for what, found in (
            ("standalone, base tools only ", preview("base", _ONLY_BASE)),
            ("standalone, all tools       ", preview("all", {})),
            ("multicluster, all tools     ", preview("multicluster", {}, "multicluster")),
        ):
            yield (
                f"{what}  {_resources(found):4} resources   preview {found.seconds:6.2f} s   program {found.program_mib:5.0f} MiB"
                f"   {found.seconds / empty.seconds:.2f} times the empty program (target: at most 3)"
            )
        for what, counts, settings, architecture in (
            ("workers of standalone", _WORKERS, _with_workers, "standalone"),
            ("machines of multicluster", _MACHINES, _with_machines, "multicluster"),
        ):
            times = []
            for count in counts:
                repeats = 1 if count == counts[-1] else _REPEATS
                grown = preview(f"{architecture}-{count}", settings(count), architecture, repeats)
                times.append(grown.seconds)
                yield (
                    f"{count:5} {what:<26} {_resources(grown):5} resources   preview {grown.seconds:6.2f} s"
                    f"   program {grown.program_mib:5.0f} MiB"
                    f"   all processes {grown.processes_mib:5.0f} MiB"
                )
            yield (
                f"growth, least squares over {counts}: exponent {exponent(counts, times):.2f} of the whole time, "
                f"{exponent(counts, [t - empty.seconds for t in times]):.2f} of the time above the empty program "
                "(target: at most 1.1)"
            )


def _resources(run: Profile) -> int:
    """How many a first preview says that it would make."""
    return int(_TO_CREATE.findall(run.output)[0])


def _with_workers(count: int) -> dict[str, Any]:
    """Networks wide enough for all of them; the rest is the reference's."""
    cluster = {"podSubnet": "10.128.0.0/13", "serviceSubnet": "10.96.0.0/16", "workers": {"count": count}}
    return {"opstella:clusters": {"standalone": {"subnet": "192.168.64.0/20", **cluster}}}


def _with_machines(count: int) -> dict[str, Any]:
    """The four clusters with as many workers more as make `count` machines, shared out evenly."""
    reference = ARCHITECTURES["multicluster"]["clusters"]
    more, rest = divmod(count - _MACHINES[0], len(reference))
    return {
        "opstella:clusters": {
            name: {
                "subnet": f"192.168.{64 + 4 * number}.0/22",
                "podSubnet": "10.128.0.0/13",
                "serviceSubnet": "10.96.0.0/16",
                "workers": {"count": cluster["workers"]["count"] + more + (number < rest)},
            }
            for number, (name, cluster) in enumerate(reference.items())
        }
    }


def _project(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: opstella\nruntime: python\n")
    (folder / "__main__.py").write_text(program)
    return folder


def _copy(folder: Path, name: str, architecture: str, settings: dict[str, Any]) -> Path:
    """A project of its own with this checkout's program, so that no stack file is written there: the shipped stack file
    of `architecture`, with `settings` in place of its own."""
    document = yaml.safe_load((ROOT / f"Pulumi.{architecture}.yaml").read_text())
    document.pop("encryptionsalt", None)
    document["config"]["opstella:ssh"]["privateKey"] = f"file:{folder}/key"
    document["config"] |= settings
    project = folder / name
    project.mkdir()
    for part in _PROGRAM:
        (project / part).symlink_to(ROOT / part)
    (project / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump(document))
    return project


def _median(folder: Path, environment: dict[str, str], stack: str, repeats: int = _REPEATS) -> Profile:
    run(["stack", "init", stack], folder=folder, environment=environment)
    arguments = ["preview", "--stack", stack]
    warm_up = repeats > 1
    runs = [run(arguments, folder=folder, environment=environment) for _ in range(repeats + warm_up)][warm_up:]
    middle = statistics.median(r.seconds for r in runs)
    return next(r for r in runs if r.seconds == middle)
