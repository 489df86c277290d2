"""Fleet: all machines met before any is changed, the bastion prepared first, every ruleset confirmed."""

from __future__ import annotations

import hashlib
from typing import Any

import pulumi
import pytest

from components.fleet import Fleet, FleetArgs
from plan import hosts
from plan.plan import Plan
from tests.support.platform import plan_of, ssh_key
from tests.support.sent import sent, values_in
from tests.support.stack import Recording, Registered, run

BUNDLE = "-----BEGIN CERTIFICATE-----\nbundle\n-----END CERTIFICATE-----\n"
NAMES = ["bastion", "gitlab", "haproxy", "nfs", "master-1", *(f"worker-{n}" for n in range(1, 6))]


def fleet(changes: dict[str, Any] | None = None, *, preview: bool = False) -> tuple[Plan, Recording]:
    plan = plan_of(changes=changes)
    arguments = FleetArgs(plan=plan, private_key=pulumi.Output.secret(ssh_key()), ca_bundle=BUNDLE)
    return plan, run(lambda: Fleet("fleet", arguments) and None, preview=preview)


def of(found: Recording, phase: str, *, but: str = "") -> list[Registered]:
    ends = f"-{phase}"
    return [r for r in found.commands if r.name.endswith(ends) and r.name != f"fleet-{but}{ends}"]


def test_names_and_parents(preview: bool) -> None:
    plan, found = fleet(preview=preview)
    whole = found.named("fleet")
    assert whole.type == "opstella:host:Fleet"
    children = {c.name: c.type for c in found.children(whole)}
    assert children == {f"fleet-{n}": "opstella:host:Host" for n in NAMES} | {
        "fleet-distinct": "command:local:Command"
    }
    for name in NAMES:
        of_host = {c.name for c in found.children(found.named(f"fleet-{name}"))}
        assert of_host == {f"fleet-{name}-{step}" for step in ("hostkey", "preflight", "prepare", "confirm")}
    assert found.outputs_of("fleet") == {"hosts": {h.name: str(h.address) for h in plan.topology.hosts}}


def test_everyone_is_met_and_compared_before_anything_is_changed(preview: bool) -> None:
    _, found = fleet(preview=preview)
    compared = found.named("fleet-distinct")
    assert len(of(found, "preflight")) == len(of(found, "prepare")) == len(NAMES)
    for met in of(found, "preflight"):
        assert found.before(met, compared)
        for changed in of(found, "prepare"):
            assert found.before(met, changed)
            assert not found.before(changed, met)


def test_the_machines_are_compared_by_what_each_said() -> None:
    """On the operator's machine, which could ask again those that do not differ; what it is sent holds a private key."""
    plan, found = fleet({"bastion": {"publicAddress": "bastion.example.org"}})
    compared = found.named("fleet-distinct")
    assert compared.inputs["create"] == 'env -i PATH="$PATH" HOME="$HOME" bash -s -- fleet'
    assert "stdin" in compared.secrets
    values = values_in(compared.inputs["stdin"])[1]
    names = [plan.topology.bastion.name, *(h.name for h in plan.topology.hosts if h != plan.topology.bastion)]
    assert sorted(names) == sorted(NAMES)
    assert values["facts"].splitlines() == [f"stdout-of-fleet-{n}-preflight" for n in names]
    assert values["host_keys"].splitlines() == [f"stdout-of-fleet-{n}-hostkey" for n in names]
    addresses = {h.name: str(h.address) for h in plan.topology.hosts} | {"bastion": "bastion.example.org"}
    assert values["machines"].splitlines() == [f"{n} {addresses[n]}" for n in names]
    assert (values["user"], values["port"]) == ("ops", "22") and "OPENSSH PRIVATE KEY" in values["private_key"]


@pytest.mark.parametrize("step", ["prepare", "confirm"])
def test_the_bastion_is_finished_before_connections_run_through_it(preview: bool, step: str) -> None:
    _, found = fleet(preview=preview)
    finished = found.named(f"fleet-bastion-{step}")
    for other in of(found, "prepare", but="bastion"):
        assert found.before(finished, other)


