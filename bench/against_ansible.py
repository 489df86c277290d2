"""`pulumi up` beside Ansible: the same hosts prepared and joined from the same media, each from nothing.

Both do machines and clusters, no tools. Ansible gets a Python on every host first, which is not counted. What it runs
stands in bench/ansible/.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.ansible_inventory import Material, inventory
from bench.engine import ROOT, EngineFailed
from bench.lab import BenchLab
from bench.profile import Profile
from config.load import from_stack_file
from plan.plan import Plan, build
from plan.tools.catalogue import NAMES

_PLAYBOOK = ROOT / "bench/ansible/site.yaml"
_TARGETS = {"first": 1 / 2, "unchanged": 1 / 50, "one machine": 1 / 10}
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\] \*+$")
_MOST_TASKS = 5


def figures(stack: str) -> Iterator[str]:
    """Lines of figures, as they are measured. The lab goes when they end, however they end."""
    yield f"{stack}, machines and clusters without tools"
    lab = BenchLab(stack)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"Pulumi.{stack}.yaml")
        file.write_text(yaml.safe_dump(without_tools(ROOT / f"Pulumi.{stack}.yaml")))
        ours: dict[str, float] = {}
        theirs: dict[str, float] = {}
        try:
            lab.start(file)
            yield from _measure("pulumi up", ours, lab, lambda: list(lab.up().lines()))
            yield from _without_checkpoints(lab)
            yield from _login(lab)
            lab.down()
            lab.start(file)
            ansible = _Ansible(lab, Path(folder))
            yield f"{'Python onto every host, for Ansible':<42} {_seconds(ansible.bootstrap):7.1f} s"
            yield from _measure("ansible-playbook", theirs, lab, lambda: list(ansible.play()))
            node = _changed_node(_plan(lab))
            limited = _seconds(lambda: list(ansible.play("--limit", ",".join(node))))
            yield f"{'ansible-playbook --limit to that machine':<42} {limited:7.1f} s"
        finally:
            lab.down()
    for what, target in _TARGETS.items():
        share = ours[what] / theirs[what]
        met = "met" if share <= target else "missed"
        yield f"{what:<42} {share:7.3f} of Ansible's time (target: at most {target:.3f}: {met})"


def _measure(who: str, times: dict[str, float], lab: BenchLab, run: Callable[[], list[str]]) -> Iterator[str]:
    """Three runs, each with its connections and with what `run` tells of where its time went."""

    def measured(what: str, label: str) -> Iterator[str]:
        hosts = [host.name for host in _plan(lab).topology.hosts]
        before = lab.connections(hosts)
        start = time.monotonic()
        profile = run()
        times[what] = time.monotonic() - start
        logins = lab.connections(hosts) - before
        yield f"{who + ', ' + label:<42} {times[what]:7.1f} s   {logins} SSH connections"
        yield from profile

    yield from measured("first", "bare hosts to clusters")
    yield from measured("unchanged", "nothing changed")
    document = yaml.safe_load(lab.file.read_text())
    plan = _plan(lab)
    first = plan.topology.clusters[0]
    cluster = document["config"].setdefault("opstella:clusters", {}).setdefault(first.name, {})
    cluster.setdefault("workers", {})["nodeLabels"] = {first.workers[0].name: {"opstella.io/bench": "changed"}}
    lab.file.write_text(yaml.safe_dump(document))
    yield from measured("one machine", "one worker given a label")


def _without_checkpoints(lab: BenchLab) -> Iterator[str]:
    """What saving the state costs: a run without a change has nothing to lose by leaving it out."""
    off = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
    yield f"{'pulumi up, nothing changed or saved':<42} {lab.up(off).seconds:7.1f} s"


def _login(lab: BenchLab) -> Iterator[str]:
    """One SSH session to a host behind the bastion: two handshakes. The median of five."""
    host = _plan(lab).topology.clusters[0].workers[0].name
    ssh = ("run", "--", "ssh", "-F", f"{lab.folder}/ssh_config", "-o", "ControlMaster=no", host, "true")
    seconds = statistics.median(_seconds(lambda: lab.command(*ssh)) for _ in range(5))
    yield f"{'one SSH session through the bastion':<42} {seconds:7.2f} s"


class _Ansible:
    """Ansible on the lab's hosts; the inventory is made again for every run, as the plan may have changed."""

    def __init__(self, lab: BenchLab, folder: Path) -> None:
        self._lab, self._folder = lab, folder
        self._bin = artifact("ansible") / "bin"
        self._material = _material(_plan(lab), folder)

    def bootstrap(self) -> None:
        self._run("ansible", "all", "--become", "-m", "ansible.builtin.raw", "-a",
                  "apt-get -q update && apt-get -q -y --no-install-recommends install python3 python3-apt")  # fmt: skip

    def play(self, *arguments: str) -> Iterator[str]:
        """Runs the playbook; then who used the processors, and the tasks that took longest."""
        profile = self._run("ansible-playbook", str(_PLAYBOOK), *arguments)
        yield profile.processors()
        begun = [(at, found[1]) for at, line in profile.said if (found := _TASK.match(line))]
        ends = [*(at for at, _ in begun[1:]), profile.seconds]
        took = sorted(((end - at, task) for (at, task), end in zip(begun, ends, strict=True)), reverse=True)
        yield f"  {len(took)} tasks, one after the other; the longest:"
        for seconds, task in took[:_MOST_TASKS]:
            yield f"  {task:<40} {seconds:7.1f} s"

    def _run(self, *command: str) -> Profile:
        hosts = self._folder / "inventory.json"
        ssh_config = str(self._lab.folder / "ssh_config")
        with os.fdopen(os.open(hosts, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(inventory(_plan(self._lab), self._material, ssh_config), file)
        environment = {
            "ANSIBLE_CONFIG": str(_PLAYBOOK.with_name("ansible.cfg")),
            "ANSIBLE_HOME": str(self._folder / "ansible"),
            "ANSIBLE_LOCAL_TEMP": str(self._folder / "ansible/tmp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
        }
        return self._lab.watch(
            "run", "--", str(self._bin / command[0]), "--inventory", str(hosts), *command[1:], environment=environment
        )


def without_tools(stack_file: Path) -> dict[str, Any]:
    """A stack file that is the machines and clusters of another."""
    document = yaml.safe_load(stack_file.read_text())
    document["config"]["opstella:tools"] = {name: {"enabled": False} for name in NAMES}
    return document


def _plan(lab: BenchLab) -> Plan:
    return build(from_stack_file(lab.file), f"opstella/{lab.stack}")


def _changed_node(plan: Plan) -> tuple[str, str]:
    """The machine that changes, and the one from which its node is labelled."""
    first = plan.topology.clusters[0]
    return first.workers[0].name, first.masters[0].name


def _material(plan: Plan, folder: Path) -> Material:
    """A self-signed certificate for GitLab, which stands for its authority too, and random secrets."""
    name = f"{plan.settings.domains['gitlab']}.{plan.settings.domain}"
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return Material(
        ca_bundle=certificate.read_text(),
        certificate=certificate.read_text(),
        private_key=key.read_text(),
        tokens={cluster.name: secrets.token_hex(32) for cluster in plan.topology.clusters},
        gitlab_password=secrets.token_hex(16),
    )


def artifact(name: str) -> Path:
    """Folder of a built artifact. Raises EngineFailed."""
    done = subprocess.run([ROOT / "lab/toolchain/build", name], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise EngineFailed(f"the artifact {name} cannot be built\n{done.stderr[-2000:]}")
    return Path(done.stdout.strip())


def _seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start
