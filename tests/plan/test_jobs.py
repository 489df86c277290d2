"""A provisioning Job as objects: what it is given, what it may, and what makes it run again."""

from __future__ import annotations

from typing import Any

from plan.tools import jobs
from plan.tools.needs import FromSecret, Job

RULE = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
JOB = Job(
    name="provision",
    image="registry.example.com/python:3",
    command=("python3", "/opstella/provision.py"),
    files={"provision.py": "print()", "wanted.json": "{}"},
    environment={"URL": "http://tool", "PASSWORD": FromSecret(secret="admin", key="password")},
    secret_files={"users": "tool-users"},
)


def pod(job: Job = JOB, bundle: str | None = "bundle") -> dict[str, Any]:
    return dict(jobs.body(job, "tool", bundle)["spec"]["template"]["spec"])


def container(job: Job = JOB) -> dict[str, Any]:
    (one,) = pod(job)["containers"]
    return dict(one)


def made(job: Job) -> dict[str, dict[str, Any]]:
    return {body["kind"]: body for body in jobs.companions(job, "tool")}


def test_files_the_bundle_and_secrets_are_where_scripts_look() -> None:
    mounts = {m["mountPath"]: m["name"] for m in container()["volumeMounts"]}
    assert mounts == {
        "/tmp": "tmp", "/opstella/provision.py": "files", "/opstella/wanted.json": "files",
        "/opstella/secrets/users": "secret-users", "/etc/opstella/ca": "opstella-ca",
    }  # fmt: skip
    assert {v["name"] for v in pod()["volumes"]} == set(mounts.values())
    assert made(JOB)["ConfigMap"]["data"] == dict(JOB.files)
    assert "opstella-ca" not in {v["name"] for v in pod(bundle=None)["volumes"]}


def test_a_secret_comes_from_its_secret() -> None:
    environment = {e["name"]: e for e in container()["env"]}
    assert environment["URL"]["value"] == "http://tool"
    assert environment["PASSWORD"]["valueFrom"]["secretKeyRef"] == {"name": "admin", "key": "password"}
    assert jobs.secrets_read(JOB) == ("admin", "tool-users")


def test_it_fits_the_restricted_level() -> None:
    one, own = pod(), container()
    assert one["securityContext"]["runAsNonRoot"] is True and one["securityContext"]["runAsUser"] > 0
    assert one["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert own["resources"]["requests"] and own["resources"]["limits"]


def test_it_is_bounded() -> None:
    spec = jobs.body(JOB, "tool", None)["spec"]
    assert spec["activeDeadlineSeconds"] == JOB.timeout_seconds and spec["backoffLimit"] == 3
    # It stays, so that it is not made again at every run.
    assert "ttlSecondsAfterFinished" not in spec


def test_it_has_a_token_only_for_its_rules() -> None:
    assert pod()["automountServiceAccountToken"] is False and "Role" not in made(JOB)
    for field, kind in (("rules", "Role"), ("cluster_rules", "ClusterRole")):
        job = Job(name="provision", image="i", command=(), files={}, **{field: (RULE,)})  # type: ignore[arg-type]
        objects = made(job)
        assert pod(job)["automountServiceAccountToken"] is True
        assert set(objects) == {"ServiceAccount", kind, f"{kind}Binding"}
        binding = objects[f"{kind}Binding"]
        assert objects[kind]["rules"] == [RULE]
        assert binding["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": objects[kind]["metadata"]["name"],
        }  # fmt: skip
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "provision", "namespace": "tool"}]
        assert ("namespace" in objects[kind]["metadata"]) == (kind == "Role")
    assert pod()["serviceAccountName"] == made(JOB)["ServiceAccount"]["metadata"]["name"]


def test_its_pods_carry_the_label_of_its_flows() -> None:
    assert jobs.body(JOB, "tool", None)["spec"]["template"]["metadata"]["labels"] == {jobs.LABEL: "provision"}
