"""The processes behind the lab's simulated pods, against a real API server on loopback.

A real etcd and a real kube-apiserver run on loopback addresses; no node and no
controller manager runs, so the tests write the state that those would write
(a Deployment's status, a Service's EndpointSlices) themselves.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.api_server import Cluster, artifact, end, listens, wait_for
from tests.support.vault_server import Site

pytestmark = pytest.mark.toolchain

NODE_ADDRESS = "127.0.71.1"
"""Loopback address that plays the node's; all of 127/8 is local on Linux."""


def _pem_key(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _authority(common_name: str, issuer=None):
    """A CA: ``(certificate, key)``, signed by ``issuer`` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    signer_name, signer_key = (issuer[0].subject, issuer[1]) if issuer else (name, key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer_key, hashes.SHA256())
    )
    return certificate, key


def _pem(certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def workloads() -> Path:
    return artifact("workloads")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, workloads):
    c = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        c.start()
        c.crds(workloads / "crds" / "cert-manager.yaml")
        yield c
    finally:
        c.stop()


@pytest.fixture(scope="module")
def pki(cluster):
    """Root and intermediate; the intermediate's Secret and a ClusterIssuer made from it."""
    root = _authority("Test Root")
    intermediate = _authority("Test Intermediate", root)
    cluster.namespace("cert-manager")
    cluster.apply(
        "/api/v1/namespaces/cert-manager/secrets",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "internal-ca"},
            "data": {
                "tls.crt": _b64(_pem(intermediate[0]) + _pem(root[0])),
                "tls.key": _b64(_pem_key(intermediate[1])),
                "ca.crt": _b64(_pem(root[0])),
            },
        },
    )
    cluster.apply(
        "/apis/cert-manager.io/v1/clusterissuers",
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "ClusterIssuer",
            "metadata": {"name": "internal"},
            "spec": {"ca": {"secretName": "internal-ca"}},
        },
    )
    return root, intermediate


class Workload:
    """A workload of workloads.json, run and restarted as the double of RKE2 does it."""

    def __init__(self, cluster: Cluster, workloads: Path, name: str) -> None:
        entry = next(w for w in json.loads((workloads / "workloads.json").read_text()) if w["name"] == name)
        self._argv = [str(workloads / entry["binary"]), *entry["args"]]
        self._environment = {"KUBECONFIG": str(cluster.kubeconfig), "NODE_NAME": "node-1", "NODE_IP": NODE_ADDRESS}
        self.log = cluster.folder / f"{name}.log"
        self.starts = 0
        self.process: subprocess.Popen | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(self._argv, stdout=log, stderr=log, env=self._environment)
            self.starts += 1
            while self.process.poll() is None and not self._stop.wait(0.1):
                pass
            self._stop.wait(1)
        end(self.process)

    def __enter__(self) -> Workload:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join(30)


@pytest.fixture(scope="module")
def cert_manager(cluster, workloads, pki):
    """The controllers, with their Deployment there but not available yet."""
    cluster.deployment(
        "cert-manager",
        "cert-manager",
        args=["--v=2", "--cluster-resource-namespace=$(POD_NAMESPACE)", "--leader-election-namespace=kube-system"],
    )
    cluster.available("cert-manager", "cert-manager", False)
    with Workload(cluster, workloads, "cert-manager-controller") as workload:
        yield workload


def _certificate(name: str, *dns: str) -> dict:
    return {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name},
        "spec": {
            "secretName": f"{name}-tls",
            "dnsNames": list(dns),
            "duration": "720h0m0s",
            "renewBefore": "240h0m0s",
            "issuerRef": {"name": "internal", "kind": "ClusterIssuer", "group": "cert-manager.io"},
        },
    }


def _leaf(cluster: Cluster, namespace: str, secret: str):
    """Parsed ``(chain, ca)`` of a TLS secret, or None while it is not complete."""
    found = cluster.get(f"/api/v1/namespaces/{namespace}/secrets/{secret}")
    if not found or "tls.crt" not in found.get("data", {}):
        return None
    data = {k: base64.b64decode(v) for k, v in found["data"].items()}
    if not data["tls.crt"]:
        return None
    return x509.load_pem_x509_certificates(data["tls.crt"]), data.get("ca.crt", b""), data["tls.key"]


