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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from client import Failure, Report, environment, main, secret
from keycloak_api import Keycloak, differing, part, same

ADOPT, REALM = "opstella:identity.adopt", "opstella:identity.realm"
DENIED = "Your groups may not use this application."
GATE_ROLE, ABOUT_GATE = "login_", "may log in where "
# What tools know people and their rights by, and the attribute of the user that each may come from.
IDENTITY = {"sub": None, "preferred_username": "username", "email": "email", "email_verified": "emailVerified", "groups": None}


class Realm:
    """One run over one realm."""

    def __init__(self, keycloak: Keycloak, wanted: Mapping[str, Any], report: Report) -> None:
        self.keycloak, self.wanted, self.report = keycloak, wanted, report
        self.name = wanted["realm"]
        self.path = f"/{part(self.name)}"
        self.mark = {wanted["mark"]["name"]: wanted["mark"]["value"]}

    def apply(self) -> None:
        self.realm()
        self.master()
        self.profile()
        self.groups()
        self.group_roles()
        self.scopes()
        flows = self.gates()
        self.clients(flows)
        self.built_in()
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
        if self.is_foreign(attributes) and not self.wanted["adopt"]:
            self.refuse(found, attributes)
        self.check_claims()
        self.check_clients()
        if self.is_foreign(attributes):
            self.report.did(f"realm {self.name}: adopted")
        changes = differing(settings, found)
        if changes or self.is_foreign(attributes):
            # Attributes that a request leaves out are removed.
            merged = {**attributes, **self.mark}
            self.keycloak.put(self.path, {**{key: settings[key] for key in changes}, "attributes": merged})
            if changes:
                self.report.did(f"realm {self.name}: {', '.join(changes)}")

    def check_claims(self) -> None:
        """Refuses scopes of the realm that make a claim of IDENTITY from something else than they do in a new realm."""
        own = {scope["name"] for scope in self.wanted["scopes"]}
        used = {scope for client in self.wanted["clients"] for scope in client["defaultClientScopes"]} - own
        for scope in self.keycloak.get(f"{self.path}/client-scopes"):
            for mapper in scope.get("protocolMappers") or () if scope["name"] in used else ():
                config = mapper.get("config") or {}
                claim = config.get("claim.name", "")
                if claim not in IDENTITY:
                    continue
                if IDENTITY[claim] is not None and config.get("user.attribute") == IDENTITY[claim]:
                    continue
                raise Failure(
                    f"the client scope {scope['name']} makes the claim {claim} by its own mapper '{mapper['name']}'",
                    f"Keycloak, realm {self.name}, Client scopes, {scope['name']}, Mappers",
                    "every tool has this scope, and takes the claim for who somebody is or what they may do",
                    f"delete the mapper '{mapper['name']}', or move it to a client scope of your own clients,"
                    f" or set {REALM} to the name of another realm",
                )

    def check_clients(self) -> None:
        """Refuses clients of wanted names that somebody else made, unless they are to be taken over."""
        wanted = {client["representation"]["clientId"] for client in self.wanted["clients"]}
        wanted.add(self.wanted["roles_client"]["clientId"])
        found = self.keycloak.get(f"{self.path}/clients", max="10000")
        foreign = sorted(
            client["clientId"]
            for client in found
            if client["clientId"] in wanted and self.is_foreign(client.get("attributes") or {})
        )
        if foreign and not self.wanted["adopt"]:
            raise Failure(
                f"{len(foreign)} clients exist and were not made by this stack: {', '.join(foreign)}",
                f"Keycloak, realm {self.name}",
                "they do not carry this stack's mark, so somebody else may use them",
                f"rename or delete them in Keycloak, or take them over: {ADOPT}: true",
            )

    def master(self) -> None:
        """The realm of Keycloak's first administrator is protected as the tools' realm is."""
        changes = differing(self.wanted["master"], self.keycloak.get("/master"))
        if changes:
            self.keycloak.put("/master", {key: self.wanted["master"][key] for key in changes})
            self.report.did(f"realm master: {', '.join(changes)}")

    def profile(self) -> None:
        """By what tools know people, only administrators change; the rest of the profile stays as it is."""
        path = f"{self.path}/users/profile"
        profile, changed = self.keycloak.get(path), []
        for attribute in profile["attributes"]:
            rights = attribute.setdefault("permissions", {})
            if attribute["name"] in self.wanted["administrators_only"] and rights.get("edit") != ["admin"]:
                rights["edit"] = ["admin"]
                changed.append(attribute["name"])
        if changed:
            self.keycloak.put(path, profile)
            self.report.did(f"user profile: only administrators change {', '.join(changed)}")
        for action in self.keycloak.get(f"{self.path}/authentication/required-actions"):
            if action["alias"] in self.wanted["actions_off"] and action["enabled"]:
                name = part(action["alias"])
                self.keycloak.put(f"{self.path}/authentication/required-actions/{name}", {**action, "enabled": False})
                self.report.did(f"required action {action['alias']}: off")

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

    def group_roles(self) -> None:
        """The client whose roles make the claim of groups; each role belongs to the group of its name, and nobody else."""
        wanted = self.wanted["roles_client"]
        name = wanted["clientId"]
        representation = {**wanted, "attributes": {**wanted["attributes"], **self.mark}}
        self.keep_client(name, representation, self.one_client(name))
        client = self.one_client(name)
        self.roles_client, self.group_role = client["id"], {}
        path = f"{self.path}/clients/{client['id']}/roles"
        for group in self.wanted["groups"]:
            if self.keycloak.find(f"{path}/{part(group)}") is None:
                self.keycloak.post(path, {"name": group, "description": f"is of the group {group}"})
                self.report.did(f"role {group} of {name}: made")
            self.group_role[group] = self.keycloak.get(f"{path}/{part(group)}")
            self.holders(f"{path}/{part(group)}", self.group_role[group], [group], f"/clients/{client['id']}")

    def holders(self, path: str, role: Mapping[str, Any], groups: Iterable[str], kind: str) -> None:
        """Exactly these top-level groups have the role at `path`; `kind` is where their mappings are: a client, or the realm."""
        wanted = {self.group_ids[name]: name for name in groups}
        having = {group["id"]: group["path"] for group in self.keycloak.get(f"{path}/groups", max="1000")}
        for number, name in wanted.items():
            if number not in having:
                self.keycloak.post(f"{self.path}/groups/{number}/role-mappings{kind}", [role])
                self.report.did(f"group {name}: role {role['name']}")
        for number, place in having.items():
            if number not in wanted:
                self.keycloak.delete(f"{self.path}/groups/{number}/role-mappings{kind}", [role])
                self.report.did(f"group {place}: role {role['name']} taken")
        for user in self.keycloak.get(f"{path}/users", max="1000"):
            self.keycloak.delete(f"{self.path}/users/{user['id']}/role-mappings{kind}", [role])
            self.report.did(f"user {user['username']}: role {role['name']} taken, which only groups have")

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
        for wanted in self.wanted["scopes"]:
            # Tokens of this scope may have the roles of groups, and no other ones.
            path = f"{self.path}/client-scopes/{self.scope_ids[wanted['name']]}/scope-mappings/clients/{self.roles_client}"
            having = {role["name"] for role in self.keycloak.get(path)}
            missing = [role for name, role in self.group_role.items() if name not in having]
            if missing:
                self.keycloak.post(path, missing)
                self.report.did(f"client scope {wanted['name']}: roles {', '.join(role['name'] for role in missing)}")

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
            about = f"{ABOUT_GATE}{', '.join(gate['groups'])} may"
            self.keycloak.post(f"{self.path}/roles", {"name": gate["role"], "description": about})
            self.report.did(f"role {gate['role']}: made")
            role = self.keycloak.get(path)
        self.holders(path, role, gate["groups"], "/realm")

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
            ours = role["name"].startswith(GATE_ROLE) and (role.get("description") or "").startswith(ABOUT_GATE)
            if ours and role["name"] not in roles:
                self.keycloak.delete(f"{self.path}/roles/{part(role['name'])}")
                self.report.did(f"role {role['name']}: removed")

    # ---- clients

    def clients(self, flows: Mapping[str, str]) -> None:
        found = {client["clientId"]: client for client in self.keycloak.get(f"{self.path}/clients", max="10000")}
        wanted = {client["representation"]["clientId"]: client for client in self.wanted["clients"]}
        for name, client in wanted.items():
            self.client(name, client, found.get(name), flows)
        for name, client in found.items():
            kept = name in wanted or name == self.wanted["roles_client"]["clientId"]
            if not kept and not self.is_foreign(client.get("attributes") or {}):
                self.keycloak.delete(f"{self.path}/clients/{client['id']}")
                self.report.did(f"client {name}: removed")

    def client(self, name: str, wanted: Mapping[str, Any], found: Any, flows: Mapping[str, str]) -> None:
        missing = [scope for scope in wanted["defaultClientScopes"] if scope not in self.scope_ids]
        if missing:
            raise Failure(
                f"client {name} needs the client scope {', '.join(missing)}, which is not there",
                f"Keycloak, realm {self.name}",
                "a new realm has it; somebody removed it",
                f"make the client scope {', '.join(missing)} again",
            )
        representation = {
            **wanted["representation"],
            "authenticationFlowBindingOverrides": {"browser": flows[wanted["gate"]]},
        }
        representation["attributes"] = {**representation["attributes"], **self.mark}
        if wanted["secret"]:
            representation["secret"] = secret("clients", name)
        more = {"protocolMappers": wanted["protocolMappers"], "defaultClientScopes": wanted["defaultClientScopes"]}
        found = self.keep_client(name, representation, found, more)
        path = f"{self.path}/clients/{found['id']}"
        self.mappers(f"client {name}", path, wanted["protocolMappers"], found.get("protocolMappers"))
        self.client_scopes(f"client {name}", path, wanted["defaultClientScopes"], found)

    def keep_client(
        self, name: str, representation: Mapping[str, Any], found: Any, more: Mapping[str, Any] | None = None
    ) -> Any:
        """The client as it is now; made with `more` where there is none, its scopes and mappers unchanged where there is."""
        if found is None:
            # Without these two it would get the realm's default scopes, that of offline tokens among them.
            bare: dict[str, Any] = {"defaultClientScopes": [], "optionalClientScopes": []}
            self.keycloak.post(f"{self.path}/clients", {**bare, **representation, **(more or {})})
            self.report.did(f"client {name}: made")
            found = self.one_client(name)
        changes = differing(representation, found)
        if changes:
            attributes = {**(found.get("attributes") or {}), **representation["attributes"]}
            kept = {
                k: v
                for k, v in found.items()
                if k not in ("protocolMappers", "defaultClientScopes", "optionalClientScopes")
            }
            self.keycloak.put(f"{self.path}/clients/{found['id']}", {**kept, **representation, "attributes": attributes})
            self.report.did(f"client {name}: {', '.join(changes)}")
        return found

    def one_client(self, name: str) -> Any | None:
        return next(iter(self.keycloak.get(f"{self.path}/clients", clientId=name)), None)

    def client_scopes(self, of: str, path: str, wanted: Iterable[str], found: Mapping[str, Any]) -> None:
        """Its default scopes are the wanted ones. It has no optional scope: whoever logs in may ask for each of those,
        for offline tokens by one, and by another (microprofile-jwt) for a claim of groups made of other roles."""
        there = set(found.get("defaultClientScopes") or ())
        for scope in wanted:
            if scope not in there:
                self.keycloak.put(f"{path}/default-client-scopes/{self.scope_ids[scope]}")
                self.report.did(f"{of}: scope {scope}")
        for scope in sorted(there - set(wanted)):
            self.keycloak.delete(f"{path}/default-client-scopes/{self.scope_ids[scope]}")
            self.report.did(f"{of}: scope {scope} removed")
        self.no_optional_scopes(of, path, found, found.get("optionalClientScopes") or ())

    def no_optional_scopes(self, of: str, path: str, found: Mapping[str, Any], scopes: Iterable[str]) -> None:
        for scope in sorted(set(scopes) & set(found.get("optionalClientScopes") or ())):
            self.keycloak.delete(f"{path}/optional-client-scopes/{self.scope_ids[scope]}")
            self.report.did(f"{of}: optional scope {scope} removed")

    def built_in(self) -> None:
        """Keycloak's own clients give no token for a password, and none that outlives the session."""
        wanted = {"directAccessGrantsEnabled": False, "implicitFlowEnabled": False, "serviceAccountsEnabled": False}
        for name in self.wanted["built_in"]:
            found = self.one_client(name)
            if found is None:
                continue
            self.keep_client(name, {**wanted, "attributes": {}}, found)
            self.no_optional_scopes(f"client {name}", f"{self.path}/clients/{found['id']}", found, ("offline_access",))

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
