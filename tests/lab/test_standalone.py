"""Standalone end to end: the demo from nothing, then what a user does to a stack that stands, then down without a trace.

One deployment for all tests here. Those that change it put it back.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab.secrets import argument_watch, cluster_objects, hidden_values, traces
from tests.lab.standalone import ROOT, Done, Lab, Run, eventually, run, steps

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Demo:
    """The lab in which the demo deployed, and what the demo said."""

    lab: Lab
    said: Done


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    lab = Lab.of_this_process("e")
    try:
        yield Demo(lab, run([str(ROOT / "lab/demo")], lab.environment, check=False, seconds=1500))
    finally:
        lab.end()


@pytest.fixture
def lab(demo: Demo) -> Lab:
    """The deployed lab; no test of it makes sense when the demo failed."""
    if demo.said.returncode:
        pytest.fail(f"the demo failed:\n{demo.said.stdout[-3000:]}\n{demo.said.stderr[-500:]}")
    return demo.lab


def test_demo_deploys_checks_and_tells_what_next(demo: Demo) -> None:
    said = demo.said
    assert said.returncode == 0, said.stdout[-6000:] + said.stderr[-3000:]
    assert " passed, 0 failed" in said.stdout and "\nFAIL" not in said.stdout
    assert "nothing is left to change" in said.stdout and "PRIVATE KEY" not in said.stdout
    assert said.stdout.count("\nok  ") >= 30
    # What pods ask for is what the plan counted.
    assert "workers have" in said.stdout and "more than planned" not in said.stdout
    end = said.stdout[said.stdout.index("done: the stack standalone stands") :]
    for service in ("argocd", "keycloak", "gitlab", "harbor", "grafana", "vault", "sonarqube", "defectdojo", "minio", "minioApi",
                    "opstella", "opstellaCore", "opstellaClearSession"):  # fmt: skip
        assert f"\n  {service}" in end and "https://" in end
    for advice in ("stack output credentials --show-secrets", "lab/lab ssh worker-1", "make lab-down"):
        assert advice in end, f"the demo's end does not say {advice!r}"


def test_nothing_is_left_to_change(lab: Lab) -> None:
    said = lab.pulumi("preview", "--expect-no-changes", "--non-interactive", "--diff", check=False)
    assert said.returncode == 0, said.stdout[-4000:] + said.stderr[-1000:]


def test_checks_pass_again_and_find_a_fault(lab: Lab) -> None:
    assert lab("verify", check=False).returncode == 0
    lab.console("nfs", "systemctl stop nfs-ganesha")
    try:
        broken = lab("verify", check=False)
    finally:
        lab.console("nfs", "systemctl start nfs-ganesha")
    assert broken.returncode == 1
    assert [line for line in broken.stdout.splitlines() if line.startswith("FAIL") and "NFS" in line], broken.stdout


def prove(lab: Lab) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of the proof of the network contract."""
    said = lab("verify-network", "--", "--json", check=False, seconds=300)
    return said.returncode, json.loads(said.stdout)


def without_record(lab: Lab) -> bool:
    return all("opstella_record" not in lab.console(host["name"], "nft list tables") for host in lab.hosts)


def test_packets_prove_the_network_contract_and_find_what_was_changed_by_hand(lab: Lab) -> None:
    status, proof = prove(lab)
    assert (status, proof["differences"], proof["away"]) == (0, [], {})
    assert proof["hosts"] == 10 and sum(row["pairs"] for row in proof["rows"]) == 90 and proof["unasked"] == 0
    # The contract is strict: some 230 of more than 3,600 pass.
    assert proof["passed"] > 200 and proof["held_back"] > 3000
    number = "nft -a list chain inet opstella input | sed -n 's/.* comment \"NFS\" # handle //p'"
    lab.console("nfs", f"nft delete rule inet opstella input handle $({number})")
    lab.console("worker-3", "nft insert rule inet opstella input tcp dport 4444 accept")
    try:
        status, proof = prove(lab)
    finally:
        for host in ("nfs", "worker-3"):
            lab.console(host, "nft -f /etc/opstella/firewall.nft")
    workers = {f"worker-{number}" for number in range(1, 6)}
    held_back = {(worker, "nfs", "tcp", 2049, False) for worker in workers}
    let_in = {(host["name"], "worker-3", "tcp", 4444, True) for host in lab.hosts if host["name"] != "worker-3"}
    found = [(d["from"], d["to"], d["protocol"], d["port"], d["passed"]) for d in proof["differences"]]
    assert status == 1 and len(found) == len(set(found)) and set(found) == held_back | let_in
    status, proof = prove(lab)
    assert (status, proof["differences"]) == (0, [])
    assert without_record(lab)


