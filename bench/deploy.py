"""What a deployment costs in the lab: the first `up`, one without a change, one with one worker or one tool changed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.engine import ROOT
from bench.lab import BenchLab
from plan.stack_file import of_stack_file
from plan.tools.waves import critical_path, waves

_STACK = "standalone"
_STEP = re.compile(r"^ *[+~-]+ +\S+:\S+ (\S+) (?:created|updated|deleted|replaced)\b", re.M)
_MOST_NAMES = 6
_TOOK = re.compile(r"^ *[+~]+ +kubernetes:helm\.sh/v3:Release (\S+) (?:created|updated) \((?:(\d+)m)?([\d.]+)s\)", re.M)


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured. The lab goes when they end, however they end."""
    lab = BenchLab(_STACK)
    try:
        start = time.monotonic()
        lab.start(ROOT / f"Pulumi.{_STACK}.yaml")
        file = lab.file
        hosts = [host.name for host in of_stack_file(file).topology.hosts]
        yield f"lab of {len(hosts)} hosts, from nothing to SSH          {time.monotonic() - start:6.1f} s"
        line, output = _up(lab, "first up, bare hosts to tools", hosts)
        yield line
        yield from _waves(file, output)
        state = lab.command("pulumi", "stack", "export")
        resources = len(json.loads(state)["deployment"]["resources"])
        yield f"state after it: {len(state) / 1024:.0f} KiB, {resources} resources, {len(state) / 1024 / resources:.1f} KiB each"
        yield _up(lab, "up again, nothing changed", hosts)[0]
        document = yaml.safe_load(file.read_text())
        cluster = document["config"]["opstella:clusters"].setdefault(_STACK, {})
        cluster.setdefault("workers", {})["nodeLabels"] = {"worker-1": {"opstella.io/bench": "changed"}}
        file.write_text(yaml.safe_dump(document))
        yield _up(lab, "up, one worker given a label", hosts)[0]
        tool = document["config"].setdefault("opstella:tools", {}).setdefault("argo-cd", {})
        tool["values"] = {"configs": {"params": {"server.log.level": "debug"}}}
        file.write_text(yaml.safe_dump(document))
        yield _up(lab, "up, one value of one tool changed", hosts)[0]
    finally:
        lab.down()


def _waves(file: Path, output: str) -> Iterator[str]:
    """The waves of tools, and the chain of needs that took longest, by the seconds that the engine printed."""
    for cluster, releases in of_stack_file(file).releases.items():
        took = dict.fromkeys((r.name for r in releases), 0.0)
        for name, minutes, seconds in _TOOK.findall(output):
            tool = name.removeprefix(f"{cluster}-tools-")
            if tool in took:
                took[tool] = 60 * float(minutes or 0) + float(seconds)
        for number, wave in enumerate(waves(releases), 1):
            yield f"  wave {number}: {', '.join(wave)}"
        path = critical_path(releases, took)
        yield f"  critical path: {' > '.join(f'{name} {took[name]:.0f} s' for name in path)}; {sum(took[n] for n in path):.0f} s of {sum(took.values()):.0f}"


def _up(lab: BenchLab, what: str, hosts: list[str]) -> tuple[str, str]:
    """The line of figures of a run, and what it printed."""
    before = lab.connections(hosts)
    run = lab.up()
    output = run.output
    counted = lab.connections(hosts) - before
    touched = ", ".join(re.findall(r"^ +[+~-]+ (\d+ \w+)", output.partition("\nResources:")[2], re.M)) or "none touched"
    # A run that makes everything would name hundreds.
    names = sorted(set(_STEP.findall(output)))
    named = f" ({', '.join(names)})" if 0 < len(names) <= _MOST_NAMES else ""
    return f"{what:<42} {run.seconds:6.1f} s   {counted:4} SSH connections   resources: {touched}{named}", output
