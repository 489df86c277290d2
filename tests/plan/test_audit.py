"""The audit log of the API: on every server, bounded, without the contents of Secrets, and collected."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plan import audit, rke2
from tests.plan.stacks import plan

RULES: list[dict[str, Any]] = yaml.safe_load(audit.policy())["rules"]


@pytest.mark.parametrize("cis", [False, True])
def test_every_server_writes_it_within_bounds(cis: bool) -> None:
    stack = plan("multicluster", kubernetes={"cisProfile": cis})
    for cluster in stack.topology.clusters:
        for node in cluster.nodes:
            config = rke2.node_config(cluster, node, stack.settings.kubernetes, "api.x", stack.issuer)
            if node.role == "worker":
                assert "audit-policy-file" not in config
                continue
            assert config["audit-policy-file"] == "/etc/rancher/rke2/audit-policy.yaml"
            arguments = dict(argument.split("=", 1) for argument in config["kube-apiserver-arg"])
            bounds = {name: int(value) for name, value in arguments.items() if name.startswith("audit-log-max")}
            assert bounds == {"audit-log-maxage": 30, "audit-log-maxbackup": 10, "audit-log-maxsize": 100}
            # A step of the hardening guide that RKE2 leaves to the operator.
            extended = arguments.get("service-account-extend-token-expiration")
            assert extended == ("false" if cis else None)


def level(user: str, verb: str, resource: str, group: str = "", groups: tuple[str, ...] = ()) -> str:
    """Level of the first rule that matches a request for a resource, as the API server chooses it."""
    for rule in RULES:
        if "nonResourceURLs" in rule:
            continue
        listed = rule.get("resources")
        resources = not listed or any(
            one.get("group", "") == group and ("resources" not in one or resource in one["resources"]) for one in listed
        )
        who = ("users" not in rule or user in rule["users"]) and (
            "userGroups" not in rule or set(groups) & set(rule["userGroups"])
        )
        if resources and who and ("verbs" not in rule or verb in rule["verbs"]):
            return str(rule["level"])
    return "None"


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (("oidc:ada", "get", "secrets"), "Metadata"),
        (("oidc:ada", "create", "secrets"), "Metadata"),
        (("oidc:ada", "create", "serviceaccounts/token"), "Metadata"),
        (("oidc:ada", "get", "pods/exec"), "Metadata"),
        (("oidc:ada", "create", "pods/exec"), "Metadata"),
        (("oidc:ada", "delete", "pods"), "Metadata"),
        (("oidc:ada", "create", "deployments", "apps"), "Metadata"),
        (("oidc:ada", "create", "clusterrolebindings", "rbac.authorization.k8s.io"), "Request"),
        (("oidc:ada", "list", "pods"), "None"),
        (("system:node:a", "get", "secrets", "", ("system:nodes",)), "None"),
        (("system:node:a", "patch", "pods/status", "", ("system:nodes",)), "None"),
        (("system:node:a", "delete", "pods", "", ("system:nodes",)), "Metadata"),
        (("system:serviceaccount:x:y", "list", "secrets"), "Metadata"),
        (("anybody", "update", "leases", "coordination.k8s.io"), "None"),
        (("anybody", "create", "tokenreviews", "authentication.k8s.io"), "None"),
    ],
)  # fmt: skip
def test_what_is_written(request_: tuple[Any, ...], wanted: str) -> None:
    assert level(*request_) == wanted


def test_no_secret_and_no_token_is_ever_in_it() -> None:
    """A body is written of the groups named only, none of which has any."""
    bodies = [rule for rule in RULES if rule["level"] in ("Request", "RequestResponse")]
    groups = {one["group"] for rule in bodies for one in rule["resources"]}
    assert groups == {"rbac.authorization.k8s.io", "admissionregistration.k8s.io", "certificates.k8s.io"}


def test_the_collector_reads_it() -> None:
    (alloy,) = [r for r in plan().releases["standalone"] if r.name == "alloy"]
    assert f'"__path__" = "{audit.LOG}"' in alloy.values["alloy"]["configMap"]["content"]
    (volume,) = [v for v in alloy.values["controller"]["volumes"]["extra"] if v["name"] == "audit"]
    (mount,) = [m for m in alloy.values["alloy"]["mounts"]["extra"] if m["name"] == "audit"]
    assert volume["hostPath"]["path"] == mount["mountPath"] == audit.FOLDER and mount["readOnly"]
    assert audit.LOG.startswith(f"{audit.FOLDER}/")
