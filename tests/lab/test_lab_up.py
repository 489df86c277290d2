"""A small lab of its own: up, status, dead hosts, sealing, and down without a trace. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
NAME = f"t{os.getpid() % 100000}"

PLAN = {
    "stack": "opstella/small",
    "domain": "small.example.com",
    "subnets": ["192.168.72.0/24", "192.168.73.0/24"],
    "dns": [
        {"name": "gitlab.small.example.com", "address": "192.168.72.14"},
        {"name": "*.small.example.com", "address": "192.168.73.16"},
    ],
    "hosts": [
        {"name": "bastion", "role": "bastion", "cluster": None, "address": "192.168.72.11", "prefix_length": 24},
        {"name": "gitlab", "role": "gitlab", "cluster": None, "address": "192.168.72.14", "prefix_length": 24},
        {"name": "worker-1", "role": "worker", "cluster": "b", "address": "192.168.73.16", "prefix_length": 24},
    ],
}


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lab"
        self.plan = folder / "plan.json"
        self.plan.write_text(json.dumps(PLAN))
        self.environment = {**os.environ, "OPSTELLA_LAB_NAME": NAME, "OPSTELLA_LAB": str(self.folder)}

    def __call__(self, *arguments: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [ROOT / "lab/lab", *arguments], env={**self.environment, **extra}, capture_output=True, text=True, timeout=900, check=False
        )  # fmt: skip
        assert not check or done.returncode == 0, f"lab/lab {' '.join(arguments)}: {done.stderr}"
        return done

    def up(self, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        return self("up", "--bare", "--config-file", str(self.plan), check=check, **extra)

    def status(self) -> dict[str, Any]:
        return json.loads(self("status", "--json", check=False).stdout)

    def states(self) -> dict[str, str]:
        return {row["host"]: row["state"] for row in self.status()["hosts"]}


def left_behind(lab: Lab) -> list[str]:
    """Traces of the lab, looked for apart from the lab's own code."""
    found = [f"namespace {p.name}" for p in Path("/run/netns").glob(f"{NAME}-*")]
    found += [f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if str(lab.folder) in line]
    found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"*/{NAME}-lab")]
    found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"{NAME}-lab")]
    found += [f"file {p}" for p in (lab.folder, Path(f"/etc/netns/{NAME}-lab"), Path(f"/run/{NAME}-lab.json")) if p.exists()]
    found += [f"nspawn {p}" for p in Path("/run/systemd/nspawn").glob(f"*/{NAME}-*")]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{NAME}-" in command or str(lab.folder) in command:
                found.append(f"process {entry.name} {command}")
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("the lab needs root: sudo -E make test-lab")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.up()
    yield lab
    lab("down")
    assert left_behind(lab) == []


def test_every_host_answers_through_the_bastion_with_an_identity_of_its_own(lab: Lab) -> None:
    told = [lab("ssh", h["name"], "hostname; cat /etc/machine-id; sudo -n id -u").stdout.split() for h in PLAN["hosts"]]
    assert [t[0] for t in told] == ["bastion", "gitlab", "worker-1"]
    assert len({t[1] for t in told}) == 3 and all(t[2] == "0" for t in told)
    keys = (lab.folder / "known_hosts").read_text().splitlines()
    assert len({line.split()[2] for line in keys}) == 3


def test_hosts_lack_what_scripts_must_not_use(lab: Lab) -> None:
    done = lab("exec", "worker-1", "sh", "-c", "command -v python3 python jq; systemctl is-system-running", check=False)
    assert done.stdout.split() == ["running"]


def test_names_time_and_packages_are_served(lab: Lab) -> None:
    names = "getent hosts gitlab.small.example.com any.small.example.com; getent hosts example.org || echo none"
    assert [line.split()[0] for line in lab("ssh", "worker-1", names).stdout.splitlines()] == [
        "192.168.72.14", "192.168.73.16", "none",
    ]  # fmt: skip
    # One SNTP question (RFC 4330): 48 bytes, the first says version 4, client; seconds since 1900 stand at 40.
    script = (
        "exec 3<>/dev/udp/198.18.0.1/123; { printf '\\043'; head -c 47 /dev/zero; } | dd bs=48 iflag=fullblock status=none >&3; "
        "timeout 3 head -c 48 <&3 | od -An -tu1 -j40 -N4; date +%s"
    )
    *octets, here = map(int, lab("ssh", "worker-1", script).stdout.split())
    assert abs(int.from_bytes(bytes(octets), "big") - 2208988800 - here) <= 2
    lab("ssh", "worker-1", "sudo apt-get -qq update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qq -y install haproxy >/dev/null 2>&1 && sudo haproxy -v")


