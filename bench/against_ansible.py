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

import yaml

from bench.ansible_inventory import Material, inventory
from bench.engine import ROOT, WITHOUT_SAVING, artifact, without_tools
from bench.lab import BenchLab
from bench.profile import Profile
from plan.plan import Plan
from plan.stack_file import of_stack_file

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
        document = yaml.safe_load((ROOT / file.name).read_text())
        document["config"] |= without_tools()
        file.write_text(yaml.safe_dump(document))
        ours: dict[str, float] = {}
        theirs: dict[str, float] = {}
        try:
            lab.start(file)
            yield from _measure("pulumi up", ours, lab, lab.up, Profile.lines)
            yield from _without_checkpoints(lab)
            yield from _login(lab)
            lab.down()
            lab.start(file)
            ansible = _Ansible(lab, Path(folder))
            yield f"{'Python onto every host, for Ansible':<42} {ansible.bootstrap().seconds:7.1f} s"
            yield from _measure("ansible-playbook", theirs, lab, ansible.play, _tasks)
            node = _changed_node(_plan(lab))
            limited = ansible.play("--limit", ",".join(node)).seconds
            yield f"{'ansible-playbook --limit to that machine':<42} {limited:7.1f} s"
        finally:
            lab.down()
    for what, target in _TARGETS.items():
        share = ours[what] / theirs[what]
        met = "met" if share <= target else "missed"
        yield f"{what:<42} {share:7.3f} of Ansible's time (target: at most {target:.3f}: {met})"


def _measure(
    who: str,
    times: dict[str, float],
    lab: BenchLab,
    run: Callable[[], Profile],
    told: Callable[[Profile], Iterator[str]],
) -> Iterator[str]:
    """Three runs, each with its connections and what is `told` of where its time went."""
    plan = _plan(lab)
    hosts = [host.name for host in plan.topology.hosts]

    def measured(what: str, label: str) -> Iterator[str]:
        before = lab.connections(hosts)
        profile = run()
        times[what] = profile.seconds
        logins = lab.connections(hosts) - before
        yield f"{who + ', ' + label:<42} {times[what]:7.1f} s   {logins} SSH connections"
        yield from told(profile)

    yield from measured("first", "bare hosts to clusters")
    yield from measured("unchanged", "nothing changed")
    document = yaml.safe_load(lab.file.read_text())
    first = plan.topology.clusters[0]
    cluster = document["config"].setdefault("opstella:clusters", {}).setdefault(first.name, {})
    cluster.setdefault("workers", {})["nodeLabels"] = {first.workers[0].name: {"opstella.io/bench": "changed"}}
    lab.file.write_text(yaml.safe_dump(document))
    yield from measured("one machine", "one worker given a label")


def _without_checkpoints(lab: BenchLab) -> Iterator[str]:
    """What saving the state costs: a run without a change has nothing to lose by leaving it out."""
    yield f"{'pulumi up, nothing changed or saved':<42} {lab.up(WITHOUT_SAVING).seconds:7.1f} s"


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

    def bootstrap(self) -> Profile:
        return self._run("ansible", "all", "--become", "-m", "ansible.builtin.raw", "-a",
                  "apt-get -q update && apt-get -q -y --no-install-recommends install python3 python3-apt")  # fmt: skip

    def play(self, *arguments: str) -> Profile:
        return self._run("ansible-playbook", str(_PLAYBOOK), *arguments)

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


def _tasks(profile: Profile) -> Iterator[str]:
    """Who used the processors, and the tasks of a playbook that took longest."""
    yield profile.processors()
    begun = [(at, found[1]) for at, line in profile.said if (found := _TASK.match(line))]
    ends = [*(at for at, _ in begun[1:]), profile.seconds]
    took = sorted(((end - at, task) for (at, task), end in zip(begun, ends, strict=True)), reverse=True)
    yield f"  {len(took)} tasks, one after the other; the longest:"
    for seconds, task in took[:_MOST_TASKS]:
        yield f"  {task:<40} {seconds:7.1f} s"


def _plan(lab: BenchLab) -> Plan:
    return of_stack_file(lab.file, f"opstella/{lab.stack}")


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


def _seconds(run: Callable[[], object]) -> float:
    start = time.monotonic()
    run()
    return time.monotonic() - start
