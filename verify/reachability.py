"""The quick form of the network's proof (verify/network): the same questions, between some of the hosts."""

from __future__ import annotations

from typing import Any

from verify.network.proof import prove
from verify.network.table import differences, summary
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

_MOST_FAULTS = 6


def reachability(stack: Stack, ssh: Ssh) -> str:
    """One host of each role and cluster, and a second worker, each to each. Raises CheckFailed."""
    if not stack.firewall:
        return "opstella:firewall.enabled is false: nothing is held back, nothing was asked"
    proof = prove(stack, ssh, _sample(stack))
    faults = [f"{name} could not be asked: {why}" for name, why in proof.away.items()]
    faults += [line for line, _ in differences(proof)]
    if faults:
        raise CheckFailed("; ".join([summary(proof), *faults[:_MOST_FAULTS]]))
    return summary(proof)


def _sample(stack: Stack) -> list[dict[str, Any]]:
    found: dict[tuple[str | None, str], dict[str, Any]] = {}
    for host in stack.hosts:
        found.setdefault((host["cluster"], host["role"]), host)
    workers = [h for h in stack.hosts if h["role"] == "worker"]
    return [*found.values(), *([workers[1]] if len(workers) > 1 else [])]
