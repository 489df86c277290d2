"""The reader at the engine's edge: structures as JSON, secrets, and an error page without a stack trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import config as runtime
from pulumi.runtime.config import set_all_config

from config.errors import ConfigurationError
from config.load import from_pulumi, from_stack_file, load
from config.pem import ENCRYPTED


def configuration(**sections: Any) -> dict[str, str]:
    values = {"architecture": "standalone", "domain": "devops.example.com", "ssh": {"privateKey": ENCRYPTED}} | sections
    return {f"opstella:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}


SSH = {"opstella:ssh"}


def problems(config: dict[str, str], secret_keys: set[str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        from_pulumi(config, secret_keys, "stack")
    return [str(problem) for problem in caught.value.problems]


def test_structures_arrive_as_json_and_scalars_as_text() -> None:
    config = configuration(clusters={"standalone": {"workers": {"count": 3}}}, extraCaCertificates=[])
    settings = from_pulumi(config | {"aws:region": "x"}, SSH, "stack")
    assert settings.clusters["standalone"].workers.count == 3
    assert settings.clusters["standalone"].workers.memory_gb == 10
    assert settings.domain == "devops.example.com"
    assert settings.extra_ca_certificates == ()


def test_text_that_only_looks_like_json_is_text() -> None:
    [problem] = problems(configuration(domain="{devops"), SSH)
    assert problem.startswith("opstella:domain: '{devops' is not a domain name")


def test_a_structure_set_as_json_text_is_read() -> None:
    settings = from_pulumi(configuration(gitlab='{"edition": "ee"}'), SSH, "stack")
    assert settings.gitlab.edition == "ee"


def test_other_namespaces_are_not_read() -> None:
    settings = from_pulumi(
        configuration() | {"other:domain": "x", "opstella-next-generation:domain": "y"}, SSH, "stack"
    )
    assert settings.domain == "devops.example.com"


def test_a_namespace_that_is_nearly_ours_is_not_overlooked() -> None:
    [problem] = problems(configuration() | {"opstela:firewall": "{}"}, SSH)
    assert problem.startswith("opstela:firewall: 'opstela' is not this project's namespace")
    assert "did you mean opstella:firewall?" in problem


def test_an_encrypted_key_is_accepted(ssh_key: str) -> None:
    settings = from_pulumi(configuration(ssh={"privateKey": ssh_key}), SSH, "stack")
    assert settings.ssh.private_key.get_secret_value() == ssh_key


def test_a_key_from_a_file_needs_no_encryption(names: dict[str, str], ssh_key: str) -> None:
    settings = from_pulumi(configuration(ssh={"privateKey": f"file:{names['ssh']}"}), set(), "stack")
    assert settings.ssh.private_key.get_secret_value() == ssh_key


def test_a_key_in_clear_is_refused_though_another_is_encrypted(ssh_key: str) -> None:
    [problem] = problems(configuration(ssh={"privateKey": ssh_key}), {"opstella:tls", "other:ssh"})
    assert problem.startswith("opstella:ssh.privateKey: a secret is in the stack file in clear")


def test_secrets_of_services_are_read_and_not_shown() -> None:
    config = configuration(secrets={"hook": "https://hooks.example.com/canary"}, alerts={"webhook": "hook"})
    settings = from_pulumi(config, SSH | {"opstella:secrets"}, "stack")
    assert settings.secrets["hook"].get_secret_value() == "https://hooks.example.com/canary"
    assert "canary" not in repr(settings) + settings.model_dump_json()
    [problem] = problems(config, SSH)
    assert problem.startswith("opstella:secrets.hook: a secret is in the stack file in clear")
    assert "canary" not in problem


def test_a_secret_named_secure_is_no_ciphertext_for_the_engine() -> None:
    [problem] = problems(configuration(secrets={"secure": "canary"}, alerts={"webhook": "secure"}), SSH)
    assert problem.startswith("opstella:secrets.secure: a secret is in the stack file in clear")


def test_what_would_not_stay_secret_must_not_be_encrypted() -> None:
    config = configuration(tools={"argocd": {"values": {"password": "canary"}}})
    [problem] = problems(config, SSH | {"opstella:tools"})
    assert problem.startswith("opstella:tools: it is encrypted, but only")
    [problem] = problems(configuration(domain="canary!"), SSH | {"opstella:domain"})
    assert problem.startswith("opstella:domain: it is encrypted") and "canary" not in problem


def test_a_file_is_read_only_on_request(tmp_path: Path) -> None:
    stack = tmp_path / "Pulumi.mine.yaml"
    stack.write_text(
        "config:\n  opstella:architecture: standalone\n  opstella:domain: a.b\n"
        "  opstella:ssh: {privateKey: 'file:/absent/key'}\n"
    )
    assert from_stack_file(stack).ssh.private_key.get_secret_value() == ENCRYPTED
    with pytest.raises(ConfigurationError, match="cannot read the file '/absent/key'"):
        from_stack_file(stack, secrets=True)


def test_a_key_in_clear_is_refused_even_if_no_secret_is_read(tmp_path: Path, names: dict[str, str]) -> None:
    stack = tmp_path / "Pulumi.mine.yaml"
    stack.write_text(
        "config:\n  opstella:architecture: standalone\n  opstella:domain: a.b\n"
        f"  opstella:ssh: {{privateKey: {names['ssh_text']}}}\n"
    )
    with pytest.raises(ConfigurationError, match="in clear"):
        from_stack_file(stack)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"\xff\xfe", "cannot be read (it is not UTF-8 text)"),
        (b"- a\n", "is not a stack file"),
        (b"config: text\n", "is not a stack file"),
        (b"", "opstella:architecture: required setting is missing"),
        (b"config:\n", "opstella:domain: required setting is missing"),
    ],
)
def test_what_is_no_stack_file(content: bytes | None, message: str, tmp_path: Path) -> None:
    stack = tmp_path / "Pulumi.mine.yaml"
    if content is not None:
        stack.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        from_stack_file(stack)
    assert message in str(caught.value)


class Nothing(pulumi.runtime.Mocks):
    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        raise AssertionError("a faulty configuration registers nothing")

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[str, Any]:
        raise AssertionError("a faulty configuration calls nothing")


@pytest.fixture
def stack() -> Any:
    """A running program's surroundings, and its configuration before and after."""
    before = dict(runtime.CONFIG.get())
    pulumi.runtime.set_mocks(Nothing(), project="opstella", stack="mine")
    yield
    set_all_config(before)


@pytest.mark.usefixtures("stack")
def test_load_reads_the_running_stack(ssh_key: str) -> None:
    set_all_config(configuration(ssh={"privateKey": ssh_key}), ["opstella:ssh"])
    assert load().ssh.private_key.get_secret_value() == ssh_key


@pytest.mark.usefixtures("stack")
def test_load_ends_a_faulty_program_with_its_error_page() -> None:
    set_all_config(configuration(domain="DEVOPS", bastion={"cpus": 2}), ["opstella:ssh"])
    with pytest.raises(ConfigurationError) as caught:
        load()
    page = str(caught.value)
    assert page.startswith("configuration of stack 'mine': 2 problems; nothing was changed.\n")
    assert "1. opstella:domain: 'DEVOPS'" in page and "2. opstella:bastion.cpus" in page
    assert "Traceback" not in page