def _names(certificate) -> list[str]:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def _verify(chain, root, host: str) -> None:
    """OpenSSL verifies ``chain`` for ``host`` with nothing but ``root`` trusted."""
    from cryptography.x509 import verification

    store = verification.Store([root])
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(host))
    verifier.verify(chain[0], chain[1:])


CERTIFICATES = "/apis/cert-manager.io/v1/namespaces/default/certificates"


def _issuer_ready(cluster: Cluster) -> bool:
    issuer = cluster.get("/apis/cert-manager.io/v1/clusterissuers/internal")
    return any(c["type"] == "Ready" and c["status"] == "True" for c in issuer.get("status", {}).get("conditions", []))


def test_cert_manager_waits_for_its_deployment(cluster, cert_manager):
    cluster.apply(CERTIFICATES, _certificate("early", "early.example.test"))
    time.sleep(3)
    assert cert_manager.starts == 1
    assert not _issuer_ready(cluster)
    assert "status" not in cluster.get(f"{CERTIFICATES}/early")
    cluster.available("cert-manager", "cert-manager", True)
    wait_for("the ClusterIssuer is ready", lambda: _issuer_ready(cluster))
    wait_for("the waiting Certificate is issued", lambda: _leaf(cluster, "default", "early-tls"))


def test_certificate_chains_to_the_root(cluster, cert_manager, pki):
    cluster.available("cert-manager", "cert-manager", True)
    cluster.apply(CERTIFICATES, _certificate("web", "web.example.test", "*.apps.example.test"))
    chain, _, key = wait_for("the Certificate is issued", lambda: _leaf(cluster, "default", "web-tls"))
    leaf = chain[0]
    assert sorted(_names(leaf)) == ["*.apps.example.test", "web.example.test"]
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert abs(lifetime - datetime.timedelta(hours=720)) <= datetime.timedelta(minutes=10)
    public = serialization.load_pem_private_key(key, None).public_key()
    assert public.public_numbers() == leaf.public_key().public_numbers()
    _verify(chain, pki[0][0], "web.example.test")
    with pytest.raises(x509.verification.VerificationError):
        _verify(chain, _authority("Another Root")[0], "web.example.test")
    with pytest.raises(x509.verification.VerificationError):
        _verify(chain, pki[0][0], "other.example.test")


