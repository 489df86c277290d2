"""The stand-in for ``command`` answers as the released plugin does: the table of cases.py, which can be run against both."""

from __future__ import annotations

import pytest

from tests.lab.providers.cases import CASES, Case
from tests.lab.providers.driver import Driver
from tests.lab.providers.ssh_server import SshServer

pytestmark = pytest.mark.toolchain


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_stand_in_answers_as_the_released_plugin(command: Driver, sshd: SshServer, case: Case) -> None:
    if not sshd.real:
        pytest.skip("asyncssh's server passes no signal on: needs OpenSSH's sshd")
    assert case.ask(command, sshd) == case.answer
