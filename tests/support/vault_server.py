"""The real Vault on loopback with the product's configuration, beside a real API server, for the product's scripts.

What differs from a cluster: addresses, folders, no registration of pods, and a reviewer's token that a pod would find
in its own folder.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from components.cluster_trust import account_keys
from config.services import Vault
from plan.tools import jobs, vault, vault_config, vault_unsealer
from plan.tools.model import Release, ToolInputs
from tests.support.api_server import ROOT, Cluster, artifact, end, free_port, wait_for
from tests.support.charts import render

DOMAIN = "devops.example.com"
HOST = f"vault.{DOMAIN}"
CLIENT_SECRET = "client-secret-of-the-test-0123456789"
RUN_SECONDS = 120


def key_pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def sign(
    name: str, issuer: Any = None, *, path: int | None = None, server: bool = False
) -> tuple[x509.Certificate, Any]:
    """A certificate and its key: a CA with `path` CAs below it, or a server's for loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    signer, signing = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    authority = issuer[1].public_key() if issuer else key.public_key()
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(signer).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=not server, path_length=None if server else path), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=not server, crl_sign=not server, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    if server:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signing, hashes.SHA256()), key


class Provider:
    """A double of Keycloak's realm: discovery, keys, and the exchange of a code for a token with `groups`."""

    def __init__(self, folder: Path, authority: Any) -> None:
        self.groups: list[str] = []
        self.nonce = ""
        self._key = rsa.generate_private_key(65537, 2048)
        certificate, key = sign("keycloak", authority, server=True)
        file = folder / "keycloak.pem"
        file.write_text(pem(certificate) + key_pem(key))
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(provider.page(self.path))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                secret = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
                self.answer(provider.tokens() if secret == f"vault:{CLIENT_SECRET}" else None)

            def answer(self, data: Any) -> None:
                body = json.dumps(data or {"error": "invalid_client"}).encode()
                self.send_response(200 if data else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.issuer = f"https://{self.host}/realms/opstella"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def page(self, path: str) -> Any:
        if path.endswith("/.well-known/openid-configuration"):
            base = self.issuer
            return {
                "issuer": base, "authorization_endpoint": f"{base}/auth", "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/keys", "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }  # fmt: skip
        numbers = self._key.public_key().public_numbers()
        parts = {"n": _url64(numbers.n.to_bytes(256, "big")), "e": _url64(numbers.e.to_bytes(3, "big"))}
        return {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", **parts}]}

    def tokens(self) -> Any:
        now = int(datetime.datetime.now(datetime.timezone.utc).timestamp())
        claims = {
            "iss": self.issuer, "aud": "vault", "sub": "somebody", "preferred_username": "somebody", "iat": now,
            "exp": now + 300, "nonce": self.nonce, "groups": self.groups,
        }  # fmt: skip
        head = {"alg": "RS256", "kid": "one", "typ": "JWT"}
        text = ".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {"access_token": "opaque", "token_type": "Bearer", "id_token": f"{text}.{_url64(signature)}"}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Answered(Exception):
    """Vault answered with an error status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Site:
    """A Vault of `count` replicas, the objects around it in `cluster`, and the scripts as their pods run them."""

    def __init__(
        self, folder: Path, cluster: Cluster, count: int = 1, others: Mapping[str, Cluster] | None = None, **settings: Any
    ) -> None:
        """`others` are further clusters of the platform, by name."""
        self.folder, self.cluster, self.output = folder, cluster, ""
        self.others = dict(others or {})
        self.root = sign("Test Root", path=1)
        self.intermediate = sign("Test Intermediate", self.root, path=0)
        self.provider = Provider(folder, self.root)
        self.bundle = folder / "ca.crt"
        self.bundle.write_text(pem(self.root[0]))
        self._context = ssl.create_default_context(cafile=str(self.bundle))
        certificate, key = sign("vault", self.root, server=True)
        (folder / "tls.crt").write_text(pem(certificate))
        (folder / "tls.key").write_text(key_pem(key))
        self.ports = [free_port() for _ in range(count)]
        self.addresses = [f"https://127.0.0.1:{port}" for port in self.ports]
        self.metrics_ports = [free_port() for _ in range(count)]
        self.inputs = ToolInputs(
            domain=DOMAIN, hosts={"vault": HOST}, all_hosts={"vault": HOST, "keycloak": self.provider.host},
            nfs_server="192.0.2.1", nfs_path="/srv/nfs", replicas=count, vault=Vault(**settings),
            present=frozenset({"vault", "vault-unsealer"}), clusters=("standalone", *self.others),
        )  # fmt: skip
        self.release = vault.release(self.inputs)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self.environment: dict[str, str] = {}
        """Of Vault's own processes, beyond the machine's."""
        self._objects()
        self._files()

    # --- Vault ---

    def start(self, *which: int) -> None:
        for n in which or range(len(self.ports)):
            if self._processes[n] is not None:
                continue
            file = self.folder / f"vault-{n}.hcl"
            file.write_text(json.dumps(self._config(n)))
            log = (self.folder / f"vault-{n}.log").open("ab")
            argv = [str(artifact("vault") / "vault-server"), f"-config={file}"]
            self._processes[n] = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, **self.environment})
        for n in which or range(len(self.ports)):
            wait_for(f"replica {n} answers", lambda n=n: self._answers(n), 60)

    def stop(self, *which: int) -> None:
        for n in which or range(len(self.ports)):
            end(self._processes[n])
            self._processes[n] = None

    def close(self) -> None:
        self.stop()
        self.provider.stop()

    def _answers(self, n: int) -> bool:
        process = self._processes[n]
        assert process is not None
        if process.poll() is not None:
            raise AssertionError((self.folder / f"vault-{n}.log").read_text()[-1500:])
        with contextlib.suppress(OSError):
            return "sealed" in self.ask("GET", "sys/seal-status", at=n)
        return False

    def _config(self, n: int) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(json.dumps(vault.server_config(self.inputs)))
        storage = self.folder / f"data-{n}"
        storage.mkdir(exist_ok=True)
        raft = config["storage"]["raft"]
        raft |= {"path": str(storage), "node_id": f"vault-{n}"}
        for join, address in zip(raft.get("retry_join", []), self.addresses, strict=len(self.addresses) > 1):
            join |= {"leader_api_addr": address, "leader_ca_cert_file": str(self.bundle)}
        own = [self.ports[n], self.metrics_ports[n]]
        cluster = f"127.0.0.1:{free_port()}"
        for listener, port in zip(config["listener"], own, strict=True):
            tcp = listener["tcp"]
            tcp["address"] = f"127.0.0.1:{port}"
            tcp["tls_cert_file"], tcp["tls_key_file"] = str(self.folder / "tls.crt"), str(self.folder / "tls.key")
        config["listener"][0]["tcp"]["cluster_address"] = cluster
        config["listener"][1]["tcp"]["cluster_address"] = f"127.0.0.1:{free_port()}"
        del config["service_registration"]  # asks the kubelet's variables of its pod
        return {**config, "api_addr": self.addresses[n], "cluster_addr": f"https://{cluster}"}

    def ask(self, method: str, path: str, data: Any = None, token: str | None = None, at: int = 0) -> Any:
        """JSON of an answer. Raises Answered for an error."""
        request = urllib.request.Request(
            f"{self.addresses[at]}/v1/{path}", method=method, data=None if data is None else json.dumps(data).encode(),
            headers={"X-Vault-Token": token} if token else {},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=20) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise Answered(error.code, error.read().decode()) from None

    def sealed(self) -> list[bool]:
        return [self.ask("GET", "sys/seal-status", at=n)["sealed"] for n in range(len(self.ports))]

    def root_token(self) -> str:
        """As a custodian with enough shares makes one."""
        attempt = self.ask("PUT", "sys/generate-root/attempt", {})
        for share in self.shares()[: attempt["required"]]:
            answer = self.ask("PUT", "sys/generate-root/update", {"key": share, "nonce": attempt["nonce"]})
        encoded = answer["encoded_token"]
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        return bytes(a ^ b for a, b in zip(raw, attempt["otp"].encode(), strict=True)).decode()

    def person(self, *groups: str) -> str:
        """The token of somebody whom Keycloak knows to be in `groups`."""
        self.provider.groups = list(groups)
        where = vault_config.redirect_uris(HOST)[0]
        wish = {"role": "default", "redirect_uri": where}
        url = self.ask("POST", "auth/oidc/oidc/auth_url", wish)["data"]["auth_url"]
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        self.provider.nonce = query["nonce"]
        back = urllib.parse.urlencode({"state": query["state"], "code": "one"})
        token: str = self.ask("GET", f"auth/oidc/oidc/callback?{back}")["auth"]["client_token"]
        return token

    # --- Kubernetes ---

    def _objects(self) -> None:
        for name in ("vault", "vault-unseal", "cert-manager"):
            self.cluster.namespace(name)
        self.clean()
        job, *_ = self.release.jobs  # the second one needs a GitLab
        rbac = "rbac.authorization.k8s.io"
        delegator = {
            "apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "vault-server-binding"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:auth-delegator"},
            "subjects": [{"kind": "ServiceAccount", "name": "vault", "namespace": "vault"}],
        }  # fmt: skip
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vault", "namespace": "vault"}}
        own = [m.body for m in self.release.after if m.body["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
        for body in (*jobs.companions(job, "vault"), account, delegator, *own, *rendered(self.unsealer)):
            if body["kind"] in COLLECTIONS:
                self._apply(body)

    @property
    def unsealer(self) -> Release:
        return vault_unsealer.release(self.inputs)

    def _apply(self, body: dict[str, Any]) -> None:
        where = body["metadata"].get("namespace")
        base, collection = COLLECTIONS[body["kind"]]
        self.cluster.apply(f"{base}/namespaces/{where}/{collection}" if where else f"{base}/{collection}", body)

    def clean(self) -> None:
        for name in (vault_unsealer.SHARES, vault_unsealer.ENCRYPTED_SHARES):
            self.cluster.delete(f"{SECRETS}/{name}")

    def account_token(self, namespace: str, name: str, *audiences: str, of: Cluster | None = None) -> str:
        wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        if audiences:
            wish["spec"]["audiences"] = list(audiences)
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token: str = (of or self.cluster).request("POST", path, wish)["status"]["token"]
        return token

    def secret(self, name: str) -> dict[str, str]:
        found = self.cluster.get(f"{SECRETS}/{name}") or {}
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    def state(self) -> str | None:
        found = self.cluster.get(f"{SECRETS}/{vault_unsealer.SHARES}")
        return found and found["metadata"]["annotations"]["opstella.io/vault-state"]

    def shares(self) -> list[str]:
        return json.loads(self.secret(vault_unsealer.SHARES).get("shares", "[]"))

    # --- scripts ---

    def _files(self) -> None:
        secrets = {
            vault_config.AUTHORITY_FILES: {
                "chain": pem(self.intermediate[0]) + pem(self.root[0]),
                "key": key_pem(self.intermediate[1]),
            },
            vault_config.CLIENT_FILES: {vault_config.CLIENT_KEY: CLIENT_SECRET},
            vault_config.CLUSTER_FILES: {name: known_by(other) for name, other in self.others.items()},
            "reviewer": {"token": self.account_token("vault", "vault")},
        }
        for name, data in secrets.items():
            (self.folder / "secrets" / name).mkdir(parents=True, exist_ok=True)
            for key, text in data.items():
                (self.folder / "secrets" / name / key).write_text(text)
        config: dict[str, Any] = vault_config.configuration(self.inputs, HOST)
        config["audit"]["file"]["options"]["file_path"] = str(self.folder / "audit.log")
        api = (self.cluster.folder / "certs" / "apiserver.crt").read_text()
        for item in config["items"]:
            if item["path"] == "auth/kubernetes/config":
                item["data"] = {"kubernetes_host": f"https://127.0.0.1:{self.cluster.port}", "kubernetes_ca_cert": api}
                item["secrets"] = {"token_reviewer_jwt": ["reviewer", "token"]}
            if item["path"] == "auth/oidc/config":
                item["files"] = {"oidc_discovery_ca_pem": str(self.bundle)}
        (self.folder / "vault.json").write_text(json.dumps(config))
        (self.folder / "handover.json").write_text(json.dumps(vault_unsealer.handover(self.inputs)))

    def script(
        self, name: str, account: str, namespace: str, *arguments: str, before: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Runs provision/<name> as a pod of `account` would; `before` is Python that runs first."""
        folder = self.folder / f"account-{account}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.account_token(namespace, account))
        (folder / "namespace").write_text(namespace)
        (folder / "ca.crt").write_text((self.cluster.folder / "certs" / "apiserver.crt").read_text())
        environment = {
            "PATH": os.environ["PATH"], "CONFIG": str(self.folder / "vault.json"), "CA_FILE": str(self.bundle),
            "HANDOVER": str(self.folder / "handover.json"), "SECRETS": str(self.folder / "secrets"),
            "RECORD": vault_unsealer.RECORD, "VAULT_REPLICAS": " ".join(self.addresses), "ACCOUNT_NAME": account,
            "KUBERNETES_API": f"https://127.0.0.1:{self.cluster.port}", "SERVICE_ACCOUNT": str(folder),
            "PATIENCE": "30", "PYTHONPATH": str(ROOT / "provision"),
        }  # fmt: skip
        text = f"{before}\nimport runpy, sys\nsys.argv = [{name!r}, *{arguments!r}]\n"
        text += f"runpy.run_path({str(ROOT / 'provision' / name)!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-B", "-c", text], env=environment, capture_output=True, text=True, timeout=RUN_SECONDS
        )
        self.output += done.stdout + done.stderr
        return done

    def setup(self, before: str = "") -> subprocess.CompletedProcess[str]:
        """The Job."""
        return self.script("vault.py", vault.JOB, "vault", before=before)

    def unseal(self, before: str = "") -> subprocess.CompletedProcess[str]:
        """One look of the unsealer."""
        return self.script("vault_unseal.py", vault_unsealer.NAME, vault_unsealer.NAMESPACE, "--once", before=before)

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def known_by(cluster: Cluster) -> str:
    """The keys that verify tokens of the cluster's accounts, as the first server says them and the stack reads them."""
    return account_keys(cluster.request("GET", "/openid/v1/jwks", raw=True).decode())


SECRETS = f"/api/v1/namespaces/{vault_unsealer.NAMESPACE}/secrets"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
COLLECTIONS = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Role": (_RBAC, "roles"),
    "RoleBinding": (_RBAC, "rolebindings"),
    "ClusterRoleBinding": (_RBAC, "clusterrolebindings"),
}


def rendered(release: Release) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = render(ROOT, release)
    return objects
