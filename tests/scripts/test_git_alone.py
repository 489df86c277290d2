"""Who logs in to GitLab's machine from where: the text that the phase writes, judged by the real sshd of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.sender import Result, bash

BASTION, OFFICE, STRANGER = "192.168.72.11", "10.9.3.3", "198.51.100.7"
FILE = "etc/ssh/sshd_config.d/opstella-git.conf"
# sshd reads the test's own configuration; what asks systemd, and what keeps the way back, only says so.
STANDINGS = """
V[administrators_from]=$FROM
sshd() { /usr/sbin/sshd -f "$ROOT/etc/ssh/sshd_config" "$@"; }
ssh_client() { printf '%s' "$CLIENT"; }
systemctl() { say "systemctl $*"; }
os_family() { printf debian; }
before_service() { say "before $*"; }
before_change() { :; }
git_alone_from_elsewhere
"""


class Machine:
    """A root with sshd's configuration; `include` is its first line."""

    def __init__(self, folder: Path, include: str = "Include {}/etc/ssh/sshd_config.d/*.conf") -> None:
        self.folder = folder
        (folder / "etc/ssh/sshd_config.d").mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        # Settings of the machine's own before and after: a Match that leaks would change what stands behind it.
        text = f"{include.format(folder)}\nHostKey {folder}/key\nAllowUsers ops git root\nPermitRootLogin no\n"
        (folder / "etc/ssh/sshd_config").write_text(text)

    def run(self, *networks: str, client: str = BASTION) -> Result:
        return bash(STANDINGS, with_phase="gitlab", OPSTELLA_TEST_ROOT=str(self.folder), FROM="\n".join(networks), CLIENT=client)

    @property
    def text(self) -> str | None:
        file = self.folder / FILE
        return file.read_text() if file.exists() else None

    def lets_in(self, user: str, address: str) -> bool:
        config = str(self.folder / "etc/ssh/sshd_config")
        who = f"user={user},host={address},addr={address},laddr=192.168.72.14,lport=22"
        told = subprocess.run(["/usr/sbin/sshd", "-T", "-f", config, "-C", who], capture_output=True, text=True, check=True)
        lines = told.stdout.splitlines()
        assert "permitrootlogin no" in lines and "allowusers ops" in lines
        return "denyusers *" not in lines


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd looks for its folder before anything else
    yield Machine(tmp_path)


def test_only_git_comes_from_elsewhere(machine: Machine) -> None:
    done = machine.run(f"{BASTION}/32", "10.9.0.0/16")
    assert done.status == 0, done.stderr
    assert all(machine.lets_in(user, address) for user in ("ops", "root", "git") for address in (BASTION, OFFICE))
    assert machine.lets_in("git", STRANGER) and machine.lets_in("git", "2001:db8::1")
    assert not any(machine.lets_in(user, address) for user in ("ops", "root") for address in (STRANGER, "2001:db8::1"))
    assert "systemctl try-reload-or-restart ssh" in done.stderr
    again = machine.run(f"{BASTION}/32", "10.9.0.0/16")
    assert again.status == 0 and again.changed == [] and "systemctl" not in again.stderr and "before" not in again.stderr


@pytest.mark.parametrize("client", ["192.168.72.99", "2001:db8::1"])
def test_who_connects_from_elsewhere_is_not_locked_out(machine: Machine, client: str) -> None:
    done = machine.run(f"{BASTION}/32", client=client)
    assert done.status == 0 and machine.text is None and machine.lets_in("ops", client)
    assert "warning: sshd stays as it is" in done.stderr and client in done.stderr and "opstella:bastion.address" in done.stderr


def test_without_networks_the_rule_goes(machine: Machine) -> None:
    assert machine.run().stderr == ""
    assert machine.run(f"{BASTION}/32").status == 0 and machine.text
    done = machine.run()
    assert done.status == 0 and machine.text is None and "systemctl try-reload-or-restart ssh" in done.stderr


def test_a_rule_that_sshd_does_not_read_is_named_with_what_to_do(tmp_path: Path, machine: Machine) -> None:
    deaf = Machine(tmp_path / "deaf", include="# Include of another folder {}")
    done = deaf.run(f"{BASTION}/32")
    assert done.status == 1 and "sshd does not read /etc/ssh/sshd_config.d/opstella-git.conf" in done.stderr
    assert "the first line of /etc/ssh/sshd_config" in done.stderr and "try-reload" not in done.stderr
    file = deaf.folder / "etc/ssh/sshd_config"
    file.write_text(f"Include {deaf.folder}/etc/ssh/sshd_config.d/*.conf\n{file.read_text()}")
    (deaf.folder / FILE).unlink()  # what the way back does
    assert deaf.run(f"{BASTION}/32").status == 0 and not deaf.lets_in("ops", STRANGER)


def test_where_everybody_administers_nothing_is_wrong(machine: Machine) -> None:
    assert machine.run("0.0.0.0/0").status == 0 and machine.lets_in("ops", STRANGER)
