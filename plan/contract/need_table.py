"""What the platform needs, as rows for people: each declared flow, and the rule by which it is let in."""

from __future__ import annotations

from plan.contract import proof
from plan.contract.contract import Contract
from plan.contract.flow import short
from plan.contract.rule import Rule, listed

COLUMNS = ("needed by", "from", "to", "protocol", "ports", "why", "let in by")


def rows(contract: Contract) -> list[tuple[str, ...]]:
    """A row of text for each need, under COLUMNS, then for each flow that leads outside, which the machines' own filter
    judges where egress is enforced."""
    inside = [
        (*_told(need, need.target), "; ".join(dict.fromkeys(rule.reason for rule in proof.allowed_by(need, contract))))
        for need in contract.needs
        # Two load balancers are not in every stack.
        if need.source != "peers" or proof.allowed_by(need, contract)
    ]
    judge = "egress" if contract.settings.network.egress.enforce else "egress is open"
    outside = [(*_told(one, " ".join(map(short, one.networks)) or "anyone"), judge) for one in contract.exits]
    return [*inside, *outside]


def _told(rule: Rule, to: str) -> tuple[str, ...]:
    where = f" of {', '.join(rule.clusters)}" if rule.clusters else ""
    source = f"nodes{where}" if rule.source == "platform" else f"{rule.source}{where}"
    return (rule.by or "the user", source, to, "/".join(rule.protocols), listed(rule.intervals), rule.why or rule.purpose)
