"""What `python -m bench network` measures: sizes, and that every machine was planned. Seconds are no test's matter."""

from __future__ import annotations

from bench.network import measured


def test_a_ruleset_does_not_grow_with_the_fleet() -> None:
    few, many = measured({"count": 36}), measured({"count": 1000})
    assert set(few["rulesets_of"]) == set(many["rulesets_of"]) == {"bastion", "gitlab", "haproxy", "nfs", "master", "worker"}
    for role, (size, elements) in many["rulesets_of"].items():
        assert size < 1.2 * few["rulesets_of"][role][0] and elements <= 64, role


def test_scattered_addresses_are_an_element_each() -> None:
    found = measured({"count": 360, "scattered": True})["rulesets_of"]
    assert found["worker"][1] > 80 and found["nfs"][1] > 80


def test_what_machines_open_counts_where_it_is_enforced() -> None:
    without, enforced = (measured({"count": 36, "egress": egress})["rulesets_of"] for egress in (False, True))
    assert all(enforced[role][0] > without[role][0] for role in without)
