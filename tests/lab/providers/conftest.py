"""One SSH server a session, and one running stand-in a test and package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.providers import ssh_server
from tests.lab.providers.driver import Driver

from standin import command_package, random_package, tls_package  # noqa: E402  isort: skip


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.SshServer]:
    """A server that lets the test's key in."""
    yield from ssh_server.serve(tmp_path_factory.mktemp("sshd"))


def _running(package: Any) -> Iterator[Driver]:
    driver = Driver(package)
    yield driver
    driver.close()


@pytest.fixture
def command() -> Iterator[Driver]:
    """The running stand-in for ``command``."""
    yield from _running(command_package.PACKAGE)


@pytest.fixture
def random() -> Iterator[Driver]:
    """The running stand-in for ``random``."""
    yield from _running(random_package.PACKAGE)


@pytest.fixture
def tls() -> Iterator[Driver]:
    """The running stand-in for ``tls``."""
    yield from _running(tls_package.PACKAGE)
