"""What goes wrong before and during the first deployment: told clearly, nothing touched, and resumed by the next `up`.

A stack of two workers, with what fits there. Every fault at first contact is met by an engine state of its own, as on a
user's first day.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from plan.tools.catalogue import NAMES
from tests.lab.standalone import ROOT, STACK, Done, Lab, eventually, merge, run, steps

pytestmark = pytest.mark.lab

TOOLS = ("csi-driver-nfs", "cert-manager", "traefik", "cloudnative-pg", "keycloak", "argo-cd")
"""What is deployed here; the whole platform is in test_standalone.py."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Eight hosts that nothing was deployed to."""
    lab = Lab.of_this_process("f")
    file = tmp_path_factory.mktemp("settings") / f"Pulumi.{STACK}.yaml"
    document = yaml.safe_load((ROOT / file.name).read_text())
    small = {
        "opstella:clusters": {"standalone": {"workers": {"count": 2}}},
        "opstella:tools": {name: {"enabled": False} for name in NAMES if name not in TOOLS},
    }
    file.write_text(yaml.safe_dump({**document, "config": merge(document["config"], small)}))
    lab("up", "--config-file", str(file))
    try:
        yield lab
    finally:
        lab.end()


# --- first contact --------------------------------------------------------------------------------


def refused(lab: Lab, folder: Path, changes: dict[str, Any]) -> str:
    """What the first `pulumi up` prints with `changes` in the settings; fails unless it fails and touches no host."""
    before = lab.fingerprint()
    said = first_up(lab, folder, changes)
    text = said.stdout + said.stderr
    assert said.returncode != 0, f"the fault went unnoticed:\n{text[-3000:]}"
    after = lab.fingerprint()
    assert [name for name in before if before[name] != after[name]] == [], f"hosts were changed:\n{text[-3000:]}"
    assert "Traceback" not in text, text[-3000:]
    return text


def first_up(lab: Lab, folder: Path, changes: dict[str, Any], *more: str) -> Done:
    """`pulumi up` with a state and a stack file of its own in `folder`, as on the first day, or a further one with it."""
    file = folder / f"Pulumi.{STACK}.yaml"
    document = yaml.safe_load(lab.settings_file.read_text())
    file.write_text(yaml.safe_dump({"config": merge(document["config"], changes)}))
    environment = {
        **lab.environment,
        **engine(),
        "PULUMI_BACKEND_URL": f"file://{folder}",
        "PULUMI_CONFIG_PASSPHRASE": "of the test",
    }
    if not (folder / ".pulumi").exists():
        shutil.copytree(empty_state(), folder / ".pulumi")
    return run(
        ["ip", "netns", "exec", f"{lab.name}-lab", "pulumi", "up", "--stack", STACK, "--config-file", str(file), "--yes",
         "--skip-preview", "--non-interactive", *more],
        environment, check=False, seconds=300,
    )  # fmt: skip


@functools.cache
def engine() -> dict[str, str]:
    """Environment in which `pulumi` is the engine that `lab/toolchain/pulumi` would run."""
    told = run([str(ROOT / "lab/toolchain/pulumi"), "--environment"], os.environ).stdout
    return dict(line.split("=", 1) for line in told.splitlines() if line.partition("=")[2])


@functools.cache
def empty_state() -> Path:
    """The backend's folder with a stack in which nothing is."""
    folder = Path(tempfile.mkdtemp(prefix="opstella-empty-state-"))
    atexit.register(shutil.rmtree, folder)
    shutil.copy(ROOT / "Pulumi.yaml", folder)
    environment = {
        **os.environ,
        **engine(),
        "PULUMI_BACKEND_URL": f"file://{folder}",
        "PULUMI_CONFIG_PASSPHRASE": "of the test",
    }
    run(["pulumi", "stack", "init", STACK, "--no-select", "--non-interactive", "--cwd", str(folder)], environment)
    return folder / ".pulumi"


def told(text: str, *parts: str) -> None:
    missing = [part for part in parts if part not in text]
    assert not missing, f"the message lacks {missing}:\n{text[-3000:]}"


def test_an_unreachable_bastion_is_named_with_what_was_tried_and_how_long(lab: Lab, tmp_path: Path) -> None:
    began = time.monotonic()
    changes = {"opstella:bastion": {"publicAddress": "192.168.72.99"}, "opstella:machines": {"waitSeconds": 10}}
    text = refused(lab, tmp_path, changes)
    told(text, "host bastion (192.168.72.99 port 22) gave no ssh-ed25519 host key", "by ssh-keyscan", "what to do:")
    assert time.monotonic() - began < 90


