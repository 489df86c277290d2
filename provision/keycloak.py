"""Brings a realm of Keycloak to what `realm.json` says (plan/tools/realm.py makes it), by the Admin REST API.

Idempotent: compares, changes what differs, says what it changed. Users are created once and never touched again.
Clients that carry this stack's mark and are not wanted any more are removed; clients without the mark are somebody's
own. A realm, or a wanted client, that exists without the mark is refused, unless adoption is switched on.

Environment: `KEYCLOAK_URL`, `KEYCLOAK_ADMIN` (a user's name), `REALM_FILE` (/opstella/realm.json). Secrets: `admin`
(its password), `clients` (a key a client id), `users` (a key a user's name).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from client import Client, Failure, Report, bearer, environment, main, secret

TOKEN_SECONDS = 30  # an administrator's token lives for a minute
ADOPT = "opstella:identity.adopt"
DENIED = "Your groups may not use this application."
# Lists whose order means nothing.
UNORDERED = ("redirectUris", "webOrigins", "eventsListeners")


class Keycloak:
    """The Admin REST API, logged in as the first administrator; every request has a token that is still good."""

    def __init__(self, base: str, administrator: str) -> None:
        self._administrator = administrator
        # Keycloak refuses plain HTTP from addresses that are not private; the pods' network may be such a one. What
        # comes to it through the ingress says the same.
        self._http = Client(base, headers={"X-Forwarded-Proto": "https"})
        self._until = 0.0

    def _admin(self) -> Client:
        if time.monotonic() >= self._until:
            # The old token would be sent along and refused.
            self._http.headers.pop("Authorization", None)
            answer = self._http.request(
                "POST",
                "/realms/master/protocol/openid-connect/token",
                form={
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": self._administrator,
                    "password": secret("admin", "password"),
                },
            ).json()
            self._http.headers["Authorization"] = bearer(answer["access_token"])
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._http

    def get(self, path: str, **query: str) -> Any:
        return self._admin().get(f"/admin/realms{path}", query=query or None)

    def find(self, path: str) -> Any | None:
        return self._admin().find(f"/admin/realms{path}")

    def post(self, path: str, data: Any) -> None:
        self._admin().request("POST", f"/admin/realms{path}", data=data)

    def put(self, path: str, data: Any = None) -> None:
        self._admin().request("PUT", f"/admin/realms{path}", data=data)

    def delete(self, path: str) -> None:
        self._admin().delete(f"/admin/realms{path}")


def part(name: str) -> str:
    """`name` as one part of a path."""
    return quote(name, safe="")


def same(key: str, wanted: Any, found: Any) -> bool:
    """Whether `found` is as wanted: of a map, the wanted keys are; a list in UNORDERED in any order."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(same(name, value, found.get(name)) for name, value in wanted.items())
    if key in UNORDERED:
        return sorted(wanted) == sorted(found or [])
    return wanted == found


def differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The keys whose values are not as wanted."""
    return [key for key, value in wanted.items() if not same(key, value, found.get(key))]


class Realm:
    """One run over one realm."""

    def __init__(self, keycloak: Keycloak, wanted: Mapping[str, Any], report: Report) -> None:
        self.keycloak, self.wanted, self.report = keycloak, wanted, report
        self.name = wanted["realm"]
        self.path = f"/{part(self.name)}"
        self.mark = {wanted["mark"]["name"]: wanted["mark"]["value"]}

    def apply(self) -> None:
        self.realm()
        self.groups()
        self.scopes()
        flows = self.gates()
        self.clients(flows)
        self.spent_gates()
        self.users()

    # ---- the realm itself

    def realm(self) -> None:
        settings = dict(self.wanted["settings"])
        found = self.keycloak.find(self.path)
        if found is None:
            self.keycloak.post("", {"realm": self.name, **settings, "attributes": self.mark})
            self.report.did(f"realm {self.name}: made")
            return
        attributes = found.get("attributes") or {}
        if self.is_foreign(attributes):
            if not self.wanted["adopt"]:
                self.refuse(found, attributes)
            self.report.did(f"realm {self.name}: adopted")
        changes = differing(settings, found)
        if changes or self.is_foreign(attributes):
            # Attributes that a request leaves out are removed.
            merged = {**attributes, **self.mark}
            self.keycloak.put(self.path, {**{key: settings[key] for key in changes}, "attributes": merged})
            if changes:
                self.report.did(f"realm {self.name}: {', '.join(changes)}")

    def is_foreign(self, attributes: Mapping[str, str]) -> bool:
        return not same("", self.mark, attributes)

    def refuse(self, found: Mapping[str, Any], attributes: Mapping[str, str]) -> None:
        clients, users = len(self.keycloak.get(f"{self.path}/clients")), self.keycloak.get(f"{self.path}/users/count")
        ((name, value),) = self.mark.items()
        other = attributes.get(name)
        seems = f"it is called '{found.get('displayName') or self.name}' and has {clients} clients and {users} users"
        raise Failure(
            f"the realm {self.name} exists and was not made by this stack ({value})",
            f"Keycloak, realm {self.name}",
            f"{seems}; {f'it belongs to the stack {other}' if other else 'it belongs to no stack'}",
            f"set opstella:identity.realm to another name, or take this realm over: {ADOPT}: true",
        )

    # ---- groups, scopes

    def groups(self) -> None:
        self.group_ids = {g["name"]: g["id"] for g in self.keycloak.get(f"{self.path}/groups", max="1000")}
        for name in self.wanted["groups"]:
            if name not in self.group_ids:
                self.keycloak.post(f"{self.path}/groups", {"name": name})
                self.report.did(f"group {name}: made")
        if not set(self.wanted["groups"]) <= set(self.group_ids):
            self.group_ids = {g["name"]: g["id"] for g in self.keycloak.get(f"{self.path}/groups", max="1000")}

    def scopes(self) -> None:
        found = {scope["name"]: scope for scope in self.keycloak.get(f"{self.path}/client-scopes")}
        for wanted in self.wanted["scopes"]:
            name = wanted["name"]
            if name not in found:
                self.keycloak.post(f"{self.path}/client-scopes", wanted)
                self.report.did(f"client scope {name}: made")
                continue
            own = {key: value for key, value in wanted.items() if key != "protocolMappers"}
            path = f"{self.path}/client-scopes/{found[name]['id']}"
            changes = differing(own, found[name])
            if changes:
                self.keycloak.put(path, {**found[name], **own})
                self.report.did(f"client scope {name}: {', '.join(changes)}")
            self.mappers(f"client scope {name}", path, wanted["protocolMappers"], found[name].get("protocolMappers"))
        self.scope_ids = {scope["name"]: scope["id"] for scope in self.keycloak.get(f"{self.path}/client-scopes")}

    def mappers(self, of: str, path: str, wanted: Iterable[Mapping[str, Any]], found: Any) -> None:
        """What stands there and is not wanted goes: two mappers of one claim would fight."""
        left = {mapper["name"]: mapper for mapper in found or ()}
        path = f"{path}/protocol-mappers/models"
        for mapper in wanted:
            there = left.pop(mapper["name"], None)
            if there is not None and not differing(mapper, there):
                continue
            if there is not None:
                self.keycloak.put(f"{path}/{there['id']}", {**mapper, "id": there["id"]})
            else:
                self.keycloak.post(path, mapper)
            self.report.did(f"{of}: mapper {mapper['name']}")
        for name, mapper in left.items():
            self.keycloak.delete(f"{path}/{mapper['id']}")
            self.report.did(f"{of}: mapper {name} removed")

    # ---- gates

    def gates(self) -> dict[str, str]:
        """Alias to id of every gate's flow."""
        flows = {flow["alias"]: flow["id"] for flow in self.keycloak.get(f"{self.path}/authentication/flows")}
        for gate in self.wanted["gates"]:
            self.role(gate)
            alias = gate["alias"]
            if alias not in flows:
                flow = {"alias": alias, "providerId": "basic-flow", "topLevel": True, "builtIn": False}
                self.keycloak.post(f"{self.path}/authentication/flows", {**flow, "description": DENIED})
            if self.steps(alias) != steps_of(gate):
                self.rebuild(alias, gate)
                self.report.did(f"login flow {alias}: {'mended' if alias in flows else 'made'}")
        return {flow["alias"]: flow["id"] for flow in self.keycloak.get(f"{self.path}/authentication/flows")}

    def role(self, gate: Mapping[str, Any]) -> None:
        """The gate's role, and the groups that have it: exactly the gate's."""
        path = f"{self.path}/roles/{part(gate['role'])}"
        role = self.keycloak.find(path)
        if role is None:
            about = f"may log in where {', '.join(gate['groups'])} may"
            self.keycloak.post(f"{self.path}/roles", {"name": gate["role"], "description": about})
            self.report.did(f"role {gate['role']}: made")
            role = self.keycloak.get(path)
        having = {group["name"] for group in self.keycloak.get(f"{path}/groups", max="1000")}
        for name in gate["groups"]:
            if name not in having:
                self.keycloak.post(f"{self.path}/groups/{self.group_ids[name]}/role-mappings/realm", [role])
                self.report.did(f"group {name}: role {gate['role']}")

    def steps(self, alias: str) -> list[tuple[Any, ...]]:
        """What a flow does, in order: depth, kind, requirement, configuration."""
        found = []
        for step in self.keycloak.get(f"{self.path}/authentication/flows/{part(alias)}/executions"):
            kind = "flow" if step.get("authenticationFlow") else step["providerId"]
            config = {}
            if step.get("authenticationConfig"):
                config = self.keycloak.get(f"{self.path}/authentication/config/{step['authenticationConfig']}")[
                    "config"
                ]
            found.append((step["level"], kind, step["requirement"], config))
        return found

    def rebuild(self, alias: str, gate: Mapping[str, Any]) -> None:
        """From nothing, since steps cannot be moved between flows. Until the end nobody gets in by this flow."""
        executions = f"{self.path}/authentication/flows/{part(alias)}/executions"
        for step in self.keycloak.get(executions):
            if step["level"] == 0:
                self.keycloak.delete(f"{self.path}/authentication/executions/{step['id']}")
        parents = [alias]
        for number, (level, kind, requirement, config) in enumerate(steps_of(gate)):
            del parents[level + 1 :]
            below = f"{self.path}/authentication/flows/{part(parents[level])}/executions"
            if kind == "flow":
                name = f"{alias} {number}"
                self.keycloak.post(
                    f"{below}/flow", {"alias": name, "type": "basic-flow", "provider": "registration-page-form"}
                )
                parents.append(name)
            else:
                self.keycloak.post(f"{below}/execution", {"provider": kind})
            step = next(s for s in reversed(self.keycloak.get(executions)) if s["level"] == level)
            self.keycloak.put(executions, {**step, "requirement": requirement})
            if config:
                named = {"alias": f"{alias} {number}", "config": config}
                self.keycloak.post(f"{self.path}/authentication/executions/{step['id']}/config", named)

    def spent_gates(self) -> None:
        """Gates that no wanted client uses any more, once no client points at them."""
        aliases = {gate["alias"] for gate in self.wanted["gates"]}
        roles = {gate["role"] for gate in self.wanted["gates"]}
        for flow in self.keycloak.get(f"{self.path}/authentication/flows"):
            if flow.get("topLevel") and flow["alias"].startswith("opstella login of ") and flow["alias"] not in aliases:
                self.keycloak.delete(f"{self.path}/authentication/flows/{flow['id']}")
                self.report.did(f"login flow {flow['alias']}: removed")
        for role in self.keycloak.get(f"{self.path}/roles", max="1000"):
            if role["name"].startswith("login_") and role["name"] not in roles:
                self.keycloak.delete(f"{self.path}/roles/{part(role['name'])}")
                self.report.did(f"role {role['name']}: removed")

    # ---- clients

    def clients(self, flows: Mapping[str, str]) -> None:
        found = {client["clientId"]: client for client in self.keycloak.get(f"{self.path}/clients", max="10000")}
        wanted = {client["representation"]["clientId"]: client for client in self.wanted["clients"]}
        foreign = [name for name in wanted if name in found and self.is_foreign(found[name].get("attributes") or {})]
        if foreign and not self.wanted["adopt"]:
            raise Failure(
                f"{len(foreign)} clients exist and were not made by this stack: {', '.join(foreign)}",
                f"Keycloak, realm {self.name}",
                "they do not carry this stack's mark, so somebody else may use them",
                f"rename or delete them in Keycloak, or take them over: {ADOPT}: true",
            )
        for name, client in wanted.items():
            self.client(name, client, found.get(name), flows)
        for name, client in found.items():
            if name not in wanted and not self.is_foreign(client.get("attributes") or {}):
                self.keycloak.delete(f"{self.path}/clients/{client['id']}")
                self.report.did(f"client {name}: removed")

    def client(self, name: str, wanted: Mapping[str, Any], found: Any, flows: Mapping[str, str]) -> None:
        representation = {
            **wanted["representation"],
            "authenticationFlowBindingOverrides": {"browser": flows[wanted["gate"]]},
        }
        representation["attributes"] = {**representation["attributes"], **self.mark}
        if wanted["secret"]:
            representation["secret"] = secret("clients", name)
        if found is None:
            self.keycloak.post(f"{self.path}/clients", {**representation, "protocolMappers": wanted["protocolMappers"]})
            self.report.did(f"client {name}: made")
            (found,) = self.keycloak.get(f"{self.path}/clients", clientId=name)
        path = f"{self.path}/clients/{found['id']}"
        changes = differing(representation, found)
        if changes:
            attributes = {**(found.get("attributes") or {}), **representation["attributes"]}
            # The client's own mappers are compared below, and its scopes have requests of their own.
            kept = {
                k: v
                for k, v in found.items()
                if k not in ("protocolMappers", "defaultClientScopes", "optionalClientScopes")
            }
            self.keycloak.put(path, {**kept, **representation, "attributes": attributes})
            self.report.did(f"client {name}: {', '.join(changes)}")
        self.mappers(f"client {name}", path, wanted["protocolMappers"], found.get("protocolMappers"))
        missing = [
            scope for scope in wanted["defaultClientScopes"] if scope not in (found.get("defaultClientScopes") or ())
        ]
        for scope in missing:
            if scope not in self.scope_ids:
                raise Failure(
                    f"client {name} needs the client scope {scope}, which is not there",
                    f"Keycloak, realm {self.name}",
                    "a new realm has it; somebody removed it",
                    f"make the client scope {scope} again",
                )
            self.keycloak.put(f"{path}/default-client-scopes/{self.scope_ids[scope]}")
            self.report.did(f"client {name}: scope {scope}")

    # ---- users

    def users(self) -> None:
        for user in self.wanted["users"]:
            name = user["username"]
            if self.keycloak.get(f"{self.path}/users", username=name, exact="true"):
                continue
            password = {"type": "password", "value": secret("users", name), "temporary": True}
            groups = [f"/{group}" for group in user["groups"]]
            self.keycloak.post(
                f"{self.path}/users",
                # Whoever writes the settings answers for the address; tools refuse one that is not verified.
                {**user, "groups": groups, "enabled": True, "emailVerified": True, "credentials": [password]},
            )
            self.report.did(f"user {name}: made, in {', '.join(user['groups']) or 'no group'}")


def steps_of(gate: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """A gate's flow: a session's cookie, or user name and password (and the second factor of whoever has one); then
    access is denied to whoever lacks the role."""
    return [
        (0, "flow", "REQUIRED", {}),
        (1, "auth-cookie", "ALTERNATIVE", {}),
        (1, "flow", "ALTERNATIVE", {}),
        (2, "auth-username-password-form", "REQUIRED", {}),
        (2, "flow", "CONDITIONAL", {}),
        (3, "conditional-user-configured", "REQUIRED", {}),
        (3, "auth-otp-form", "REQUIRED", {}),
        (0, "flow", "CONDITIONAL", {}),
        (1, "conditional-user-role", "REQUIRED", {"condUserRole": gate["role"], "negate": "true"}),
        (1, "deny-access-authenticator", "REQUIRED", {"denyErrorMessage": DENIED}),
    ]


def run(report: Report) -> None:
    path = Path(environment("REALM_FILE", "/opstella/realm.json"))
    wanted = json.loads(path.read_text(encoding="utf-8"))
    Realm(Keycloak(environment("KEYCLOAK_URL"), environment("KEYCLOAK_ADMIN")), wanted, report).apply()


if __name__ == "__main__":
    sys.exit(main(run))