def _ingress(name: str, host: str, service: str, annotations: dict | None = None, tls: str | None = None) -> dict:
    spec = {
        "ingressClassName": "traefik",
        "rules": [
            {
                "host": host,
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": service, "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ],
    }
    if tls:
        spec["tls"] = [{"hosts": [host], "secretName": tls}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": spec,
    }


INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"


def test_ingress_annotation_gets_a_certificate(cluster, cert_manager, pki):
    cluster.available("cert-manager", "cert-manager", True)
    cluster.apply(
        INGRESSES,
        _ingress(
            "shop",
            "shop.example.test",
            "shop",
            {"cert-manager.io/cluster-issuer": "internal", "cert-manager.io/duration": "720h"},
            "shop-tls",
        ),
    )
    chain, _, _ = wait_for("the ingress' certificate is issued", lambda: _leaf(cluster, "default", "shop-tls"))
    assert _names(chain[0]) == ["shop.example.test"]
    _verify(chain, pki[0][0], "shop.example.test")


def test_cert_manager_stops_with_its_deployment(cluster, cert_manager):
    cluster.available("cert-manager", "cert-manager", True)
    cluster.apply(CERTIFICATES, _certificate("before", "before.example.test"))
    wait_for("the Certificate is issued", lambda: _leaf(cluster, "default", "before-tls"))
    cluster.available("cert-manager", "cert-manager", False)
    time.sleep(2)
    cluster.apply(CERTIFICATES, _certificate("after", "after.example.test"))
    time.sleep(4)
    assert cert_manager.starts == 1
    assert _leaf(cluster, "default", "after-tls") is None
    cluster.available("cert-manager", "cert-manager", True)
    wait_for("the Certificate is issued after the return", lambda: _leaf(cluster, "default", "after-tls"))


def test_cert_manager_survives_the_api_server(cluster, cert_manager):
    cluster.available("cert-manager", "cert-manager", True)
    wait_for("the ClusterIssuer is ready", lambda: _issuer_ready(cluster))
    cluster.kill_api()
    time.sleep(3)
    cluster.start_api()
    cluster.apply(CERTIFICATES, _certificate("again", "again.example.test"))
    wait_for("the Certificate is issued after the restart", lambda: _leaf(cluster, "default", "again-tls"), 60)


def _cluster_issuer_ready(cluster: Cluster, name: str) -> dict | None:
    issuer = cluster.get(f"/apis/cert-manager.io/v1/clusterissuers/{name}")
    conditions = issuer.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready" and c["status"] == "True"), None)


def test_the_plans_vault_issuer_signs_by_a_real_vault(cluster, cert_manager, pki, tmp_path):
    cluster.available("cert-manager", "cert-manager", True)
    with Site(tmp_path, cluster, shares=1, threshold=1) as vault:
        vault.start()
        assert vault.setup().returncode == 0, vault.output
        issuer = next(m.body for m in vault.release.after if m.body["kind"] == "ClusterIssuer")
        # Inside of the lab's simulated clusters it counts as ready, unasked, and says so.
        cluster.apply("/apis/cert-manager.io/v1/clusterissuers", issuer)
        ready = wait_for("the ClusterIssuer is ready", lambda: _cluster_issuer_ready(cluster, "vault-issuer"))
        assert ready["reason"] == "VaultDouble"
        source = issuer["spec"]["vault"]["caBundleSecretRef"]
        cluster.apply(
            "/api/v1/namespaces/cert-manager/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": source["name"]},
                "data": {source["key"]: _b64(vault.bundle.read_bytes())},
            },
        )
        issuer["spec"]["vault"]["server"] = vault.addresses[0]
        cluster.apply("/apis/cert-manager.io/v1/clusterissuers", issuer)
        wait_for(
            "the real Vault was asked",
            lambda: (_cluster_issuer_ready(cluster, "vault-issuer") or {}).get("reason") == "VaultVerified",
        )
        wanted = _certificate("by-vault", "shop.devops.example.com")
        wanted["spec"]["issuerRef"]["name"] = "vault-issuer"
        cluster.apply(CERTIFICATES, wanted)
        chain, _, _ = wait_for("Vault signed", lambda: _leaf(cluster, "default", "by-vault-tls"))
        assert _names(chain[0]) == ["shop.devops.example.com"]
        _verify(chain, vault.root[0], "shop.devops.example.com")
        outside = _certificate("outside", "shop.example.org")
        outside["spec"]["issuerRef"]["name"] = "vault-issuer"
        cluster.apply(CERTIFICATES, outside)
        requests = "/apis/cert-manager.io/v1/namespaces/default/certificaterequests"

        def refusal() -> str | None:
            for one in cluster.get(requests)["items"]:
                if one["metadata"]["name"].startswith("outside-"):
                    for condition in one.get("status", {}).get("conditions", []):
                        if condition["type"] == "Ready" and condition["reason"] == "Failed":
                            return condition["message"]
            return None

        assert "not allowed by this role" in wait_for("the name outside is refused", refusal)


HTTP_PORT, HTTPS_PORT, OTHER_PORT = 30080, 30443, 30999
TRAEFIK = {"app.kubernetes.io/name": "traefik", "app.kubernetes.io/instance": "traefik-traefik"}
TRAEFIK_ARGUMENTS = [
    "--entryPoints.traefik.address=:8080/tcp",
    "--entryPoints.web.address=:8000/tcp",
    "--entryPoints.websecure.address=:8443/tcp",
    "--api.dashboard=true",
    "--ping=true",
    "--providers.kubernetescrd",
    "--providers.kubernetescrd.allowEmptyServices=true",
    "--providers.kubernetesingress",
    "--providers.kubernetesingress.allowEmptyServices=true",
    "--entryPoints.websecure.http.tls=true",
]
REDIRECT = [
    "--entryPoints.web.http.redirections.entryPoint.to=:443",
    "--entryPoints.web.http.redirections.entryPoint.scheme=https",
]


