"""Host: how a machine is reached, what is sent to it, and how its key is held to."""

from __future__ import annotations

import re
from pathlib import Path

import pulumi
import pytest

from components.host import REPLY, Host, HostArgs, command_line, reply, standard_input
from components.program import program
from plan import hosts
from plan.plan import Plan
from tests.scripts.sender import bash
from tests.support.platform import access, met, plan_of, ssh_key
from tests.support.sent import sent, values_in
from tests.support.stack import UNKNOWN, Recording, run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBe0nbW4jzGuzQ3dlBD0N1Yp6mYv7MDQ2ZAtmLkPIaiT"
SCRIPTS = Path(__file__).parents[2] / "scripts"
# What fits in an SSH first contact: with ten dials, the provider's default, a booting machine would be given up.
LEAST_DIALS = 20


def two(preview: bool = False, plan: Plan | None = None) -> Recording:
    plan = plan or plan_of()
    return run(lambda: met(plan, "nfs") and None, preview=preview)


def test_type_names_and_parents(preview: bool) -> None:
    found = two(preview)
    host = found.named("host-nfs")
    assert host.type == "opstella:host:Host" and not host.custom
    children = {child.name: child.type for child in found.children(host)}
    assert children == {
        "host-nfs-hostkey": "command:remote:Command",
        "host-nfs-preflight": "command:remote:Command",
    }
    assert {c.name: c.type for c in found.children(found.named("host-bastion"))} == {
        "host-bastion-hostkey": "command:local:Command",  # nothing else can reach the bastion yet
        "host-bastion-preflight": "command:remote:Command",
    }


def test_the_bastion_is_dialled_directly_and_the_others_through_it() -> None:
    found = two()
    bastion = found.named("host-bastion-preflight").inputs["connection"]
    assert bastion["host"] == "192.168.72.11" and "proxy" not in bastion
    behind = found.named("host-nfs-preflight").inputs["connection"]
    assert behind["host"] == "192.168.72.13"
    for end, name in ((bastion, "bastion"), (behind, "nfs"), (behind["proxy"], "bastion")):
        assert end["hostKey"] == f"stdout-of-host-{name}-hostkey"
        assert (end["user"], end["port"], end["privateKey"]) == ("ops", 22, ssh_key())
        assert end["dialErrorLimit"] >= LEAST_DIALS and end["perDialTimeout"] >= 5
    assert behind["proxy"]["host"] == "192.168.72.11"
    # The bastion's key is asked for on the operator's side, the other's on the bastion.
    assert found.named("host-nfs-hostkey").inputs["connection"] == bastion


def test_the_bastions_public_address_is_dialled_and_used_as_proxy() -> None:
    plan = plan_of()

    def stack() -> None:
        def meet(name: str, planned: hosts.Host, **more: object) -> Host:
            facts = hosts.preflight(planned, plan.settings, plan.topology, plan.stack)
            return Host(name, HostArgs(host=planned, access=access(plan), preflight=facts, **more))

        bastion = meet("b", plan.topology.bastion, dial="bastion.example.org")
        meet("n", plan.topology.clusters[0].nfs, bastion=bastion)

    found = run(stack)
    assert found.named("b-preflight").inputs["connection"]["host"] == "bastion.example.org"
    assert found.named("n-preflight").inputs["connection"]["proxy"]["host"] == "bastion.example.org"
    assert values_in(found.named("b-hostkey").inputs["stdin"])[1]["address"] == "bastion.example.org"
    # Only the way in changes: the machine is still checked for the address that the plan gives it.
    assert sent(found.named("b-preflight")).values["address"] == "192.168.72.11"


def test_settings_of_the_connection_reach_it() -> None:
    found = two(plan=plan_of(changes={"ssh": {"port": 2222, "user": "admin"}, "machines": {"waitSeconds": 77}}))
    connection = found.named("host-nfs-preflight").inputs["connection"]
    assert (connection["port"], connection["user"]) == (2222, "admin")
    assert (connection["proxy"]["port"], connection["proxy"]["user"]) == (2222, "admin")
    asked = sent(found.named("host-nfs-hostkey"))
    assert asked.values == {
        "name": "nfs", "address": "192.168.72.13", "port": "2222", "timeout_seconds": "77", "expected": "",
    }  # fmt: skip
    assert asked.seconds > 77


def test_a_given_host_key_is_what_first_contact_must_find() -> None:
    found = two(plan=plan_of(changes={"ssh": {"hostKeys": {"nfs": KEY}}}))
    assert sent(found.named("host-nfs-hostkey")).values["expected"] == KEY
    assert KEY in found.named("host-nfs-hostkey").inputs["triggers"]
    assert values_in(found.named("host-bastion-hostkey").inputs["stdin"])[1]["expected"] == ""


def test_a_recorded_host_key_is_never_asked_for_again(preview: bool) -> None:
    """Only another address, port or given key is another first contact: everything else is ignored."""
    found = two(preview)
    for name, address in (("bastion", "192.168.72.11"), ("nfs", "192.168.72.13")):
        pinned = found.named(f"host-{name}-hostkey")
        assert pinned.inputs["triggers"] == [address, 22, ""]
        inputs = set(pinned.inputs) - {"triggers", "addPreviousOutputInEnv", "logging"}
        assert inputs <= set(pinned.request.ignoreChanges), inputs
        assert "triggers" not in pinned.request.ignoreChanges
        assert list(pinned.request.replaceOnChanges) == ["triggers[*]"]
        assert pinned.request.deleteBeforeReplace and "delete" not in pinned.inputs


