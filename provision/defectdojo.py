"""DefectDojo's own settings, by its API: groups and their roles, the people of the settings, tools, the user of CI.

Idempotent: compares, changes what differs, says what it changed. People are made once and never touched again. A group,
a user or a product type of a wanted name that this stack did not make is refused. DefectDojo never shows a tool's key
again, so the Secret of the tokens keeps a fingerprint of the one that was set last.

Environment: `DEFECTDOJO_URL`, `CONFIG_FILE` (/opstella/defectdojo.json, plan/tools/defectdojo.py makes it). Secrets:
`admin` (DD_ADMIN_PASSWORD), `ci` (password); if it sets the variables of pipelines, what ci_variables.py reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from ci_variables import Variables
from client import Client, Failure, Report, environment, hide, main, secret
from vault_api import Kubernetes, keep

MARK = "made by the Opstella stack"
ADMIN = "admin"
SONARQUBE = "SonarQube"  # the name by which DefectDojo knows this type of tool
PRODUCT_MAKER = "Maintainer"
FINGERPRINT = "opstella.io/sonarqube-token"
PAGE = 100


def token_of(api: Client, username: str, password: str) -> str:
    """The token of a user; DefectDojo makes it once and always gives the same."""
    answer = api.post("/api-token-auth/", {"username": username, "password": password})
    return hide(answer["token"])


class DefectDojo:
    """The API, as the first administrator."""

    def __init__(self, base: str, config: dict[str, Any], report: Report) -> None:
        # Without the header it would believe that the request came in plain HTTP and might redirect it.
        self.api = Client(f"{base}/api/v2", headers={"X-Forwarded-Proto": "https"})
        self.config, self.report, self.where = config, report, self.api.base
        self.api.headers["Authorization"] = f"Token {token_of(self.api, ADMIN, secret('admin', 'DD_ADMIN_PASSWORD'))}"

    def listed(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Everything below `path`, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.api.get(path, query={**query, "limit": str(PAGE), "offset": str(len(found))})
            found += page["results"]
            if not page["results"] or len(found) >= page["count"]:
                return found

    def named(self, path: str, key: str, value: str) -> dict[str, Any] | None:
        # Its filters match parts of names too.
        return next((one for one in self.listed(path, **{key: value}) if one[key] == value), None)

    def refuse(self, what: str, name: str, do: str) -> Failure:
        return Failure(
            f"DefectDojo has a {what} {name} that was not made by this stack",
            self.where,
            "what it may do would be taken for this stack's own doing",
            do,
        )

    def ours(self, what: str, path: str, name: str) -> dict[str, Any]:
        """The record `name` below `path`, made where there is none. Raises Failure for one that somebody else made."""
        found = self.named(path, "name", name)
        if found is None:
            found = self.api.post(path, {"name": name, "description": MARK})
            self.report.did(f"{what} {name}: made")
        elif found.get("description") != MARK:
            raise self.refuse(what, name, f"rename it, or hand it over: set its description to '{MARK}'")
        return found

    # ---- groups and people

    def groups(self) -> dict[str, int]:
        """The groups with their roles over everything; group to its id."""
        roles = {role["name"]: role["id"] for role in self.listed("/roles/")}
        given = {one["group"]: one for one in self.listed("/global_roles/") if one.get("group")}
        result = {}
        for name, role in self.config["groups"].items():
            group = self.ours("group", "/dojo_groups/", name)
            result[name] = group["id"]
            has = given.get(group["id"])
            wanted = {"user": None, "group": group["id"], "role": roles[role]}
            if has is None:
                self.api.post("/global_roles/", wanted)
            elif has["role"] != roles[role]:
                self.api.put(f"/global_roles/{has['id']}/", wanted)
            else:
                continue
            self.report.did(f"group {name}: {role}")
        self.default(result[self.config["default_group"]], roles["Reader"])
        return result

    def default(self, group: int, role: int) -> None:
        """What whoever logs in for the first time becomes."""
        (now,) = self.listed("/system_settings/")
        wanted = {"default_group": group, "default_group_role": role}
        if any(now.get(key) != value for key, value in wanted.items()):
            self.api.request("PATCH", f"/system_settings/{now['id']}/", data=wanted)
            self.report.did(f"new users join {self.config['default_group']}")

    def people(self, groups: dict[str, int]) -> None:
        """The accounts of the settings' people, to which Keycloak's first logins of the same user names are joined."""
        (reader,) = (role["id"] for role in self.listed("/roles/") if role["name"] == "Reader")
        for name, about in self.config["people"].items():
            if self.named("/users/", "username", name):
                continue
            user = self.user(
                name,
                secrets.token_urlsafe(24) + "aA1!",  # nobody's: people come through Keycloak
                email=about["email"],
                first_name=about["first_name"],
                last_name=about["last_name"],
                is_superuser="platform-admins" in about["groups"],
            )
            joined = self.joined(user)
            wanted = {groups[group] for group in about["groups"]}
            for group in sorted(wanted - set(joined)):
                self.api.post("/dojo_group_members/", {"group": group, "user": user, "role": reader})
            for group in sorted(set(joined) - wanted):
                self.api.delete(f"/dojo_group_members/{joined[group]}/")
            self.report.did(f"user {name}: made, in {', '.join(about['groups'])}")

    def joined(self, user: int) -> dict[int, int]:
        """Each group that the user is in, and the number of the membership. A new user is in the default group."""
        return {one["group"]: one["id"] for one in self.listed("/dojo_group_members/", user_id=str(user))}

    def user(self, name: str, password: str, **more: Any) -> int:
        made = self.api.post("/users/", {"username": name, "password": hide(password), "is_active": True, **more})
        return int(made["id"])

    # ---- CI

    def ci(self, domain: str) -> str:
        """The token of the user that hands in reports: it sees and changes what is in its product type, no more."""
        name, password = self.config["ci"], secret("ci", "password")
        user = self.named("/users/", "username", name)
        if user is not None and user.get("last_name") != MARK:
            raise self.refuse("user", name, "rename it")
        kind = self.product_type()
        if user is None:
            number = self.user(name, password, email=f"{name}@{domain}", last_name=MARK)
            self.report.did(f"user {name}: made")
        else:
            number = user["id"]
        for role in self.listed("/global_roles/", user=str(number)):
            if role.get("user") == number:
                self.api.delete(f"/global_roles/{role['id']}/")
                self.report.did(f"user {name}: a role over everything taken")
        # A group's role over everything is its members'.
        for membership in self.joined(number).values():
            self.api.delete(f"/dojo_group_members/{membership}/")
            self.report.did(f"user {name}: taken out of a group")
        self.member(kind, number)
        return token_of(Client(self.where, headers={"X-Forwarded-Proto": "https"}), name, password)

    def product_type(self) -> int:
        """The number of the product type that holds a product for each project that pipelines hand in reports of."""
        name = self.config["product_type"]
        return int(self.ours("product type", "/product_types/", name)["id"])

    def member(self, kind: int, user: int) -> None:
        """`user` may make products in the product type `kind`: Maintainer is the least of the roles that may."""
        (role,) = (role["id"] for role in self.listed("/roles/") if role["name"] == PRODUCT_MAKER)
        wanted = {"product_type": kind, "user": user, "role": role}
        has = self.listed("/product_type_members/", product_type_id=str(kind), user_id=str(user))
        if not has:
            self.api.post("/product_type_members/", wanted)
        elif has[0]["role"] != role:
            self.api.put(f"/product_type_members/{has[0]['id']}/", wanted)
        else:
            return
        self.report.did(f"user {self.config['ci']}: {PRODUCT_MAKER} of the product type {self.config['product_type']}")

    # ---- tools

    def sonarqube(self, token: str, known: str | None) -> str:
        """SonarQube as a tool; its token is set when its fingerprint is not `known`. The fingerprint."""
        url = self.config["sonarqube"]["url"]
        kind = self.named("/tool_types/", "name", SONARQUBE)
        if kind is None:
            kind = self.api.post("/tool_types/", {"name": SONARQUBE, "description": MARK})
            self.report.did(f"type of tool {SONARQUBE}: made")
        fingerprint = hashlib.sha256(f"opstella {token}".encode()).hexdigest()[:16]
        wanted = {
            "name": "SonarQube of the platform",
            "description": MARK,
            "url": url,
            "tool_type": kind["id"],
            "authentication_type": "API",
        }
        now = self.named("/tool_configurations/", "name", wanted["name"])
        if now is None:
            self.api.post("/tool_configurations/", {**wanted, "api_key": token})
        elif now.get("description") != MARK:
            raise self.refuse("tool", wanted["name"], "rename it")
        elif known != fingerprint or any(now.get(key) != value for key, value in wanted.items()):
            self.api.put(f"/tool_configurations/{now['id']}/", {**wanted, "api_key": token})
        else:
            return fingerprint
        self.report.did(f"tool {wanted['name']}")
        return fingerprint


def text(record: dict[str, Any] | None, key: str) -> str | None:
    """A key of a Secret as the Kubernetes API gives it."""
    found = ((record or {}).get("data") or {}).get(key)
    return None if found is None else hide(base64.b64decode(found).decode())


def made(record: dict[str, Any] | None, place: dict[str, str], key: str) -> str:
    """A token that SonarQube's Job made. Raises Failure when it is not there."""
    token = text(record, key)
    if token is None:
        raise Failure(
            "SonarQube's token is not there",
            f"Secret {place['secret']} in the namespace {place['namespace']}, key {key}",
            "SonarQube's own Job makes it",
            "look at the log of the Job sonarqube-settings",
        )
    return token


