"""Every host phase that needs no RKE2 and no GitLab, in the product's order, with the values of the plan."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from components.host import reply, standard_input
from lab.kernel.machine import Machine, Result
from lab.kernel.report import Report
from plan import haproxy, hosts, keepalived, nfs
from plan.plan import Plan
from plan.topology import Host

AT_ONCE = 2
"""Machines that are worked on side by side: as many as CI has processors."""
_KEY_SECONDS = 600


@dataclass(frozen=True)
class Step:
    """One phase on one machine."""

    machine: Machine
    phase: str
    values: hosts.Values


class Phases:
    """All phases over all `machines`, the bastion first; each run's outcome goes to `report`."""

    def __init__(self, plan: Plan, machines: Sequence[Machine], authority: str, report: Report, system: str) -> None:
        self.plan, self.machines, self.authority = plan, machines, authority
        self.report, self.system = report, system
        self.facts: dict[str, str] = {}
        self.keys: dict[str, str] = {}

    @property
    def bastion(self) -> Machine:
        return self.machines[0]

    def of(self, host: Host) -> Machine | None:
        """The machine of `host`, None when it is not booted."""
        return next((m for m in self.machines if m.host == host), None)

    # ---- first contact

    def meet(self, machine: Machine, round: str) -> None:
        """Host key, asked as the product asks for it, and the check before first contact."""
        key = self.keys[machine.host.name] = self._host_key(machine, round)
        if round == "first" and key:
            with machine.keys.open("a") as known:
                known.write(f"{machine.host.address} {key}\n")
            machine.wait_for_boot()
        done = self._send(Step(machine, "preflight", self.preflight(machine)), round)
        if done.status == 0:
            self.facts[machine.host.name] = reply(done.stdout).strip()

    def preflight(self, machine: Machine) -> hosts.Values:
        plan = self.plan
        return hosts.preflight(machine.host, plan.settings, plan.topology, plan.stack)

    def _host_key(self, machine: Machine, round: str) -> str:
        host = machine.host
        values: hosts.Values = {
            "name": host.name,
            "address": str(host.address),
            "port": self.plan.settings.ssh.port,
            "timeout_seconds": _KEY_SECONDS,
            "expected": "",
        }
        if machine.bastion:
            return reply(self._send(Step(machine.bastion, "hostkey", values), round, about=host.name).stdout).strip()
        return reply(self._by_operator("hostkey", values, round, about=host.name).stdout).strip()

    def _by_operator(self, phase: str, values: hosts.Values, round: str, about: str) -> Result:
        """A phase that runs on the operator's own machine, without root."""
        began = time.monotonic()
        command = [*self.bastion.network.within, "env", "-i", "bash", "-s", "--", phase]
        text = standard_input(phase, values)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_KEY_SECONDS + 60, check=False)
        result = Result(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
        self.report.phase(self.system, phase, about, round, result)
        return result

    # ---- the rest

    def run(self, round: str) -> None:
        """All phases once: `round` is first, second, or reboot."""
        bastion, others = self.bastion, self.machines[1:]
        self.meet(bastion, round)
        self._each(others, lambda machine: self.meet(machine, round))
        met = [machine for machine in self.machines if machine.host.name in self.facts]
        self._by_operator(
            "fleet",
            {
                "machines": [f"{m.host.name} {m.host.address}" for m in met],
                "facts": [self.facts[m.host.name] for m in met],
                "host_keys": [self.keys[m.host.name] for m in met],
                "user": "ops",
                "port": self.plan.settings.ssh.port,
                "private_key": bastion.key.read_text(),
            },
            round,
            about="operator",
        )
        self.prepare(bastion, round)
        self._each(others, lambda machine: self.prepare(machine, round))
        for step in self.roles():
            self._send(step, round)

    def prepare(self, machine: Machine, round: str) -> None:
        values = hosts.prepare(machine.host, self.plan.contract, self.plan.stack)
        done = self._send(Step(machine, "prepare", {**values, "ca_bundle": self.authority}), round)
        if done.status == 0:
            digest = hashlib.sha256(str(values["ruleset"]).encode()).hexdigest()
            self._send(Step(machine, "confirm", {"ruleset_sha256": digest}), round)

    def roles(self) -> Iterator[Step]:
        """What makes each machine what it is."""
        (balancer,) = self.plan.topology.load_balancers
        (cluster,) = self.plan.topology.clusters
        for host in balancer.hosts:
            if machine := self.of(host):
                yield Step(machine, "haproxy", {"config": haproxy.configuration(balancer)})
                yield Step(machine, "keepalived", dict(keepalived.values(balancer, host)))
        if machine := self.of(cluster.nfs):
            share = cluster.settings.nfs
            yield Step(
                machine,
                "nfs",
                {
                    "server": share.server,
                    "path": share.path,
                    "exports": nfs.exports(cluster),
                    "ganesha_conf": nfs.ganesha_conf(cluster),
                    "nfs_conf": nfs.nfs_conf(),
                },
            )

    def _send(self, step: Step, round: str, about: str = "") -> Result:
        done = step.machine.send(step.phase, step.values)
        self.report.phase(self.system, step.phase, about or step.machine.host.name, round, done)
        return done

    @staticmethod
    def _each(machines: Sequence[Machine], work: Callable[[Machine], None]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(work, machine) for machine in machines]:
                done.result()
