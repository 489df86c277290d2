"""A ToolStack by the real engine, the real Kubernetes provider and Helm, in a real API server on loopback.

No controller runs there: the test writes the state that a Job and a pod would have.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.chart_archives import digest_of
from tests.support.api_server import ROOT, Cluster
from tests.support.chart_repository import Repository, packed

pytestmark = pytest.mark.toolchain

JOBS = "/apis/batch/v1/namespaces/tool/jobs/provision"
CHART = """
apiVersion: v1
kind: ConfigMap
metadata: {name: from-chart}
data: {a: {{ .Values.a | default "1" | quote }}}
{{- if .Values.workload }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: tool}}
  template:
    metadata: {labels: {app: tool}}
    spec: {containers: [{name: app, image: none}]}
{{- end }}
{{- if .Values.extra }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: scanner}
spec:
  replicas: 0
  serviceName: scanner
  selector: {matchLabels: {app: scanner}}
  template:
    metadata: {labels: {app: scanner}}
    spec:
      containers:
        - name: scanner
          image: none
          env:
            - {name: LEVEL, value: info}
            - {name: URL, value: of-the-chart}
            - {name: STORE, value: of-the-chart}
            {{- toYaml .Values.extra | nindent 12 }}
{{- end }}
"""
SCANNER = "/apis/apps/v1/namespaces/tool/statefulsets/scanner"


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def administrator(folder: Path) -> tuple[bytes, bytes]:
    """Certificate and key of a cluster's administrator; their authority is in `folder`/clients.crt."""
    now = datetime.datetime.now(datetime.timezone.utc)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def signed(subject: list[tuple[x509.ObjectIdentifier, str]], public: Any, *, ca: bool) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "clients")])
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(oid, text) for oid, text in subject]))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(authority, hashes.SHA256())
        )

    top = signed([(x509.NameOID.COMMON_NAME, "clients")], authority.public_key(), ca=True)
    own = [(x509.NameOID.ORGANIZATION_NAME, "system:masters"), (x509.NameOID.COMMON_NAME, "admin")]
    (folder / "clients.crt").write_bytes(top.public_bytes(serialization.Encoding.PEM))
    return signed(own, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM), _pem(key)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    certificate, key = administrator(folder)
    one = Cluster(folder, [f"--client-ca-file={folder / 'clients.crt'}"])
    try:
        one.start()
        config = yaml.safe_load(one.kubeconfig.read_text())

        def text(data: bytes) -> str:
            return base64.b64encode(data).decode()

        serving = (folder / "certs/apiserver.crt").read_bytes()
        config["clusters"][0]["cluster"] = {
            "server": f"https://127.0.0.1:{one.port}", "certificate-authority-data": text(serving),
        }  # fmt: skip
        config["users"][0]["user"] = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        yield one
    finally:
        one.stop()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pulumi(tmp_path: Path, cluster: Cluster) -> Run:
    """`pulumi ARGUMENTS` in a folder of its own, with `settings` for the program."""
    told = subprocess.run([ROOT / "lab/toolchain/pulumi", "--environment"], capture_output=True, text=True, check=True)
    environment = os.environ | dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)
    state = tmp_path / "state"
    state.mkdir()
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: chart\nversion: 1.0.0\n")
    (chart / "templates/all.yaml").write_text(CHART)
    (tmp_path / "components").symlink_to(ROOT / "components")  # where the provider seeks the post-renderer
    (tmp_path / "Pulumi.yaml").write_text("name: opstella\nruntime: python\n")
    (tmp_path / "__main__.py").write_text("from tests.components.engine_program import main\n\nmain()\n")
    environment |= {
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "passphrase",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "settings.json").write_text(json.dumps({"chart": str(chart), **settings}))
        return subprocess.run(
            ["pulumi", "--non-interactive", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip

    done = run("stack", "init", "one")
    assert done.returncode == 0, done.stdout + done.stderr
    return run


@contextlib.contextmanager
def meanwhile(step: Callable[[], bool]) -> Iterator[None]:
    """Takes `step` again and again until it says that it is done, or the block ends."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(0.3):
            with contextlib.suppress(AssertionError, OSError):
                if step():
                    return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def ended(cluster: Cluster, seen: list[str]) -> Callable[[], bool]:
    """Ends the Job as its controller would; `seen` takes the ids of those that ran."""

    def step() -> bool:
        job = cluster.get(JOBS)
        if job is not None and "deletionTimestamp" in job["metadata"]:
            job["metadata"]["finalizers"] = []  # as the collector does, once its pods are gone
            cluster.request("PUT", JOBS, job)
            return False
        if job is None or job["metadata"]["uid"] in seen:
            return False
        now = "2026-01-01T00:00:00Z"
        conditions = [
            {"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        job["status"] = {"succeeded": 1, "startTime": now, "completionTime": now, "conditions": conditions}
        cluster.request("PUT", f"{JOBS}/status", job)
        seen.append(job["metadata"]["uid"])
        return True

    return step


def test_up_nothing_to_change_and_a_change_of_one_file(pulumi: Run, cluster: Cluster) -> None:
    ran: list[str] = []
    with meanwhile(ended(cluster, ran)):
        done = pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(ran) == 1
    base = "/namespaces/tool"
    assert cluster.get(f"/apis/networking.k8s.io/v1{base}/networkpolicies/deny")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert cluster.get(f"/api/v1{base}/configmaps/settings")["data"] == {"a": "b"}
    assert cluster.get(f"/apis/rbac.authorization.k8s.io/v1{base}/roles/reader")["rules"][0]["verbs"] == ["get"]
    assert cluster.get(f"/apis/policy/v1{base}/poddisruptionbudgets/tool")["spec"]["maxUnavailable"] == 1
    assert cluster.get(f"/api/v1{base}/configmaps/from-chart")["data"] == {"a": "1"}

    same = pulumi("preview", "--expect-no-changes", "--refresh")
    assert same.returncode == 0, same.stdout + same.stderr

    with meanwhile(ended(cluster, ran)):
        changed = pulumi("up", "--yes", "--skip-preview", file="2")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert len(ran) == 2, changed.stdout
    assert cluster.get(f"/api/v1{base}/configmaps/provision")["data"] == {"a.py": "2"}
    # The Job and its file, and nothing of the release.
    assert "helm.sh/v3:Release" not in [line for line in changed.stdout.splitlines() if "updat" in line or "replac" in line]
    assert "~ 1 updated" in changed.stdout and "+-1 replaced" in changed.stdout, changed.stdout


def settled(cluster: Cluster, ran: list[str]) -> Callable[[], bool]:
    """Ends the Job, and has the StatefulSet be as its controller would say that it is."""
    job = ended(cluster, ran)

    def step() -> bool:
        scanner = cluster.get(SCANNER)
        if scanner is not None and scanner["status"].get("observedGeneration") != scanner["metadata"]["generation"]:
            scanner["status"] = {"observedGeneration": scanner["metadata"]["generation"], "replicas": 0}
            cluster.request("PUT", f"{SCANNER}/status", scanner)
        job()
        return False

    return step


def test_what_an_older_version_deployed_with_variables_twice_gets_over_it(pulumi: Run, cluster: Cluster) -> None:
    """By the real Helm, which cannot change such a list."""

    def extra(**names: str) -> dict[str, Any]:
        return {"values": {"extra": [{"name": name, "value": value} for name, value in names.items()]}}

    def variables() -> list[tuple[str, str]]:
        (container,) = cluster.get(SCANNER)["spec"]["template"]["spec"]["containers"]
        return [(one["name"], one["value"]) for one in container["env"]]

    with meanwhile(settled(cluster, [])):
        first = pulumi("up", "--yes", "--skip-preview", **extra(URL="ours", STORE="ours"))
    assert first.returncode == 0, first.stdout + first.stderr
    assert [name for name, _ in variables()] == ["LEVEL", "URL", "STORE", "URL", "STORE"]

    with meanwhile(settled(cluster, [])):
        over = pulumi("up", "--yes", "--skip-preview", last_value_wins=True, **extra(URL="ours", STORE="ours"))
    assert over.returncode == 0, over.stdout + over.stderr
    assert "deleted statefulsets tool/scanner (twice in it: STORE, URL)" in over.stdout + over.stderr
    assert variables() == [("LEVEL", "info"), ("URL", "ours"), ("STORE", "ours")]
    made = cluster.get(SCANNER)["metadata"]["uid"]

    for change in ({"URL": "ours", "STORE": "ours", "MORE": "x"}, {"MORE": "x", "URL": "new", "STORE": "ours"}, {"URL": "new"}):
        with meanwhile(settled(cluster, [])):
            done = pulumi("up", "--yes", "--skip-preview", last_value_wins=True, **extra(**change))
        assert done.returncode == 0, done.stdout + done.stderr
        assert dict(variables()) == {"LEVEL": "info", "URL": "of-the-chart", "STORE": "of-the-chart"} | change
        assert len(variables()) == len(dict(variables()))
    assert cluster.get(SCANNER)["metadata"]["uid"] == made, "it is changed in place from then on"


def test_a_failed_release_says_why(pulumi: Run, cluster: Cluster) -> None:
    """Helm takes the release back before the engine says that it failed; what was seen until then is told."""
    password: list[str] = []

    def crash() -> bool:
        if cluster.get("/apis/apps/v1/namespaces/tool/deployments/app") is None:
            return False
        secret = cluster.get("/api/v1/namespaces/tool/secrets/users")
        password.append(base64.b64decode(secret["data"]["a"]).decode())
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        cluster.apply("/api/v1/namespaces/tool/serviceaccounts", account)
        context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, "allowPrivilegeEscalation": False}
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app-1", "labels": {"app": "tool"}},
            "spec": {
                "containers": [{
                    "name": "app", "image": "none",
                    "securityContext": {
                        "runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": context["seccompProfile"],
                    },
                }],
            },
        }  # fmt: skip
        cluster.apply("/api/v1/namespaces/tool/pods", pod)
        waits = {"reason": "CrashLoopBackOff", "message": f"cannot log in with {password[0]}"}
        status = {
            "phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{
                "name": "app", "image": "none", "imageID": "", "ready": False, "restartCount": 3,
                "state": {"waiting": waits}, "lastState": {"terminated": {"exitCode": 7, "reason": "Error"}},
            }],
        }  # fmt: skip
        whole = cluster.get("/api/v1/namespaces/tool/pods/app-1")
        cluster.request("PUT", "/api/v1/namespaces/tool/pods/app-1/status", whole | {"status": status})
        event = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "app-1.1", "namespace": "tool"}, "type": "Warning",
            "reason": "BackOff", "message": "Back-off restarting failed container",
            "involvedObject": {"kind": "Pod", "name": "app-1", "namespace": "tool"}, "lastTimestamp": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        cluster.request("POST", "/api/v1/namespaces/tool/events", event)
        return True

    with meanwhile(crash):
        done = pulumi("up", "--yes", "--skip-preview", timeout=40, values={"workload": True})
    told = done.stdout + done.stderr
    assert done.returncode != 0 and password
    assert "Deployment tool/app: 0 of 1 pods are ready" in told, told
    assert "pod app-1: Running; app waits, CrashLoopBackOff: cannot log in with (secret), restarted 3 times" in told
    assert "app ended before with 7 (Error)" in told
    assert "Warning BackOff Pod/app-1: Back-off restarting failed container" in told
    assert password[0] not in told


def test_a_chart_is_pinned_changed_and_released_in_place(pulumi: Run, cluster: Cluster) -> None:
    """By the real Helm: what is pinned is what is installed, and no step on the way there or back installs it again."""
    path = "/api/v1/namespaces/tool/configmaps/from-chart"

    def chart(version: str, text: str) -> bytes:
        return packed("tool", version, {"templates/all.yaml": f"{CHART}\n# {text}\n"})

    def steps(done: subprocess.CompletedProcess[str]) -> list[str]:
        """What became of the release."""
        return [line for line in done.stdout.splitlines() if "helm.sh/v3:Release" in line]

    def revision() -> int:
        records = cluster.get("/api/v1/namespaces/tool/secrets?labelSelector=owner%3Dhelm")["items"]
        return max(int(record["metadata"]["labels"]["version"]) for record in records)

    with Repository({("tool", "1.0.0"): chart("1.0.0", "first"), ("tool", "1.1.0"): chart("1.1.0", "next")}) as repository:
        given = {"chart": "tool", "repository": repository.url}
        first, following = (digest_of(repository.charts["tool", version]) for version in ("1.0.0", "1.1.0"))
        with meanwhile(ended(cluster, [])):
            done = pulumi("up", "--yes", "--skip-preview", **given)
        assert done.returncode == 0, done.stdout + done.stderr
        made, at = cluster.get(path)["metadata"]["uid"], revision()

        pinned = pulumi("up", "--yes", "--skip-preview", **given, digest=first)
        assert pinned.returncode == 0, pinned.stdout + pinned.stderr
        assert [line for line in steps(pinned) if "updated" in line] and "replaced" not in pinned.stdout, pinned.stdout
        assert "~ 1 updated" in pinned.stdout, "the release, and nothing else"
        assert (cluster.get(path)["metadata"]["uid"], revision()) == (made, at + 1)

        repository.charts["tool", "1.0.0"] = chart("1.0.0", "exchanged")
        kept = pulumi("preview", "--expect-no-changes", **given, digest=first)
        assert kept.returncode == 0, "it was compared and kept: " + kept.stdout + kept.stderr

        stale = pulumi("up", "--yes", "--skip-preview", **given, digest=first, version="1.1.0")
        told = stale.stdout + stale.stderr
        assert stale.returncode != 0 and f"wanted {first}, found {following}" in told, told
        assert "Traceback" not in told
        assert revision() == at + 1, "nothing of it was installed"

        changed = pulumi("up", "--yes", "--skip-preview", **given, digest=following, version="1.1.0")
        assert changed.returncode == 0, changed.stdout + changed.stderr
        assert (cluster.get(path)["metadata"]["uid"], revision()) == (made, at + 2)

        unpinned = pulumi("up", "--yes", "--skip-preview", **given, version="1.1.0")
        assert unpinned.returncode == 0, unpinned.stdout + unpinned.stderr
        assert [line for line in steps(unpinned) if "updated" in line] and "replaced" not in unpinned.stdout, unpinned.stdout
        assert (cluster.get(path)["metadata"]["uid"], revision()) == (made, at + 3)
        same = pulumi("preview", "--expect-no-changes", **given, version="1.1.0")
        assert same.returncode == 0, same.stdout + same.stderr
