"""What a deployment costs in the lab: the first `up`, one without a change, one with one worker or one tool changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from bench.engine import ROOT, EngineFailed
from config.load import from_stack_file
from plan.plan import build
from plan.tools.waves import critical_path, waves

_LAB = ROOT / "lab/lab"
_STACK = "standalone"
# A lab of its own, so that one that stands is left alone.
_ENVIRONMENT = {**os.environ, "OPSTELLA_LAB_NAME": "bench", "STACK": _STACK}
_ENVIRONMENT.pop("OPSTELLA_LAB", None)
_FOLDER = Path("/var/lib/bench-lab")
_STEP = re.compile(r"^ *[+~-]+ +\S+:\S+ (\S+) (?:created|updated|deleted|replaced)\b", re.M)
_MOST_NAMES = 6
_TOOK = re.compile(r"^ *[+~]+ +kubernetes:helm\.sh/v3:Release (\S+) (?:created|updated) \((?:(\d+)m)?([\d.]+)s\)", re.M)


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured. The lab goes when they end, however they end."""
    try:
        start = time.monotonic()
        _lab("up", "--config-file", f"Pulumi.{_STACK}.yaml")
        hosts = _hosts()
        yield f"lab of {len(hosts)} hosts, from nothing to SSH          {time.monotonic() - start:6.1f} s"
        file = _FOLDER / f"Pulumi.{_STACK}.yaml"
        line, output = _up("first up, bare hosts to tools", hosts)
        yield line
        yield from _waves(file, output)
        yield _up("up again, nothing changed", hosts)[0]
        document = yaml.safe_load(file.read_text())
        cluster = document["config"]["opstella:clusters"].setdefault(_STACK, {})
        cluster.setdefault("workers", {})["nodeLabels"] = {"worker-1": {"opstella.io/bench": "changed"}}
        file.write_text(yaml.safe_dump(document))
        yield _up("up, one worker given a label", hosts)[0]
        tool = document["config"].setdefault("opstella:tools", {}).setdefault("argo-cd", {})
        tool["values"] = {"configs": {"params": {"server.log.level": "debug"}}}
        file.write_text(yaml.safe_dump(document))
        yield _up("up, one value of one tool changed", hosts)[0]
    finally:
        subprocess.run([_LAB, "down"], env=_ENVIRONMENT, cwd=ROOT, capture_output=True, timeout=300)


def _waves(file: Path, output: str) -> Iterator[str]:
    """The waves of tools, and the chain of needs that took longest, by the seconds that the engine printed."""
    for cluster, releases in build(from_stack_file(file), f"opstella/{_STACK}").releases.items():
        took = dict.fromkeys((r.name for r in releases), 0.0)
        for name, minutes, seconds in _TOOK.findall(output):
            tool = name.removeprefix(f"{cluster}-tools-")
            if tool in took:
                took[tool] = 60 * float(minutes or 0) + float(seconds)
        for number, wave in enumerate(waves(releases), 1):
            yield f"  wave {number}: {', '.join(wave)}"
        path = critical_path(releases, took)
        yield f"  critical path: {' > '.join(f'{name} {took[name]:.0f} s' for name in path)}; {sum(took[n] for n in path):.0f} s of {sum(took.values()):.0f}"


def _up(what: str, hosts: list[str]) -> tuple[str, str]:
    """The line of figures of a run, and what it printed."""
    before = _connections(hosts)
    start = time.monotonic()
    output = _lab("pulumi", "up", "--yes", "--skip-preview", "--non-interactive", "--suppress-outputs")
    seconds = time.monotonic() - start
    counted = _connections(hosts) - before
    touched = ", ".join(re.findall(r"^ +[+~-]+ (\d+ \w+)", output.partition("\nResources:")[2], re.M)) or "none touched"
    # A run that makes everything would name hundreds.
    names = sorted(set(_STEP.findall(output)))
    named = f" ({', '.join(names)})" if 0 < len(names) <= _MOST_NAMES else ""
    return f"{what:<42} {seconds:6.1f} s   {counted:4} SSH connections   resources: {touched}{named}", output


def _connections(hosts: list[str]) -> int:
    """What every host's sshd has written down: sessions, and key scans that end before one."""
    total = 0
    for host in hosts:
        journal = _lab("exec", host, "--", "journalctl", "--no-pager", "--quiet", "--output=cat", "--unit=ssh")
        total += len(re.findall(r"^(?:Accepted publickey|Connection closed by .* port \d+(?: \[preauth\])?$)", journal, re.M))
    return total


def _hosts() -> list[str]:
    plan = subprocess.run(
        [os.fspath(ROOT / "venv/bin/python"), "-m", "plan", "--config-file", str(_FOLDER / f"Pulumi.{_STACK}.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [host["name"] for host in json.loads(plan.stdout)["hosts"]]


def _lab(*arguments: str) -> str:
    done = subprocess.run([_LAB, *arguments], env=_ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise EngineFailed(f"lab/lab {' '.join(arguments)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
