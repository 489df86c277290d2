"""SSH: how the operator reaches the machines, each through the bastion."""

from __future__ import annotations

from config.model import Settings
from plan.contract.rule import Rule, need


def flows(settings: Settings) -> tuple[Rule, ...]:
    """Who opens SSH to whom."""
    port = (settings.ssh.port,)
    return (
        need("SSH", "operator", "bastion", port, "SSH", "the operator's way in"),
        need("SSH", "bastion", "all", port, "SSH", "every machine is reached through the bastion"),
    )
