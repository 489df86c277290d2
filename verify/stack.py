"""What a stack tells of itself: its outputs and its settings, asked from the engine, and the plan that follows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import ConfigurationError
from config.load import from_pulumi
from plan.checks import problems_beside
from plan.plan import as_data, build
from plan.tools.model import Release


class StackUnreadable(Exception):
    """The engine does not give the stack's outputs; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`plan` as plan.as_data gives it, `releases` by cluster; `outputs` and `private_key` hold secrets in clear."""

    name: str
    plan: dict[str, Any]
    releases: Mapping[str, tuple[Release, ...]]
    outputs: dict[str, Any]
    private_key: str
    public_address: str | None
    firewall: bool = True
    """Whether the hosts have the platform's packet filter."""

    @property
    def hosts(self) -> list[dict[str, Any]]:
        return self.plan["hosts"]

    @property
    def bastion(self) -> dict[str, Any]:
        return next(h for h in self.hosts if h["role"] == "bastion")


def read(name: str, config_file: str | None) -> Stack:
    """Reads the stack by the engine on PATH (or in $PULUMI). Raises StackUnreadable."""
    extra = ["--config-file", config_file] if config_file else []
    outputs = _ask(["stack", "output", "--json", "--show-secrets", "--stack", name])
    if "host_keys" not in outputs:
        raise StackUnreadable(f"stack '{name}' has no outputs yet: run `make up STACK={name}` first")
    given = _ask(["config", "--json", "--show-secrets", "--stack", name, *extra])
    values = {key: entry.get("value") for key, entry in given.items()}
    secret = {key for key, entry in given.items() if entry.get("secret")}
    try:
        settings = from_pulumi(values, secret, f"configuration of stack '{name}'", problems_beside)
        plan = build(settings, f"opstella/{name}")
    except ConfigurationError as error:
        raise StackUnreadable(str(error)) from None
    return Stack(
        name=name,
        plan=as_data(plan),
        releases=plan.releases,
        outputs=outputs,
        private_key=settings.ssh.private_key.get_secret_value(),
        public_address=settings.bastion.public_address,
        firewall=settings.firewall.enabled,
    )


def _ask(arguments: list[str]) -> dict[str, Any]:
    engine = os.environ.get("PULUMI", "pulumi")
    try:
        done = subprocess.run([engine, *arguments, "--non-interactive"], capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise StackUnreadable(f"the engine '{engine}' is not there: install it, or name it in $PULUMI") from None
    if done.returncode:
        raise StackUnreadable(f"`pulumi {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return json.loads(done.stdout or "{}")