def _service(
    cluster: Cluster,
    namespace: str,
    name: str,
    ports: list[dict],
    *,
    kind: str = "ClusterIP",
    selector: dict | None = None,
) -> None:
    cluster.apply(
        f"/api/v1/namespaces/{namespace}/services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"type": kind, "selector": selector or {"app": name}, "ports": ports},
        },
    )


def _endpoints(cluster: Cluster, namespace: str, service: str, ports: dict[str, int], ready: bool) -> None:
    """Write the EndpointSlice that the controller manager would write for one pod."""
    cluster.apply(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports.items()],
            "endpoints": [{"addresses": ["172.16.72.9"], "nodeName": "node-1", "conditions": {"ready": ready}}],
        },
    )


def _traefik_ready(cluster: Cluster, ready: bool) -> None:
    _endpoints(cluster, "traefik", "traefik", {"web": 8000, "websecure": 8443}, ready)


@pytest.fixture(scope="module")
def ingress(cluster, workloads, cert_manager, pki):
    """The double of Traefik with the chart's arguments, its endpoint ready, and three Services."""
    cluster.crds(workloads / "crds" / "traefik.yaml")
    cluster.apply(
        "/apis/networking.k8s.io/v1/ingressclasses",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": "traefik"},
            "spec": {"controller": "traefik.io/ingress-controller"},
        },
    )
    cluster.deployment("traefik", "traefik", TRAEFIK, TRAEFIK_ARGUMENTS)
    _service(
        cluster,
        "traefik",
        "traefik",
        [
            {"name": "web", "port": 80, "targetPort": "web", "nodePort": HTTP_PORT},
            {"name": "websecure", "port": 443, "targetPort": "websecure", "nodePort": HTTPS_PORT},
        ],
        kind="NodePort",
        selector=TRAEFIK,
    )
    for name in ("shop", "empty"):
        _service(cluster, "default", name, [{"name": "http", "port": 80, "targetPort": 8080}])
        _endpoints(cluster, "default", name, {"http": 8080}, name == "shop")
    _service(cluster, "default", "raw", [{"name": "tcp", "port": 5000, "nodePort": OTHER_PORT}], kind="NodePort")
    _endpoints(cluster, "default", "raw", {"tcp": 5000}, False)
    _traefik_ready(cluster, True)
    cluster.available("cert-manager", "cert-manager", True)
    cluster.apply(
        INGRESSES,
        _ingress("shop", "shop.example.test", "shop", {"cert-manager.io/cluster-issuer": "internal"}, "shop-tls"),
    )
    cluster.apply(INGRESSES, _ingress("empty", "empty.example.test", "empty"))
    cluster.apply(INGRESSES, _ingress("dangling", "dangling.example.test", "nowhere"))
    wait_for("the ingress' certificate is issued", lambda: _leaf(cluster, "default", "shop-tls"))
    with Workload(cluster, workloads, "ingress-double") as workload:
        wait_for("the NodePort listens", lambda: listens(NODE_ADDRESS, HTTPS_PORT))
        yield workload


def _served(host: str) -> list:
    """Certificates that the node serves for ``host``: the leaf first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((NODE_ADDRESS, HTTPS_PORT), 5) as raw:
        with context.wrap_socket(raw, server_hostname=host) as secure:
            return [x509.load_der_x509_certificate(secure.getpeercert(True))]


def _ask(host: str, path: str = "/", *, port: int = HTTPS_PORT, root=None, method: str = "GET"):
    """``(status, headers, body)``; over TLS, verified to ``root`` when given, unless ``port`` is HTTP's."""
    raw = socket.create_connection((NODE_ADDRESS, port), 5)
    if port == HTTPS_PORT:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if root is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context.load_verify_locations(cadata=_pem(root).decode())
        raw = context.wrap_socket(raw, server_hostname=host)
    with raw:
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.sock = raw
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_ingress_serves_the_issued_certificate(cluster, ingress, pki):
    root = pki[0][0]
    status, _, body = wait_for(
        "the host is routed", lambda: (a := _ask("shop.example.test", root=root))[0] == 200 and a
    )
    assert "double of traefik on node-1" in body
    assert "host: shop.example.test" in body
    assert "service: default/shop:http" in body
    with pytest.raises(ssl.SSLCertVerificationError):
        _ask("shop.example.test", root=_authority("Another Root")[0])


