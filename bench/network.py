"""What the network contract costs as a fleet grows: time, memory, and the size of what each machine is given.

Each size is planned in a process of its own, which is this module as a program. Its baselines are of the same process: what
it holds with everything imported and nothing planned, and the same plan without flows, openings and rulesets.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from bench.engine import ROOT, exponent
from config.load import from_values
from config.pem import ENCRYPTED
from config.reference import ARCHITECTURES
from plan import network, nftables
from plan.contract.flow import flows
from plan.plan import build

_MACHINES = (36, 360, 1000)
_PROFILES = ("opstella", "tectonic", "deckhouse", "rke2-cilium")
_REPEATS = 3
_SECONDS = 600
_STAGES = ("settings", "plan", "flows", "openings", "rulesets")
_ELEMENTS = re.compile(r"elements = \{ ([^}]*) \}")

Answer = TypeVar("Answer")


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured."""
    for what, more in (("", {}), (", egress enforced", {"egress": True}), (", no two addresses adjacent", {"scattered": True})):
        whole, beyond = [], []
        for count in _MACHINES:
            found = _median(count, **more)
            whole.append(found["all"])
            beyond.append(sum(found[stage] for stage in _STAGES[2:]))
            yield from _lines(f"{count:5} machines{what}", found)
        yield (
            f"      growth, least squares over {_MACHINES}: exponent {exponent(_MACHINES, whole):.2f} of the whole time, "
            f"{exponent(_MACHINES, beyond):.2f} of {', '.join(_STAGES[2:])} (target: at most 1.2); {_MACHINES[-1]} machines "
            f"in {whole[-1]:.2f} s (target: less than 5)"
        )
    for profile in _PROFILES[1:]:
        yield from _lines(f"{_MACHINES[-1]:5} machines, {profile}", _median(_MACHINES[-1], profile=profile))


def _lines(what: str, found: dict[str, Any]) -> Iterator[str]:
    stages = ", ".join(f"{stage} {found[stage]:.2f}" for stage in _STAGES)
    yield (
        f"{what:<39}{found['all']:5.2f} s: {stages}   memory {found['mib']:3.0f} MiB, of which {found['empty_mib']:.0f} before "
        "anything was planned"
    )
    sizes = (f"{role} {size / 1024:.1f} KiB with {elements}" for role, (size, elements) in found["rulesets_of"].items())
    yield f"      largest rulesets, with elements of sets: {', '.join(sizes)}"


def _median(count: int, **case: Any) -> dict[str, Any]:
    runs = [_planned({"count": count, **case}) for _ in range(_REPEATS)]
    middle = statistics.median(run["all"] for run in runs)
    return next(run for run in runs if run["all"] == middle)


def _planned(case: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.network"]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(case), stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True
    )
    return json.loads(done.stdout)


def _settings(count: int, profile: str = "opstella", egress: bool = False, scattered: bool = False) -> dict[str, Any]:
    """The four clusters with as many workers more as make `count` machines, shared out evenly; `scattered`: every other
    address of a network, so that no two make one."""
    reference = ARCHITECTURES["multicluster"]["clusters"]
    more, rest = divmod(count - _MACHINES[0], len(reference))
    clusters: dict[str, Any] = {}
    for number, (name, cluster) in enumerate(reference.items()):
        workers = cluster["workers"]["count"] + more + (number < rest)
        clusters[name] = {
            "subnet": f"10.{number}.0.0/20",
            "podSubnet": f"10.{128 + 8 * number}.0.0/13",
            "serviceSubnet": f"10.{96 + number}.0.0/16",
            "workers": {"count": workers},
        }
        if scattered:
            addresses = [f"10.{number}.{n // 256}.{n % 256}" for n in islice(range(256, 4096, 2), workers)]
            clusters[name]["workers"]["addresses"] = addresses
    return {
        "architecture": "multicluster", "domain": "devops.example.com", "ssh": {"privateKey": ENCRYPTED},
        "clusters": clusters, "network": {"profile": profile, "egress": {"enforce": egress}},
    }  # fmt: skip


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """Seconds by stage, MiB at most, and of each role the largest ruleset's bytes and elements of sets."""
    empty, seconds = _mib(), {}

    def timed(stage: str, work: Callable[[], Answer]) -> Answer:
        begin = time.perf_counter()
        answer = work()
        seconds[stage] = time.perf_counter() - begin
        return answer

    values = _settings(**case)
    settings = timed("settings", lambda: from_values(values, "bench"))
    plan = timed("plan", lambda: build(settings, "opstella/bench"))
    hosts = plan.topology.hosts
    assert len(hosts) == case["count"]
    timed("flows", lambda: flows(plan.contract))
    timed("openings", lambda: [network.openings(host, plan.contract) for host in hosts])
    rulesets = timed("rulesets", lambda: [nftables.ruleset(host, plan.contract) for host in hosts])
    largest: dict[str, str] = {}
    for host, text in zip(hosts, rulesets, strict=True):
        largest[host.role] = max(largest.get(host.role, ""), text, key=len)
    sizes = {role: (len(text.encode()), sum(s.count(",") + 1 for s in _ELEMENTS.findall(text))) for role, text in largest.items()}
    return {**seconds, "all": sum(seconds.values()), "mib": _mib(), "empty_mib": empty, "rulesets_of": sizes}


def _mib() -> float:
    """The most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(json.dumps(measured(json.load(sys.stdin))))
