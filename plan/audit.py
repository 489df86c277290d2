"""The audit log of the Kubernetes API: what is written, and how much of it is kept.

RKE2's own policy is level None (docs.rke2.io, hardening guide): nothing is written until somebody says what.
"""

from __future__ import annotations

from typing import Any

import yaml

POLICY = "/etc/rancher/rke2/audit-policy.yaml"  # RKE2's own place for it
FOLDER = "/var/lib/rancher/rke2/server/logs"
LOG = f"{FOLDER}/audit.log"
DAYS, FILES, MEGABYTES = 30, 10, 100
"""A file of MEGABYTES is set aside, FILES of them are kept, for at most DAYS: about 1 GB on each master."""
_RIGHTS = ("rbac.authorization.k8s.io", "admissionregistration.k8s.io", "certificates.k8s.io")


def arguments() -> list[str]:
    """The API server's flags for its size, without dashes; path and policy are RKE2's `audit-policy-file`."""
    return [f"audit-log-maxage={DAYS}", f"audit-log-maxbackup={FILES}", f"audit-log-maxsize={MEGABYTES}"]


def policy() -> str:
    """Who did what to which object: of rights and admission with what was sent, of all else without, so that no Secret and
    no token is ever in it. What the cluster's own parts say all the time, and who may only look, is left out."""

    def silent(**rule: Any) -> dict[str, Any]:
        return {"level": "None", **rule}

    core = {"group": ""}
    data: dict[str, Any] = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": [
            silent(nonResourceURLs=["/healthz*", "/livez*", "/readyz*", "/metrics", "/version", "/openapi/*", "/api*"]),
            silent(resources=[{**core, "resources": ["events"]}, {"group": "events.k8s.io"}]),
            silent(resources=[{"group": "coordination.k8s.io", "resources": ["leases"]}]),
            # Kubelets and controllers watch the Secrets of their pods all the time; people and tools are written down.
            silent(userGroups=["system:nodes"], verbs=["get", "list", "watch"]),
            {"level": "Metadata", "resources": [{**core, "resources": ["secrets", "configmaps", "serviceaccounts/token"]}]},
            # Shells, port-forwards and the like are opened by `get`, too.
            {"level": "Metadata", "resources": [{**core, "resources": [
                "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"]}]},
            # Of all else, reading is by far the most, and it changes nothing.
            silent(verbs=["get", "list", "watch"]),
            # What nodes and controllers report of objects.
            silent(users=["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"],
                   resources=[{**core, "resources": ["endpoints", "nodes/status", "pods/status"]},
                              {"group": "discovery.k8s.io", "resources": ["endpointslices"]}]),
            silent(userGroups=["system:nodes"], resources=[{**core, "resources": ["nodes/status", "pods/status"]}]),
            silent(resources=[{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]),
            {"level": "Request", "resources": [{"group": group} for group in _RIGHTS]},
            {"level": "Metadata"},
        ],
    }  # fmt: skip
    return yaml.safe_dump(data, sort_keys=False, width=4096)
