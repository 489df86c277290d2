"""An attacker at every tool's login, on the real Keycloak with the realm that the product's own Job makes.

Keycloak's answers are real: its pages, its account API, its tokens. What a tool makes of a token is tests/support/tool_rules.py.
"""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from plan.tools.realm import BUILT_IN, ROLES_CLIENT, SETTINGS
from tests.support.keycloak import ADMIN, ADMIN_PASSWORD, VERIFIER, Answer, Browser, claims, code_of, s256
from tests.support.realm import (
    CLIENTS,
    GATES,
    HOST,
    OIDC,
    PLAN,
    REALM,
    SAML,
    WANTED,
    Site,
    assertion,
    code_for,
    needs_pkce,
    secret_of,
    tokens,
)
from tests.support.tool_rules import ADMINISTRATOR, Rules

pytestmark = pytest.mark.toolchain
pytest_plugins = ("tests.support.realm",)  # its fixtures

RULES = Rules(PLAN)
CLAIMED = ("opstella-automation@noreply.gitlab.devops.example.com", "admin@defectdojo.local", "admin@example.com")
TOKEN = f"/realms/{REALM}/protocol/openid-connect/token"
CONSUMER = {
    name: next(uri for uri in CLIENTS[name]["representation"]["redirectUris"] if "*" not in uri) for name in SAML
}


def user_of(site: Site, name: str) -> dict[str, Any]:
    (user,) = site.server.admin("GET", f"/{REALM}/users?username={name}&exact=true")
    return user


def person(site: Site, name: str, *groups: str) -> Browser:
    """A new user of the realm in the groups of these paths."""
    password = f"first-password-of-{name}"
    user = {
        "username": name, "email": f"{name}@devops.example.com", "emailVerified": True, "enabled": True,
        "firstName": "F", "lastName": "L", "groups": list(groups), "credentials": [{"type": "password", "value": password}],
    }  # fmt: skip
    site.server.admin("POST", f"/{REALM}/users", user)
    return Browser(site.server, name, password)


def group_ids(site: Site) -> dict[str, str]:
    return {group["name"]: group["id"] for group in site.server.admin("GET", f"/{REALM}/groups")}


def account_token(site: Site, browser: Browser) -> str:
    """What the account console uses, by which users change their own data."""
    redirect = f"https://{HOST}/realms/{REALM}/account/"
    code = code_of(browser.authorize(REALM, "account-console", redirect, True, scope="openid"), redirect)
    assert code is not None
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "client_id": "account-console",
        "code_verifier": VERIFIER,
    }  # fmt: skip
    return site.server.json("POST", TOKEN, form=form)["access_token"]


def change(site: Site, token: str, **fields: Any) -> Answer:
    """What the account page sends when a user saves it."""
    head = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    path = f"/realms/{REALM}/account/"
    now = site.server.json("GET", path, headers=head)
    attributes = {**now.get("attributes", {}), **fields.pop("attributes", {})}
    return site.server.ask("POST", path, data={**now, **fields, "attributes": attributes}, headers=head)


def given(site: Site, browser: Browser, client: str) -> Any:
    """The tokens that `client` gets for the person; None where Keycloak turns them away."""
    code = code_for(browser, client)
    if code is None:
        return None
    answer = tokens(site, client, code, secret_of(client) if CLIENTS[client]["secret"] else None)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def verdict(site: Site, keys: list[dict[str, Any]], browser: Browser, client: str) -> Any:
    """Whom the tool takes the person for, and what they may do; None where Keycloak turns them away."""
    if client in SAML:
        found = assertion(browser, client, CONSUMER[client])
        return found and RULES.by_client[client](found)
    answer = given(site, browser, client)
    return answer and RULES.by_client[client](claims(answer["id_token"], keys))


@pytest.fixture(scope="module")
def mallory(site: Site) -> Iterator[Browser]:
    """A viewer with the worst intentions."""
    yield person(site, "mallory", "/viewers")


def test_there_is_a_rule_for_every_client() -> None:
    assert set(RULES.by_client) == set(CLIENTS)


# ---- what a user changes of themselves


@pytest.mark.parametrize("address", CLAIMED)
def test_nobody_claims_an_address(site: Site, mallory: Browser, address: str) -> None:
    answer = change(site, account_token(site, mallory), email=address)
    assert answer.status == 400 and "email" in answer.text
    assert user_of(site, "mallory")["email"] == "mallory@devops.example.com"


