"""A provisioning Job as Kubernetes objects: what it is given, whom it acts as, and the Job itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plan.tools.common import ca_volume, resources
from plan.tools.needs import FromSecret, Job

LABEL = "opstella.io/job"
FILES, SECRETS = "/opstella", "/opstella/secrets"
CPU, MEMORY = "20m", "64Mi"  # what a Job's pod requests
_USER = 10001  # nobody's: it owns nothing in any image


def companions(job: Job, namespace: str) -> Iterator[dict[str, Any]]:
    """The objects that must stand before the Job: its files, its account, and the account's rights."""
    meta = {"name": job.name, "namespace": namespace}
    if job.files:
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": dict(job.files)}
    yield {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta,
        "automountServiceAccountToken": False,  # the pod asks for it where there are rules
    }
    account = {"kind": "ServiceAccount", "name": job.name, "namespace": namespace}
    for prefix, rules, scope in (
        ("", job.rules, meta),
        ("Cluster", job.cluster_rules, {"name": f"opstella-{namespace}-{job.name}"}),
    ):
        if not rules:
            continue
        api = "rbac.authorization.k8s.io"
        yield {
            "apiVersion": f"{api}/v1",
            "kind": f"{prefix}Role",
            "metadata": scope,
            "rules": [dict(rule) for rule in rules],
        }
        yield {
            "apiVersion": f"{api}/v1",
            "kind": f"{prefix}RoleBinding",
            "metadata": scope,
            "roleRef": {"apiGroup": api, "kind": f"{prefix}Role", "name": scope["name"]},
            "subjects": [account],
        }


def body(job: Job, namespace: str, ca_bundle: str | None) -> dict[str, Any]:
    """The Job. It fits the pod security level "restricted"."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if job.files:
        # Projected, because secrets appear in folders below.
        volumes.append({"name": "files", "configMap": {"name": job.name}})
        mounts += [
            {"name": "files", "mountPath": f"{FILES}/{name}", "subPath": name, "readOnly": True} for name in job.files
        ]
    for folder, secret in job.secret_files.items():
        volumes.append({"name": f"secret-{folder}", "secret": {"secretName": secret, "defaultMode": 0o440}})
        mounts.append({"name": f"secret-{folder}", "mountPath": f"{SECRETS}/{folder}", "readOnly": True})
    if ca_bundle:
        volume, mount = ca_volume(ca_bundle)
        volumes.append(volume)
        mounts.append(mount)
    labels = {LABEL: job.name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 3,
            "activeDeadlineSeconds": job.timeout_seconds,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",  # a failed pod stays, with its log
                    "serviceAccountName": job.name,
                    "automountServiceAccountToken": bool(job.rules or job.cluster_rules),
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": _USER,
                        "runAsGroup": _USER,
                        "fsGroup": _USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [
                        {
                            "name": "provision",
                            "image": job.image,
                            "command": list(job.command),
                            "env": [_variable(name, value) for name, value in job.environment.items()],
                            "resources": resources(CPU, MEMORY, "256Mi"),
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": mounts,
                        }
                    ],
                    "volumes": volumes,
                },
            },
        },
    }


def secrets_read(job: Job) -> tuple[str, ...]:
    """Names of the Secrets whose change must run the Job again."""
    variables = [v.secret for v in job.environment.values() if isinstance(v, FromSecret)]
    return tuple(sorted({*job.secret_files.values(), *variables}))


def _variable(name: str, value: str | FromSecret) -> dict[str, Any]:
    if isinstance(value, FromSecret):
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.secret, "key": value.key}}}
    return {"name": name, "value": value}