def run(report: Report) -> None:
    config = json.loads(Path(environment("CONFIG_FILE", "/opstella/defectdojo.json")).read_text(encoding="utf-8"))
    namespace, name = config["tokens"]["namespace"], config["tokens"]["secret"]
    kubernetes = Kubernetes()
    record = kubernetes.read(namespace, name)
    before = (record or {}).get("metadata", {}).get("annotations") or {}
    annotations = dict(before)
    defectdojo = DefectDojo(environment("DEFECTDOJO_URL"), config, report)
    defectdojo.people(defectdojo.groups())
    token = defectdojo.ci("defectdojo.local")
    tokens = {"DEFECTDOJO_TOKEN": token}
    if "sonarqube" in config:
        place = config["sonarqube"]
        theirs = kubernetes.read(place["namespace"], place["secret"])
        annotations[FINGERPRINT] = defectdojo.sonarqube(made(theirs, place, "defectdojo"), before.get(FINGERPRINT))
        tokens["SONAR_TOKEN"] = made(theirs, place, "ci")
    if text(record, "ci") != token or annotations != before:
        keep(kubernetes, namespace, name, annotations, {"ci": token})
    if "GITLAB_URL" in os.environ:
        Variables(report).publish(tokens)


if __name__ == "__main__":
    sys.exit(main(run))