def test_no_packet_leaves(lab: Lab) -> None:
    for target in ("1.1.1.1", "10.0.0.1", "169.254.169.254"):
        assert lab("run", "--", "ip", "route", "get", target, check=False).returncode != 0, target
        from_host = lab("exec", "worker-1", "timeout", "4", "bash", "-c", f"exec 3<>/dev/tcp/{target}/80", check=False)
        assert from_host.returncode != 0, target
    # Every link's other end is in a namespace of this lab, and none is the machine's own.
    mine = {p.name for p in Path("/run/netns").glob(f"{NAME}-*")}
    for space in mine:
        for link in json.loads(subprocess.check_output(["ip", "-n", space, "-j", "link"])):
            if link["ifname"] != "lo" and not link["ifname"].startswith("br"):
                assert link.get("link_netnsid") is not None, (space, link)
    listed = json.loads(subprocess.check_output(["ip", "-j", "link"]))
    assert not [link["ifname"] for link in listed if link["ifname"].startswith(("v0", "v1", "v2", "br"))]


def test_kernel_parameters_of_a_host_are_its_own(lab: Lab) -> None:
    before = Path("/proc/sys/kernel/panic").read_text()
    told = lab("exec", "worker-1", "sh", "-c", "sysctl -qw kernel.panic=77 net.ipv4.ip_forward=1; sysctl -n kernel.panic net.ipv4.ip_forward")
    assert told.stdout.split() == ["77", "1"]
    assert Path("/proc/sys/kernel/panic").read_text() == before
    assert lab("exec", "gitlab", "sysctl", "-n", "kernel.panic").stdout.strip() == before.strip()


def test_up_starts_only_the_dead(lab: Lab) -> None:
    identity = lab("ssh", "worker-1", "sudo touch /var/mark; cat /etc/machine-id").stdout
    booted = lab("ssh", "gitlab", "cat /proc/sys/kernel/random/boot_id").stdout
    lab("stop", "worker-1")
    assert lab.states() == {"bastion": "up", "gitlab": "up", "worker-1": "down"}
    assert lab("status", check=False).returncode == 1
    said = lab.up().stderr
    assert "starting 1 of 3 hosts: worker-1" in said
    assert set(lab.states().values()) == {"up"}
    assert lab("ssh", "worker-1", "test -e /var/mark; cat /etc/machine-id").stdout == identity
    assert lab("ssh", "gitlab", "cat /proc/sys/kernel/random/boot_id").stdout == booted
    assert "starting" not in lab.up().stderr


def test_a_wiped_host_is_another_machine_in_the_same_place(lab: Lab) -> None:
    look = "cat /etc/machine-id; cut -d ' ' -f 2 /etc/ssh/ssh_host_ed25519_key.pub"
    before = lab("ssh", "worker-1", f"sudo touch /var/mark /srv/mark; {look}").stdout.split()
    lab("exec", "worker-1", "nft", "add table inet of_the_old_machine")
    lab("wipe", "worker-1")
    # Also its key is known: nobody has to be asked.
    after = lab("ssh", "worker-1", look).stdout.split()
    assert len(after) == 2 and not set(before) & set(after)
    assert lab("ssh", "worker-1", "ls /var/mark /srv/mark 2>/dev/null; sudo nft list tables", check=False).stdout == ""
    assert set(lab.states().values()) == {"up"}


def test_a_cable_can_be_pulled(lab: Lab) -> None:
    lab("cut", "gitlab")
    assert lab.states()["gitlab"] == "cut"
    lab("heal", "gitlab")
    for _ in range(20):
        if lab.states()["gitlab"] == "up":
            return
        time.sleep(0.5)
    pytest.fail("gitlab does not answer after its cable was plugged in again")


def test_a_second_lab_of_the_name_is_refused_with_what_to_do(lab: Lab, tmp_path: Path) -> None:
    refused = lab.up(check=False, OPSTELLA_LAB=str(tmp_path / "second" / "lab"))
    assert refused.returncode == 1
    assert str(lab.folder) in refused.stderr and "lab/lab down" in refused.stderr and "OPSTELLA_LAB_NAME=" in refused.stderr
    assert set(lab.states().values()) == {"up"}


