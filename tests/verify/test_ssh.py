"""The OpenSSH configuration of the checks: through the bastion, keys held to those the stack recorded."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from tests.verify.conftest import Make
from verify import ssh
from verify.runner import CheckFailed
from verify.ssh import Ssh, session
from verify.stack import Stack


def settings(text: str) -> dict[str, dict[str, str]]:
    """`Host` pattern to its settings; OpenSSH takes the first value it finds."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "Host":
            assert value not in found
            current = found[value] = {}
        else:
            current.setdefault(name, value)
    return found


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """No program is started; what would have been is listed."""
    called: list[list[str]] = []
    monkeypatch.setattr(ssh.subprocess, "run", lambda command, **_: called.append(command))
    return called


def written(stack: Stack) -> tuple[dict[str, dict[str, str]], str]:
    with session(stack) as connections:
        folder = connections.config.parent
        return settings(connections.config.read_text()), (folder / "known_hosts").read_text()


def test_every_host_is_reached_through_the_bastion(make: Make, quiet: list[list[str]]) -> None:
    stack = make()
    found, _ = written(stack)
    assert set(found) == {"*", *(h["name"] for h in stack.hosts)}
    for host in stack.hosts:
        own = found[host["name"]]
        assert own["HostName"] == host["address"] and own["HostKeyAlias"] == host["name"]
        assert own.get("ProxyJump") == (None if host["role"] == "bastion" else "bastion")


def test_keys_are_held_to_and_nothing_is_asked(make: Make, quiet: list[list[str]]) -> None:
    stack = make(changes={"ssh": {"port": 2222, "user": "admin"}})
    found, known = written(stack)
    general = found["*"]
    assert general["StrictHostKeyChecking"] == "yes" and general["BatchMode"] == "yes"
    assert general["UserKnownHostsFile"].endswith("/known_hosts") and general["IdentitiesOnly"] == "yes"
    assert (general["Port"], general["User"]) == ("2222", "admin")
    assert not {"StrictHostKeyChecking", "UserKnownHostsFile", "Port"} & {k for h in stack.hosts for k in found[h["name"]]}
    assert known == "".join(f"{h['name']} ssh-ed25519 key-of-{h['name']}\n" for h in stack.hosts)


def test_the_bastion_is_dialled_where_the_operator_reaches_it(make: Make, quiet: list[list[str]]) -> None:
    found, _ = written(make(public_address="bastion.example.org"))
    assert found["bastion"]["HostName"] == "bastion.example.org"
    assert found["nfs"]["HostName"] == "192.168.72.13"


def test_the_key_is_private_and_gone_afterwards(make: Make, quiet: list[list[str]]) -> None:
    with session(make()) as connections:
        folder = connections.config.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
        assert (folder / "key").read_text() == "the private key\n"
    assert not folder.exists()
    # Every master connection is told to end, the bastion's, which carries the others, last.
    assert len(quiet) == 10 and all(command[-3:-1] == ["-O", "exit"] for command in quiet)
    assert quiet[-1][-1] == "bastion"


def program(folder: Path, text: str) -> Path:
    folder.mkdir()
    path = folder / "ssh"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo refused >&2; exit 255", "nfs: refused"),
        ("exit 3", "nfs: no message"),
        ("sleep 9", "nfs: `true` took more than 1 s"),
    ],
)
def test_a_command_that_fails_says_where_and_why(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of ssh: it proves what is made of its answers, not that a connection works."""
    monkeypatch.setenv("PATH", f"{program(tmp_path / 'bin', text)}:/usr/bin:/bin")
    with pytest.raises(CheckFailed) as caught:
        Ssh(tmp_path / "config").run("nfs", "true", seconds=1)
    assert str(caught.value) == said


def test_input_and_arguments_reach_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = program(tmp_path / "bin", 'echo "$@" >"$(dirname "$0")/said"; shift 3; sh -c "$1"')
    monkeypatch.setenv("PATH", f"{double}:/usr/bin:/bin")
    assert Ssh(tmp_path / "c").run("nfs", "cat", stdin="word") == "word"
    assert (tmp_path / "bin/said").read_text() == f"-F {tmp_path}/c nfs echo '----- opstella reply -----'; cat\n"


def test_what_the_login_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = program(tmp_path / "bin", 'echo "Authorised use only."; shift 3; sh -c "$1"')
    monkeypatch.setenv("PATH", f"{double}:/usr/bin:/bin")
    assert Ssh(tmp_path / "c").run("nfs", "hostname && true").strip() == socket.gethostname()
