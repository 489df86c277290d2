"""The real Keycloak on loopback, and a browser that logs in to it, for tests.

It is told the platform's own public name, as in the cluster, so that its tokens are the platform's; requests go to
loopback all the same.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support.api_server import artifact, free_port, wait_for

ADMIN, ADMIN_PASSWORD = "admin", "first-administrator"
START_SECONDS = 180


@dataclass(frozen=True)
class Answer:
    status: int
    location: str
    cookies: list[str]
    text: str


@dataclass(frozen=True)
class Server:
    """A running Keycloak; `host` is the name it believes in."""

    port: int
    host: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, as the ingress would pass it on. `path` may be a URL of the public name."""
        sent = {"Host": self.host, "X-Forwarded-Proto": "https", "X-Forwarded-Host": self.host, **(headers or {})}
        body = None
        if form is not None:
            body, sent["Content-Type"] = urllib.parse.urlencode(form), "application/x-www-form-urlencoded"
        elif data is not None:
            body, sent["Content-Type"] = json.dumps(data), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path.removeprefix(f"https://{self.host}"), body, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            cookies = answer.headers.get_all("Set-Cookie") or []
            return Answer(answer.status, answer.headers.get("Location") or "", cookies, text)
        finally:
            connection.close()

    def json(self, method: str, path: str, **more: Any) -> Any:
        answer = self.ask(method, path, **more)
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {answer.text[:300]}"
        return json.loads(answer.text) if answer.text else None

    def admin(self, method: str, path: str, data: Any = None) -> Any:
        """The Admin REST API, below /admin/realms."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
        token = self.json("POST", "/realms/master/protocol/openid-connect/token", form=form)["access_token"]
        return self.json(method, f"/admin/realms{path}", data=data, headers={"Authorization": f"Bearer {token}"})


@contextlib.contextmanager
def running(host: str) -> Iterator[Server]:
    """The server of the artifact `keycloak`, its database in memory, stopped at the end."""
    built = artifact("keycloak") / "keycloak"
    home = Path(tempfile.mkdtemp(prefix="opstella-keycloak-"))
    port, management = free_port(), free_port()
    try:
        # It writes beside its programs; the artifact stays as it is.
        for name in ("bin", "conf"):
            shutil.copytree(built / name, home / name)
        for name in ("lib", "providers", "themes", "version.txt"):
            (home / name).symlink_to(built / name)
        command = [
            home / "bin/kc.sh", "start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1",
            f"--http-port={port}", f"--http-management-port={management}", f"--hostname=https://{host}",
            "--proxy-headers=xforwarded",
        ]  # fmt: skip
        environment = {
            **os.environ,
            "JAVA_OPTS_KC_HEAP": "-Xms128m -Xmx512m",
            "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1",  # a short life: quick compilation only
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
        }
        log = home / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                server = Server(port, host)

                def ready() -> bool:
                    assert process.poll() is None, f"Keycloak ended:\n{log.read_text()[-3000:]}"
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        return server.ask("GET", "/realms/master").status == 200
                    return False

                wait_for("Keycloak to answer", ready, START_SECONDS)
                yield server
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        shutil.rmtree(home)


def s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


VERIFIER = "a-verifier-of-at-least-forty-three-characters-long"


@dataclass
class Browser:
    """One person's browser: keeps cookies, fills in forms, follows redirects within Keycloak only."""

    server: Server
    username: str
    password: str
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, form: Mapping[str, str] | None = None) -> Answer:
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.server.ask(method, path, form=form, headers={"Cookie": jar} if jar else None)
        for cookie in answer.cookies:
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0]
            if value and "Max-Age=0" not in cookie:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return answer

    def visit(self, path: str, until: str | None = None) -> Answer:
        """Ends at a redirect that leaves Keycloak or leads to `until`, or at a page that is no login form."""
        answer = self.ask("GET", path)
        for _ in range(8):
            if answer.status in (302, 303):
                arrived = until is not None and answer.location.startswith(until)
                if arrived or not answer.location.startswith((f"https://{self.server.host}/", "/")):
                    return answer
                answer = self.ask("GET", answer.location)
                continue
            action = re.search(r'<form[^>]*id="kc-(?:form-login|passwd-update-form)"[^>]*action="([^"]+)"', answer.text)
            if action is None:
                return answer
            target = html.unescape(action[1])
            if "password-new" in answer.text:
                self.password += "-changed"
                form = {"password-new": self.password, "password-confirm": self.password}
            else:
                form = {"username": self.username, "password": self.password}
            answer = self.ask("POST", target, form)
        return answer

    def authorize(
        self, realm: str, client: str, redirect: str, pkce: bool, scope: str = "openid profile email groups"
    ) -> Answer:
        """What the authorization endpoint leads to for `client`."""
        query = {
            "client_id": client, "redirect_uri": redirect, "response_type": "code",
            "scope": scope, "state": "s", "nonce": "n",
            **({"code_challenge": s256(VERIFIER), "code_challenge_method": "S256"} if pkce else {}),
        }  # fmt: skip
        return self.visit(f"/realms/{realm}/protocol/openid-connect/auth?{urllib.parse.urlencode(query)}", redirect)


def code_of(answer: Answer, redirect: str) -> str | None:
    """The authorization code, None where nobody was sent back to `redirect` with one."""
    if answer.status not in (302, 303) or not answer.location.startswith(redirect):
        return None
    return urllib.parse.parse_qs(urllib.parse.urlsplit(answer.location).query).get("code", [None])[0]


def redeem(server: Server, realm: str, client: str, redirect: str, code: str, secret: str | None, pkce: bool) -> Answer:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "client_id": client}
    form |= {"client_secret": secret} if secret is not None else {}
    form |= {"code_verifier": VERIFIER} if pkce else {}
    return server.ask("POST", f"/realms/{realm}/protocol/openid-connect/token", form=form)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims(token: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    """The claims of a token, whose signature is that of one of the realm's `keys`. Raises InvalidSignature, KeyError."""
    head, body, signature = token.split(".")
    by_id = {key["kid"]: key for key in keys}
    key = by_id[json.loads(_bytes(head))["kid"]]
    numbers = rsa.RSAPublicNumbers(int.from_bytes(_bytes(key["e"])), int.from_bytes(_bytes(key["n"])))
    numbers.public_key().verify(_bytes(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
    return json.loads(_bytes(body))
