"""The realm of all tools on the real Keycloak: the product's own Job makes it, and people of each group log in.

For every client of the catalogue and every group: whoever may log in gets tokens by the authorization code flow, with
the platform's issuer, the right audience and the group; whoever may not gets none.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from docs import sso
from plan.tools.needs import OidcClient
from plan.tools.realm import GROUPS, realm
from tests.support.keycloak import ADMIN_PASSWORD, Browser, claims, code_of
from tests.support.realm import (
    CLIENTS,
    GATES,
    HOST,
    OIDC,
    PEOPLE,
    PLAN,
    REALM,
    SAML,
    WANTED,
    Site,
    assertion,
    code_for,
    first_password,
    needs_pkce,
    secret_of,
    tokens,
)

pytestmark = pytest.mark.toolchain
pytest_plugins = ("tests.support.realm",)  # its fixtures


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("client", OIDC)
def test_each_group_gets_the_tokens_that_the_matrix_says(
    site: Site, people: dict[str, Browser], keys: list[dict[str, Any]], client: str, group: str
) -> None:
    wanted = CLIENTS[client]
    code = code_for(people[group], client)
    (row,) = (row for row in sso.rows(PLAN) if row.client_id == client)
    assert (group in GATES[wanted["gate"]]) == (group in row.roles), "the documented matrix"
    if group not in row.roles:
        assert code is None
        return
    assert code is not None
    answer = tokens(site, client, code, secret_of(client) if wanted["secret"] else None)
    assert answer.status == 200, answer.text
    given = json.loads(answer.text)
    identity, access = claims(given["id_token"], keys), claims(given["access_token"], keys)
    issuer = f"https://{HOST}/realms/{REALM}"
    further = {m["config"]["included.client.audience"] for m in wanted["protocolMappers"]} - {client}
    for token in (identity, access):
        assert token["iss"] == issuer
        assert token["groups"] == [group]
        assert {client, *further} == set(token["aud"] if isinstance(token["aud"], list) else [token["aud"]])
    name = people[group].username
    assert (identity["preferred_username"], identity["email"]) == (name, f"{name}@{WANTED['mark']['value']}")
    assert identity["email_verified"] is True


@pytest.mark.parametrize("client", [name for name in OIDC if CLIENTS[name]["secret"]])
def test_a_wrong_secret_is_refused(site: Site, people: dict[str, Browser], client: str) -> None:
    code = code_for(people["platform-admins"], client)
    assert code is not None
    for wrong in ("secret-of-somebody-else", None):
        answer = tokens(site, client, code, wrong)
        assert answer.status == 401 and "access_token" not in answer.text


def test_a_client_that_must_prove_its_request_gets_nothing_without(site: Site, people: dict[str, Browser]) -> None:
    client = next(name for name in OIDC if needs_pkce(name))
    redirect = CLIENTS[client]["representation"]["redirectUris"][0]
    answer = people["platform-admins"].authorize(REALM, client, redirect, False)
    assert code_of(answer, redirect) is None and "code_challenge" in answer.location


@pytest.mark.parametrize("client", OIDC)
def test_a_client_has_no_other_way_in(site: Site, people: dict[str, Browser], client: str) -> None:
    browser = people["platform-admins"]
    elsewhere = "https://elsewhere.example.net/callback"
    answer = browser.authorize(REALM, client, elsewhere, needs_pkce(client))
    assert answer.status == 400 and not answer.location
    secret = {"client_secret": secret_of(client)} if CLIENTS[client]["secret"] else {}
    grants = (
        {"grant_type": "password", "username": browser.username, "password": browser.password},
        {"grant_type": "client_credentials"},
    )
    for grant in grants:
        form = {"client_id": client, **secret, **grant}
        answer = site.server.ask("POST", f"/realms/{REALM}/protocol/openid-connect/token", form=form)
        assert answer.status in (400, 401) and "access_token" not in answer.text


def test_first_passwords_are_changed_at_the_first_login(people: dict[str, Browser]) -> None:
    for browser in people.values():
        code_for(browser, "kubernetes")
        assert browser.password == f"{first_password(browser.username)}-changed"


def test_who_was_turned_away_can_still_log_in_elsewhere(site: Site) -> None:
    """Keycloak counts it as a failed login; somebody new has no session yet that would let them pass."""
    closed = next(name for name in OIDC if "viewers" not in GATES[CLIENTS[name]["gate"]])
    site.server.admin(
        "POST",
        f"/{REALM}/users",
        {
            "username": "novice", "enabled": True, "email": "n@example.com", "firstName": "N", "lastName": "O",
            "groups": ["/viewers"], "credentials": [{"type": "password", "value": "first-password-of-novice"}],
        },
    )  # fmt: skip
    novice = Browser(site.server, "novice", "first-password-of-novice")
    for _ in range(3):
        assert code_for(novice, closed) is None
    assert code_for(novice, "kubernetes") is not None


# ---- SAML


def check_saml(people: dict[str, Browser], client: str, consumer: str, admitted: list[str]) -> None:
    for group in GROUPS:
        found = assertion(people[group], client, consumer)
        if group not in admitted:
            assert found is None
            continue
        name = people[group].username
        assert found is not None
        assert (found["groups"], found["login"]) == ([group], [name])
        assert found["email"] == [f"{name}@{WANTED['mark']['value']}"]


def test_each_group_gets_the_assertion_that_the_matrix_says(people: dict[str, Browser]) -> None:
    matrix = {row.client_id: row.roles for row in sso.rows(PLAN)}
    for client in SAML:
        consumer = next(uri for uri in CLIENTS[client]["representation"]["redirectUris"] if "*" not in uri)
        check_saml(people, client, consumer, list(matrix[client]))


def test_a_client_that_is_not_wanted_any_more_goes_with_its_gate(site: Site, people: dict[str, Browser]) -> None:
    consumer = "https://extra.example.com/saml"
    extra = OidcClient(
        client_id="extra", name="Extra", protocol="saml", redirect_uris=(consumer,), roles={"viewers": "reader"}
    )
    inputs = sso.inputs_of(PLAN)
    more = realm([extra], inputs)
    assert more["gates"][0] not in WANTED["gates"]
    longer = {**WANTED, "clients": [*WANTED["clients"], *more["clients"]], "gates": [*WANTED["gates"], *more["gates"]]}
    made = site.provisioned(longer)
    assert "client extra: made" in made and not any(f"client {name}:" in line for line in made for name in CLIENTS)
    check_saml(people, "extra", consumer, ["viewers"])
    foreign = {"clientId": "of-somebody", "protocol": "openid-connect"}
    site.server.admin("POST", f"/{REALM}/clients", foreign)
    gone = site.provisioned(WANTED)
    gate = more["gates"][0]
    assert sorted(gone) == sorted(
        ["client extra: removed", f"login flow {gate['alias']}: removed", f"role {gate['role']}: removed"]
    )
    left = {client["clientId"] for client in site.server.admin("GET", f"/{REALM}/clients")}
    assert "extra" not in left and "of-somebody" in left


# ---- idempotence, drift, ownership


def test_a_second_run_changes_nothing_and_says_so(site: Site) -> None:
    site.provisioned(WANTED)

    def events() -> int:
        return len(site.server.admin("GET", f"/{REALM}/admin-events?max=10000"))

    before = events()
    assert before > 0
    run = site.provision(WANTED)
    assert (run.returncode, run.stdout) == (0, "nothing to change\n")
    assert events() == before


def test_what_was_changed_by_hand_is_put_back_and_nothing_else(site: Site) -> None:
    admin = site.server.admin
    name = next(name for name in OIDC if CLIENTS[name]["secret"])
    (client,) = admin("GET", f"/{REALM}/clients?clientId={name}")
    path = f"/{REALM}/clients/{client['id']}"
    admin("PUT", path, {**client, "redirectUris": ["https://elsewhere.example.net/*"], "secret": "another"})
    mapper = next(m for m in client["protocolMappers"])
    admin("DELETE", f"{path}/protocol-mappers/models/{mapper['id']}")
    found = admin("GET", f"/{REALM}")
    admin("PUT", f"/{REALM}", {**found, "bruteForceProtected": False})
    alias = CLIENTS[name]["gate"]
    steps = f"/{REALM}/authentication/flows/{urllib.parse.quote(alias)}/executions"
    denial = next(s for s in admin("GET", steps) if s.get("providerId") == "deny-access-authenticator")
    admin("PUT", steps, {**denial, "requirement": "DISABLED"})
    (user,) = admin("GET", f"/{REALM}/users?username=vera&exact=true")
    admin("PUT", f"/{REALM}/users/{user['id']}", {**user, "lastName": "Married"})

    assert sorted(site.provisioned(WANTED)) == sorted(
        [
            f"realm {REALM}: bruteForceProtected",
            f"login flow {alias}: mended",
            f"client {name}: redirectUris, secret",
            f"client {name}: mapper {mapper['name']}",
        ]
    )
    (now,) = admin("GET", f"/{REALM}/clients?clientId={name}")
    assert now["redirectUris"] == client["redirectUris"] and now["secret"] == secret_of(name)
    (user,) = admin("GET", f"/{REALM}/users?username=vera&exact=true")
    assert user["lastName"] == "Married", "a user is made once and then a person's own"
    assert site.provisioned(WANTED) == []


def test_a_realm_of_somebody_else_is_refused_with_its_name_and_can_be_adopted(site: Site) -> None:
    admin = site.server.admin
    admin("POST", "", {"realm": "staff", "enabled": True, "displayName": "The staff", "accessTokenLifespan": 77})
    admin("POST", "/staff/users", {"username": "boss", "enabled": True})
    few = [CLIENTS["kubernetes"]]  # how many makes no difference here, only time
    wanted = {
        **WANTED,
        "realm": "staff",
        "clients": few,
        "gates": [g for g in WANTED["gates"] if g["alias"] == few[0]["gate"]],
    }
    run = site.provision(wanted)
    assert run.returncode == 1 and run.stdout == ""
    assert "'The staff'" in run.stderr and "1 users" in run.stderr and "opstella:identity.adopt: true" in run.stderr
    assert admin("GET", "/staff")["accessTokenLifespan"] == 77 and len(admin("GET", "/staff/groups")) == 0

    changed = site.provisioned({**wanted, "adopt": True})
    assert changed[0] == "realm staff: adopted" and "client kubernetes: made" in changed
    assert admin("GET", "/staff")["accessTokenLifespan"] == WANTED["settings"]["accessTokenLifespan"]
    assert {user["username"] for user in admin("GET", "/staff/users")} == {"boss", *PEOPLE}
    assert site.provisioned(wanted) == [], "once adopted it is ours"


def test_a_client_of_somebody_else_is_refused_by_name(site: Site) -> None:
    site.server.admin("POST", f"/{REALM}/clients", {"clientId": "taken", "protocol": "openid-connect"})
    taken = OidcClient(client_id="taken", name="T", redirect_uris=("https://t.example.com/cb",), roles=dict.fromkeys(GROUPS, "x"), public=True)  # fmt: skip
    more = realm([taken], sso.inputs_of(PLAN))["clients"]
    run = site.provision({**WANTED, "clients": [*WANTED["clients"], *more]})
    assert run.returncode == 1 and "taken" in run.stderr and "opstella:identity.adopt" in run.stderr


def test_without_the_administrators_password_nothing_happens_and_nothing_is_shown(site: Site) -> None:
    path = site.folder / "secrets/admin/password"
    path.write_text("not-the-password", encoding="utf-8")
    try:
        run = site.provision(WANTED)
    finally:
        path.write_text(ADMIN_PASSWORD, encoding="utf-8")
    assert run.returncode == 1 and "the service answered 401" in run.stderr and "what to do" in run.stderr
    assert "not-the-password" not in run.stdout + run.stderr