@pytest.mark.parametrize("name", ["ada", "admin", "root", "opstella-automation"])
def test_nobody_changes_their_user_name(site: Site, mallory: Browser, name: str) -> None:
    answer = change(site, account_token(site, mallory), username=name)
    assert answer.status in (400, 409) and "error-user-attribute-read-only" in answer.text, answer.text
    assert user_of(site, "mallory")["username"] == "mallory"


@pytest.mark.parametrize("action", ["UPDATE_EMAIL", "UPDATE_PROFILE", "VERIFY_PROFILE"])
def test_no_action_of_the_login_changes_them(site: Site, mallory: Browser, action: str) -> None:
    redirect = f"https://{HOST}/realms/{REALM}/account/"
    account_token(site, mallory)  # a session, so that the action is next
    query = {
        "client_id": "account-console", "redirect_uri": redirect, "response_type": "code", "scope": "openid",
        "code_challenge": s256(VERIFIER), "code_challenge_method": "S256", "kc_action": action,
    }  # fmt: skip
    page = mallory.ask("GET", f"/realms/{REALM}/protocol/openid-connect/auth?{urllib.parse.urlencode(query)}")
    while page.status in (302, 303) and page.location.startswith(f"https://{HOST}/realms/{REALM}/login-actions"):
        page = mallory.ask("GET", page.location)
    form = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    if form is not None:
        sent = {"username": "ada", "email": CLAIMED[0], "firstName": "F", "lastName": "L"}
        mallory.ask("POST", html.unescape(form[1]), sent)
    else:
        assert action != "UPDATE_PROFILE", "this one is offered, without what is not the user's to change"
    user = user_of(site, "mallory")
    assert (user["username"], user["email"]) == ("mallory", "mallory@devops.example.com")


@pytest.mark.parametrize("client", [*OIDC, *SAML])
def test_whatever_mallory_changes_every_tool_knows_a_viewer_called_mallory(
    site: Site, keys: list[dict[str, Any]], mallory: Browser, client: str
) -> None:
    before = verdict(site, keys, mallory, client)
    token = account_token(site, mallory)
    for fields in (
        {"email": CLAIMED[0]},
        {"email": CLAIMED[1]},
        {"username": "ada"},
        {"attributes": {"groups": ["platform-admins"], ROLES_CLIENT: ["platform-admins"]}},
        {"groups": ["/platform-admins"]},
    ):
        change(site, token, **fields)
    # A name is the user's own.
    assert change(site, token, firstName="Ada", lastName="Admin").status == 204
    after = verdict(site, keys, mallory, client)
    assert after == before
    assert (after is not None) == ("viewers" in GATES[CLIENTS[client]["gate"]])
    if after is not None:
        subject = user_of(site, "mallory")["id"]
        assert any(own in after.person for own in ("mallory", subject)) and ADMINISTRATOR not in after.rights


def test_the_rules_do_tell_an_administrator(site: Site, keys: list[dict[str, Any]], people: dict[str, Browser]) -> None:
    """So that the verdicts above are worth something."""
    found = {client: verdict(site, keys, people["platform-admins"], client) for client in CLIENTS}
    without = {client for client, one in found.items() if ADMINISTRATOR not in one.rights}
    assert without == {"gitlab", "oauth2-proxy"}, "these two have no administrators by login"


# ---- groups


def test_a_group_given_to_oneself_counts_for_nothing(site: Site, keys: list[dict[str, Any]], mallory: Browser) -> None:
    """Also in a realm whose users may have any attribute they like, as one that was taken over may be."""
    profile = site.server.admin("GET", f"/{REALM}/users/profile")
    site.server.admin("PUT", f"/{REALM}/users/profile", {**profile, "unmanagedAttributePolicy": "ENABLED"})
    try:
        mine = {"groups": ["platform-admins"], "role": ["platform-admins"], ROLES_CLIENT: ["platform-admins"]}
        assert change(site, account_token(site, mallory), attributes=mine).status == 204
        assert user_of(site, "mallory")["attributes"]["groups"] == ["platform-admins"]
        for client in OIDC:
            answer = given(site, mallory, client)
            assert answer is None or claims(answer["id_token"], keys)["groups"] == ["viewers"]
    finally:
        site.server.admin("PUT", f"/{REALM}/users/profile", profile)


