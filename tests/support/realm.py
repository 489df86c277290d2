"""The realm of all tools, made on the real Keycloak by the product's own Job, and people of each group who log in to it.

A plugin with the fixtures `site`, `people` and `keys`; each module that uses them has a server of its own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.parse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.keycloak import ADMIN_PASSWORD, Browser, Server, code_of, redeem, running
from tests.support.platform import images, plan_of

SCRIPT = Path(__file__).resolve().parents[2] / "provision/keycloak.py"
PEOPLE = {"ada": "platform-admins", "dev": "developers", "vera": "viewers"}
PLAN = plan_of(
    changes={
        **images(),
        "identity": {
            "users": {
                name: {"groups": [group], "firstName": name.title(), "lastName": "Doe"}
                for name, group in PEOPLE.items()
            }
        },
    }
)
RELEASE = next(r for r in PLAN.releases["standalone"] if r.name == "keycloak")
(JOB,) = RELEASE.jobs
WANTED: dict[str, Any] = json.loads(JOB.files["realm.json"])
REALM = WANTED["realm"]
CLIENTS = {c["representation"]["clientId"]: c for c in WANTED["clients"]}
GATES = {gate["alias"]: gate["groups"] for gate in WANTED["gates"]}
OIDC = [name for name, c in CLIENTS.items() if c["representation"]["protocol"] == "openid-connect"]
SAML = [name for name, c in CLIENTS.items() if c["representation"]["protocol"] == "saml"]
HOST = RELEASE.host or ""


def first_password(name: str) -> str:
    return f"first-password-of-{name}"


def secret_of(client: str) -> str:
    return f"secret-of-{client}"


@dataclass
class Site:
    server: Server
    folder: Path

    def provision(self, wanted: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """One run of the product's script, with the Job's own variables and what the Job mounts."""
        (self.folder / "realm.json").write_text(json.dumps(wanted), encoding="utf-8")
        environment = {
            **JOB.environment,
            "KEYCLOAK_URL": self.server.url,
            "REALM_FILE": str(self.folder / "realm.json"),
            "SECRETS": str(self.folder / "secrets"),
            "PATIENCE": "30",
            "PATH": os.environ["PATH"],
        }
        return subprocess.run(
            [sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    def provisioned(self, wanted: dict[str, Any]) -> list[str]:
        """What a run changed."""
        run = self.provision(wanted)
        assert run.returncode == 0, run.stderr
        assert not any(word in run.stdout for word in (ADMIN_PASSWORD, "secret-of-", "first-password-of-"))
        return re.findall(r"^changed: (.*)$", run.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("keycloak")
    # Exactly the keys of the Secrets that the plan declares.
    data = {secret.name: secret.data for secret in RELEASE.secrets}
    values = {"admin": lambda key: ADMIN_PASSWORD, "clients": secret_of, "users": first_password}
    for name, secret in JOB.secret_files.items():
        (folder / "secrets" / name).mkdir(parents=True)
        for key in data[secret]:
            (folder / "secrets" / name / key).write_text(values[name](key), encoding="utf-8")
    with running(HOST) as server:
        found = Site(server, folder)
        assert found.provisioned(WANTED)
        yield found


@pytest.fixture(scope="module")
def people(site: Site) -> dict[str, Browser]:
    """By group; each has a browser and, after its first login, a password of its own."""
    return {group: Browser(site.server, name, first_password(name)) for name, group in PEOPLE.items()}


@pytest.fixture(scope="module")
def keys(site: Site) -> list[dict[str, Any]]:
    return site.server.json("GET", f"/realms/{REALM}/protocol/openid-connect/certs")["keys"]


def needs_pkce(client: str) -> bool:
    return "pkce.code.challenge.method" in CLIENTS[client]["representation"]["attributes"]


def code_for(browser: Browser, client: str) -> str | None:
    redirect = CLIENTS[client]["representation"]["redirectUris"][0]
    return code_of(browser.authorize(REALM, client, redirect, needs_pkce(client)), redirect)


def tokens(site: Site, client: str, code: str, secret: str | None) -> Any:
    redirect = CLIENTS[client]["representation"]["redirectUris"][0]
    return redeem(site.server, REALM, client, redirect, code, secret, needs_pkce(client))


def assertion(browser: Browser, client: str, consumer: str) -> dict[str, list[str]] | None:
    """The attributes of the assertion that `client` gets at `consumer`; None where it gets none."""
    request = (
        '<samlp:AuthnRequest xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol" ID="_1" Version="2.0"'
        f' IssueInstant="2026-01-01T00:00:00Z" AssertionConsumerServiceURL="{consumer}">'
        f'<saml:Issuer xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion">{client}</saml:Issuer></samlp:AuthnRequest>'
    )
    deflated = zlib.compress(request.encode())[2:-4]
    query = urllib.parse.urlencode({"SAMLRequest": base64.b64encode(deflated).decode()})
    page = browser.visit(f"/realms/{REALM}/protocol/saml?{query}").text
    response = re.search(r'name="SAMLResponse" value="([^"]+)"', page, re.IGNORECASE)
    if response is None:
        return None
    document = base64.b64decode(response[1]).decode()
    assert f'Destination="{consumer}"' in document and "SignatureValue" in document
    found = re.findall(r'<saml:Attribute [^>]*?Name="([^"]+)"[^>]*>(.*?)</saml:Attribute>', document)
    return {name: re.findall(r"<saml:AttributeValue[^>]*>([^<]*)<", body) for name, body in found}
