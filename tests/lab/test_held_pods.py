"""Pods of the double of RKE2 that refer to what is not there, against a real API server and a real KWOK on loopback.

The part of the double that holds pods is run by its own Go test; no scheduler runs, so the pods name their node.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.api_server import ROOT, Cluster, artifact, end, wait_for

pytestmark = pytest.mark.toolchain
PODS, SECRETS, MAPS = (f"/api/v1/namespaces/default/{kind}" for kind in ("pods", "secrets", "configmaps"))


def _administrator(folder: Path) -> None:
    """A client certificate of an administrator, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"), x509.NameAttribute(NameOID.COMMON_NAME, "double")]
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "client.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "client.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server, and one node that KWOK plays, whose pods the double holds."""
    folder = tmp_path_factory.mktemp("held")
    kwok = artifact("kwok")
    _administrator(folder)
    cluster = Cluster(folder, [f"--client-ca-file={folder / 'client.crt'}"])
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/local/go/bin", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    build = ["go", "test", "-c", "-o", str(folder / "held"), "./internal/agent"]
    done = subprocess.run(build, cwd=ROOT / "lab/rke2", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    running: list[subprocess.Popen[bytes]] = []
    try:
        cluster.start()
        (folder / "ca.crt").write_bytes((folder / "certs/apiserver.crt").read_bytes())
        with (folder / "held.log").open("wb") as log:
            given = {
                "OPSTELLA_API_SERVER": f"https://127.0.0.1:{cluster.port}", "OPSTELLA_FOLDER": str(folder),
                "OPSTELLA_STAGES": str(kwok / "stages.yaml"), "PATH": os.environ["PATH"],
            }  # fmt: skip
            held = [folder / "held", "-test.run", "^TestPodsOfARealServer$", "-test.timeout", "10m"]
            running.append(subprocess.Popen(held, env=given, stdin=subprocess.PIPE, stdout=log, stderr=log))
        wait_for("the stages", lambda: (folder / "stages.yaml").is_file(), 30)
        with (folder / "kwok.log").open("wb") as log:
            arguments = [
                f"--kubeconfig={cluster.kubeconfig}", "--manage-single-node=w1", "--node-name=w1", "--node-ip=127.0.0.1",
                "--cidr=10.1.0.0/24", f"--config={folder / 'stages.yaml'}",
            ]  # fmt: skip
            running.append(subprocess.Popen([kwok / "kwok", *arguments], stdout=log, stderr=log))
        cluster.apply("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w1"}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        cluster.apply("/api/v1/namespaces/default/serviceaccounts", account)
        yield cluster
    finally:
        for process in running:
            end(process)
        cluster.stop()


def start(cluster: Cluster, name: str, *, container: dict[str, Any] | None = None, volume: dict[str, Any] | None = None) -> None:
    volumes = [{"name": "v", **volume}] if volume else []
    mounts = [{"name": "v", "mountPath": "/v"}] if volume else []
    spec = {
        "nodeName": "w1", "automountServiceAccountToken": False, "volumes": volumes,
        "containers": [{"name": "c", "image": "registry.example/x", "volumeMounts": mounts, **(container or {})}],
    }  # fmt: skip
    cluster.apply(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def ready(cluster: Cluster, name: str) -> bool:
    status = cluster.get(f"{PODS}/{name}")["status"]
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    return status["phase"] == "Running" and conditions.get("Ready") == "True"


def waits(cluster: Cluster, name: str) -> dict[str, Any]:
    """Why the container is not there, once it is said."""
    def said() -> Any:
        status = cluster.get(f"{PODS}/{name}")["status"]
        return [one["state"]["waiting"] for one in status.get("containerStatuses", []) if "waiting" in one["state"]]

    (why,) = wait_for(f"why {name} waits", said)
    return why


def events(cluster: Cluster, name: str) -> list[str]:
    found = cluster.get("/api/v1/namespaces/default/events")["items"]
    return [f"{one['reason']}: {one['message']}" for one in found if one["involvedObject"]["name"] == name]


def give(cluster: Cluster, path: str, kind: str, name: str, **data: str) -> None:
    cluster.apply(path, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data})


def test_a_pod_that_refers_to_nothing_runs(cluster: Cluster) -> None:
    start(cluster, "free")
    wait_for("the pod runs", lambda: ready(cluster, "free"))
    start(cluster, "optional", volume={"secret": {"secretName": "absent", "optional": True}})
    wait_for("the pod runs", lambda: ready(cluster, "optional"))


def test_a_pod_waits_for_what_it_mounts(cluster: Cluster) -> None:
    start(cluster, "mounts", volume={"secret": {"secretName": "late"}})
    assert waits(cluster, "mounts") == {"reason": "ContainerCreating"}
    said = ['FailedMount: MountVolume.SetUp failed for volume "v" : secret "late" not found']
    wait_for("the event", lambda: events(cluster, "mounts") == said)
    time.sleep(5)
    assert not ready(cluster, "mounts") and events(cluster, "mounts") == said
    give(cluster, SECRETS, "Secret", "late", key="eA==")
    wait_for("the pod runs", lambda: ready(cluster, "mounts"))


def test_a_pod_waits_for_each_key_of_its_environment(cluster: Cluster) -> None:
    reference = {"configMapKeyRef": {"name": "settings", "key": "wanted"}}
    start(cluster, "reads", container={"env": [{"name": "A", "valueFrom": reference}]})
    first = {"reason": "CreateContainerConfigError", "message": 'configmap "settings" not found'}
    assert waits(cluster, "reads") == first
    give(cluster, MAPS, "ConfigMap", "settings", other="x")
    second = {"reason": "CreateContainerConfigError", "message": "couldn't find key wanted in ConfigMap default/settings"}
    wait_for("the other reason", lambda: waits(cluster, "reads") == second)
    give(cluster, MAPS, "ConfigMap", "settings", wanted="x")
    wait_for("the pod runs", lambda: ready(cluster, "reads"))