def test_the_name_of_a_group_elsewhere_in_the_tree_gives_nothing(site: Site, keys: list[dict[str, Any]]) -> None:
    admin, ids = site.server.admin, group_ids(site)
    admin("POST", f"/{REALM}/groups/{ids['viewers']}/children", {"name": "platform-admins"})
    admin("POST", f"/{REALM}/groups", {"name": "staff"})
    admin("POST", f"/{REALM}/groups/{group_ids(site)['staff']}/children", {"name": "platform-admins"})
    admin("POST", f"/{REALM}/groups", {"name": "consoleAdmin"})  # a policy of MinIO's own
    site.provisioned(WANTED)
    trudy = person(site, "trudy", "/viewers", "/viewers/platform-admins", "/staff/platform-admins", "/consoleAdmin")
    for client in [*OIDC, *SAML]:
        found = verdict(site, keys, trudy, client)
        assert (found is not None) == ("viewers" in GATES[CLIENTS[client]["gate"]])
        assert found is None or ADMINISTRATOR not in found.rights, client
    assert claims(given(site, trudy, "kubernetes")["access_token"], keys)["groups"] == ["viewers"]
    # Whoever is only below a group has what the group has, and not what it is called.
    nested = person(site, "nested", "/viewers/platform-admins")
    assert claims(given(site, nested, "minio")["id_token"], keys)["groups"] == ["viewers"]
    outside = person(site, "outside", "/staff/platform-admins", "/consoleAdmin")
    assert {client: given(site, outside, client) for client in OIDC} == dict.fromkeys(OIDC)


def test_roles_are_taken_from_everything_but_their_groups(site: Site) -> None:
    admin = site.server.admin
    admin("POST", f"/{REALM}/groups", {"name": "crept-in"})
    (client,) = admin("GET", f"/{REALM}/clients?clientId={ROLES_CLIENT}")
    role = admin("GET", f"/{REALM}/clients/{client['id']}/roles/platform-admins")
    gate = admin("GET", f"/{REALM}/roles/{WANTED['gates'][0]['role']}")
    group, user = group_ids(site)["crept-in"], person(site, "crept").username
    number = user_of(site, user)["id"]
    for holder in (f"groups/{group}", f"users/{number}"):
        admin("POST", f"/{REALM}/{holder}/role-mappings/clients/{client['id']}", [role])
        admin("POST", f"/{REALM}/{holder}/role-mappings/realm", [gate])
    assert sorted(site.provisioned(WANTED)) == sorted(
        f"{holder}: role {name} taken{why}"
        for holder, why in (("group /crept-in", ""), ("user crept", ", which only groups have"))
        for name in ("platform-admins", gate["name"])
    )
    assert site.provisioned(WANTED) == []


def test_the_realm_of_a_former_version_is_brought_to_it(site: Site, keys: list[dict[str, Any]]) -> None:
    """Names of groups in the claim, scopes for offline tokens, addresses that users change."""
    admin = site.server.admin
    scopes = {scope["name"]: scope for scope in admin("GET", f"/{REALM}/client-scopes")}
    groups = scopes["groups"]
    (mapper,) = groups["protocolMappers"]
    path = f"/{REALM}/client-scopes/{groups['id']}/protocol-mappers/models"
    admin("DELETE", f"{path}/{mapper['id']}")
    former = {"claim.name": "groups", "full.path": "false", "id.token.claim": "true", "access.token.claim": "true"}
    admin("POST", path, {"name": "groups", "protocol": "openid-connect", "protocolMapper": "oidc-group-membership-mapper", "config": former})  # fmt: skip
    (client,) = admin("GET", f"/{REALM}/clients?clientId=kubernetes")
    admin("PUT", f"/{REALM}/clients/{client['id']}/optional-client-scopes/{scopes['offline_access']['id']}")
    admin("PUT", f"/{REALM}/clients/{client['id']}/default-client-scopes/{scopes['roles']['id']}")
    profile = admin("GET", f"/{REALM}/users/profile")
    for attribute in profile["attributes"]:
        attribute["permissions"]["edit"] = ["admin", "user"]
    admin("PUT", f"/{REALM}/users/profile", profile)
    late = person(site, "late", "/viewers")
    redirect = CLIENTS["kubernetes"]["representation"]["redirectUris"][0]
    code = code_of(late.authorize(REALM, "kubernetes", redirect, True, scope="openid offline_access"), redirect)
    assert code is not None
    offline = json.loads(tokens(site, "kubernetes", code, None).text)["refresh_token"]
    assert refresh(site, "kubernetes", offline).status == 200, "as long as it is not brought up to date"

    assert sorted(site.provisioned(WANTED)) == [
        "client kubernetes: optional scope offline_access removed",
        "client kubernetes: scope roles removed",
        "client scope groups: mapper groups",
        "user profile: only administrators change username, email",
    ]
    assert refresh(site, "kubernetes", offline).status == 400, "an offline token from then is worth nothing any more"
    assert claims(given(site, late, "kubernetes")["id_token"], keys)["groups"] == ["viewers"]