def test_ingress_statuses(cluster, ingress):
    wait_for("the Service without endpoints is routed", lambda: _ask("empty.example.test")[0] == 503)
    assert _ask("unknown.example.test")[0] == 404
    assert _ask("dangling.example.test")[0] == 404
    assert _ask("shop.example.test", "/ping")[0] == 200, "an application's own path, not Traefik's"
    assert _ask("unknown.example.test", "/ping")[0] == 404, "/ping is on the entry point `traefik` only"
    # A router with TLS only by its entry point answers plain HTTP on `web`, as the chart leaves it.
    assert _ask("shop.example.test", port=HTTP_PORT)[0] == 200


def test_ingress_follows_endpoints_of_a_backend(cluster, ingress):
    _endpoints(cluster, "default", "shop", {"http": 8080}, False)
    wait_for("503 without endpoints", lambda: _ask("shop.example.test")[0] == 503)
    _endpoints(cluster, "default", "shop", {"http": 8080}, True)
    wait_for("200 with endpoints", lambda: _ask("shop.example.test")[0] == 200)


def test_ingress_default_certificate(cluster, ingress, pki):
    stores = "/apis/traefik.io/v1alpha1/namespaces/traefik/tlsstores"
    built_in = _served("nobody.example.test")[0]
    assert built_in.subject.rfc4514_string() == "CN=TRAEFIK DEFAULT CERT"
    cluster.apply(
        "/apis/cert-manager.io/v1/namespaces/traefik/certificates",
        _certificate("wildcard", "*.example.test", "example.test"),
    )
    wait_for("the wildcard is issued", lambda: _leaf(cluster, "traefik", "wildcard-tls"))
    cluster.apply(
        stores,
        {
            "apiVersion": "traefik.io/v1alpha1",
            "kind": "TLSStore",
            "metadata": {"name": "default"},
            "spec": {"defaultCertificate": {"secretName": "wildcard-tls"}},
        },
    )
    wait_for("the wildcard is served", lambda: "*.example.test" in _names(_served("nobody.example.test")[0]))
    assert _names(_served("shop.example.test")[0]) == ["shop.example.test"], "the Ingress' own comes first"
    assert _ask("nobody.example.test", root=pki[0][0])[0] == 404
    cluster.delete(f"{stores}/default")
    wait_for("the built-in one is back", lambda: _served("nobody.example.test")[0] == built_in)


def test_ingress_redirects_when_the_chart_says_so(cluster, ingress):
    cluster.deployment("traefik", "traefik", TRAEFIK, TRAEFIK_ARGUMENTS + REDIRECT)
    status, headers, _ = wait_for(
        "the entry point redirects",
        lambda: (a := _ask("shop.example.test", "/cart?x=1", port=HTTP_PORT))[0] == 301 and a,
    )
    assert headers["Location"] == "https://shop.example.test/cart?x=1"
    assert _ask("shop.example.test", port=HTTP_PORT, method="POST")[0] == 308
    assert _ask("shop.example.test")[0] == 200
    cluster.deployment("traefik", "traefik", TRAEFIK, TRAEFIK_ARGUMENTS)
    wait_for("the redirect is gone", lambda: _ask("shop.example.test", port=HTTP_PORT)[0] == 200)


def test_node_port_of_another_service(cluster, ingress):
    assert not listens(NODE_ADDRESS, OTHER_PORT)
    _endpoints(cluster, "default", "raw", {"tcp": 5000}, True)
    wait_for("the NodePort listens", lambda: listens(NODE_ADDRESS, OTHER_PORT))
    with socket.create_connection((NODE_ADDRESS, OTHER_PORT), 5) as s:
        assert s.recv(200).startswith(b"double of kube-proxy on node-1: service default/raw tcp")
    _endpoints(cluster, "default", "raw", {"tcp": 5000}, False)
    wait_for("the NodePort is closed", lambda: not listens(NODE_ADDRESS, OTHER_PORT))