def test_another_plan_is_refused_while_a_lab_is_up(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**PLAN, "hosts": PLAN["hosts"][:2]}))
    refused = lab("up", "--bare", "--config-file", str(other), check=False)
    assert refused.returncode == 1 and "End it first: lab/lab down" in refused.stderr


def test_gitlab_double_refuses_a_broken_gitlab_rb(lab: Lab) -> None:
    folder = subprocess.run([ROOT / "lab/toolchain/build", "gitlab"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    (package,) = Path(folder).glob("gitlab-ce_*_amd64.deb")
    root = lab.folder / "hosts/gitlab/root/root"
    (root / package.name).write_bytes(package.read_bytes())
    good = "external_url 'https://gitlab.small.example.com'\nletsencrypt['enable'] = false\n"
    (root / "prepare").write_text(f"""set -eu
install -d /etc/gitlab/ssl; cd /etc/gitlab/ssl
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=gitlab.small.example.com \\
  -addext subjectAltName=DNS:gitlab.small.example.com -keyout gitlab.small.example.com.key -out gitlab.small.example.com.crt 2>/dev/null
printf '%s' "{good}" >/etc/gitlab/gitlab.rb
GITLAB_ROOT_PASSWORD=canary-of-the-test DEBIAN_FRONTEND=noninteractive apt-get -qq -y install /root/{package.name} >/dev/null
""")
    lab("exec", "gitlab", "bash", "/root/prepare")
    shown = lab("run", "--", "curl", "--silent", "--insecure", "--location", "http://gitlab.small.example.com/").stdout
    assert "GitLab double" in shown

    def reconfigure(text: str) -> subprocess.CompletedProcess[str]:
        (lab.folder / "hosts/gitlab/root/etc/gitlab/gitlab.rb").write_text(text)
        return lab("exec", "gitlab", "gitlab-ctl", "reconfigure", check=False)

    for text, message in (
        (good + "gitlab_rails['x'] = 'open\n", "unterminated string"),
        (good + "gitlab_rail['x'] = 1\n", "unsupported config value"),
        ("letsencrypt['enable'] = false\n", "external_url is not set"),
        (good.replace("https", "http"), "write https://"),
        (good + "gitlab_rails['nginx']['ssl_certificate_key'] = '/nowhere.key'\n", "no such file"),
    ):
        refused = reconfigure(text)
        assert refused.returncode == 1 and message in refused.stderr, text
        # What was applied before still serves.
        assert lab("run", "--", "curl", "-ksS", "-o", "/dev/null", "https://gitlab.small.example.com/users/sign_in").returncode == 0
    assert reconfigure(good).returncode == 0
    kept = lab("exec", "gitlab", "grep", "--recursive", "--files-with-matches", "canary-of-the-test", "/etc/gitlab", "/var/opt/gitlab", check=False)
    assert kept.stdout.split() == ["/etc/gitlab/initial_root_password"]
    assert lab("exec", "gitlab", "sh", "-c", "gitlab-ctl stop nginx >/dev/null; gitlab-ctl status nginx", check=False).returncode == 6
    lab("exec", "gitlab", "gitlab-ctl", "start")


def test_down_works_when_half_of_it_is_gone(lab: Lab) -> None:
    subprocess.run(["ip", "netns", "del", f"{NAME}-worker-1"], check=True)
    (lab.folder / "plan.json").unlink()
    assert "0 processes, 0 mounts, 0 namespaces, 0 cgroups" in lab("down").stderr
    assert left_behind(lab) == []
    assert "0 processes" in lab("down").stderr
    lab.up()


def test_an_up_that_fails_takes_down_what_it_started(lab: Lab) -> None:
    lab("down")
    # An image without an init: hosts stop while booting.
    broken = lab.plan.parent / "broken/rootfs"
    for folder in ("etc/ssh", "home/ops", "lib/modules", "usr/sbin", "bin", "sbin", "proc", "sys", "dev", "run", "tmp", "srv"):
        (broken / folder).mkdir(parents=True, exist_ok=True)
    failed = lab.up(check=False, OPSTELLA_ARTIFACT_IMAGE=str(broken.parent))
    assert failed.returncode == 1
    assert left_behind(lab) == []
    lab.up()
