"""The double of the engine that these tests stand on: what it shows of secrets, order and preview is true."""

from __future__ import annotations

import pulumi
import pulumi_random as random
from pulumi_command import remote

from tests.support.sent import decoded
from tests.support.stack import UNKNOWN, Secret, clear_texts, run


def command(name: str, **inputs: object) -> remote.Command:
    return remote.Command(name, connection=remote.ConnectionArgs(host="h", private_key="k"), create="true", **inputs)


def test_secrets_are_marked_where_they_stand_and_flow_on() -> None:
    def program() -> None:
        password = random.RandomPassword("password", length=8)
        command("with", stdin=password.result.apply(lambda p: f"<{p}>"))
        command("without", stdin="nothing hidden")

    found = run(program)
    hidden = found.named("password").outputs["result"]
    assert isinstance(hidden, Secret) and hidden.value.endswith("of-password")
    assert found.named("with").secrets == {"stdin", "connection"}
    assert found.named("with").inputs["stdin"] == f"<{hidden.value}>"
    assert hidden.value not in list(clear_texts(found.named("with").marked))
    assert found.named("without").secrets == {"connection"}
    assert "nothing hidden" in list(clear_texts(found.named("without").marked))


def test_order_follows_values_and_depends_on_through_several_steps() -> None:
    def program() -> None:
        first = command("first")
        second = command("second", stdin=first.stdout)
        command("third", opts=pulumi.ResourceOptions(depends_on=[second]))
        command("apart")

    found = run(program)
    first, third, apart = (found.named(name) for name in ("first", "third", "apart"))
    assert found.before(first, third)
    assert not found.before(third, first)
    assert not found.before(first, apart) and not found.before(apart, third)


def test_in_preview_outputs_are_unknown_and_inputs_are_not() -> None:
    def program() -> None:
        command("after", stdin=command("first", stdin="known").stdout)

    found = run(program, preview=True)
    assert found.named("first").inputs["stdin"] == "known"
    assert found.named("after").inputs["stdin"] is UNKNOWN


def test_exports_and_declared_outputs_are_kept() -> None:
    def program() -> None:
        pulumi.export("open", "text")
        pulumi.export("shut", {"password": pulumi.Output.secret("word")})

    assert run(program, stack="one").exports == {"open": "text", "shut": {"password": Secret("word")}}
    assert run(lambda: None, stack="two").exports == {}


def test_base64_hides_nothing() -> None:
    assert "canary-7" in decoded("main <<'X'\nname Y2FuYXJ5LTc=\nX\n")