@pytest.mark.parametrize(
    ("scope", "claim", "attribute"),
    [("roles", "groups", "department"), ("profile", "preferred_username", "nickname"), ("email", "email", "contact")],
)
def test_a_realm_in_which_users_decide_a_claim_is_refused_before_anything_changes(
    site: Site, scope: str, claim: str, attribute: str
) -> None:
    admin = site.server.admin
    name = f"of-{scope}"
    admin("POST", "", {"realm": name, "enabled": True})
    (found,) = (one for one in admin("GET", f"/{name}/client-scopes") if one["name"] == scope)
    config = {"claim.name": claim, "user.attribute": attribute, "id.token.claim": "true", "jsonType.label": "String"}
    mapper = {"name": "mine", "protocol": "openid-connect", "protocolMapper": "oidc-usermodel-attribute-mapper", "config": config}  # fmt: skip
    path = f"/{name}/client-scopes/{found['id']}/protocol-mappers/models"
    admin("POST", path, mapper)
    wanted = {**WANTED, "realm": name, "adopt": True, "clients": [], "gates": []}
    if scope == "roles":  # which no client of the stack has
        assert site.provision(wanted).returncode == 0
        return
    wanted["clients"] = [CLIENTS["kubernetes"]]
    wanted["gates"] = [gate for gate in WANTED["gates"] if gate["alias"] == CLIENTS["kubernetes"]["gate"]]
    run = site.provision(wanted)
    assert run.returncode == 1 and run.stdout == ""
    assert f"the client scope {scope} makes the claim {claim}" in run.stderr and "delete the mapper 'mine'" in run.stderr
    assert admin("GET", f"/{name}/groups") == []
    (made,) = (one for one in admin("GET", f"/{name}/client-scopes/{found['id']}/protocol-mappers/models") if one["name"] == "mine")  # fmt: skip
    admin("DELETE", f"{path}/{made['id']}")
    assert site.provision(wanted).returncode == 0, "the remedy"


# ---- tokens


def refresh(site: Site, client: str, token: str) -> Answer:
    secret = {"client_secret": secret_of(client)} if CLIENTS[client]["secret"] else {}
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client, **secret}
    return site.server.ask("POST", TOKEN, form=form)


@pytest.mark.parametrize("client", OIDC)
def test_a_token_is_for_no_other_client(
    site: Site, keys: list[dict[str, Any]], people: dict[str, Browser], client: str
) -> None:
    answer = given(site, people["platform-admins"], client)
    declared = {m["config"]["included.client.audience"] for m in CLIENTS[client]["protocolMappers"]}
    for token in (answer["id_token"], answer["access_token"]):
        found = claims(token, keys)
        audience = set(found["aud"] if isinstance(found["aud"], list) else [found["aud"]])
        assert found["azp"] == client and audience <= {client, *declared}
        assert audience & set(CLIENTS) <= ({client, "kubernetes"} if client == "headlamp" else {client})
    for other in OIDC:
        if other == client:
            continue
        assert refresh(site, other, answer["refresh_token"]).status == 400
        code = code_for(people["platform-admins"], client)
        assert code is not None
        stolen = tokens(site, other, code, secret_of(other) if CLIENTS[other]["secret"] else None)
        assert stolen.status == 400 and "access_token" not in stolen.text
        break  # one is like the other