def test_node_ports_close_with_their_endpoints(cluster, ingress):
    _traefik_ready(cluster, False)
    wait_for(
        "both NodePorts are closed",
        lambda: not (listens(NODE_ADDRESS, HTTP_PORT) or listens(NODE_ADDRESS, HTTPS_PORT)),
    )
    _traefik_ready(cluster, True)
    wait_for(
        "both NodePorts are open", lambda: listens(NODE_ADDRESS, HTTP_PORT) and listens(NODE_ADDRESS, HTTPS_PORT)
    )


def test_ingress_survives_the_api_server_within_its_memory(cluster, ingress):
    cluster.kill_api()
    time.sleep(1)
    assert _ask("shop.example.test")[0] == 200, "a proxy goes on with what it knows"
    cluster.start_api()
    cluster.apply(INGRESSES, _ingress("late", "late.example.test", "shop"))
    wait_for("a new host is routed", lambda: _ask("late.example.test")[0] == 200, 60)
    assert ingress.starts == 1
    for _ in range(200):
        _ask("shop.example.test")
    status = Path(f"/proc/{ingress.process.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib <= 40 * 1024


CLUSTERS = "/apis/postgresql.cnpg.io/v1/namespaces/default/clusters"
PODS = "/api/v1/namespaces/default/pods"
OPERATOR = {"app.kubernetes.io/name": "cloudnative-pg", "app.kubernetes.io/instance": "cloudnative-pg"}


@pytest.fixture(scope="module")
def operator(cluster, workloads):
    """The double of the operator, with its Deployment there but not available yet."""
    cluster.crds(workloads / "crds" / "cloudnative-pg.yaml")
    cluster.deployment("cnpg-system", "cloudnative-pg", OPERATOR)
    cluster.available("cnpg-system", "cloudnative-pg", False)
    with Workload(cluster, workloads, "cnpg-double") as workload:
        yield workload


def _database(name: str, instances: int = 1, secret: str | None = None, storage: str = "1Gi") -> dict:
    initdb = {"database": "app", "owner": "app", **({"secret": {"name": secret}} if secret else {})}
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {
            "instances": instances,
            "storage": {"size": storage},
            "imageName": "registry.example.test/postgresql:18.4",
            "bootstrap": {"initdb": initdb},
        },
    }


def _basic_auth(cluster: Cluster, name: str, user: str) -> None:
    cluster.apply(
        "/api/v1/namespaces/default/secrets",
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/basic-auth",
            "metadata": {"name": name},
            "data": {"username": _b64(user.encode()), "password": _b64(b"not a secret: a test")},
        },
    )


def _database_status(cluster: Cluster, name: str) -> dict:
    return cluster.get(f"{CLUSTERS}/{name}").get("status", {})


def _ready_condition(status: dict) -> tuple:
    return next(((c["status"], c["reason"]) for c in status.get("conditions", []) if c["type"] == "Ready"), ("", ""))


def _pod_ready(cluster: Cluster, name: str, ready: bool = True) -> None:
    """Write the pod status that KWOK would write."""
    cluster.apply(
        PODS,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
        },
        "/status",
    )


def test_database_waits_for_the_operator(cluster, operator):
    cluster.apply(CLUSTERS, _database("first"))
    time.sleep(2)
    assert _database_status(cluster, "first") == {}
    cluster.available("cnpg-system", "cloudnative-pg", True)
    wait_for("the operator acts", lambda: _database_status(cluster, "first").get("phase") == "Setting up primary")


