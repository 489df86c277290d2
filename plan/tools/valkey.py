"""Valkey: one server for what the tools keep in memory, each behind a user of its own.

One pod: while it moves, Harbor queues nothing and DefectDojo's workers wait. What it holds is on its volume
(append-only file).
"""

from __future__ import annotations

from collections.abc import Sequence

from plan import versions
from plan.tools import csi_driver_nfs
from plan.tools.common import resources, storage_of
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import Cache

NAME = NAMESPACE = "valkey"
PORT, METRICS_PORT = 6379, 9121
ADDRESS = f"{NAME}.{NAMESPACE}.svc.cluster.local:{PORT}"
USERS_SECRET = "valkey-users"  # a key per user; plan/tools/wiring.py fills it
DEFAULT = "default"  # who connects without a name; the chart insists on it
MEMORY_MB = 192
# What the exporter asks for, and no key of anybody.
_WATCH = "resetkeys resetchannels -@all +ping +info +config|get +slowlog|get +slowlog|len +latency|latest +client|list"
# Everything about its own keys; nothing about the server, other connections or all keys at once.
_USE = "+@all -@admin -@dangerous +info"


def permissions(cache: Cache) -> str:
    """The rules of one user, in the words of Valkey's ACL; `db=` is known from Valkey 9.1 on."""
    if cache.user == DEFAULT:
        return _WATCH
    databases = f" resetdbs db={','.join(map(str, cache.databases))}" if cache.databases else ""
    return f"resetkeys resetchannels ~{cache.prefix}* &*{databases} {_USE}"


def acl(caches: Sequence[Cache]) -> Values:
    """Values that make a user of each; their passwords are in the Secret `valkey-users`, under their names.

    Raises ValueError: two of them share a logical database.
    """
    taken: dict[int, str] = {}
    for cache in caches:
        for number in cache.databases:
            other = taken.setdefault(number, cache.user)
            if other != cache.user:
                raise ValueError(f"the logical database {number} of Valkey is wanted by {other} and by {cache.user}")
    users = {c.user: {"permissions": permissions(c), "passwordKey": c.user} for c in caches}
    return {"auth": {"enabled": True, "usersExistingSecret": USERS_SECRET, "aclUsers": users}}


def _values(inputs: ToolInputs) -> Values:
    hardened = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 1000,
    }
    return {
        "fullnameOverride": NAME,
        "auth": {"enabled": True, "usersExistingSecret": USERS_SECRET},
        "dataStorage": {
            "enabled": True,
            "requestedSize": storage_of(inputs, NAME, "2Gi"),
            "className": inputs.storage_class,
            "accessModes": ["ReadWriteOnce"],
            "keepPvc": True,
        },
        "deploymentStrategy": "Recreate",  # two servers must never write the same files
        # noeviction: Harbor's and DefectDojo's queues of jobs are in here, not only what can be computed again.
        "valkeyConfig": f"maxmemory {MEMORY_MB}mb\nmaxmemory-policy noeviction\nappendonly yes\n",
        "readinessProbe": {"enabled": True},
        "resources": resources("50m", "128Mi", "384Mi"),
        "initResources": resources("10m", "16Mi", "64Mi"),
        "metrics": {
            "enabled": True,
            "exporter": {"resources": resources("10m", "24Mi", "64Mi"), "securityContext": hardened},
        },
    }


def release(inputs: ToolInputs) -> Release:
    """One server with its exporter; its users come from what the other tools declare."""
    return Release.of(
        versions.VALKEY,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(csi_driver_nfs.NAME,),
        caches=(Cache(user=DEFAULT, secret=None),),
        workloads=(
            Workload(
                kind="Deployment",
                name=NAME,
                namespace=NAMESPACE,
                cpu="60m",
                memory="152Mi",
                selector={"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME},
            ),
        ),
        ports_for_metrics=(METRICS_PORT,),
    )


TOOL = Tool(name=NAME, release=release)
