"""A real etcd and a real kube-apiserver on loopback, for tests: no node, and no controller manager.

Tests write the state that those would write. `OPSTELLA_TEST_ARTIFACTS` (`NAME=FOLDER` pairs separated by `:`) gives
artifacts that are built already; the builder makes the others.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.charts.package import Loader

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "loopback-test-token"


@functools.cache
def artifact(name: str) -> Path:
    """Folder of a built artifact.

    ``OPSTELLA_TEST_ARTIFACTS`` (``NAME=FOLDER`` pairs separated by ``:``) gives
    folders that are built already; the builder makes the others.
    """
    given = dict(p.split("=", 1) for p in os.environ.get("OPSTELLA_TEST_ARTIFACTS", "").split(":") if p)
    if name in given:
        return Path(given[name])
    out = subprocess.run([ROOT / "lab/toolchain/build", name], stdout=subprocess.PIPE, check=True, text=True)
    return Path(out.stdout.strip().splitlines()[-1])


def executable(of: str, name: str) -> Path:
    folder = artifact(of)
    for path in (folder / "bin" / name, folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"artifact {of} in {folder} holds no executable {name}")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what: str, check, seconds: float = 30.0):
    """First true value of ``check()``; fails naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    value = None
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {seconds} s (last: {value!r})")


class Cluster:
    """etcd and an API server on loopback, and a client of it."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        """`arguments` are further ones of the API server."""
        self.folder = folder
        self._arguments = list(arguments)
        self.port = free_port()
        self._etcd_port, self._peer_port = free_port(), free_port()
        self._etcd: subprocess.Popen | None = None
        self._api: subprocess.Popen | None = None
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "sa.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "x",
                    "clusters": [
                        {
                            "name": "c",
                            "cluster": {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True},
                        }
                    ],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                }
            )
        )

    def start(self) -> None:
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd = self._spawn(
            "etcd",
            [
                executable("etcd", "etcd"),
                "--data-dir",
                self.folder / "etcd",
                "--listen-client-urls",
                etcd,
                "--advertise-client-urls",
                etcd,
                "--listen-peer-urls",
                f"http://127.0.0.1:{self._peer_port}",
            ],
        )
        wait_for("etcd listens", lambda: listens("127.0.0.1", self._etcd_port))
        self.start_api()

    def start_api(self) -> None:
        self._api = self._spawn(
            "kube-apiserver",
            [
                executable("kubernetes", "kube-apiserver"),
                "--etcd-servers",
                f"http://127.0.0.1:{self._etcd_port}",
                "--bind-address",
                "127.0.0.1",
                "--secure-port",
                str(self.port),
                "--cert-dir",
                self.folder / "certs",
                "--service-account-issuer",
                "https://kubernetes.default.svc",
                "--service-account-key-file",
                self.folder / "sa.key",
                "--service-account-signing-key-file",
                self.folder / "sa.key",
                "--authorization-mode",
                "RBAC",
                "--token-auth-file",
                self.folder / "tokens.csv",
                "--service-cluster-ip-range",
                "10.96.0.0/16",
                "--allow-privileged=true",  # as every Kubernetes distribution; pod security decides by namespace
                *self._arguments,
            ],
        )
        wait_for("the API server is ready", self._ready, 90)

    def kill_api(self) -> None:
        self._api.kill()
        self._api.wait()
        self._api = None

    def stop(self) -> None:
        end(self._api)
        end(self._etcd)

    def _spawn(self, name: str, argv: list) -> subprocess.Popen:
        log = (self.folder / f"{name}.log").open("ab")
        return subprocess.Popen([str(a) for a in argv], stdout=log, stderr=log)

    def _ready(self) -> bool:
        if self._api and self._api.poll() is not None:
            pytest.fail("the API server ended: " + (self.folder / "kube-apiserver.log").read_text()[-600:])
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            return self.request("GET", "/readyz", raw=True) == b"ok"
        return False

    def request(
        self, method: str, path: str, body=None, *, content_type="application/json", raw=False, token: str = TOKEN
    ):
        """Answer of the API server to who has ``token``: decoded JSON, or bytes when ``raw``; None for 404."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, context=self._context, timeout=10) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:800]}") from error
        return data if raw else json.loads(data)

    def apply(self, path: str, obj: dict, subresource: str = "") -> dict:
        """Server-side apply of ``obj`` in the collection ``path``."""
        query = "?fieldManager=test&force=true"
        return self.request(
            "PATCH",
            f"{path}/{obj['metadata']['name']}{subresource}{query}",
            obj,
            content_type="application/apply-patch+yaml",
        )

    def get(self, path: str):
        return self.request("GET", path)

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def namespace(self, name: str) -> None:
        self.apply("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def crds(self, file: Path) -> None:
        """Create the definitions in ``file`` and wait until their kinds are served."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        names = []
        for crd in yaml.load_all(file.read_text(), Loader=Loader):
            if crd:
                self.apply(path, crd)
                names.append(crd["metadata"]["name"])
        assert names, f"{file} holds no definitions"
        for name in names:
            wait_for(
                f"{name} is established",
                lambda name=name: any(
                    c["type"] == "Established" and c["status"] == "True"
                    for c in self.get(f"{path}/{name}").get("status", {}).get("conditions") or []
                ),
            )

    def deployment(self, namespace: str, name: str, labels: dict | None = None, args: list[str] | None = None) -> None:
        labels = labels or {"app": name}
        self.namespace(namespace)
        self.apply(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "c", "image": "none", "args": args or []}]},
                    },
                },
            },
        )

    def available(self, namespace: str, name: str, value: bool) -> None:
        """Write the status that the deployment controller would write."""
        self.apply(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "status": {
                    "replicas": 1,
                    "readyReplicas": int(value),
                    "availableReplicas": int(value),
                    "conditions": [{"type": "Available", "status": str(value), "reason": "Test", "message": ""}],
                },
            },
            "/status",
        )


def listens(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


def end(process: subprocess.Popen | None) -> None:
    if process and process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
