"""The faults that are done to `pulumi up` and to its state, and the way back from each, as docs/operations.md tells it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chaos.cluster import Cluster
from chaos.faults import Target
from chaos.lab import ChaosError, Lab
from chaos.page import Row, clients, judged, lost
from chaos.watch import watch
from plan.tools.catalogue import NAMES

KILLS = 10
_NOBODY = "nobody was watching: no host is touched"
_CONVERGED = "converges, nothing twice"
_AT_WORK = re.compile(r"^ *[+~-]+ +\S+ (\S+) (creating|updating|deleting|created|updated|deleted)", re.M)


@dataclass(frozen=True, kw_only=True)
class EngineFault:
    """`do` takes the lab, the cluster whose workers get a label, the stack's outputs, chance, and when and where."""

    what: str
    do: Callable[[Lab, Cluster, dict[str, Any], random.Random, str], Row]


# --- ten interrupted runs ---------------------------------------------------------------------------


def killed_up(lab: Lab, cluster: Cluster, outputs: dict[str, Any], chance: random.Random, measured: str) -> Row:
    """A first deployment in a lab of its own, killed ten times on its way."""
    own = Lab(f"{lab.name}-up")
    if own.stands:
        raise ChaosError(f"a lab called {own.name} stands already; end it: OPSTELLA_LAB_NAME={own.name} lab/lab down")
    with tempfile.TemporaryDirectory(prefix="opstella-chaos-") as folder:
        file = Path(folder, "Pulumi.small.yaml")
        file.write_text(yaml.safe_dump(_small()))
        try:
            own("up", "--config-file", str(file), seconds=300)
            kills = _kills(own, Path(folder, "log"), chance)
            own.up()
            faults = [*_twice(Cluster(own, "small"))]
            if not own.unchanged():
                faults.append("`preview --expect-no-changes` finds changes")
            verified = own("verify", check=False, seconds=600).stdout
            counted = f"{verified.count(chr(10) + 'ok ') + verified.startswith('ok ')} checks pass"
            faults += [line for line in verified.splitlines() if line.startswith("FAIL")]
            hosts = len(own.plan["hosts"])
        finally:
            own("down", check=False, seconds=300)
    return Row(
        fault="kill-up",
        done=f"a first `up` (3 masters) killed by `kill -9`, its providers with it, when it had made {'; '.join(kills)}",
        clients=_NOBODY.partition(":")[0],
        recovered=f"`pulumi cancel`, `up` after each; then no change is left, {counted}",
        lost="; ".join(faults) or "nothing; nodes, etcd members, node passwords, certificate authority, Helm records, volumes: each once",
        target=f"{'MISSED' if faults else 'met'}: {_CONVERGED}",
        measured=f"{measured.partition(' GiB')[0]} GiB, a small stack ({hosts} hosts) beside {lab.stack}",
    )  # fmt: skip


def _small() -> dict[str, Any]:
    kept = ("csi-driver-nfs", "cert-manager", "traefik")
    return {
        "config": {
            "opstella:architecture": "custom",
            "opstella:domain": "devops.example.com",
            "opstella:ssh": {"user": "ops", "privateKey": "file:~/.ssh/id_ed25519"},
            "opstella:clusters": {
                "small": {"subnet": "192.168.72.0/24", "masters": {"count": 3}, "workers": {"count": 1}}
            },
            "opstella:tools": {name: {"enabled": False} for name in NAMES if name not in kept},
        }
    }


def _kills(own: Lab, log: Path, chance: random.Random) -> list[str]:
    """Ten moments and what was at work then.

    A moment is a number of resources that stand, and some seconds more: so the ten lie all over the deployment, on a slow
    machine as on a fast one. When it stands before the last of them, changes go on.
    """
    preview = own("pulumi", "preview", "--non-interactive", "--suppress-outputs", seconds=300).stdout
    total = int(re.findall(r"^ +\+ (\d+) to create", preview, re.M)[-1])
    moments = sorted(chance.sample(range(total), KILLS))
    told: list[str] = []
    changes = 0
    with own.settings() as change:
        while len(told) < KILLS:
            # The first resources stand within seconds; nothing is recorded before that.
            moment, more = (0 if changes else moments[len(told)]), chance.uniform(0, 3)
            run = own.start_up(log)
            try:
                _wait_for(lambda: _standing(own) >= moment or run.process.poll() is not None, 900)
                status = run.ends(more)
            finally:
                run.kill()
            if status is None:
                told.append(f"{_standing(own)} of {total} ({at_work(run.text())})")
                own("pulumi", "cancel", "--yes", check=False)
                continue
            if status or changes > KILLS:
                raise ChaosError(f"`up` after {len(told)} kills ended by itself with {status}:\n{run.text()[-2000:]}")
            changes += 1
            change({"opstella:clusters": {"small": {"workers": {"labels": {"opstella.io/chaos": str(changes)}}}}})
    return told