def test_a_proof_that_is_killed_leaves_nothing_on_the_hosts(lab: Lab, tmp_path: Path) -> None:
    keys = set(Path("/dev/shm").glob("opstella-verify-*"))
    with open(tmp_path / "log", "w") as stream:
        process = subprocess.Popen(
            [ROOT / "lab/lab", "verify-network"], cwd=ROOT, env=lab.environment, stdin=subprocess.DEVNULL, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    proof = Run(process, tmp_path / "log")
    eventually("worker-5 records", lambda: "opstella_record" in lab.console("worker-5", "nft list tables"))
    assert proof.kill()
    # On the operator's machine nobody is left who would remove it.
    for folder in set(Path("/dev/shm").glob("opstella-verify-*")) - keys:
        shutil.rmtree(folder)
    eventually("no host records", lambda: without_record(lab))
    folders = "find /tmp -maxdepth 1 -user ops -name 'tmp.*'"
    eventually("no host asks", lambda: not any(lab.console(host["name"], folders) for host in lab.hosts))


def test_no_packet_leaves(lab: Lab) -> None:
    for target in ("1.1.1.1", "10.0.0.1", "169.254.169.254"):
        assert lab("run", "--", "ip", "route", "get", target, check=False).returncode != 0, target
        for host in ("bastion", "worker-1"):
            tried = lab("exec", host, "timeout", "4", "bash", "-c", f"exec 3<>/dev/tcp/{target}/80", check=False)
            assert tried.returncode != 0, (host, target)
    mine = [name.split()[0] for name in _listed("ip", "netns", "list") if name.startswith(f"{lab.name}-")]
    assert len(mine) == len(lab.hosts) + 1
    links = [line.split(": ")[1].partition("@") for name in mine for line in _listed("ip", "-n", name, "-o", "link")]
    # Whatever hosts made for themselves since has no other end outside.
    assert {name.rstrip("0123456789") for name, _, _ in links} <= {"lo", "br", "v", "eth"}, links


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_stands_in_clear_in_the_state_or_in_what_the_engine_says(demo: Demo, lab: Lab) -> None:
    hidden = hidden_values(lab)
    # That every form of a secret would be found is seen where they do stand in clear.
    clear = lab.pulumi("stack", "export", "--show-secrets").stdout
    assert traces(hidden, {"clear": clear}).keys() == hidden.keys()
    said = {
        "what the demo printed": demo.said.stdout + demo.said.stderr,
        "stack output": lab.pulumi("stack", "output").stdout,
        "stack output --json": lab.pulumi("stack", "output", "--json").stdout,
        "stack export": lab.pulumi("stack", "export").stdout,
        "preview --diff": lab.pulumi("preview", "--non-interactive", "--diff", "--refresh").stdout,
    }
    files = lab.state_files()
    assert [path for path in files if path.name == "standalone.json"] and len(files) > 2
    said |= {str(path): path.read_text(errors="replace") for path in files}
    assert traces(hidden, said) == {}


def test_no_secret_stands_in_an_object_of_the_cluster_that_is_no_secret(lab: Lab) -> None:
    hidden = hidden_values(lab)
    objects = cluster_objects(lab)
    assert traces(hidden, objects) == {}
    # They are in there, in the Secrets: what finds nothing above would find them.
    stored = lab.kubectl("get", "secrets", "--all-namespaces", "--output=json").stdout
    generated = [name for name in hidden if name.startswith("passwords-") and name.endswith(".result")]
    found = traces({name: hidden[name] for name in generated}, {"Secrets": stored})
    assert len(found) > len(generated) * 2 / 3 and len(generated) > 10, (sorted(found), sorted(generated))


def test_no_secret_stands_in_a_log_file_of_a_host(lab: Lab) -> None:
    hidden = hidden_values(lab)
    logs = {}
    for host in lab.hosts:
        for path in (lab.disk(host["name"]) / "var/log").rglob("*"):
            if path.is_file() and "journal" not in path.parts:
                logs[f"{host['name']}: {path.name}"] = path.read_text(errors="replace")
    assert len(logs) > len(lab.hosts)
    assert traces(hidden, logs) == {}


def test_no_secret_stands_in_a_journal_and_keys_are_readable_by_root_only(lab: Lab) -> None:
    hidden = hidden_values(lab)
    journals = {h["name"]: lab.console(h["name"], "journalctl --no-pager --output=cat --all") for h in lab.hosts}
    assert "bash -s -- rke2" in journals["worker-1"], "sudo's log of commands is missing: nothing would be found"
    assert traces(hidden, journals) == {}
    for host in lab.hosts:
        files = {"master": "/etc/rancher/rke2/config.yaml /etc/rancher/rke2/rke2.yaml", "worker": "/etc/rancher/rke2/config.yaml",
                 "gitlab": "/etc/gitlab/ssl/*.key"}.get(host["role"])  # fmt: skip
        if files:
            modes = lab.console(host["name"], f"stat -c '%a %U' {files}").split("\n")[:-1]
            assert modes and set(modes) == {"600 root"}, (host["name"], modes)
    found = lab.console(
        "gitlab",
        "grep -rlF -f - /etc /var/opt /var/log 2>/dev/null <<<"
        + repr(lab.outputs()["credentials"]["gitlab"]["password"]),
        check=False,
    )
    assert set(found.split()) <= {"/etc/gitlab/initial_root_password"}


# --- changes --------------------------------------------------------------------------------------

_UNITS = {"master": "rke2-server", "worker": "rke2-agent", "haproxy": "haproxy", "nfs": "nfs-ganesha", "bastion": "ssh"}


def units_of(lab: Lab) -> dict[str, str]:
    return {h["name"]: _UNITS[h["role"]] for h in lab.hosts if h["role"] in _UNITS}


def workers(**changes: Any) -> dict[str, Any]:
    return {"opstella:clusters": {"standalone": {"workers": changes}}}


def test_a_label_touches_its_own_worker_only(lab: Lab) -> None:
    hidden = hidden_values(lab)
    before = lab.running_since(units_of(lab))
    try:
        with lab.settings(workers(nodeLabels={"worker-2": {"example.com/disk": "ssd"}})), argument_watch() as seen:
            said = lab.up()
            after = lab.running_since(units_of(lab))
        assert lab.kubectl("get", "nodes", "-l", "example.com/disk=ssd", "-o", "name").stdout.split() == [
            "node/worker-2"
        ]
    finally:
        lab.up()
    done = steps(said.stdout)
    assert sorted(done) == ["standalone-nodes-worker-2-ready", "standalone-nodes-worker-2-rke2"], said.stdout
    assert set(done.values()) == {"updated"}
    assert {host for host in before if before[host] != after[host]} <= {"worker-2"}
    assert lab.kubectl("get", "nodes", "-l", "example.com/disk", "-o", "name").stdout == ""
    # All arguments of all processes meanwhile, the hosts' included.
    assert [line for line in seen if "bash -s -- rke2" in line], "the watch saw nothing of the run"
    assert traces(hidden, {"arguments": "\n".join(seen)}) == {}


def test_a_worker_leaves_and_comes_back(lab: Lab) -> None:
    try:
        with lab.settings(workers(count=4)):
            left = lab.up()
            assert sorted(lab.nodes()) == ["master-1", "worker-1", "worker-2", "worker-3", "worker-4"]
            assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0
            verified = lab("verify", check=False)
            assert verified.returncode == 0, verified.stdout
            gone = lab.console(
                "worker-5",
                "systemctl is-active rke2-agent; ls -d /usr/local/bin/rke2 /etc/rancher /var/lib/rancher/rke2",
                check=False,
            )
            assert gone.split() == ["inactive"], gone
            for host, what in (
                ("haproxy", "/etc/haproxy/haproxy.cfg"),
                ("nfs", "/etc/ganesha/ganesha.conf"),
                ("worker-1", "/etc/opstella/firewall.nft"),
            ):
                text = lab.console(host, f"cat {what}")
                assert "192.168.72.16" in text and "192.168.72.20" not in text, (host, what)
            assert "192.168.72.20" not in lab.console("worker-1", "nft list table inet opstella")
        assert {"deleted"} == {act for name, act in steps(left.stdout).items() if "worker-5" in name}
    finally:
        back = lab.up()
    assert "standalone-nodes-worker-5-rke2" in steps(back.stdout)
    assert lab.nodes().get("worker-5") is True
    verified = lab("verify", check=False)
    assert verified.returncode == 0, verified.stdout
    assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0


def test_a_worker_comes_back_after_its_power_was_cut(lab: Lab) -> None:
    lab("stop", "worker-2")
    off = time.time()
    told = lab("verify", check=False)
    assert [line for line in told.stdout.splitlines() if line.startswith("FAIL") and "ssh through the bastion" in line], told.stdout
    lab("start", "worker-2")
    eventually(
        "rke2-agent of worker-2 runs",
        lambda: "active" == lab.console("worker-2", "systemctl is-active rke2-agent", check=False).strip(),
        120,
    )
    # Ready alone could be from before: the node must have reported since.
    eventually("worker-2 is Ready again", lambda: _reported(lab, "worker-2") > off and lab.nodes()["worker-2"], 120)
    table = lab.console("worker-2", "nft list table inet opstella")
    assert "policy drop" in table
    verified = lab("verify", check=False)
    assert verified.returncode == 0, verified.stdout
    assert lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False).returncode == 0


def _reported(lab: Lab, node: str) -> float:
    """When the node last renewed its lease, in seconds since 1970."""
    lease = json.loads(lab.kubectl("--namespace", "kube-node-lease", "get", "lease", node, "-o", "json").stdout)
    return datetime.fromisoformat(lease["spec"]["renewTime"].replace("Z", "+00:00")).timestamp()


def _listed(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