def test_machines_behind_the_bastion_do_not_wait_for_each_other() -> None:
    _, found = fleet()
    others = [*of(found, "prepare", but="bastion"), *of(found, "confirm", but="bastion")]
    for one in others:
        for two in others:
            same = one.parent == two.parent
            assert found.before(one, two) == (same and one.name.endswith("prepare") and two.name.endswith("confirm"))


def test_what_is_prepared_is_the_plan() -> None:
    plan, found = fleet()
    for host in plan.topology.hosts:
        told = sent(found.named(f"fleet-{host.name}-prepare"))
        assert told.phase == "prepare"
        wanted = hosts.prepare(host, plan.contract, plan.stack)
        assert set(told.values) == {*wanted, "ca_bundle"}
        assert told.values["ca_bundle"] == BUNDLE
        assert told.values["hostname"] == host.name
        assert told.values["ruleset"] == wanted["ruleset"] != ""
        assert told.values["modules"].splitlines() == list(wanted["modules"])


def test_the_ruleset_that_was_sent_is_the_one_confirmed() -> None:
    _, found = fleet()
    for name in NAMES:
        ruleset = sent(found.named(f"fleet-{name}-prepare")).values["ruleset"]
        confirmed = sent(found.named(f"fleet-{name}-confirm"))
        assert confirmed.phase == "confirm"
        assert confirmed.values == {"ruleset_sha256": hashlib.sha256(ruleset.encode()).hexdigest()}


def test_the_confirmation_is_tried_for_less_time_than_the_rollback_takes_to_matter() -> None:
    """The script's bound is its own; what it must not do is outlive the rollback and then still say yes."""
    plan, found = fleet({"firewall": {"rollbackSeconds": 90}})
    assert plan.settings.firewall.rollback_seconds == 90
    for name in NAMES:
        assert sent(found.named(f"fleet-{name}-prepare")).values["rollback_seconds"] == "90"
        assert sent(found.named(f"fleet-{name}-confirm")).seconds <= 90


def test_without_a_firewall_nothing_is_confirmed_and_the_order_stays(preview: bool) -> None:
    _, found = fleet({"firewall": {"enabled": False}}, preview=preview)
    assert not of(found, "confirm")
    assert {sent(r).values["ruleset"] for r in of(found, "prepare")} == {""}
    first = found.named("fleet-bastion-prepare")
    assert all(found.before(first, other) for other in of(found, "prepare", but="bastion"))


def test_the_publicly_known_address_is_the_bastions_only() -> None:
    _, found = fleet({"bastion": {"publicAddress": "bastion.example.org"}})
    for name in NAMES:
        connection = found.named(f"fleet-{name}-preflight").inputs["connection"]
        ends = [connection["host"], connection.get("proxy", {}).get("host")]
        assert ends.count("bastion.example.org") == 1
        assert ends[0 if name == "bastion" else 1] == "bastion.example.org"
        # Others keep their addresses, and the plan's own address of the bastion stays what firewalls name.
        assert (connection["host"] == "bastion.example.org") == (name == "bastion")


def test_without_sudo_nothing_calls_it() -> None:
    _, found = fleet({"ssh": {"user": "root", "sudo": False}})
    remote = [r for r in found.commands if r.type == "command:remote:Command"]
    assert remote and not [r.name for r in remote if "sudo" in r.inputs["create"]]
    assert all(r.inputs["create"].startswith("timeout --kill-after=10 ") for r in remote)


def test_a_load_balancer_is_not_met_anew_when_it_gets_a_companion(preview: bool) -> None:
    """It is called otherwise then, in both directions; the engine applies a parent's alias to its children."""
    two = {"count": 2, "virtualAddress": "192.168.72.10", "addresses": ["192.168.72.12", "192.168.72.9"]}
    for changes, present, other in (
        ({}, "haproxy", "haproxy-1"),
        ({"clusters": {"standalone": {"loadBalancer": two}}}, "haproxy-1", "haproxy"),
    ):
        _, found = fleet(changes, preview=preview)
        (alias,) = found.named(f"fleet-{present}").request.aliases
        assert alias.spec.name == f"fleet-{other}"
        assert [r.name for r in found.of_type("opstella:host:Host") if r.request.aliases] == [f"fleet-{present}"]
        # The prefix by which the engine knows them.
        assert all(c.name.startswith(f"fleet-{present}-") for c in found.children(found.named(f"fleet-{present}")))
