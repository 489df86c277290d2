"""What DefectDojo is told about logins, executed as DefectDojo executes it: after its own settings, in their module."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from plan.tools.defectdojo_login import BY_EMAIL, BY_NAME, local_settings, values
from tests.plan.stacks import plan

# Of DefectDojo 2.58.4, dojo/sso/settings.py.
PIPELINE = (
    "social_core.pipeline.social_auth.social_details",
    "dojo.sso.pipeline.social_uid",
    "social_core.pipeline.social_auth.auth_allowed",
    "social_core.pipeline.social_auth.social_user",
    "social_core.pipeline.user.get_username",
    "social_core.pipeline.social_auth.associate_by_email",
    "dojo.sso.pipeline.create_user",
    "dojo.sso.pipeline.modify_permissions",
    "social_core.pipeline.social_auth.associate_user",
)


class Account(SimpleNamespace):
    """A user of DefectDojo; `logins` are the providers that are joined to it."""

    def filter(self, provider: str) -> SimpleNamespace:
        return SimpleNamespace(exists=lambda: provider in self.logins)

    @property
    def social_auth(self) -> Account:
        return self


def executed(accounts: list[str], pipeline: tuple[str, ...] = PIPELINE) -> dict[str, Any]:
    scope: dict[str, Any] = {"SOCIAL_AUTH_PIPELINE": pipeline}
    exec(local_settings(accounts), scope)
    return scope


def joined(accounts: list[str], there: list[Account], claims: dict[str, str], user: object = None) -> Any:
    """The account that the login with `claims` is joined to, by the details that the OIDC backend makes of them."""

    def found(username: str) -> SimpleNamespace:
        return SimpleNamespace(first=lambda: next((one for one in there if one.username == username), None))

    model = SimpleNamespace(objects=SimpleNamespace(filter=found))
    storage = SimpleNamespace(user=SimpleNamespace(user_model=lambda: model))
    backend = SimpleNamespace(name="oidc", strategy=SimpleNamespace(storage=storage))
    details = {"username": claims["preferred_username"], "email": claims["email"]}
    step = executed(accounts)[BY_NAME.rpartition(".")[2]]
    answer = step(backend=backend, details=details, user=user, uid="u", is_new=True, response=claims)
    return answer and answer["user"].username


def test_a_login_sends_the_proof_that_the_realm_asks_of_it() -> None:
    (release,) = [r for r in plan().releases["standalone"] if r.name == "defectdojo"]
    assert executed([])["SOCIAL_AUTH_OIDC_USE_PKCE"] is release.clients[0].pkce is True


def test_no_step_looks_at_the_address() -> None:
    pipeline = executed(["ada"])["SOCIAL_AUTH_PIPELINE"]
    assert BY_EMAIL not in pipeline
    assert pipeline == tuple(BY_NAME if step == BY_EMAIL else step for step in PIPELINE)


def test_a_pipeline_that_is_not_the_known_one_stops_the_start() -> None:
    with pytest.raises(RuntimeError, match="would be joined by e-mail address"):
        executed(["ada"], tuple(step for step in PIPELINE if step != BY_EMAIL))


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"preferred_username": "ada", "email": "ada@example.com"}, "ada"),
        # Whose address is that of the first administrator, or of a superuser whom the settings name.
        ({"preferred_username": "vera", "email": "admin@defectdojo.local"}, None),
        ({"preferred_username": "vera", "email": "ada@example.com"}, None),
        # Named like an account of DefectDojo that the settings do not name.
        ({"preferred_username": "admin", "email": "x@example.com"}, None),
        ({"preferred_username": "opstella-ci", "email": "x@example.com"}, None),
        # The login that came first keeps the account.
        ({"preferred_username": "bob", "email": "bob@example.com"}, None),
    ],
)
def test_a_login_is_joined_only_to_the_account_that_the_settings_name(claims: dict[str, str], account: str | None) -> None:
    there = [
        Account(username="admin", logins=[]),
        Account(username="opstella-ci", logins=[]),
        Account(username="ada", logins=[]),
        Account(username="bob", logins=["oidc"]),
    ]
    assert joined(["ada", "bob"], there, claims) == account


def test_who_is_known_already_stays_who_they_are() -> None:
    claims = {"preferred_username": "ada", "email": "ada@example.com"}
    assert joined(["ada"], [Account(username="ada", logins=[])], claims, user=object()) is None


def test_the_release_has_it_and_restarts_with_it() -> None:
    (release,) = (r for r in plan().releases["standalone"] if r.name == "defectdojo")
    assert release.values["localsettingspy"] == local_settings(["opstella-admin"])
    assert values(["ada"])["extraAnnotations"] != values(["ada", "bob"])["extraAnnotations"]
