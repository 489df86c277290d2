"""The real API server with the product's flags takes the identity provider's tokens, and its groups have their rights.

An issuer on loopback signs tokens as Keycloak makes them (tests/lab/test_keycloak.py holds Keycloak to that form).
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from plan import rke2
from tests.support.api_server import Cluster, wait_for
from tests.support.certificates import loopback_certificate

pytestmark = pytest.mark.toolchain
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """Serves discovery and one key, and signs."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate, key = loopback_certificate(folder)
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(issuer.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/realms/opstella"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def answer(self, path: str) -> dict[str, Any]:
        if path.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/certs",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        numbers = self.key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "kid": "one", "kty": "RSA", "alg": "RS256", "use": "sig",
                    "n": encoded(numbers.n.to_bytes(256)), "e": encoded(numbers.e.to_bytes(3)),
                }
            ]
        }  # fmt: skip

    def token(self, name: str, groups: list[str], **changes: Any) -> str:
        now = int(time.time())
        body = {
            "iss": self.url, "aud": [rke2.OIDC_CLIENT], "sub": f"id-of-{name}", "preferred_username": name,
            "groups": groups, "iat": now, "exp": now + 600, **changes,
        }  # fmt: skip
        body = {claim: value for claim, value in body.items() if value is not None}
        text = ".".join(encoded(json.dumps(p).encode()) for p in ({"alg": "RS256", "kid": "one"}, body))
        return f"{text}.{encoded(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@dataclass(frozen=True)
class Site:
    cluster: Cluster
    issuer: Issuer

    def whoami(self, token: str) -> Any:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return self.cluster.request("POST", path, review, token=token)["status"]["userInfo"]

    def may(self, token: str, verb: str, resource: str, group: str = "", namespace: str = "default") -> bool:
        attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return self.cluster.request("POST", path, review, token=token)["status"]["allowed"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("api-login")
    issuer = Issuer(folder)
    flags = [
        f"--{argument}".replace(rke2.OIDC_CA, str(issuer.certificate)) for argument in rke2.oidc_arguments(issuer.url)
    ]
    assert f"--oidc-ca-file={issuer.certificate}" in flags
    cluster = Cluster(folder, flags)
    try:
        cluster.start()
        for name in ("view", "edit"):  # the latter holds the former
            aggregated(cluster, name)
        for text in rke2.manifests(issuer.url).values():
            for binding in yaml.safe_load_all(text):
                cluster.apply(f"{RBAC}/clusterrolebindings", binding)
        found = Site(cluster, issuer)
        token = issuer.token("ada", [])

        def taken() -> bool:
            try:
                return bool(found.whoami(token))
            except AssertionError:
                return False  # it has not read the issuer's keys yet

        wait_for("the API server to know the issuer", taken, 60)
        yield found
    finally:
        cluster.stop()
        issuer.stop()


def aggregated(cluster: Cluster, name: str) -> None:
    """The rules of a role made from others, which a controller would write."""
    selector = f"rbac.authorization.k8s.io%2Faggregate-to-{name}%3Dtrue"

    def parts() -> Any:
        return cluster.get(f"{RBAC}/clusterroles?labelSelector={selector}")["items"]

    wait_for(f"the parts of the role {name}", parts)
    rules = [rule for part in parts() for rule in part["rules"] or ()]
    role = {
        "apiVersion": RBAC.removeprefix("/apis/"),
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }
    cluster.apply(f"{RBAC}/clusterroles", role)


def test_a_token_says_who_one_is(site: Site) -> None:
    who = site.whoami(site.issuer.token("ada", ["platform-admins"]))
    assert who["username"] == "oidc:ada"
    assert "oidc:platform-admins" in who["groups"]


@pytest.mark.parametrize(
    "changes",
    [{"aud": ["headlamp"]}, {"iss": "https://elsewhere.example.net"}, {"exp": 1}, {"preferred_username": None}],
    ids=["another audience", "another issuer", "expired", "nameless"],
)
def test_other_tokens_are_refused(site: Site, changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="401"):
        site.whoami(site.issuer.token("ada", ["platform-admins"], **changes))


def test_headlamps_token_with_both_audiences_is_taken(site: Site) -> None:
    token = site.issuer.token("dev", ["developers"], aud=["headlamp", rke2.OIDC_CLIENT])
    assert site.whoami(token)["username"] == "oidc:dev"


@pytest.mark.parametrize(
    ("group", "nodes", "write", "read"),
    [
        ("platform-admins", True, True, True),
        ("developers", False, True, True),
        ("viewers", False, False, True),
        ("nobodies", False, False, False),
        ("system:masters", False, False, False),  # what the provider calls a group never is a built-in one
    ],
)
def test_each_group_may_what_its_role_allows(site: Site, group: str, nodes: bool, write: bool, read: bool) -> None:
    token = site.issuer.token("somebody", [group])
    assert site.may(token, "delete", "nodes") == nodes
    assert site.may(token, "create", "deployments", "apps") == write
    assert site.may(token, "get", "pods") == read
    assert site.may(token, "get", "secrets") == write, "of those, viewers see none"
