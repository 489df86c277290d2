"""SSH sessions of a deployment, counted for the bastion that carries them all."""

from __future__ import annotations

import re

import pytest

from plan import access, hosts, network, nftables
from plan.topology import topology
from tests.plan.stacks import plan, read
from tests.support.platform import reference
from tests.support.sent import sent


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_the_sessions_are_those_of_the_remote_steps(architecture: str) -> None:
    steps = len(reference(architecture).of_type("command:remote:Command"))
    counted = access.sessions(plan(architecture=architecture).topology)
    assert steps <= counted <= steps * 1.1


def test_a_bastion_that_is_too_small_for_its_sessions_is_named_with_a_size_that_is_enough() -> None:
    large = {"one": {"subnet": "10.20.0.0/22", "podSubnet": "10.32.0.0/12", "workers": {"count": 900}}}
    given = read(architecture="custom", clusters=large)
    (warning,) = access.warnings(topology(given))
    assert warning.startswith("bastion.memoryGb: a first up opens ") and warning.endswith(" or more")
    enough = int(warning.split("memoryGb to ")[1].split()[0])
    assert not access.warnings(topology(read(architecture="custom", clusters=large, bastion={"memoryGb": enough})))
    assert access.warnings(topology(read(architecture="custom", clusters=large, bastion={"memoryGb": enough - 2})))
    assert not access.warnings(plan().topology)


def test_one_worker_more_is_nothing_new_to_the_bastion() -> None:
    def asked(workers: int) -> object:
        stack = plan(clusters={"standalone": {"workers": {"count": workers}}})
        return hosts.preflight(stack.topology.bastion, stack.settings, stack.topology, stack.stack)

    assert asked(6) == asked(7)
    stack = plan()
    worker = stack.topology.clusters[0].workers[0]
    assert hosts.preflight(worker, stack.settings, stack.topology, stack.stack)["sessions"] == 0


def rate(ruleset: str) -> tuple[int, int]:
    """Connections in a minute, and at once; alike for both families."""
    found = {(int(a), int(b)) for a, b in re.findall(r"limit rate over (\d+)/minute burst (\d+) packets", ruleset)}
    (one,) = found
    return one


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_a_first_up_of_a_reference_is_held_back_nowhere_and_guessing_is(architecture: str) -> None:
    stack = plan(architecture=architecture)
    for host in stack.topology.hosts:
        a_minute, at_once = rate(nftables.ruleset(host, stack.contract))
        assert access.sessions(stack.topology) <= a_minute <= 240 and at_once == 120


def test_the_bastion_of_a_fleet_lets_the_engine_through_at_its_own_pace() -> None:
    def rates(workers: int, **firewall: int) -> dict[str, int]:
        large = {"one": {"subnet": "10.20.0.0/22", "podSubnet": "10.32.0.0/12", "workers": {"count": workers}}}
        stack = plan(architecture="custom", clusters=large, firewall=firewall)
        return {host.role: rate(nftables.ruleset(host, stack.contract))[0] for host in stack.topology.hosts}

    large = rates(300)
    assert large.pop("bastion") == 1200 and set(large.values()) == {240}
    assert rates(301) == rates(300), "one machine more changes the rules of none"
    assert set(rates(300, sshPerMinute=600).values()) == {600}


def test_administrators_reach_gitlab_from_where_somebody_is_named_and_everybody_reaches_its_git() -> None:
    def found(**given: object) -> tuple[str, ...]:
        stack = plan(network=given)
        return hosts.administrators_from(stack.topology.gitlab, stack.contract)

    bastion = f"{plan().topology.bastion.address}/32"
    assert found() == (bastion,)
    stack = plan()
    assert () in [o.networks for o in network.openings(stack.topology.gitlab, stack.contract) if o.rule.opens("tcp", 22)]
    assert sent(reference("standalone").named("gitlab-omnibus")).values["administrators_from"] == bastion
    rule = {"purpose": "audits", "to": "gitlab", "from": ["10.9.0.0/16"], "ports": [22]}
    assert set(found(rules=[rule])) == {bastion, "10.9.0.0/16"}
