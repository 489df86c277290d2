"""What several tools share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plan import versions
from plan.tools.model import CA_BUNDLE, CA_BUNDLE_KEY, Manifest, Override, ToolInputs, Values

PROVISION = Path(__file__).resolve().parents[2] / "provision"
OBJECT_STORE = "minio.minio.svc.cluster.local:9000"  # inside of the cluster, plain HTTP
OWNER_LABEL, OWNER = "app.kubernetes.io/managed-by", "opstella"
"""Of each namespace that the program makes for a tool; records of Helm are removed from those only."""
CA_FOLDER = "/etc/opstella/ca"
CA_FILE = f"{CA_FOLDER}/{CA_BUNDLE_KEY}"
PYTHON_IMAGE = f"{versions.PYTHON_IMAGE.name}:{versions.PYTHON_IMAGE.version}"
"""What a Job runs `python3 /opstella/<file>.py` with."""


def resources(cpu: str, memory: str, memory_limit: str | None = None) -> Values:
    """Requests, and a memory limit (the request by default). No CPU limit: it throttles without protecting anyone."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory_limit or memory}}


def workers_only() -> Values:
    """Affinity that keeps pods off the masters, whatever they tolerate."""
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"},
                        ]
                    }
                ]
            }
        }
    }


def apart(selector: Mapping[str, str]) -> Values:
    """Affinity that never puts two pods with these labels on one node. The workload says so too: `Workload.apart`."""
    term = {"labelSelector": {"matchLabels": dict(selector)}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def ca_volume(config_map: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A volume with the CA bundle, and its mount at CA_FOLDER."""
    return (
        {"name": "opstella-ca", "configMap": {"name": config_map}},
        {"name": "opstella-ca", "mountPath": CA_FOLDER, "readOnly": True},
    )


def beside_bundle(name: str, inputs: ToolInputs) -> str:
    """`name`, for a Secret that holds the CA bundle: another one whenever the bundle's own is."""
    return name + (inputs.ca_bundle or "").removeprefix(CA_BUNDLE)


def merge(base: Any, over: Any) -> Any:
    """`over` laid over `base`: maps by key and depth, anything else replaces. Neither is changed."""
    if isinstance(base, dict) and hasattr(over, "items"):
        merged = dict(base)
        for key, value in over.items():
            merged[key] = merge(base[key], value) if key in base else merge({}, value)
        return merged
    if hasattr(over, "items"):
        return {key: merge({}, value) for key, value in over.items()}
    return over


def replicas_of(inputs: ToolInputs, tool: str) -> int:
    """Pods of what serves users: the user's number for `tool`, or the cluster's own."""
    override = inputs.overrides.get(tool)
    return inputs.replicas if override is None or override.replicas is None else override.replicas


def storage_of(inputs: ToolInputs, tool: str, default: str) -> str:
    """Size of a volume of `tool` as a Kubernetes quantity: the user's, or `default`."""
    override = inputs.overrides.get(tool)
    return default if override is None or override.storage is None else f"{override.storage}Gi"


def provision_files(*names: str) -> dict[str, str]:
    """Scripts of the room provision/ by file name, for a Job's `files`; a Python script needs client.py beside it."""
    return {name: (PROVISION / name).read_text(encoding="utf-8") for name in names}


def issuer(inputs: ToolInputs) -> str:
    """URL of the realm of all tools, as its tokens name it; needs the service keycloak on the platform."""
    return f"https://{inputs.all_hosts['keycloak']}/realms/{inputs.identity.realm}"


def elsewhere(inputs: ToolInputs, tool: str, service: str) -> str | None:
    """The other cluster whose `tool` serves this one under the name of `service`; None: here, or nowhere."""
    if tool in inputs.present or not inputs.overrides.get(tool, Override()).enabled:  # off for one is off for all
        return None
    cluster = inputs.places.get(service, inputs.cluster)
    return cluster if cluster != inputs.cluster and service in inputs.all_hosts else None


def trusting(inputs: ToolInputs) -> dict[str, str]:
    """Environment of a Job: where a script of provision/ finds the CA bundle, if there is one."""
    return {"CA_FILE": CA_FILE} if inputs.ca_bundle else {}


def keeping(secret: str) -> tuple[Values, ...]:
    """RBAC rules of a Job that makes and renews the Secret `secret` of its namespace."""
    secrets = {"apiGroups": [""], "resources": ["secrets"]}
    # A rule cannot name what is yet to be made.
    return ({**secrets, "verbs": ["create"]}, {**secrets, "verbs": ["get", "update"], "resourceNames": [secret]})


def tokenless(name: str, namespace: str) -> Manifest:
    """A ServiceAccount whose pods get no token of the API, for charts that cannot say so of theirs.

    The account `default` of a tool's namespace has none anyway (components/tool_objects.py).
    """
    return Manifest(
        name=f"{namespace}-account-{name}",
        namespace=namespace,
        needs=(),
        body={
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace},
            "automountServiceAccountToken": False,
        },
    )


def without_cpu_limit(cpu: str, memory: str, memory_limit: str | None = None) -> Values:
    """`resources` for a chart whose own default limits CPU: null takes that away. Elsewhere a null would be an error."""
    return merge(resources(cpu, memory, memory_limit), {"limits": {"cpu": None}})


def service(name: str, namespace: str, port: int, scheme: str = "http") -> str:
    """URL of a service, from any namespace of its cluster."""
    return f"{scheme}://{name}.{namespace}.svc.cluster.local:{port}"


def spread(selector: Mapping[str, str]) -> Values:
    """Affinity that puts pods with these labels on different nodes where it can."""
    term = {"labelSelector": {"matchLabels": dict(selector)}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
