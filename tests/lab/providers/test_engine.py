"""The stand-ins under the real engine: preview, up, no changes, replacement, destroy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.lab.providers.driver import PROVIDERS
from tests.lab.providers.ssh_server import SshServer

from standin import command_package, random_package, tls_package  # noqa: E402  isort: skip

ROOT = PROVIDERS.parent.parent
LANGUAGE_HOST = ROOT / "lab" / "toolchain" / "language-host" / "pulumi-language-python"

PROGRAM = '''
import json, os, pathlib
import pulumi, pulumi_command as command, pulumi_random as random, pulumi_tls as tls
from pulumi import ResourceOptions as Options

settings = json.loads(pathlib.Path("settings.json").read_text())
password = random.RandomPassword("password", length=settings.get("length", 24))
root_key = tls.PrivateKey("root", algorithm="RSA", rsa_bits=2048)
root = tls.SelfSignedCert("root", private_key_pem=root_key.private_key_pem, is_ca_certificate=True,
    validity_period_hours=1000, allowed_uses=["cert_signing"], subject={"common_name": "root"})
key = tls.PrivateKey("leaf", algorithm="ECDSA", ecdsa_curve="P256")
request = tls.CertRequest("leaf", private_key_pem=key.private_key_pem, dns_names=["a.example.org"],
    subject={"common_name": "a.example.org"})
leaf = tls.LocallySignedCert("leaf", ca_private_key_pem=root_key.private_key_pem,
    ca_cert_pem=root.cert_pem, cert_request_pem=request.cert_request_pem,
    validity_period_hours=100, allowed_uses=["server_auth"])
connection = command.remote.ConnectionArgs(**settings["connection"],
    proxy=command.remote.ProxyConnectionArgs(**settings["connection"]))
mark = settings["mark"]
shown = command.remote.Command("shown", connection=connection, create="cat",
    stdin=password.result, logging=command.remote.Logging.NONE, add_previous_output_in_env=False,
    opts=Options(additional_secret_outputs=["stdout", "stdin"]))
traced = command.remote.Command("traced", connection=connection,
    create=f"echo create >> {mark}", update=f"echo update >> {mark}", delete=f"echo delete >> {mark}",
    triggers=[settings.get("trigger", "1")], environment=settings.get("environment"),
    opts=Options(depends_on=[shown]))
for number in range(settings.get("many", 0)):
    command.remote.Command(f"many-{number}", connection=connection, stdin="x" * 10_000)
pulumi.export("password", password.result)
pulumi.export("echoed", shown.stdout)
pulumi.export("leaf", leaf.cert_pem)
pulumi.export("root", root.cert_pem)
'''

pytestmark = pytest.mark.toolchain


class Stack:
    """A throw-away project with the stand-ins installed as plugins."""

    def __init__(self, folder: Path, engine: Path, connection: dict[str, Any]) -> None:
        self.folder = folder / "project"
        self.mark = folder / "mark"
        self.mark.write_text("")
        self.settings: dict[str, Any] = {"mark": str(self.mark), "connection": connection}
        self._environment = {
            **os.environ, "PATH": f"{LANGUAGE_HOST.parent}:{engine.parent}:{os.environ['PATH']}",
            "OPSTELLA_PYTHON": sys.executable, "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder}", "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1", "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1"}
        self._engine = engine
        self.folder.mkdir()
        (self.folder / "Pulumi.yaml").write_text("name: test\nruntime: python\n")
        (self.folder / "__main__.py").write_text(PROGRAM)
        for package in (command_package.PACKAGE, random_package.PACKAGE, tls_package.PACKAGE):
            self("plugin", "install", "resource", package.name, package.version, "--file",
                 str(PROVIDERS / package.name))
        self("stack", "init", "test")

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        (self.folder / "settings.json").write_text(json.dumps(self.settings))
        done = subprocess.run([str(self._engine), *arguments, "--non-interactive"],
                              cwd=self.folder, env=self._environment, text=True, timeout=300,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def outputs(self) -> dict[str, str]:
        return json.loads(self("stack", "output", "--json", "--show-secrets"))

    def traced(self) -> list[str]:
        return self.mark.read_text().split()


@pytest.fixture(scope="module")
def engine() -> Path:
    """The engine: on PATH, else as lab/toolchain builds it."""
    found = shutil.which("pulumi")
    if found is None:
        built = subprocess.run([str(ROOT / "lab/toolchain/build"), "pulumi"], check=True, text=True,
                               stdout=subprocess.PIPE).stdout.strip()
        found = f"{built}/bin/pulumi"
    return Path(found)


@pytest.fixture
def stack(tmp_path: Path, engine: Path, sshd: SshServer) -> Stack:
    """A stack that reaches the test's SSH server through itself as the proxy."""
    return Stack(tmp_path, engine, {
        "host": "127.0.0.1", "port": sshd.port, "user": sshd.user, "host_key": sshd.host_key,
        "private_key": sshd.private_key})


def test_life_of_a_stack(stack: Stack, sshd: SshServer) -> None:
    before = sshd.connections()
    assert "9 to create" in stack("preview")
    assert sshd.connections() == before
    stack("up", "--yes", "--skip-preview")
    # Two commands, each with a connection to the proxy and one through it.
    assert sshd.connections() == before + 4
    first = stack.outputs()
    assert first["echoed"] == first["password"] and len(first["password"]) == 24
    leaf, root = (x509.load_pem_x509_certificate(first[name].encode()) for name in ("leaf", "root"))
    leaf.verify_directly_issued_by(root)

    state = stack("stack", "export")
    assert first["password"] not in state and "PRIVATE KEY" not in state
    assert json.loads(state)["deployment"]["resources"]

    before = sshd.connections()
    stack("preview", "--expect-no-changes")
    stack("up", "--yes", "--expect-no-changes")
    stack("refresh", "--yes", "--expect-no-changes")
    assert sshd.connections() == before and stack.traced() == ["create"]

    stack.settings["connection"]["dial_error_limit"] = 50
    assert "2 to update" in stack("preview")
    stack("up", "--yes", "--skip-preview")
    assert stack.traced() == ["create", "update"]

    stack.settings["trigger"] = "2"
    assert "1 to replace" in stack("preview")
    stack("up", "--yes", "--skip-preview")
    assert stack.traced() == ["create", "update", "create", "delete"]

    stack.settings["length"] = 30
    stack("up", "--yes", "--skip-preview")
    second = stack.outputs()
    assert len(second["password"]) == 30 and second["echoed"] == second["password"]
    assert second["leaf"] == first["leaf"]

    stack("destroy", "--yes", "--skip-preview")
    assert stack.traced()[-1] == "delete"


def test_a_failure_is_told_once_and_resumed(stack: Stack, sshd: SshServer) -> None:
    good = stack.settings["connection"]
    stack.settings["connection"] = {**good, "host_key": sshd.host_key[:-6] + "AAAAAA",
                                    "dial_error_limit": 0}
    output = stack("up", "--yes", "--skip-preview", fails=True)
    assert "error: proxy: after 0 failed attempts: ssh: handshake failed: ssh: host key mismatch" \
        in output
    # The program is interrupted by the engine, which Python may tell as a KeyboardInterrupt; the error is told once.
    assert "rpc error" not in output and output.count("    error: proxy: after 0 failed attempts") == 1
    stack.settings["connection"] = good
    output = stack("up", "--yes", "--skip-preview")
    assert "2 created" in output and stack.traced() == ["create"]


def test_a_thousand_commands_preview(stack: Stack) -> None:
    stack.settings["many"] = 1000
    assert "1009 to create" in stack("preview")
