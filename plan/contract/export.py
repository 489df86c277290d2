"""The contract as a table for people, and as CSV, Markdown and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from plan.contract.flow import Flow, short

COLUMNS = ("cluster", "to", "addresses", "protocol", "ports", "from", "networks", "purpose", "by")


def rows(flows: Sequence[Flow]) -> list[tuple[str, ...]]:
    """A row of text for each flow, under COLUMNS."""
    return [
        (
            flow.cluster or "",
            flow.role,
            " ".join(map(short, flow.addresses)),
            "/".join(flow.rule.protocols),
            flow.ports,
            flow.rule.source,
            " ".join(map(short, flow.sources)) or "anyone",
            flow.rule.purpose,
            flow.reason,
        )
        for flow in flows
    ]


def table(flows: Sequence[Flow]) -> str:
    """In columns for a terminal, without the addresses that follow from roles."""
    shown = [
        (c, to, protocol, ports, networks if source == "given" or networks == "anyone" else source, purpose, by)
        for c, to, _, protocol, ports, source, networks, purpose, by in rows(flows)
    ]
    return in_columns([("CLUSTER", "TO", "PROTOCOL", "PORTS", "FROM", "PURPOSE", "BY"), *shown])


def in_columns(every: Sequence[tuple[str, ...]]) -> str:
    """Lines of equal widths, but for the last column's."""
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]) - 1)]
    lines = ("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]) for row in every)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def as_csv(flows: Sequence[Flow]) -> str:
    """RFC 4180, with a head line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([COLUMNS, *rows(flows)])
    return text.getvalue()


def as_markdown(flows: Sequence[Flow]) -> str:
    """A table of GitHub's dialect."""
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *rows(flows)]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_json(flows: Sequence[Flow]) -> str:
    """An object for each flow; a port is a number or `first-last`, `sources` is null where anyone may come."""
    return json.dumps({"version": 1, "flows": [_object(flow) for flow in flows]}, indent=2) + "\n"


def _object(flow: Flow) -> dict[str, Any]:
    return {
        "cluster": flow.cluster,
        "target": flow.role,
        "hosts": [host.name for host in flow.targets],
        "destinations": [str(n) for n in flow.addresses],
        "protocols": list(flow.rule.protocols),
        "ports": [*flow.rule.ports, *(f"{low}-{high}" for low, high in flow.rule.ranges)],
        "source": flow.rule.source,
        "sources": [str(n) for n in flow.sources] or None,
        "purpose": flow.rule.purpose,
        "origin": flow.rule.origin,
        "by": flow.reason,
    }
