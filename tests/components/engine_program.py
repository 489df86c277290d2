"""A program with one ToolStack, for the real engine: a tool without images, whose objects a test writes the state of.

It is run by `pulumi` in a folder of its own; `settings.json` there says what varies.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pulumi

from components.chart_archives import archives
from components.passwords import Passwords, PasswordsArgs
from components.tool_stack import ToolStack, ToolStackArgs
from config.errors import ConfigurationError
from plan.chart_sources import chart_sources
from plan.tools.model import Manifest, Password, Release
from plan.tools.needs import Job
from plan.tools.sources import Generated, Secret
from stacks.ending import SHOWN

NAMESPACE = "tool"


def _object(api: str, kind: str, name: str, **rest: Any) -> Manifest:
    body = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}
    return Manifest(name=f"{name}-{kind.lower()}", namespace=NAMESPACE, needs=(), body=body)


def release(settings: dict[str, Any]) -> Release:
    policy = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "tool"}}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    return Release(
        name="tool",
        namespace=NAMESPACE,
        chart=settings["chart"],
        version=settings.get("version", "1.0.0"),
        repository=settings.get("repository"),
        values=settings.get("values", {}),
        last_value_wins=settings.get("last_value_wins", False),
        ca_bundle="bundle",
        timeout_seconds=settings.get("timeout", 60),
        passwords=(Password(name="own"),),
        secrets=(Secret(name="users", namespace=NAMESPACE, data={"a": Generated(password="own")}),),
        before=(
            _object("networking.k8s.io/v1", "NetworkPolicy", "deny", spec=policy),
            _object("v1", "ConfigMap", "settings", data={"a": "b"}),
            _object("rbac.authorization.k8s.io/v1", "Role", "reader", rules=rules),
        ),
        after=(_object("policy/v1", "PodDisruptionBudget", "tool", spec=budget),),
        jobs=(
            Job(
                name="provision",
                image="none",
                command=("run",),
                files={"a.py": settings.get("file", "1")},
                secret_files={"users": "users"},
                rules=({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},),
            ),
        ),
    )


def main() -> None:
    settings = json.loads(Path("settings.json").read_text(encoding="utf-8"))
    tool = release(settings)
    digests = {"tool": settings["digest"]} if "digest" in settings else {}
    try:
        charts = archives(chart_sources({"one": (tool,)}, digests))
    except ConfigurationError as error:
        pulumi.log.error(str(error))
        sys.exit(SHOWN)
    passwords = Passwords("passwords", PasswordsArgs(clusters={"one": tool.passwords}))
    ToolStack(
        "one-tools",
        ToolStackArgs(
            cluster="one",
            kubeconfig=pulumi.Output.secret(Path("kubeconfig").read_text(encoding="utf-8")),
            releases=(tool,),
            charts=charts,
            passwords=passwords,
            authority_chain="chain",
            authority_key=pulumi.Output.secret("key"),
            ca_bundle="the bundle",
        ),
    )