@pytest.mark.parametrize("client", OIDC)
@pytest.mark.parametrize("scope", ["offline_access", "microprofile-jwt", "roles", "phone"])
def test_nobody_asks_for_more_than_a_client_has(site: Site, people: dict[str, Browser], client: str, scope: str) -> None:
    redirect = CLIENTS[client]["representation"]["redirectUris"][0]
    answer = people["platform-admins"].authorize(REALM, client, redirect, needs_pkce(client), scope=f"openid {scope}")
    assert code_of(answer, redirect) is None and "error=invalid_scope" in answer.location


def test_who_left_the_group_renews_a_token_without_it_and_gets_no_other(
    site: Site, keys: list[dict[str, Any]]
) -> None:
    leaver = person(site, "leaver", "/developers")
    sessions = {client: given(site, leaver, client) for client in OIDC}
    number, ids = user_of(site, "leaver")["id"], group_ids(site)
    site.server.admin("DELETE", f"/{REALM}/users/{number}/groups/{ids['developers']}")
    for client, session in sessions.items():
        renewed = refresh(site, client, session["refresh_token"])
        assert renewed.status == 200, renewed.text
        found = {name: claims(json.loads(renewed.text)[name], keys) for name in ("id_token", "access_token")}
        assert not any(one.get("groups") for one in found.values())
        rights = RULES.by_client[client](found["id_token"]).rights
        # Two tools keep what an account may do themselves.
        assert rights == frozenset({"gitlab": {"user"}, "defectdojo": {"Reader"}}.get(client, ())), client
        head = {"Authorization": f"Bearer {json.loads(renewed.text)['access_token']}"}
        info = site.server.json("GET", f"/realms/{REALM}/protocol/openid-connect/userinfo", headers=head)
        assert not info.get("groups")
        # The browser's session is still there, and leads to no tool.
        assert given(site, leaver, client) is None
    for client in SAML:
        assert assertion(leaver, client, CONSUMER[client]) is None
    site.server.admin("POST", f"/{REALM}/users/{number}/logout")
    for client, session in sessions.items():
        ended = refresh(site, client, session["refresh_token"])
        assert ended.status == 400 and "access_token" not in ended.text


def test_who_is_in_no_group_gets_into_no_tool(site: Site) -> None:
    nobody = person(site, "nobody")
    assert {client: given(site, nobody, client) for client in OIDC} == dict.fromkeys(OIDC)
    assert {client: assertion(nobody, client, CONSUMER[client]) for client in SAML} == dict.fromkeys(SAML)


# ---- what Keycloak brings


@pytest.mark.parametrize("client", [*BUILT_IN, ROLES_CLIENT])
def test_no_client_of_keycloaks_own_gives_a_token_for_a_password(site: Site, mallory: Browser, client: str) -> None:
    form = {"grant_type": "password", "client_id": client, "username": mallory.username, "password": mallory.password}
    answer = site.server.ask("POST", TOKEN, form=form)
    assert answer.status in (400, 401) and "access_token" not in answer.text
    redirect = f"https://{HOST}/realms/{REALM}/account/"
    answer = mallory.authorize(REALM, client, redirect, True, scope="openid offline_access")
    assert code_of(answer, redirect) is None


def test_the_account_page_has_no_offline_tokens_and_no_groups(site: Site, keys: list[dict[str, Any]], mallory: Browser) -> None:
    found = claims(account_token(site, mallory), keys)
    audience = found.get("aud", [])
    assert not found.get("groups") and not set([audience] if isinstance(audience, str) else audience) & set(CLIENTS)


def test_the_administrators_own_realm_is_protected_and_the_job_still_gets_in(site: Site) -> None:
    found = site.server.admin("GET", "/master")
    for name in ("bruteForceProtected", "passwordPolicy", "eventsEnabled", "adminEventsEnabled", "offlineSessionMaxLifespanEnabled"):
        assert found[name] == SETTINGS[name], name
    assert site.provisioned(WANTED) == []
    for _ in range(SETTINGS["failureFactor"]):
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": "a guess"}
        assert site.server.ask("POST", "/realms/master/protocol/openid-connect/token", form=form).status == 401
    try:
        right = {**form, "password": ADMIN_PASSWORD}
        answer = site.server.ask("POST", "/realms/master/protocol/openid-connect/token", form=right)
        assert answer.status == 401, "locked for a while, so that guessing leads nowhere"
    finally:
        pass  # the last test of this module: nobody logs in as the administrator afterwards