def test_an_unreachable_host_is_named_with_what_was_tried_and_how_long(lab: Lab, tmp_path: Path) -> None:
    lab("stop", "worker-2")
    try:
        text = refused(lab, tmp_path, {"opstella:machines": {"waitSeconds": 10}})
    finally:
        lab("start", "worker-2")
    told(
        text,
        "host worker-2 (192.168.72.17 port 22) gave no ssh-ed25519 host key",
        "by ssh-keyscan from bastion over",
        "what to do:",
    )


def test_a_host_with_another_key_than_the_one_given_is_refused(lab: Lab, tmp_path: Path) -> None:
    other = lab.disk("worker-1").joinpath("etc/ssh/ssh_host_ed25519_key.pub").read_text().rsplit(" ", 1)[0]
    text = refused(lab, tmp_path, {"opstella:ssh": {"hostKeys": {"worker-2": other}}})
    told(
        text, "host worker-2 (192.168.72.17 port 22) answers with the host key SHA256:", "but the settings give SHA256:"
    )


def test_a_host_of_another_cluster_is_refused(lab: Lab, tmp_path: Path) -> None:
    mark = lab.disk("worker-1") / "etc/opstella"
    mark.mkdir()
    (mark / "identity").write_text("opstella/other/tools/worker\n")
    try:
        text = refused(lab, tmp_path, {})
    finally:
        shutil.rmtree(mark)
    told(text, "host worker-1 (worker, 192.168.72.16) cannot be used", "already belongs to 'opstella/other/tools/worker'",
         "not to 'opstella/standalone/standalone/worker'", "give another host")  # fmt: skip


def test_two_hosts_with_one_machine_id_are_both_named(lab: Lab, tmp_path: Path) -> None:
    own = lab.console("worker-2", "cat /etc/machine-id")
    twin = lab.console("worker-1", "cat /etc/machine-id")
    lab.console("worker-2", f"echo {twin.strip()} >/etc/machine-id")
    try:
        text = refused(lab, tmp_path, {})
    finally:
        lab.console("worker-2", f"echo {own.strip()} >/etc/machine-id")
    told(text, "worker-1 and worker-2 have the same machine-id", "systemd-machine-id-setup")
    # Their facts are in the state as they were. Only the comparison: what comes behind it would change machines, and the
    # engine ends this run because that is not among its targets.
    corrected = first_up(lab, tmp_path, {}, "--target", "**::host-distinct")
    assert steps(corrected.stdout)["host-distinct"] == "created", corrected.stdout + corrected.stderr
    assert "have the same machine-id" not in corrected.stdout


def test_a_taken_port_is_named_with_who_holds_it(lab: Lab, tmp_path: Path) -> None:
    lab.console("haproxy", "systemd-run --quiet --unit=squatter systemd-socket-activate --listen=6443 /bin/cat")
    try:
        text = refused(lab, tmp_path, {})
    finally:
        lab.console("haproxy", "systemctl stop squatter")
    told(
        text,
        "host haproxy (haproxy, 192.168.72.12) cannot be used",
        "port 6443/tcp is taken by systemd-socket",
        "stop what holds it",
    )


def test_a_machine_below_its_planned_size_is_an_error_where_sizes_are_held(lab: Lab, tmp_path: Path) -> None:
    changes = {
        "opstella:machines": {"sizeCheck": "error"},
        "opstella:gitlab": {"memoryGb": 4096},
    }
    text = refused(lab, tmp_path, changes)
    told(
        text,
        "host gitlab (gitlab, 192.168.72.14) cannot be used",
        "too small: memory: planned 4194304 MB, found",
        "enlarge the machine",
    )


_SNTP = """\
import socket, struct, sys, time
# Answers SNTP (RFC 4330) with a clock that is ahead: version 4, server, stratum 2; transmit time at byte 40.
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((sys.argv[1], 123))
while True:
    asked, caller = listener.recvfrom(512)
    now = time.time() + float(sys.argv[2]) + 2208988800
    stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
    listener.sendto(struct.pack("!BBbb", 0x24, 2, 6, -20) + bytes(12) + stamp + asked[40:48] + stamp + stamp, caller)
"""


def test_a_clock_that_is_off_is_told_with_how_much(lab: Lab, tmp_path: Path) -> None:
    server = tmp_path / "sntp.py"
    server.write_text(_SNTP)
    address = "198.18.0.2"
    inside = ["ip", "netns", "exec", f"{lab.name}-lab"]
    run([*inside, "ip", "address", "add", f"{address}/32", "dev", "lo"], os.environ)
    answering = subprocess.Popen([*inside, sys.executable, str(server), address, "95"])
    try:
        text = refused(lab, tmp_path, {"opstella:time": {"servers": [address]}})
    finally:
        answering.kill()
        answering.wait()
        run([*inside, "ip", "address", "del", f"{address}/32", "dev", "lo"], os.environ)
    told(text, "the clock is off by -9", "at most 30 s allowed", "timedatectl")


