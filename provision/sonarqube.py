"""SonarQube's own settings, by its web API: the administrator's password, login by SAML, groups, tokens, GitLab, gate.

Idempotent: compares, changes what differs, says what it changed. SonarQube never shows a secured setting or a token
again, so the Secret of the tokens keeps them, with fingerprints of the certificate and of GitLab's token that were set
last. A group of a wanted name, and a GitLab, that this stack did not make are refused.

Environment: `SONARQUBE_URL`, `CONFIG_FILE` (/opstella/sonarqube.json, plan/tools/sonarqube.py makes it). Secrets:
`admin` (password). Where there is a GitLab: `gitlab` (token). If it is the one that sets the variables of pipelines: what
ci_variables.py reads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
import urllib.parse
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from ci_variables import Variables
from client import Client, Failure, Report, basic, bearer, environment, hide, main, secret
from vault_api import Kubernetes, keep

MARK = "made by the Opstella stack"
ADMIN, FIRST_PASSWORD = "admin", "admin"  # of every new SonarQube
CERTIFICATE = "sonar.auth.saml.certificate.secured"
FINGERPRINT, GITLAB_FINGERPRINT = "opstella.io/saml-certificate", "opstella.io/gitlab-token"
SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
METADATA = "{urn:oasis:names:tc:SAML:2.0:metadata}"
# Key of the Secret to the token's name and type. CI may analyse any project; DefectDojo reads findings as its own user.
TOKENS = {"ci": ("opstella-ci", "GLOBAL_ANALYSIS_TOKEN"), "defectdojo": ("opstella-defectdojo", "USER_TOKEN")}
PAUSE_SECONDS = 5.0


class SonarQube:
    """The web API, as the administrator."""

    def __init__(self, base: str, config: dict[str, Any], report: Report) -> None:
        self.api, self.config, self.report = Client(base), config, report
        self.where = self.api.base

    def wait(self) -> None:
        """Until it is up. Raises Failure: it wants something that only a person can decide, or patience is over."""
        deadline = time.monotonic() + self.api.patience
        while (status := self.api.get("/api/system/status").get("status")) != "UP":
            if status in ("DB_MIGRATION_NEEDED", "DOWN") or time.monotonic() >= deadline:
                raise Failure(
                    f"SonarQube says {status}",
                    f"{self.where}/api/system/status",
                    "it is not up"
                    if status != "DB_MIGRATION_NEEDED"
                    else "a newer version wants to change its database",
                    "look at its log" if status != "DB_MIGRATION_NEEDED" else "open /setup in a browser and let it",
                )
            time.sleep(min(PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))

    def valid(self, authorization: str) -> bool:
        answer = self.api.request(
            "GET", "/api/authentication/validate", headers={"Authorization": authorization}, also=(401,)
        )
        return answer.status == 200 and bool(answer.json()["valid"])

    def log_in(self) -> None:
        """As the administrator, whose password is changed if it is the one of every new SonarQube."""
        password = secret("admin", "password")
        wanted = basic(ADMIN, password)
        if not self.valid(wanted):
            # Its default is no secret, and hiding it would hide the user's name in messages.
            first = "Basic " + base64.b64encode(f"{ADMIN}:{FIRST_PASSWORD}".encode()).decode()
            if not self.valid(first):
                raise Failure(
                    "SonarQube takes neither the password of this stack for admin, nor its first one",
                    f"{self.where}/api/authentication/validate",
                    "somebody changed it in SonarQube",
                    "set it back there to the one that the stack's outputs show",
                )
            self.api.request(
                "POST",
                "/api/users/change_password",
                form={"login": ADMIN, "previousPassword": FIRST_PASSWORD, "password": password},
                headers={"Authorization": first},
            )
            self.report.did("password of admin")
        self.api.headers["Authorization"] = wanted

    # ---- settings

    def settings(self, known: str | None) -> str | None:
        """Brings the settings about; the certificate is set when its fingerprint is not `known`. Its fingerprint."""
        wanted: dict[str, str] = self.config["settings"]
        found = self.api.get("/api/settings/values", query={"keys": ",".join([*wanted, CERTIFICATE])})
        now = {s["key"]: s.get("value") for s in found["settings"] if not s.get("inherited")}
        is_set = CERTIFICATE in found.get("setSecuredSettings", ()) or CERTIFICATE in now
        certificate = self.certificate()
        fingerprint = print_of(certificate)
        if not is_set or fingerprint != known:  # before login by SAML is switched on, which is the last of `wanted`
            self.set(CERTIFICATE, certificate)
        for key, value in wanted.items():
            if now.get(key) != value:
                self.set(key, value)
        return fingerprint

    def set(self, key: str, value: str) -> None:
        self.api.request("POST", "/api/settings/set", form={"key": key, "value": value})
        self.report.did(f"setting {key}")

    def certificate(self) -> str:
        """The certificate (Base64) by which the realm signs, as its own description for SAML has it."""
        place = self.config["descriptor"]
        parts = urllib.parse.urlsplit(place)
        answer = Client(f"{parts.scheme}://{parts.netloc}").request("GET", parts.path)
        try:
            document = xml.fromstring(answer.text)
        except xml.ParseError as error:
            document, why = None, str(error)
        else:
            why = "it has no key for signing"
        found = [] if document is None else [
            "".join(certificate.text.split())
            for key in document.iter(f"{METADATA}KeyDescriptor")
            if key.get("use", "signing") == "signing"
            for certificate in key.iter(f"{SIGNATURE}X509Certificate")
            if certificate.text
        ]  # fmt: skip
        if not found:
            raise Failure(
                "the realm's certificate cannot be read", place, why, "look whether the realm is there and enabled"
            )
        return found[0]

    # ---- groups

    def groups(self) -> None:
        """Groups of the realm's names, which SonarQube then gives to whoever logs in as their member."""
        there = {
            group["name"]: group
            for group in self.api.get("/api/v2/authorizations/groups", query={"pageSize": "500"})["groups"]
        }
        foreign = [name for name in self.config["groups"] if name in there and there[name].get("description") != MARK]
        if foreign:
            raise Failure(
                f"SonarQube has a group {', '.join(foreign)} that was not made by this stack",
                f"{self.where}/admin/groups",
                "its members would get the rights of the realm's group of that name",
                f"rename it, or hand it over: set its description to '{MARK}'",
            )
        for name in self.config["groups"]:
            if name not in there:
                self.api.post("/api/v2/authorizations/groups", {"name": name, "description": MARK})
                self.report.did(f"group {name}: made")
        self.permissions()

    def permissions(self) -> None:
        found = self.api.get("/api/permissions/groups", query={"ps": "100"})["groups"]
        now = {group["name"]: set(group["permissions"]) for group in found}
        for name, permissions in self.config["groups"].items():
            wanted, has = set(permissions), now.get(name, set())
            self.permit("add_group", name, wanted - has)
            self.permit("remove_group", name, has - wanted)
        also = self.config["also"]
        for name, permissions in also["give"].items():
            self.permit("add_group", name, set(permissions) - now.get(name, set()))
        for name, permissions in also["take"].items():
            self.permit("remove_group", name, set(permissions) & now.get(name, set()))

    def permit(self, verb: str, name: str, several: set[str]) -> None:
        for permission in sorted(several):
            self.api.request("POST", f"/api/permissions/{verb}", form={"groupName": name, "permission": permission})
            self.report.did(f"group {name}: {permission} {'given' if verb == 'add_group' else 'taken'}")

    # ---- projects

    def gitlab(self, known: str | None) -> str:
        """The GitLab whose projects people import; its token is set if its fingerprint is not `known`. The fingerprint.

        SonarQube keeps no description of it: the key is what says that it is this stack's.
        """
        key, url, token = self.config["gitlab"]["key"], self.config["gitlab"]["url"], secret("gitlab", "token")
        there = {one["key"]: one.get("url") for one in self.api.get("/api/alm_settings/list_definitions").get("gitlab", [])}
        if there and key not in there:
            others = ", ".join(f"'{name}' at {place}" for name, place in there.items())
            raise Failure(
                f"SonarQube has a GitLab that was not made by this stack: {others}",
                f"{self.where}/admin/settings?category=almintegration",
                f"its key is not '{key}', and this edition keeps one GitLab only",
                f"remove it; or hand it over, and its URL and token will be replaced: change its key to '{key}'",
            )
        fingerprint = print_of(f"opstella {token}")
        if key in there and there[key] == url and known == fingerprint:
            return fingerprint
        verb = "update" if key in there else "create"
        form = {"key": key, "url": url, "personalAccessToken": token}
        self.api.request("POST", f"/api/alm_settings/{verb}_gitlab", form=form)
        self.report.did(f"GitLab at {url}: {'changed' if key in there else 'made known'}")
        return fingerprint

    def gate(self) -> None:
        """What new projects are measured by; a project may be given another one in its own settings."""
        wanted = self.config["gate"]
        gates = {gate["name"]: gate for gate in self.api.get("/api/qualitygates/list")["qualitygates"]}
        if wanted not in gates:
            raise Failure(
                f"SonarQube has no quality gate '{wanted}'",
                f"{self.where}/quality_gates",
                f"it has {', '.join(sorted(gates))}",
                "compare SonarQube's version with the one that this stack was made for",
            )
        if not gates[wanted].get("isDefault"):
            before = next((name for name, gate in gates.items() if gate.get("isDefault")), "none")
            self.api.request("POST", "/api/qualitygates/set_as_default", form={"name": wanted})
            self.report.did(f"quality gate of new projects: {wanted}, it was {before}")

    # ---- tokens

    def tokens(self, kept: dict[str, str]) -> dict[str, str]:
        """A working token for each key of TOKENS: the one of `kept`, or a new one in its place."""
        names = {
            token["name"] for token in self.api.get("/api/user_tokens/search", query={"login": ADMIN})["userTokens"]
        }
        result = {}
        for key, (name, kind) in TOKENS.items():
            if name in names and key in kept and self.valid(bearer(kept[key])):
                result[key] = kept[key]
                continue
            if name in names:
                self.api.request("POST", "/api/user_tokens/revoke", form={"login": ADMIN, "name": name})
            answer = self.api.request(
                "POST", "/api/user_tokens/generate", form={"login": ADMIN, "name": name, "type": kind}
            ).json()
            result[key] = hide(answer["token"])
            self.report.did(f"token {name}: made")
        return result