def test_first_contact_comes_in_order() -> None:
    found = two()
    bastion_key, bastion, key, preflight = (
        found.named(f"host-{name}") for name in ("bastion-hostkey", "bastion-preflight", "nfs-hostkey", "nfs-preflight")
    )
    assert found.before(bastion_key, bastion) and found.before(bastion, key) and found.before(key, preflight)


def test_preflight_sends_the_plan_of_the_machine(preview: bool) -> None:
    plan = plan_of()
    asked = sent(two(preview, plan).named("host-nfs-preflight"))
    assert asked.phase == "preflight"
    assert asked.values["identity"] == "opstella/standalone/standalone/nfs"
    assert asked.values["ports"].splitlines() == ["tcp/2049", "tcp/33333"]
    assert (asked.values["cpu"], asked.values["memory_mb"], asked.values["disk_gb"]) == ("1", "2048", "100")
    assert set(asked.values) == set(hosts.preflight(plan.topology.bastion, plan.settings, plan.topology, plan.stack))


def test_outputs(preview: bool) -> None:
    declared = two(preview).outputs_of("host-nfs")
    expected = {"host_key": "stdout-of-host-nfs-hostkey", "facts": "stdout-of-host-nfs-preflight"}
    assert declared == (dict.fromkeys(expected, UNKNOWN) if preview else expected)


def phases(**options: object) -> Recording:
    def stack() -> None:
        host = met(plan_of(), "nfs")["nfs"]
        host.run("nfs", {"server": "kernel", "word": options.pop("word", "w")}, name="x-nfs", parent=host,
                 seconds=90, **options)  # fmt: skip

    return run(stack)


def test_a_phase_is_one_bounded_command_without_a_shells_environment() -> None:
    command = phases().named("x-nfs")
    assert command.inputs["create"] == "sudo -n timeout --kill-after=10 90 env -i bash -s -- nfs"
    assert "update" not in command.inputs and "delete" not in command.inputs and "triggers" not in command.inputs
    assert command.inputs["addPreviousOutputInEnv"] is False and command.inputs["logging"] == "none"
    assert "environment" not in command.inputs
    limits = command.request.customTimeouts
    # The engine must not give up before the script does, after all its dials.
    for limit in (limits.create, limits.update, limits.delete):
        assert int(limit.removesuffix("s")) >= 90 + 10 + 120


def test_a_secret_phase_hides_what_is_sent_and_what_comes_back() -> None:
    shown, hidden = phases().named("x-nfs"), phases(secret=True).named("x-nfs")
    assert shown.secrets == {"connection"} and "stdout" not in shown.request.additionalSecretOutputs
    assert hidden.secrets == {"connection", "stdin"}
    assert {"stdout", "stderr"} <= set(hidden.request.additionalSecretOutputs)


def test_a_secret_value_hides_the_whole_input_even_where_nobody_said_so() -> None:
    assert "stdin" in phases(word=pulumi.Output.secret("s")).named("x-nfs").secrets


def test_leaving_is_a_phase_too() -> None:
    command = phases(delete="rke2-remove").named("x-nfs")
    assert command.inputs["delete"] == "sudo -n timeout --kill-after=10 90 env -i bash -s -- rke2-remove"


@pytest.mark.parametrize("login", ["", "Authorised use only.\n", "no line end", f"{REPLY}of a former run\n"])
def test_a_reply_is_what_comes_behind_the_mark(login: str) -> None:
    assert reply(f"{login}{REPLY}ssh-ed25519 AAAA\n") == "ssh-ed25519 AAAA\n"
    assert reply("recorded before there was a mark\n") == "recorded before there was a mark\n"


def test_the_mark_is_the_one_that_the_scripts_print() -> None:
    done = bash("reply 'a\nb'")
    assert done.stdout.startswith(REPLY) and reply(done.stdout) == "a\nb\n"


def test_ready_after_holds_back_whatever_is_run_later() -> None:
    def stack() -> None:
        host = met(plan_of(), "nfs")["nfs"]
        early = host.run("nfs", {}, name="early", parent=host, seconds=9)
        host.ready_after(early)
        host.run("nfs", {}, name="late", parent=host, seconds=9)

    found = run(stack)
    assert found.before(found.named("early"), found.named("late"))
    assert not found.before(found.named("late"), found.named("early"))


@pytest.mark.parametrize("phase", sorted(p.stem for p in SCRIPTS.glob("*.sh") if p.stem != "lib"))
def test_the_program_of_every_phase_is_whole_and_small(phase: str) -> None:
    text = program(phase)
    assert re.search(r"^main\(\) \{$", text, re.M), "no function main"
    assert re.search(r"^payload_read\(\)", text, re.M), "lib.sh is missing"
    assert not [line for line in text.splitlines() if re.fullmatch(r"\s*(#.*)?", line)], "a comment is sent"
    source = (SCRIPTS / f"{phase}.sh").read_text()
    for line in source.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            assert line in text


def test_the_program_is_what_bash_reads_before_its_payload() -> None:
    text = standard_input("nfs", {"list": ["a", "b"], "flag": True, "empty": "", "quote": "it's $HOME\n"})
    head, values = values_in(text)
    assert head == program("nfs")
    assert values == {"list": "a\nb", "flag": "true", "empty": "", "quote": "it's $HOME\n"}
    assert command_line("nfs", 5) == "sudo -n timeout --kill-after=10 5 env -i bash -s -- nfs"
