"""The two architectures of the Opstella Reference Architecture, as settings.

Every figure is the reference's own row ("Specification", "Network Subnet", "Domain"); what the document leaves
open is marked. A stack's settings are laid over one of these, so a user writes only what differs.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

_SMALL = {"cpu": 1, "memoryGb": 2, "diskGb": 20}  # bastion, HAProxy

# The cluster of the multi-cluster reference that carries what no other is named for.
MAIN = "devsecops"
# Tool to the clusters of the multi-cluster reference that carry it; a tool that is not listed stands in every cluster.
PLACES: dict[str, tuple[str, ...]] = {
    "opstella": (MAIN,),
    "keycloak": (MAIN,),
    "argo-cd": ("dev", "prd"),
    "defectdojo": (MAIN,),
    "gitlab-runner": ("dev",),
    "headlamp": (MAIN,),
    "harbor": (MAIN,),
    "sonarqube": (MAIN,),
    "vault": (MAIN,),
    "loki": ("observability",),
    "grafana": ("observability",),
    "tempo": ("observability",),
    "mimir": ("observability",),
    "minio": (MAIN, "observability"),
}
# Of these, the ones of which each cluster may have its own; of the others there is one on the platform.
SEVERAL = ("argo-cd", "gitlab-runner", "minio")
# A tool that runs wherever one of others does.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "vault-unsealer": ("vault",),
    "oauth2-proxy": ("loki", "tempo", "mimir"),
}
# Tool to the services that users open, by their keys under `domains` where the tool lives in one cluster.
SERVICES: dict[str, tuple[str, ...]] = {
    "opstella": ("opstella", "opstellaCore", "opstellaClearSession"),
    "keycloak": ("keycloak",),
    "argo-cd": ("argocd",),
    "defectdojo": ("defectdojo",),
    "headlamp": ("headlamp",),
    "harbor": ("harbor",),
    "sonarqube": ("sonarqube",),
    "vault": ("vault",),
    "loki": ("loki",),
    "grafana": ("grafana",),
    "tempo": ("tempo",),
    "mimir": ("mimir",),
    "minio": ("minio", "minioApi"),
}

# Host labels under `domain`, in the order of the reference's table.
_COMMON_DOMAINS = {
    "opstella": "opstella",
    "opstellaCore": "opstella-backend",
    "opstellaClearSession": "opstella-clear-session",
    "keycloak": "opstella-idp",
    "defectdojo": "defectdojo",
    "gitlab": "gitlab",
    "headlamp": "headlamp",
    "harbor": "harbor",
    "sonarqube": "sonarqube",
    "vault": "vault",
    "loki": "loki",
    "grafana": "grafana",
    "tempo": "tempo",
    "mimir": "mimir",
}
# Of every service where it is alone; in one of several clusters, the cluster's name follows.
DEFAULT_LABELS = {**_COMMON_DOMAINS, "argocd": "argocd", "minio": "minio", "minioApi": "minio-api"}

WORKERS = "write the number of workers: the reference has 5 for one cluster, 3 to 5 for each of several"

_STANDALONE: dict[str, Any] = {
    "bastion": _SMALL,
    "gitlab": {"cpu": 2, "memoryGb": 4, "diskGb": 40},
    "clusters": {
        "standalone": {
            "subnet": "192.168.72.0/24",
            "loadBalancer": _SMALL,
            "nfs": {"cpu": 1, "memoryGb": 2, "diskGb": 100},
            "masters": {"count": 1, "cpu": 2, "memoryGb": 4, "diskGb": 40},
            "workers": {"count": 5, "cpu": 4, "memoryGb": 10, "diskGb": 40},
        }
    },
    "domains": DEFAULT_LABELS,
}


def _cluster(subnet: str, nfs_disk: int, workers: int, worker_cpu: int) -> dict[str, Any]:
    return {
        "subnet": subnet,
        "loadBalancer": _SMALL,
        "nfs": {"cpu": 1, "memoryGb": 2, "diskGb": nfs_disk},
        "masters": {"count": 3, "cpu": 2, "memoryGb": 4, "diskGb": 20},
        "workers": {"count": workers, "cpu": worker_cpu, "memoryGb": 8, "diskGb": 40},
    }


_MULTICLUSTER: dict[str, Any] = {
    "bastion": _SMALL,
    "gitlab": {"cpu": 4, "memoryGb": 8, "diskGb": 40},
    # The document lists four subnets and four clusters without pairing them; they are paired in its order.
    "clusters": {
        "devsecops": _cluster("192.168.72.0/24", 500, 3, 4),
        "observability": _cluster("192.168.73.0/24", 500, 3, 4),
        # The row "NFS Share (DEV)" has no figures; the printed total (36 nodes, 1520 GB) leaves one node of 100 GB.
        "dev": _cluster("192.168.74.0/24", 100, 3, 4),
        "prd": _cluster("192.168.75.0/24", 100, 5, 6),
    },
    "domains": {
        **_COMMON_DOMAINS,
        "argocdDev": "argocd-dev",
        "argocdPrd": "argocd-prd",
        "minioDevsecops": "minio-dso",
        "minioApiDevsecops": "minio-dso-api",
        "minioObservability": "minio-obs",
        "minioApiObservability": "minio-obs-api",
    },
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "standalone": _STANDALONE,
    "multicluster": _MULTICLUSTER,
    # Clusters are all the user's; sizes fall back to the model's defaults.
    "custom": {"domains": _STANDALONE["domains"]},
}


def figures(architecture: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """What `written` is laid over: those of `architecture`, without those of load balancers that `written` shares."""
    sharing = [name for name in architecture.get("clusters", {}) if _shares(written, name)]
    if not sharing:
        return architecture
    clusters = {
        name: {key: value for key, value in cluster.items() if key != "loadBalancer" or name not in sharing}
        for name, cluster in architecture["clusters"].items()
    }
    return {**architecture, "clusters": clusters}


def _shares(written: Any, cluster: str) -> bool:
    for part in ("clusters", cluster, "loadBalancer", "sharedWith"):
        written = written.get(part) if isinstance(written, dict) else None
    return written is not None


def overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it: mappings merge key by key, anything else replaces. Neither is modified."""
    merged = deepcopy(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged
