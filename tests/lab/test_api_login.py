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
from tests.plan.stacks import plan
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
        ("developers", False, False, True),
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
    assert site.may(token, "get", "secrets") == write, "those are for administrators alone"


# Projects: namespaces in which developers work


CORE, APPS, NETWORKING = "/api/v1", "/apis/apps/v1", "/apis/networking.k8s.io/v1"
MINE, TOOLS = "team-a", "keycloak"
COLLECTIONS = {
    "Namespace": f"{CORE}/namespaces",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "ResourceQuota": f"{CORE}/namespaces/{MINE}/resourcequotas",
    "LimitRange": f"{CORE}/namespaces/{MINE}/limitranges",
    "ServiceAccount": f"{CORE}/namespaces/{MINE}/serviceaccounts",
    "RoleBinding": f"{RBAC}/namespaces/{MINE}/rolebindings",
    "NetworkPolicy": f"{NETWORKING}/namespaces/{MINE}/networkpolicies",
}


def pod(name: str, security: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    restricted = {
        "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {"name": "c", "image": "busybox", "securityContext": restricted if security is None else security}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}


@pytest.fixture(scope="module")
def project(site: Site) -> Site:
    """The site with the objects of one project as the plan has them, beside a namespace of a tool with a Secret."""
    stack = plan(kubernetes={"projects": {MINE: {"pods": 5}}})
    site.cluster.namespace(TOOLS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "admin"}, "stringData": {"password": "x"}}
    site.cluster.apply(f"{CORE}/namespaces/{TOOLS}/secrets", secret)
    for manifest in stack.projects["standalone"]:
        site.cluster.apply(COLLECTIONS[manifest.body["kind"]], manifest.body)
        if manifest.body["kind"] == "ResourceQuota":  # the quota's controller would write it
            hard = manifest.body["spec"]["hard"]
            status = {**manifest.body, "status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
            site.cluster.apply(COLLECTIONS["ResourceQuota"], status, "/status")

    def guarded() -> bool:
        """The policy is read some seconds after it was made."""
        return "externalIPs" in refusal(site, "POST", f"{CORE}/namespaces/{MINE}/services?dryRun=All", service(externalIPs=["192.0.2.1"]))

    wait_for("the rules for projects to be in force", guarded, 60)
    return site


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports, **spec}}


def developer(site: Site) -> str:
    return site.issuer.token("dev", ["developers"])


def refusal(site: Site, method: str, path: str, body: dict[str, Any] | None = None) -> str:
    """The message of the API server's refusal to a developer; empty where it does as asked."""
    try:
        site.cluster.request(method, path, body, token=developer(site))
    except AssertionError as error:
        return str(error)
    return ""


def test_developers_read_no_secret_but_their_own(project: Site) -> None:
    for path in (f"{CORE}/secrets", f"{CORE}/namespaces/{TOOLS}/secrets", f"{CORE}/namespaces/{TOOLS}/secrets/admin"):
        assert "403" in refusal(project, "GET", path), path
    assert refusal(project, "GET", f"{CORE}/namespaces/{MINE}/secrets") == ""
    assert refusal(project, "GET", f"{CORE}/namespaces/{TOOLS}/pods") == "", "reading the rest is what `view` is for"


@pytest.mark.parametrize("namespace", ["kube-system", "default", TOOLS])
def test_developers_start_nothing_where_the_platform_is(project: Site, namespace: str) -> None:
    assert "403" in refusal(project, "POST", f"{CORE}/namespaces/{namespace}/pods", pod("x", serviceAccountName="default"))
    for resource, group in (("pods/exec", ""), ("serviceaccounts/token", ""), ("deployments", "apps")):
        assert not project.may(developer(project), "create", resource, group, namespace), resource
    assert not project.may(developer(project), "impersonate", "serviceaccounts", "", namespace)


def test_developers_start_no_privileged_pod_in_their_own_namespace(project: Site) -> None:
    path = f"{CORE}/namespaces/{MINE}/pods"
    refused = {
        "privileged": pod("x", {"privileged": True}),
        "hostNetwork": pod("x", hostNetwork=True),
        "hostPath": pod("x", volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
        "runAsNonRoot": pod("x", {}),
    }
    for word, body in refused.items():
        message = refusal(project, "POST", path, body)
        assert 'violates PodSecurity \\"restricted' in message and word in message, message
    # A pod of an account that is not there would be made by whoever makes the account: only their own have any.
    assert "403" in refusal(project, "PATCH", f"{CORE}/namespaces/{MINE}?fieldManager=x", {"metadata": {}})


def test_developers_work_in_their_own_namespace(project: Site) -> None:
    path = f"{CORE}/namespaces/{MINE}"
    assert refusal(project, "POST", f"{path}/pods", pod("one")) == ""
    made = project.cluster.get(f"{path}/pods/one")
    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "50m", "memory": "64Mi"}
    assert not any("serviceAccountToken" in str(volume) for volume in made["spec"].get("volumes", []))
    assert refusal(project, "POST", f"{path}/services", service()) == ""
    for verb, resource, group in (("create", "deployments", "apps"), ("create", "secrets", ""), ("get", "pods/log", "")):
        assert project.may(developer(project), verb, resource, group, MINE), resource
    for verb, resource, group in (
        ("update", "resourcequotas", ""), ("create", "limitranges", ""),
        ("create", "rolebindings", "rbac.authorization.k8s.io"), ("update", "namespaces", ""),
    ):  # fmt: skip
        assert not project.may(developer(project), verb, resource, group, MINE), resource


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (service(externalIPs=["192.168.72.14"]), "no externalIPs"),
        (service(type="NodePort"), "of type ClusterIP"),
        (service(type="LoadBalancer"), "of type ClusterIP"),
    ],
)
def test_a_service_of_a_project_takes_no_address_but_its_own(project: Site, body: dict[str, Any], message: str) -> None:
    assert message in refusal(project, "POST", f"{CORE}/namespaces/{MINE}/services", {**body, "metadata": {"name": "t"}})


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("shop.devops.example.com", ""),
        ("opstella-idp.devops.example.com", "names a host"),
        ("traefik-read-loki.traefik.svc.cluster.local", "names a host"),
        ("*.devops.example.com", "names a host"),
        (None, "names a host"),
    ],
)
def test_an_ingress_of_a_project_is_not_under_a_name_of_the_platform(project: Site, host: str | None, message: str) -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}, **({"host": host} if host else {})}
    body = {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": [rule]},
    }  # fmt: skip
    found = refusal(project, "POST", f"{NETWORKING}/namespaces/{MINE}/ingresses", body)
    assert (message in found) if message else found == ""


# Certificates of the ClusterIssuers

CERTIFICATES = "/apis/cert-manager.io/v1"


@pytest.fixture(scope="module")
def issued(project: Site) -> Site:
    """The site with the kinds of cert-manager, whose fields nobody checks here, and the rule for their names."""
    for plural, kind in (("certificates", "Certificate"), ("certificaterequests", "CertificateRequest")):
        spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.cert-manager.io"},
            "spec": {
                "group": "cert-manager.io", "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": True, "storage": True,
                              "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}],
            },
        }  # fmt: skip
        project.cluster.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    (release,) = [r for r in plan().releases["standalone"] if r.name == "cert-manager"]
    for manifest in release.before:
        if manifest.body["kind"] in COLLECTIONS and manifest.name.startswith("opstella-certificates"):
            project.cluster.apply(COLLECTIONS[manifest.body["kind"]], manifest.body)
    namespace = project.cluster.get(f"{CORE}/namespaces/{TOOLS}")
    owned = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TOOLS, "labels": {"app.kubernetes.io/managed-by": "opstella"}}}
    assert namespace
    project.cluster.apply(f"{CORE}/namespaces", owned)
    wait_for("the rule for certificates to be in force", lambda: asked(project, MINE, {"dnsNames": ["www.example.org"]}) != "", 60)
    return project


def asked(site: Site, namespace: str, spec: dict[str, Any], kind: str = "Certificate", issuer: str = "ClusterIssuer") -> str:
    """The API server's refusal to an administrator, whom no right holds back; empty where it does as asked."""
    body = {
        "apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": {"name": "x"},
        "spec": {"secretName": "x", "issuerRef": {"name": "opstella-ca", "kind": issuer}, **spec},
    }  # fmt: skip
    try:
        site.cluster.request("POST", f"{CERTIFICATES}/namespaces/{namespace}/{kind.lower()}s?dryRun=All", body)
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "spec",
    [
        {"dnsNames": ["www.example.org"]},
        {"dnsNames": ["opstella-idp.devops.example.com"]},
        {"dnsNames": ["*.devops.example.com"]},
        {"dnsNames": ["a.keycloak.svc"]},
        {"dnsNames": ["a.team-a.svc", "www.example.org"]},
        {"commonName": "www.example.org", "dnsNames": ["a.team-a.svc"]},
        {"commonName": "www.example.org"},
        {"dnsNames": ["a.team-a.svc"], "ipAddresses": ["192.168.72.12"]},
        {"dnsNames": ["a.team-a.svc"], "isCA": True},
        {"dnsNames": ["a.team-a.svc"], "literalSubject": "CN=www.example.org"},
        {},
    ],
    ids=str,
)
def test_a_cluster_issuer_signs_no_name_of_others(issued: Site, spec: dict[str, Any]) -> None:
    assert "opstella-certificates" in asked(issued, MINE, spec)
    assert asked(issued, MINE, spec, issuer="Issuer") == "", "an authority of one's own is one's own business"
    assert asked(issued, TOOLS, spec) == "", "the tools' namespaces are the program's"


@pytest.mark.parametrize(
    "names", [["shop.devops.example.com"], ["a.team-a.svc", "a.team-a.svc.cluster.local"]], ids=["domain", "services"]
)
def test_a_cluster_issuer_signs_ones_own_names(issued: Site, names: list[str]) -> None:
    assert asked(issued, MINE, {"dnsNames": names, "commonName": names[0]}) == ""


def test_nobody_asks_a_cluster_issuer_past_the_rule(issued: Site) -> None:
    assert "is cert-manager's own" in asked(issued, MINE, {"request": "eA=="}, kind="CertificateRequest")
    assert asked(issued, MINE, {"request": "eA=="}, kind="CertificateRequest", issuer="Issuer") == ""