def print_of(text: str) -> str:
    """A fingerprint: tells whether `text` is the same, and not what it is."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(report: Report) -> None:
    config = json.loads(Path(environment("CONFIG_FILE", "/opstella/sonarqube.json")).read_text(encoding="utf-8"))
    namespace, name = config["tokens"]["namespace"], config["tokens"]["secret"]
    kubernetes = Kubernetes()
    record = kubernetes.read(namespace, name) or {}
    kept = {key: hide(base64.b64decode(text).decode()) for key, text in (record.get("data") or {}).items()}
    annotations = record.get("metadata", {}).get("annotations") or {}
    sonarqube = SonarQube(environment("SONARQUBE_URL"), config, report)
    sonarqube.wait()
    sonarqube.log_in()
    sonarqube.groups()
    after = {**annotations, FINGERPRINT: str(sonarqube.settings(annotations.get(FINGERPRINT)))}
    sonarqube.gate()
    if "gitlab" in config:
        after[GITLAB_FINGERPRINT] = sonarqube.gitlab(annotations.get(GITLAB_FINGERPRINT))
    tokens = sonarqube.tokens(kept)  # last: a run that ends before they are kept makes them again
    if tokens != kept or annotations != after:
        keep(kubernetes, namespace, name, after, tokens)
    if "GITLAB_URL" in os.environ:
        Variables(report).publish({"SONAR_TOKEN": tokens["ci"]})


if __name__ == "__main__":
    sys.exit(main(run))
