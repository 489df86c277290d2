"""What the realm's script takes for a difference; tests/lab/test_keycloak.py runs it against the real server."""

from __future__ import annotations

from typing import Any

import keycloak
import pytest


@pytest.mark.parametrize(
    ("wanted", "found", "changes"),
    [
        ({"enabled": True}, {"enabled": True, "other": 1}, []),
        ({"enabled": True, "name": "A"}, {"enabled": False}, ["enabled", "name"]),
        ({"attributes": {"a": "1"}}, {"attributes": {"a": "1", "of-the-server": "2"}}, []),
        ({"attributes": {"a": "1"}}, {"attributes": {"a": "2"}}, ["attributes"]),
        ({"attributes": {"a": "1"}}, {}, ["attributes"]),
        ({"redirectUris": ["b", "a"]}, {"redirectUris": ["a", "b"]}, []),
        ({"redirectUris": ["a"]}, {"redirectUris": ["a", "b"]}, ["redirectUris"]),
        ({"webOrigins": []}, {}, []),
        ({"passwordPolicy": "length(12)"}, {"passwordPolicy": "length(8)"}, ["passwordPolicy"]),
    ],
)
def test_only_what_is_wanted_is_compared(wanted: dict[str, Any], found: dict[str, Any], changes: list[str]) -> None:
    assert keycloak.differing(wanted, found) == changes


def test_a_gate_asks_for_its_role_after_the_login() -> None:
    steps = keycloak.steps_of({"alias": "a", "role": "login_viewers", "groups": ["viewers"]})
    kinds = [kind for _, kind, _, _ in steps]
    assert kinds.index("auth-username-password-form") < kinds.index("conditional-user-role") < len(kinds) - 1
    assert kinds[-1] == "deny-access-authenticator" and steps[-1][2] == "REQUIRED"
    (asked,) = (config for _, kind, _, config in steps if kind == "conditional-user-role")
    assert asked == {"condUserRole": "login_viewers", "negate": "true"}
    # The second of the top-level parts only runs for whom the condition holds; the first has to succeed.
    assert [(kind, requirement) for level, kind, requirement, _ in steps if level == 0] == [
        ("flow", "REQUIRED"), ("flow", "CONDITIONAL"),
    ]  # fmt: skip


def test_names_become_one_part_of_a_path() -> None:
    assert keycloak.part("a b/c?d") == "a%20b%2Fc%3Fd"
