"""The realm as data, and the tools that log people in: Keycloak's Job, Headlamp, oauth2-proxy."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.services import Identity, User
from plan import rke2
from plan.tools import headlamp, ingress, keycloak, oauth2_proxy
from plan.tools.model import Release
from plan.tools.needs import OidcClient
from plan.tools.realm import GROUPS, admitted, realm
from plan.tools.sources import Generated
from tests.plan.stacks import plan
from tests.plan.test_rendered import tool_inputs_of
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

PLAN = plan()
INPUTS = tool_inputs_of(PLAN)
RELEASES = {r.name: r for r in PLAN.releases["standalone"]}

clients = st.builds(
    OidcClient,
    client_id=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    name=st.just("A tool"),
    redirect_uris=st.just(("https://a.example.com/callback",)),
    roles=st.dictionaries(st.sampled_from(GROUPS), st.just("some"), min_size=1),
    public=st.booleans(),
    protocol=st.sampled_from(("openid-connect", "saml")),
    audiences=st.sampled_from(((), ("kubernetes",))),
)
several = st.lists(clients, max_size=6, unique_by=lambda client: client.client_id)


@given(several)
def test_a_client_lets_in_exactly_the_groups_of_its_roles(made: Sequence[OidcClient]) -> None:
    found = realm(made, INPUTS)
    gates = {gate["alias"]: gate for gate in found["gates"]}
    assert len(gates) == len(found["gates"]) == len({gate["role"] for gate in found["gates"]})
    for client, entry in zip(sorted(made, key=lambda c: c.client_id), found["clients"]):
        assert set(gates[entry["gate"]]["groups"]) == set(client.roles)
    assert {entry["gate"] for entry in found["clients"]} == set(gates)
    # Keycloak refuses other characters in a flow's name, and takes what precedes a dot for a client's.
    assert all(re.fullmatch(r"[a-z ,-]+", alias) and "." not in gate["role"] for alias, gate in gates.items())


@given(several, st.randoms())
def test_the_order_of_clients_means_nothing(made: list[OidcClient], random: object) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert json.dumps(realm(made, INPUTS)) == json.dumps(realm(shuffled, INPUTS))


@given(several)
def test_nobody_gets_a_token_but_by_the_code_flow(made: Sequence[OidcClient]) -> None:
    for client, entry in zip(sorted(made, key=lambda c: c.client_id), realm(made, INPUTS)["clients"]):
        representation = entry["representation"]
        for grant in ("implicitFlowEnabled", "directAccessGrantsEnabled", "serviceAccountsEnabled", "fullScopeAllowed"):
            assert representation[grant] is False
        assert entry["secret"] == (not client.public and client.protocol != "saml")
        if client.public and client.protocol != "saml":
            assert representation["attributes"]["pkce.code.challenge.method"] == "S256"
        assert representation["redirectUris"] == list(client.redirect_uris)


@pytest.mark.parametrize("roles", [{}, {"everybody": "user"}])
def test_roles_are_by_known_groups(roles: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="client x: roles are by group"):
        admitted(OidcClient(client_id="x", name="X", redirect_uris=(), roles=roles))


def test_first_users_are_those_of_the_settings_each_with_a_password_of_their_own() -> None:
    identity = Identity(users={"ada": User(groups=("platform-admins",)), "bob": User(email="b@example.net")})
    inputs = replace(INPUTS, identity=identity)
    release = keycloak.release(inputs)
    assert [(u["username"], u["email"], u["groups"]) for u in realm((), inputs)["users"]] == [
        ("ada", "ada@devops.example.com", ["platform-admins"]), ("bob", "b@example.net", ["viewers"]),
    ]  # fmt: skip
    (secret,) = (s for s in release.secrets if s.name == keycloak.USERS_SECRET)
    assert {k: v.password for k, v in secret.data.items() if isinstance(v, Generated)} == {
        "ada": "user-ada",
        "bob": "user-bob",
    }
    assert {"user-ada", "user-bob"} <= {p.name for p in release.passwords}
    assert [(login.username, login.password) for login in release.people] == [("ada", "user-ada"), ("bob", "user-bob")]


def test_the_job_has_every_secret_that_the_realm_asks_for_and_holds_none() -> None:
    release = RELEASES["keycloak"]
    (job,) = release.jobs
    wanted = json.loads(job.files["realm.json"])
    held = {secret.name: set(secret.data) for secret in release.secrets}
    with_secret = {c["representation"]["clientId"] for c in wanted["clients"] if c["secret"]}
    assert with_secret and with_secret <= held[job.secret_files["clients"]]
    assert {user["username"] for user in wanted["users"]} == held[job.secret_files["users"]]
    assert '"secret":' not in job.files["realm.json"].replace('"secret": true', "").replace('"secret": false', "")
    assert {"client.py", "keycloak.py"} < set(job.files) and job.command[-1] == "/opstella/keycloak.py"
    assert job.environment["KEYCLOAK_ADMIN"] == release.login.username  # type: ignore[union-attr]


def test_keycloak_grows_only_where_it_runs_twice() -> None:
    (single,) = keycloak.release(replace(INPUTS, replicas=1)).workloads
    (several,) = keycloak.release(replace(INPUTS, replicas=2)).workloads
    assert single.autoscale is None and several.autoscale == 5
    assert keycloak.release(replace(INPUTS, replicas=2)).values["replicas"] == several.replicas == 2


def test_headlamps_tokens_are_for_the_api_server_too() -> None:
    release = RELEASES["headlamp"]
    (client,) = release.clients
    assert client.audiences == (rke2.OIDC_CLIENT,)
    assert {group: role.partition(";")[0] for group, role in client.roles.items()} == dict(rke2.GROUP_ROLES)
    secret = {s.name: s.data for s in release.secrets}[release.values["config"]["oidc"]["externalSecret"]["name"]]
    assert {"OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "OIDC_ISSUER_URL", "OIDC_SCOPES", "OIDC_CALLBACK_URL"} <= set(
        secret
    )
    assert release.values["clusterRoleBinding"]["create"] is False, "the chart's default makes it cluster-admin"
    assert release.values["config"]["oidc"]["callbackURL"] == client.redirect_uris[0]
    assert headlamp.AUDIENCE == rke2.OIDC_CLIENT


def ingresses(release: Release) -> list[dict[str, object]]:
    return [m.body for m in release.after if m.body["kind"] == "Ingress"]


def test_what_has_no_login_is_reached_through_the_proxy_only() -> None:
    release = RELEASES["oauth2-proxy"]
    middlewares = {f"oauth2-proxy-{m.body['metadata']['name']}@kubernetescrd": m.body["spec"] for m in release.after if m.body["kind"] == "Middleware"}  # fmt: skip
    (asked,) = (spec["forwardAuth"]["address"] for spec in middlewares.values() if "forwardAuth" in spec)
    assert asked == "http://oauth2-proxy.oauth2-proxy.svc.cluster.local:80/"
    guarded = set()
    for body in ingresses(release):
        (rule,) = body["spec"]["rules"]  # type: ignore[index]
        path = rule["http"]["paths"][0]
        names = body["metadata"].get("annotations", {}).get(ingress.MIDDLEWARES, "")  # type: ignore[index]
        if path["backend"]["service"]["name"] == "oauth2-proxy":
            assert path["path"] == "/oauth2" and names == ""
            continue
        guarded.add(rule["host"])
        used = names.split(",")
        assert set(used) <= set(middlewares) and any("forwardAuth" in middlewares[name] for name in used)
    assert guarded == {INPUTS.hosts[name] for name in ("loki", "tempo", "mimir")}
    (client,) = release.clients
    assert set(client.redirect_uris) == {f"https://{host}/oauth2/callback" for host in guarded}


# From the documentation of their HTTP APIs: what a store changes, or stops, when it is asked to.
CHANGING = {
    "loki": (
        "/loki/api/v1/push", "/loki/api/v1/delete", "/loki/api/v1/rules", "/loki/api/v1/rules/ns", "/api/prom/push",
        "/api/prom/rules", "/otlp/v1/logs", "/flush", "/ingester/shutdown", "/ingester/prepare_shutdown",
        "/ingester/prepare-partition-downscale", "/log_level", "/config", "/memberlist", "/ring", "/compactor/ring", "/",
    ),
    "tempo": (
        "/flush", "/shutdown", "/api/overrides", "/v1/traces", "/api/push", "/ingester/prepare-downscale", "/memberlist",
        "/status/config", "/debug/pprof/heap", "/",
    ),
    "mimir": (
        "/api/v1/push", "/otlp/v1/metrics", "/prometheus/config/v1/rules", "/prometheus/config/v1/rules/ns", "/api/v1/alerts",
        "/ingester/flush", "/ingester/shutdown", "/ingester/prepare-shutdown", "/compactor/delete_tenant",
        "/api/v1/upload/block/x/start", "/store-gateway/prepare-shutdown", "/distributor/ha_tracker", "/memberlist",
        "/config", "/alertmanager/api/v2/silences", "/multitenant_alertmanager/configs", "/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("store", ["loki", "tempo", "mimir"])
def test_who_is_logged_in_reads_a_store_and_does_nothing_else(store: str) -> None:
    """Each way from a person to the store, as Traefik matches it: a path, and what begins with it."""
    ways = [
        path["path"]
        for body in ingresses(RELEASES["oauth2-proxy"])
        for rule in body["spec"]["rules"]  # type: ignore[index]
        if rule["host"] == INPUTS.hosts[store]
        for path in rule["http"]["paths"]
        if path["backend"]["service"]["name"] != "oauth2-proxy"
    ]
    assert ways
    assert [path for path in CHANGING[store] if any(path.startswith(way) for way in ways)] == []
    others = [body for name, release in RELEASES.items() if name != "oauth2-proxy" for body in ingresses(release)]
    assert not any(rule["host"] == INPUTS.hosts[store] for body in others for rule in body["spec"]["rules"])  # type: ignore[index]
    assert any(RELEASES[store].path.startswith(way) for way in ways), "what the check asks for is there"


def test_the_proxy_admits_the_groups_of_its_client() -> None:
    release = RELEASES["oauth2-proxy"]
    settings = tomllib.loads(release.values["config"]["configFile"])
    (client,) = release.clients
    assert set(settings["allowed_groups"]) >= set(client.roles) == {"platform-admins", "developers"}
    assert settings["oidc_issuer_url"] == PLAN.issuer
    assert settings["upstreams"] == ["static://202"] and settings["cookie_secure"] is True
    assert not any("secret" in name for name in settings)
    (cookie,) = (p for p in release.passwords if p.name == oauth2_proxy.COOKIE_PASSWORD)
    assert cookie.length in (16, 24, 32), "the lengths of an AES key"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_who_logs_in_without_pkce_is_named_with_the_reason(architecture: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| Logins to (.*?) \|", page, re.MULTILINE)
    without = {
        client.name
        for releases in plan_of(architecture, every_tool()).releases.values()
        for release in releases
        for client in release.clients
        if not (client.pkce or client.public or client.protocol == "saml")
    }
    assert without == {"MinIO", "Opstella"} and all(name in row for name in without)
