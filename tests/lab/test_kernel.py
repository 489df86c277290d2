"""What of the virtual machines' harness needs no machine: plan, seeds, phases in their order, the table, the clean-up."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from components.host import REPLY
from lab.kernel import __main__ as command
from lab.kernel import network, seed, site
from lab.kernel.__main__ import NOT_RUN
from lab.kernel.machine import Machine, Result, new_key
from lab.kernel.network import OPERATOR, Network
from lab.kernel.phases import Phases
from lab.kernel.report import Report, page
from plan.plan import Plan
from plan.topology import Host

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def plan(key: Path) -> Plan:
    return site.plan(key)


def result(status: int = 0, *steps: str, stdout: str = "", said: str = "") -> Result:
    return Result(status, stdout, said + "".join(f"prepare: {step}\n" for step in steps), 1.0)


class Answering(Machine):
    """A machine that is not there: it keeps what it is sent, and answers as a phase that changed nothing."""

    sent: list[tuple[str, str]] = []

    def send(self, phase: str, values: object, seconds: int = 900) -> Result:
        self.sent.append((self.host.name, phase))
        return result(0, "unchanged: all", stdout=f'{REPLY}{{"name":"x"}}\n' if phase == "preflight" else "ssh-ed25519 AAAA\n")

    def wait_for_boot(self, before: str = "") -> str:
        return "boot"


def machines(plan: Plan, key: Path, folder: Path, hosts: tuple[Host, ...]) -> list[Machine]:
    found: list[Machine] = []
    for host in hosts:
        bastion = found[0] if found else None
        found.append(Answering(host, folder, folder, Network(folder), key, folder / "known", bastion=bastion))
    return found


def test_the_machines_are_the_plans_one_of_each_role_and_two_load_balancers(plan: Plan) -> None:
    roles = [host.role for host in site.machines(plan)]
    assert roles == ["bastion", "haproxy", "haproxy", "nfs", "worker"]
    assert str(plan.topology.clusters[0].entrance) == site.VIRTUAL


def test_every_phase_goes_in_the_products_order(plan: Plan, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "sent", [])
    monkeypatch.setattr(Phases, "_host_key", lambda self, machine, round: "ssh-ed25519 AAAA")
    compared: list[Any] = []

    def by_operator(_self: Phases, phase: str, values: Any, _round: str, about: str) -> None:
        Answering.sent.append((about, phase))
        compared.append(values)

    monkeypatch.setattr(Phases, "_by_operator", by_operator)
    report = Report()
    booted = machines(plan, key, tmp_path, site.machines(plan))
    Phases(plan, booted, "PEM", report, "debian-12").run("first")
    sent = Answering.sent
    assert sent[0] == ("bastion", "preflight"), "the bastion first"
    contact = max(number for number, (_, phase) in enumerate(sent) if phase == "preflight")
    assert sent[contact + 1 : contact + 4] == [("operator", "fleet"), ("bastion", "prepare"), ("bastion", "confirm")]
    assert [phase for _, phase in sent[-5:]] == ["haproxy", "keepalived", "haproxy", "keepalived", "nfs"]
    for machine in booted:
        assert (machine.host.name, "prepare") in sent and (machine.host.name, "confirm") in sent
        assert f"{machine.host.address} ssh-ed25519 AAAA" in (tmp_path / "known").read_text()
    (values,) = compared
    assert len(values["machines"]) == len(values["host_keys"]) == len(values["facts"]) == len(booted)
    assert set(values["facts"]) == {'{"name":"x"}'}
    assert not report.faults


def test_phases_that_are_not_run_are_named() -> None:
    phases = {path.stem for path in (ROOT / "scripts").glob("*.sh")} - {"lib"}
    run = {"hostkey", "preflight", "fleet", "prepare", "confirm", "haproxy", "keepalived", "nfs"}
    told = " ".join(NOT_RUN)
    assert {phase for phase in phases - run if phase not in told} == set()


# --- the table ---


def test_a_later_run_that_changes_something_is_a_fault() -> None:
    report = Report()
    report.phase("debian-12", "prepare", "nfs", "first", result(0, "changed: a", "changed: b", "unchanged: c"))
    assert not report.faults
    report.phase("debian-12", "prepare", "nfs", "second", result(0, "unchanged: a", "changed: the clock"))
    report.phase("debian-12", "prepare", "nfs", "reboot", result(0, "unchanged: a"))
    assert report.faults == ["debian-12 nfs prepare (second run) changed: the clock"]
    assert report.lines()[2] == "| debian-12 | prepare | nfs | 2 changed | 1 changed | unchanged | 1 / 1 / 1 |"


def test_a_phase_that_failed_is_a_fault_with_its_reason() -> None:
    report = Report()
    report.phase("debian-13", "prepare", "nfs", "first", result(1, said="prepare: error: chrony refuses its configuration\n"))
    report.check("debian-13", "NFS", "worker-1", "first", 2.0, "not mounted")
    assert report.faults == [
        "debian-13 nfs prepare (first run): prepare: error: chrony refuses its configuration",
        "debian-13 worker-1 NFS (first run): not mounted",
    ]
    text = page(report, "2026-12-01", {"rke2": "not to be had"})
    for told in (*report.faults, "Run of 2026-12-01", "| debian-13 | NFS | worker-1 | failed |  |  | 2 / – / – |", "| rke2 | not to be had |"):
        assert told in text


def test_each_system_has_a_page_of_its_own_and_a_run_that_breaks_is_told_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_system(system: str, _image: Path, _options: object, report: Report) -> None:
        report.phase(system, "prepare", "nfs", "first", result(0, "changed: a"))
        if system == "debian-13":
            raise command.MachineError("nfs does not boot")

    monkeypatch.setattr(command, "one_system", one_system)
    monkeypatch.setattr(command, "run", lambda *_, **__: "/image\n")
    options = argparse.Namespace(write=tmp_path)
    assert [command.proven(system, options) for system in command.SYSTEMS] == [[], ["debian-13: nfs does not boot"]]
    good, broken = ((tmp_path / f"{system}.md").read_text() for system in command.SYSTEMS)
    assert "| debian-12 | prepare | nfs | 1 changed |" in good and "None." in good and "debian-13" not in good
    assert "| debian-13 | prepare | nfs | 1 changed |" in broken and "- debian-13: nfs does not boot" in broken


# --- what a machine finds at its first boot ---


def test_the_archive_is_a_disk_with_name_network_user_and_host_key(plan: Plan, key: Path, tmp_path: Path) -> None:
    host = plan.topology.bastion
    disk = seed.write(tmp_path, host, "52:54:00:00:00:01", OPERATOR, "ssh-ed25519 AAAA operator\n", by_cloud_init=False)
    assert disk.stat().st_size % 512 == 0
    with tarfile.open(disk) as tar:
        files = {member.name: (member.mode, tar.extractfile(member).read().decode()) for member in tar}  # type: ignore[union-attr]
    assert files["etc/hostname"] == (0o644, "fresh-bastion\n")
    assert "Address=192.168.72.11/24\nGateway=192.168.72.1\n" in files["etc/systemd/network/10-lan.network"][1]
    assert files["home/ops/.ssh/authorized_keys"] == (0o600, "ssh-ed25519 AAAA operator\n")
    assert files["etc/ssh/ssh_host_ed25519_key"][0] == 0o600
    assert files["etc/ssh/ssh_host_ed25519_key.pub"][1].startswith("ssh-ed25519 ")


def test_cloud_init_is_told_to_keep_the_names_its_own(plan: Plan) -> None:
    told = seed.cloud_init(plan.topology.bastion, "52:54:00:00:00:01", OPERATOR, "ssh-ed25519 AAAA\n")
    user = json.loads(told["user-data"].removeprefix("#cloud-config\n"))
    assert user["manage_etc_hosts"] is True and user["hostname"] == "fresh-bastion"
    assert json.loads(told["network-config"])["ethernets"]["lan"]["addresses"] == ["192.168.72.11/24"]


# --- the clean-up ---


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_what_a_run_that_is_gone_left_is_removed_with_what_runs_in_it() -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    name = f"{network.PREFIX}{gone}"
    network.run("ip", "netns", "add", name)
    left = subprocess.Popen(["ip", "netns", "exec", name, "sleep", "600"])
    try:
        assert name in network._stale()
        network.remove(name)
        assert left.wait(10) != 0
        assert name not in network.run("ip", "netns", "list")
    finally:
        left.kill()
        network.remove(name)
