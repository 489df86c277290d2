"""Canaries: a value that is different in each run stands for every secret, and shows in clear nowhere."""

from __future__ import annotations

import re
import secrets
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.config import material
from tests.support.platform import RECORDED, deployed, four_clusters, plan_of, reference, ssh_key
from tests.support.sent import decoded
from tests.support.stack import Recording, Secret, answers, bare, clear_texts, kubeconfig

MARK = secrets.token_hex(12)


def lines_of(key: str) -> list[str]:
    """What of a PEM key is unmistakable: each line of its body that is long enough."""
    return [line for line in key.splitlines() if len(line) > 30 and "-----" not in line]


def leaks(found: Recording, canaries: list[str]) -> list[str]:
    """Where one of `canaries` stands in clear: inputs, outputs, declared outputs, exports."""
    places: list[tuple[str, Any]] = [(f"{r.name} inputs", r.marked) for r in found.resources]
    places += [(f"{r.name} outputs", r.outputs) for r in found.resources]
    places += [(f"{urn} declares", value) for urn, value in found.declared.items()]
    any_of = re.compile("|".join(map(re.escape, canaries)))
    read = cache(decoded)
    return [
        f"{place}: {seen[0][:12]}…"
        for place, value in places
        for text in clear_texts(value)
        if (seen := any_of.search(read(text)))
    ]


def answering(type_: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """As usual, but what a kubeconfig command prints is a canary too."""
    made = answers(type_, name, inputs)
    return made | {"stdout": kubeconfig(f"{MARK}-{name}")} if name.endswith("-kubeconfig") else made


def made_up(found: Recording) -> list[str]:
    """The secrets that the double of the engine invented."""
    hidden = []
    for resource in found.resources:
        for name in ("result", "bcryptHash", "privateKeyPem"):
            if name in resource.outputs and resource.custom:
                if resource.type.startswith(("random:", "tls:index/privateKey")):
                    hidden.append(bare(resource.outputs[name]))
    return hidden


@pytest.mark.parametrize("architecture", RECORDED)
def test_no_secret_stands_in_clear(architecture: str) -> None:
    found = deployed(plan_of(architecture), answer=answering)
    canaries = [MARK, *lines_of(ssh_key()), *made_up(found)]
    assert len(canaries) > 12
    assert leaks(found, canaries) == []


def test_no_secret_of_the_users_certificates_stands_in_clear(tmp_path: Path) -> None:
    names = material.make(tmp_path)

    def files(**chosen: str) -> dict[str, str]:
        return {key: f"file:{names[name]}" for key, name in chosen.items()}

    plan = plan_of(
        changes={
            "tls": {"source": "provided", **files(certificate="leaf", privateKey="leaf_key", chain="chain")},
            "pki": {"intermediate": files(certificate="intermediate", privateKey="intermediate_key", chain="root")},
        }
    )
    canaries = []
    for name in ("leaf_key", "intermediate_key"):
        text = (tmp_path / f"{name}.pem").read_text()
        assert load_pem_private_key(text.encode(), None)
        canaries += lines_of(text)
    assert len(canaries) >= 4
    found = deployed(plan)
    assert leaks(found, canaries) == []
    sent_somewhere = [r.name for r in found.resources if canaries[0] in decoded(str(r.inputs))]
    assert sent_somewhere, "the canary goes nowhere, so its absence says nothing"


def test_a_leak_would_be_seen() -> None:
    """The search itself: in clear, in Base64 inside a payload, in outputs, in exports; never inside a secret."""
    import pulumi
    import pulumi_random as random

    from components.host import standard_input
    from tests.support.platform import met

    def program() -> None:
        host = met(plan_of(), "nfs")["nfs"]
        host.run("nfs", {"path": MARK}, name="in-payload", parent=host, seconds=9)
        host.run("nfs", {"path": MARK}, name="in-secret", parent=host, seconds=9, secret=True)
        random.RandomPassword("in-clear", length=9, override_special=MARK)
        pulumi.export("in-export", {"deep": [MARK]})
        pulumi.export("in-secret-export", pulumi.Output.secret(MARK))

    from tests.support.stack import run

    found = leaks(run(program), [MARK])
    places = {place.split(":")[0] if place.startswith("in-") else "export" for place in found}
    assert places == {"in-payload inputs", "in-payload outputs", "in-clear inputs", "in-clear outputs", "export"}
    assert MARK not in standard_input("nfs", {"path": MARK})  # so it was the Base64 that was read


def test_every_command_that_hides_its_input_hides_its_answer() -> None:
    for resource in reference("standalone").commands:
        if isinstance(resource.marked["stdin"], Secret):
            assert {"stdout", "stderr"} <= set(resource.request.additionalSecretOutputs), resource.name


@four_clusters
def test_nothing_of_a_secret_stands_in_a_command_line() -> None:
    """Command lines show in a process list; they name a phase and a time, and nothing else."""
    lines = {r.inputs[k] for r in reference("multicluster").commands for k in ("create", "update", "delete") if k in r.inputs}  # fmt: skip
    assert lines and all(len(line) < 80 for line in lines)
    assert len(lines) < 20, "a command line carries something of its machine"