def test_database_becomes_healthy_instance_by_instance(cluster, operator):
    cluster.available("cnpg-system", "cloudnative-pg", True)
    cluster.apply(CLUSTERS, _database("db", instances=2))
    pod = wait_for("the primary's pod", lambda: cluster.get(f"{PODS}/db-1"))
    assert pod["metadata"]["labels"]["cnpg.io/instanceRole"] == "primary"
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "Cluster"
    assert pod["spec"]["serviceAccountName"] == "db"
    assert pod["spec"]["containers"][0]["image"] == "registry.example.test/postgresql:18.4"
    claim = cluster.get("/api/v1/namespaces/default/persistentvolumeclaims/db-1")
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert _database_status(cluster, "db").get("phase") in (None, "Setting up primary")
    time.sleep(2)
    assert cluster.get(f"{PODS}/db-2") is None, "a replica only after its primary"
    assert _ready_condition(_database_status(cluster, "db")) == ("False", "ClusterIsNotReady")
    _pod_ready(cluster, "db-1")
    replica = wait_for("the replica's pod", lambda: cluster.get(f"{PODS}/db-2"))
    assert replica["metadata"]["labels"]["cnpg.io/instanceRole"] == "replica"
    _pod_ready(cluster, "db-2")
    wait_for("healthy", lambda: _database_status(cluster, "db").get("phase") == "Cluster in healthy state")
    status = _database_status(cluster, "db")
    assert _ready_condition(status) == ("True", "ClusterIsReady")
    assert (status["instances"], status["readyInstances"], status["currentPrimary"]) == (2, 2, "db-1")
    _pod_ready(cluster, "db-2", False)
    wait_for("not ready without its replica", lambda: _ready_condition(_database_status(cluster, "db"))[0] == "False")
    _pod_ready(cluster, "db-2")
    wait_for("ready again", lambda: _ready_condition(_database_status(cluster, "db"))[0] == "True")


def test_database_secret_and_services(cluster, operator):
    cluster.available("cnpg-system", "cloudnative-pg", True)
    cluster.apply(CLUSTERS, _database("own"))
    path = "/api/v1/namespaces/default"
    secret = wait_for("the application's secret", lambda: cluster.get(f"{path}/secrets/own-app"))
    assert secret["type"] == "kubernetes.io/basic-auth"
    data = {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
    assert set(data) == {
        "username",
        "user",
        "password",
        "dbname",
        "host",
        "port",
        "pgpass",
        "uri",
        "jdbc-uri",
        "fqdn-uri",
        "fqdn-jdbc-uri",
    }
    assert (data["username"], data["dbname"], data["host"], data["port"]) == ("app", "app", "own-rw", "5432")
    assert len(data["password"]) == 64
    assert data["uri"] == f"postgresql://app:{data['password']}@own-rw.default:5432/app"
    for suffix, role in (("rw", "primary"), ("ro", "replica")):
        service = wait_for(f"the service {suffix}", lambda s=suffix: cluster.get(f"{path}/services/own-{s}"))
        assert service["spec"]["selector"] == {"cnpg.io/cluster": "own", "cnpg.io/instanceRole": role}
        assert service["spec"]["ports"][0]["port"] == 5432
    wait_for("the service r", lambda: cluster.get(f"{path}/services/own-r"))


@pytest.mark.parametrize(
    "secret_user, reason",
    [
        (None, 'secret "{}" not found'),
        ("somebody", "wrong username 'somebody' in secret {}, expected 'app'"),
    ],
)
def test_database_refuses_a_bad_secret_until_it_is_right(cluster, operator, secret_user, reason):
    name = f"bad-{secret_user or 'missing'}"
    cluster.available("cnpg-system", "cloudnative-pg", True)
    if secret_user:
        _basic_auth(cluster, f"{name}-user", secret_user)
    cluster.apply(CLUSTERS, _database(name, secret=f"{name}-user"))
    status = wait_for(
        "a reason",
        lambda: (
            (s := _database_status(cluster, name)).get("phaseReason", "").endswith(reason.format(f"{name}-user")) and s
        ),
    )
    assert status["phase"] == "Setting up primary"
    assert _ready_condition(status) == ("False", "ClusterIsNotReady")
    assert cluster.get(f"{PODS}/{name}-1") is None
    assert cluster.get(f"/api/v1/namespaces/default/secrets/{name}-app") is None
    _basic_auth(cluster, f"{name}-user", "app")
    wait_for("the pod once the secret is right", lambda: cluster.get(f"{PODS}/{name}-1"))
    _pod_ready(cluster, f"{name}-1")
    wait_for("healthy", lambda: _ready_condition(_database_status(cluster, name))[0] == "True")


def test_database_without_storage_is_refused(cluster, operator):
    cluster.available("cnpg-system", "cloudnative-pg", True)
    body = _database("nowhere")
    del body["spec"]["storage"]["size"]
    cluster.apply(CLUSTERS, body)
    wait_for(
        "refused",
        lambda: _database_status(cluster, "nowhere").get("phase") == "Unable to create required cluster objects",
    )
    assert operator.starts == 1
