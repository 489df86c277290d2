"""The Debian family's package functions against the real apt of Debian 12 and 13, in roots of their own with packages
made here."""

from __future__ import annotations

import fcntl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scripts.root import Root

pytestmark = pytest.mark.toolchain


@pytest.fixture(params=["image", "debian-13"])
def debian(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path, request.param)
    root.write("/tree/DEBIAN/control", "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: tests <tests@example.com>\nDescription: stand-in\n")
    (root.path / "repo").mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(root.path / "tree"), str(root.path / "repo/thing.deb")], check=True, capture_output=True)
    index = subprocess.run(["dpkg-deb", "-f", str(root.path / "repo/thing.deb")], check=True, capture_output=True, text=True).stdout
    total = subprocess.run(["sha256sum", str(root.path / "repo/thing.deb")], check=True, capture_output=True, text=True).stdout.split()[0]
    size = (root.path / "repo/thing.deb").stat().st_size
    root.write("/repo/Packages", f"{index}Filename: ./thing.deb\nSize: {size}\nSHA256: {total}\n")
    root.write("/etc/apt/sources.list", "deb [trusted=yes] file:/repo ./\n")
    yield root
    root.close()


LOCKS = ["/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"]


@contextmanager
def held(root: Root, lock: str, seconds: float) -> Iterator[None]:
    """As apt holds it (fcntl), for `seconds`, or until the block ends."""
    path = root.path / lock.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        timer = threading.Timer(seconds, lambda: fcntl.lockf(file, fcntl.LOCK_UN))
        timer.start()
        yield
        timer.cancel()


@pytest.mark.parametrize("lock", LOCKS)
def test_whoever_holds_a_lock_of_apt_is_waited_for(debian: Root, lock: str) -> None:
    with held(debian, lock, 8):
        started = time.monotonic()
        done = debian.bash("package_install thing")
    assert done.status == 0 and done.changed == ["packages thing"], done.stderr
    assert time.monotonic() - started > 7


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_that_is_never_let_go_is_named(debian: Root, lock: str) -> None:
    with held(debian, lock, 100):
        done = debian.bash("LOCK_SECONDS=2; package_install thing")
    assert done.status == 1 and done.changed == []
    assert "another program has held a lock of the package manager for 2 s: E: " in done.stderr
    assert f"/{'/'.join(lock.split('/')[1:4])}/" in done.stderr.split("what to do: ")[0]
    assert "fuser -v" in done.stderr and "package source" not in done.stderr


def test_a_run_that_died_inside_dpkg_is_finished_first(debian: Root) -> None:
    half = debian.bash("dpkg --unpack /repo/thing.deb >&2; package_install thing; dpkg --audit")
    assert (half.status, half.stdout) == (0, ""), half.stderr


@pytest.mark.parametrize(
    ("source", "words", "remedy"),
    [
        ("deb [trusted=yes] file:/nowhere ./", "E: Failed to fetch file:/nowhere/./Packages", "that package source does not exist (any more)"),
        ("deb file:/unsigned ./", "Release' is not signed", "install the signing key of that package source"),
        ("nonsense", "E: Malformed line 1 in source list", "correct that package source on this host"),
    ],
)
def test_an_update_that_fails_is_an_error_of_its_own(debian: Root, source: str, words: str, remedy: str) -> None:
    debian.write("/unsigned/Release", "Suite: x\n")
    debian.write("/etc/apt/sources.list.d/dead.list", f"{source}\n")
    done = debian.bash("package_install thing; echo reached")
    assert done.status == 1 and done.stdout == "" and done.changed == []
    assert "the package lists of this host cannot be updated (apt-get update): " in done.stderr
    assert (words in done.stderr and f"what to do: {remedy}" in done.stderr), done.stderr


def test_a_source_that_does_not_answer_is_said_and_named_when_something_is_missing(debian: Root) -> None:
    debian.write("/etc/apt/sources.list.d/dead.list", "deb [trusted=yes] http://127.0.0.1:9 ./\n")
    debian.write("/etc/apt/apt.conf.d/99", 'Acquire::Retries "0";\n')
    done = debian.bash("package_install thing; package_install other")
    assert done.changed == ["packages thing"]
    assert "warning: some package lists could not be fetched, old ones are used: " in done.stderr
    assert done.status == 1
    assert "cannot install other: E: Unable to locate package other; before, package lists could not be fetched: " in done.stderr
    assert "what to do: check that this host reaches its package sources" in done.stderr


def test_hosts_inside_are_asked_directly_whatever_form_the_settings_have(debian: Root) -> None:
    debian.write("/etc/apt/sources.list.d/inside.list", "deb http://10.1.2.3/debian ./\ndeb https://apt.example.com/x ./\ndeb http://203.0.113.1/y ./\n")
    done = debian.bash("V=([proxy_http]=http://proxy:3128 [proxy_https]='' [proxy_no]=10.0.0.0/8,.example.com,mirror.example.org); set_proxy; apt-config dump Acquire::http::Proxy", "prepare")
    assert done.status == 0, done.stderr
    assert {line for line in done.stdout.splitlines() if "DIRECT" in line} == {
        f'Acquire::http::Proxy::{host} "DIRECT";' for host in ("10.1.2.3", "apt.example.com", "mirror.example.org")
    }
