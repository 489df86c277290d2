"""`__main__.py` as the engine runs it: a stack from its configuration, or one page of errors and nothing else."""

from __future__ import annotations

import json
import runpy
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pulumi
import pytest

from tests.support.platform import ssh_key
from tests.support.stack import STACK, Recording, run

ROOT = Path(__file__).parents[2]
SSH = json.dumps({"user": "ops", "privateKey": ssh_key()})
GOOD = {"opstella:architecture": "standalone", "opstella:domain": "devops.example.com", "opstella:ssh": SSH}


@pytest.fixture(autouse=True)
def own_interruption() -> Iterator[None]:
    """The program decides what an interruption does to its process; here that is the test's."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def program(config: dict[str, str], *, preview: bool = False) -> Recording:
    def stack() -> None:
        runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")

    return run(stack, preview=preview, config=config, secret_keys=["opstella:ssh"])


@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
def test_a_configuration_becomes_a_stack(preview: bool) -> None:
    found = program(GOOD, preview=preview)
    assert len(found.of_type("opstella:host:Host")) == 10
    assert {"urls", "credentials", "kubeconfigs"} <= set(found.exports)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"opstella:domain": "no domain"}, "opstella:domain"),
        ({"opstella:clusters": json.dumps({"standalone": {"masters": {"count": 2}}})}, "opstella:clusters.standalone.masters.count"),  # fmt: skip
        ({"opstella:media": json.dumps({"source": "airgap", "artifacts": "http://m.example.com", "chartRepository": "https://c.example.com"})}, "opstella:media.sha256"),  # fmt: skip
        ({"opstella:surprise": "x"}, "opstella:surprise"),
    ],
)
def test_a_faulty_configuration_ends_with_its_page_and_registers_nothing(
    change: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[str] = []
    original = pulumi.Resource.__init__

    def noting(self: pulumi.Resource, token: str, *rest: object, **more: object) -> None:
        registered.append(token)
        original(self, token, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pulumi.Resource, "__init__", noting)
    pages: list[str] = []
    monkeypatch.setattr(pulumi.log, "error", lambda message, *_: pages.append(message))
    with pytest.raises(SystemExit) as caught:
        program(GOOD | change)
    (page,) = pages
    assert said in page and "fix: " in page
    assert "nothing was changed" in page
    assert registered == [STACK]
    # By this status the language host knows that nothing is left to say.
    assert caught.value.code == 32


def test_the_registering_is_noted_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(program(GOOD).resources) > 100


def test_warnings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, *_: told.append(message))
    program(GOOD)
    from plan.plan import build
    from tests.support.platform import settings_of

    assert told == list(build(settings_of("standalone"), "opstella/standalone", datetime.now(UTC).date()).warnings)