def _standing(own: Lab) -> int:
    """How many resources the state holds."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return len(json.loads(own.state_file.read_text())["checkpoint"]["latest"]["resources"])
    return 0


def at_work(text: str) -> str:
    """What the engine had begun and not ended, from what it printed; the number of those beyond the first."""
    last = dict(_AT_WORK.findall(text))
    begun = [name for name, state in last.items() if state.endswith("ing")]
    if not begun:
        return "between two resources" if last else "before the first resource"
    return begun[0] + (f" and {len(begun) - 1} more" if len(begun) > 1 else "")


def _twice(cluster: Cluster) -> Iterator[str]:
    """What is there more than once, or not once."""
    nodes = len(cluster.masters) + len(cluster.workers)

    def items(what: str) -> list[dict[str, Any]]:
        return json.loads(cluster.kubectl(f"get {what} --output json"))["items"]

    if (found := len(items("nodes"))) != nodes:
        yield f"{found} nodes instead of {nodes}"
    secrets = items("secrets --all-namespaces")
    if (found := sum(s["metadata"]["name"].endswith(".node-password.rke2") for s in secrets)) != nodes:
        yield f"{found} node passwords instead of {nodes}"
    for name, states in helm_records(secrets).items():
        if states["deployed"] != 1 or set(states) - {"deployed", "superseded"}:
            yield f"Helm's records of {name}: {dict(states)}"
    for volume in items("persistentvolumes"):
        if volume["status"]["phase"] != "Bound":
            yield f"volume {volume['metadata']['name']} is {volume['status']['phase']}"
    peers = "curl --silent --max-time 3 http://127.0.0.1:2381/metrics | grep '^etcd_network_active_peers'"
    authorities = set()
    for master in cluster.masters:
        seen = set(re.findall(r'Remote="([^"]+)"', cluster.lab.console(master, peers, check=False)))
        if len(seen) != len(cluster.masters) - 1:
            yield f"{master} knows {len(seen)} other members of etcd instead of {len(cluster.masters) - 1}"
        certificate = cluster.lab.console(master, "cat /var/lib/rancher/rke2/server/tls/server-ca.crt")
        authorities.add(hashlib.sha256(certificate.encode()).hexdigest())
    if len(authorities) != 1:
        yield f"{len(authorities)} certificate authorities in one cluster"


def helm_records(secrets: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Release to how many of its records are in which state."""
    found: dict[str, Counter[str]] = {}
    for secret in secrets:
        labels = secret["metadata"].get("labels", {})
        if labels.get("owner") == "helm":
            found.setdefault(labels["name"], Counter())[labels["status"]] += 1
    return found


# --- the bastion --------------------------------------------------------------------------------------

_AWAY_SECONDS = 30


def bastion_away(lab: Lab, cluster: Cluster, outputs: dict[str, Any], chance: random.Random, measured: str) -> Row:
    bastion = next(h["name"] for h in lab.plan["hosts"] if h["role"] == "bastion")
    with (
        _labelled(lab, cluster, "bastion-away"),
        watch(cluster, outputs) as seen,
        tempfile.TemporaryDirectory() as folder,
    ):
        began = time.monotonic()
        run = lab.start_up(Path(folder, "log"))
        try:
            _wait_for(lambda: "updating" in run.text() or run.process.poll() is not None, 120)
            with lab.off(bastion):
                time.sleep(_AWAY_SECONDS)
            status = run.ends(900)
        finally:
            run.kill()
        took = time.monotonic() - began
        recovered = f"the same `up` went on and succeeded after {took:.0f} s"
        if status != 0:
            recovered = f"that `up` failed after {took:.0f} s; the next one succeeded"
            if status is None:
                lab("pulumi", "cancel", "--yes", check=False)
            lab.up()
        told = [seen.end(began, time.monotonic())]
        clean = lab.unchanged()
    return Row(
        fault="bastion-away", done=f"{bastion} without power and silent for {_AWAY_SECONDS} s in the middle of `up`",
        clients=clients(told), recovered=f"{recovered}; {_nothing_left(clean)}", lost=lost(told),
        target=judged(Target.REACHABLE, told) if clean else f"MISSED: {_CONVERGED}", measured=measured,
    )  # fmt: skip