# --- the first deployment, interrupted --------------------------------------------------------------


def test_an_interrupted_deployment_is_resumed(lab: Lab, tmp_path: Path) -> None:
    """A wrong sum, a killed engine (twice) and a dead host, one after the other on one stack, each followed by `up`."""
    # A file that is not the one in the settings is refused before anything is installed from it.
    with lab.settings({"opstella:media": {"sha256": {"rke2.linux-amd64.tar.gz": "0" * 64}}}):
        said = lab.up(check=False)
    text = said.stdout + said.stderr
    assert said.returncode != 0
    told(text, "rke2.linux-amd64.tar.gz", "expected " + "0" * 64, "got ", "what to do:")
    assert (
        lab.console("master-1", "ls -d /usr/local/bin/rke2 /etc/rancher/rke2/config.yaml 2>/dev/null", check=False)
        == ""
    )

    # The engine and its providers die while the first server is made: the lock of their update stays.
    first = lab.start_up(tmp_path / "first")
    first.wait_until(lambda text: "standalone-nodes-master-1-rke2 creating" in text, 300)
    time.sleep(3)
    assert first.kill(), "nothing was killed"
    locked = lab.up(check=False)
    assert locked.returncode != 0
    told(locked.stdout + locked.stderr, "locked", "pulumi cancel")
    lab.pulumi("cancel", "--yes")

    # A worker loses its power while RKE2 is made there; the run ends with an error that names it.
    second = lab.start_up(tmp_path / "second")
    second.wait_until(lambda text: "standalone-nodes-worker-2-rke2 creating" in text, 300)
    time.sleep(1)
    lab("stop", "worker-2")
    assert second.wait(600) != 0
    assert "standalone-nodes-worker-2-rke2" in second.text()[second.text().index("Diagnostics:") :]
    lab("start", "worker-2")

    # The engine dies again while a chart is installed, and Helm's record says so for ever.
    third = lab.start_up(tmp_path / "third")
    record = ["--namespace", "cert-manager", "get", "secrets", "-l", "owner=helm", "-o", "name"]
    third.wait_until(lambda text: "Release standalone-tools-cert-manager creating" in text, 300)
    eventually(
        "Helm notes that it installs cert-manager", lambda: "helm.release" in lab.kubectl(*record, check=False).stdout
    )
    assert third.kill()
    assert "Release standalone-tools-cert-manager created" not in third.text(), "too late: the chart was installed already"
    lab.pulumi("cancel", "--yes")

    final = lab.up()
    assert "removed Helm's record cert-manager/sh.helm.release.v1.cert-manager.v1" in final.stdout
    kept = {"standalone-nodes-master-1-rke2", "pki-root", "host-nfs-prepare", "gitlab-omnibus"}
    assert not kept & steps(final.stdout).keys(), "what stood was made again"
    verified = lab("verify", check=False)
    assert verified.returncode == 0, verified.stdout
    assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0


def test_a_release_that_fails_says_which_workload_and_why(lab: Lab) -> None:
    """On the deployed stack of the test above: pods that no node takes, and a time-out that does not wait for ever."""
    nowhere = {"timeoutSeconds": 40, "values": {"nodeSelector": {"example.com/disk": "none"}}}
    try:
        with lab.settings({"opstella:tools": {"cloudnative-pg": nowhere}}):
            said = lab.up(check=False)
    finally:
        lab.up()
    text = said.stdout + said.stderr
    assert said.returncode != 0
    told(
        text,
        "standalone-tools-cloudnative-pg failed; in namespace cnpg-system:",
        "pod cloudnative-pg-",
        "node(s) didn't match Pod's node affinity/selector",
        "last events:",
    )
    assert "Traceback" not in text, text[-3000:]
    assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0


def test_a_run_that_ended_before_a_confirmation_is_resumed_after_the_roll_back(lab: Lab) -> None:
    """Only the bastion's preparation runs, as when the engine dies behind it; its rules are rolled back meanwhile."""
    wider = {"opstella:firewall": {"operatorNetworks": ["192.168.0.0/16", "203.0.113.0/24"], "rollbackSeconds": 20}}

    def in_force() -> bool:
        return "203.0.113.0/24" in lab.console("bastion", "nft list ruleset")

    try:
        with lab.settings(wider):
            lab.up("--target", "**host-bastion-prepare", "--target-dependents=false")
            assert "203.0.113.0/24" in lab.console("bastion", "cat /etc/opstella/firewall-candidate.nft")
            eventually("the rules are rolled back", lambda: not in_force())
            resumed = steps(lab.up().stdout)
            assert "host-bastion-confirm" in resumed, resumed
            assert in_force() and "203.0.113.0/24" in lab.console("bastion", "cat /etc/opstella/firewall.nft")
            assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0
    finally:
        lab.up()