# --- the state ----------------------------------------------------------------------------------------


def state_locked(lab: Lab, cluster: Cluster, outputs: dict[str, Any], chance: random.Random, measured: str) -> Row:
    locks = lab.folder / "state/.pulumi/locks"
    with _labelled(lab, cluster, "state-locked"), tempfile.TemporaryDirectory() as folder:
        run = lab.start_up(Path(folder, "log"))
        try:
            _wait_for(lambda: any(locks.rglob("*.json")) or run.process.poll() is not None, 120)
            time.sleep(chance.uniform(0, 3))
        finally:
            run.kill()
        refused = lab.up(check=False)
        said = refused.stdout + refused.stderr
        clear = refused.returncode != 0 and "locked" in said and "pulumi cancel" in said
        lab("pulumi", "cancel", "--yes")
        lab.up()
        clean = lab.unchanged()
    message = next((line.strip() for line in said.splitlines() if "locked" in line), said.strip()[-200:])
    return Row(
        fault="state-locked", done="`kill -9` of `up`; its lock stays",
        clients=_NOBODY, recovered=f"the next `up` says: `{message.replace(chr(96), '')[:160]}`; `pulumi cancel --yes`, `up`; {_nothing_left(clean)}",
        lost="nothing", target=f"{'met' if clean and clear else 'MISSED'}: a clear way back", measured=measured,
    )  # fmt: skip


def state_truncated(lab: Lab, cluster: Cluster, outputs: dict[str, Any], chance: random.Random, measured: str) -> Row:
    state = lab.state_file
    with tempfile.TemporaryDirectory(prefix="opstella-chaos-") as folder:
        kept = shutil.copy2(state, folder)
        try:
            size = state.stat().st_size
            with open(state, "r+b") as stream:
                stream.truncate(chance.randrange(1, size))
            cut = state.stat().st_size
            refused = lab.up(check=False)
            said = (refused.stdout + refused.stderr).strip()
            message = next((line.strip() for line in said.splitlines() if line.startswith("error:")), said[-200:])
            history = lab.folder / f"state/.pulumi/history/opstella/{lab.stack}"
            newest = max(history.glob("*.checkpoint.json"), key=lambda path: path.stat().st_mtime)
            told = []
            for source, name in (
                (Path(f"{state}.bak"), "the .bak beside it"),
                (newest, "the newest checkpoint of its history"),
            ):
                shutil.copyfile(source, state)
                clean = lab.unchanged()
                told.append(f"{name} copied over it: {_nothing_left(clean)}")
                if not clean:
                    lab.up()
                    told[-1] += ", `up` made it good" if lab.unchanged() else ""
        except BaseException:
            shutil.copy2(kept, state)
            raise
    back = refused.returncode != 0 and all("no change" in one or "made it good" in one for one in told)
    return Row(
        fault="state-truncated", done=f"the state file cut from {size} to {cut} bytes", clients=_NOBODY,
        recovered=f"`up` says: `{message[:160]}`; {'; '.join(told)}",
        lost="nothing", target=f"{'met' if back else 'MISSED'}: a clear way back", measured=measured,
    )  # fmt: skip


# --- helpers ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _labelled(lab: Lab, cluster: Cluster, word: str) -> Iterator[None]:
    """Settings by which `up` has something to change on every worker of `cluster`; taken back, and deployed, at the end."""
    try:
        with lab.settings() as change:
            change({"opstella:clusters": {cluster.name: {"workers": {"labels": {"opstella.io/chaos": word}}}}})
            yield
    finally:
        lab("pulumi", "cancel", "--yes", check=False)
        lab.up()


def _nothing_left(clean: bool) -> str:
    return "no change is left" if clean else "CHANGES ARE LEFT"


def _wait_for(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)


FAULTS = {
    "kill-up": EngineFault(what=f"`pulumi up` is killed at {KILLS} random moments ({_CONVERGED})", do=killed_up),
    "bastion-away": EngineFault(what="the bastion is away during `pulumi up`", do=bastion_away),
    "state-locked": EngineFault(what="the state stays locked (a clear way back)", do=state_locked),
    "state-truncated": EngineFault(what="the state file is cut off (a clear way back)", do=state_truncated),
}
