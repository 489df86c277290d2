"""The documents' firewall tables, read from the documents themselves: a second reading beside the transcription's.

The documents are no part of the project. They are looked for in $OPSTELLA_REFERENCE, by default in the folder
`shared/reference` beside the checkout; who has none skips what needs them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("OPSTELLA_REFERENCE", _ROOT.parent / "shared/reference"))
_FILES = {
    "opstella_standalone": "000_", "opstella_multicluster": "000_", "tectonic": "002_", "deckhouse": "003_",
    "rke2_cilium": "004_",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row as the document has it; `text` is all of it, `source` and `to` its own words, empty where it has none."""

    table: str
    row: int
    strength: str
    direction: str
    protocols: frozenset[str]
    ports: frozenset[tuple[int, int]]
    source: str
    to: str
    text: str


def rows(document: str) -> list[Row]:
    """Every row of a document's tables, in its order. Raises FileNotFoundError where the document is not there."""
    found = sorted(FOLDER.glob(f"{_FILES[document]}*.md"))
    if not found:
        raise FileNotFoundError(f"{FOLDER}/{_FILES[document]}*.md")
    return list(_READERS[document](found[0].read_text(encoding="utf-8")))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _ports(text: str) -> frozenset[tuple[int, int]]:
    pairs = re.findall(r"(\d+)(?:(?:--?| to )(\d+))?", text)
    return frozenset((int(low), int(high or low)) for low, high in pairs)


def _protocols(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"tcp|udp|icmp", text.lower()))


def _opstella(heading: str, text: str) -> Iterator[Row]:
    firewall = text.split(f"### {heading}\n")[1].split("#### Firewall")[1]
    table, number = "", 0
    for line in firewall.splitlines()[1:]:
        if line.startswith(("<hr", "### ")):
            return
        if not line.startswith("| ") or line.startswith("| Policy"):
            continue
        cells = _cells(line)
        if len(set(cells)) == 1:
            table, number = cells[0], 0
            continue
        policy, protocol, direction, ports, source, _ = cells
        assert (policy, direction) == ("Allow", "Inbound"), line
        number += 1
        yield Row(
            table=table, row=number, strength="must", direction="in", protocols=_protocols(protocol),
            ports=_ports(ports), source=source, to=table, text=line,
        )  # fmt: skip


_TECTONIC = re.compile(r"• (?P<strength>MUST|SHOULD|MAY) (?P<rest>.*)")


def _tectonic(text: str) -> Iterator[Row]:
    machines = direction = ""
    number = 0
    for line in text.splitlines():
        if line and not line.startswith(" ") and re.search(r"Nodes\b", line):
            machines, direction = line.strip(), ""
        elif bare := re.fullmatch(r"\s+• (Ingress|Egress)", line):
            direction, number = bare[1], 0
        elif re.match(r"  • ", line):
            direction = ""  # of another list
        elif direction and (item := _TECTONIC.search(line)):
            number += 1
            rest = item["rest"]
            source = re.search(r"\bfrom (.+?)(?: for\b|$)", rest)
            peer = re.search(r"\b(?:to|for) (.+?)(?: images| if\b|$)", rest)
            inwards = direction == "Ingress"
            yield Row(
                table=f"{machines}, {direction}", row=number, strength=item["strength"].lower(),
                direction="in" if inwards else "out", protocols=_protocols(rest), ports=_ports(re.sub("k8s", "", rest)),
                source=(source[1] if source else "") if inwards else machines,
                to=machines if inwards else (peer[1] if peer else ""), text=line,
            )  # fmt: skip


def _deckhouse(text: str) -> Iterator[Row]:
    heading, number = "", 0
    for line in text.splitlines():
        if re.match(r"\w+ .*\btraffic\b[^|]*$", line) and "|" not in line and len(line) < 60:
            heading, number = line.strip(), 0
            continue
        if not heading or "|" not in line or line.startswith(("Port |", "---")):
            continue
        ports, protocol, purpose = (*_cells(line), "", "")[:3]
        if not re.search(r"\d", ports):
            protocol, purpose, ports = ports, protocol, ""  # the cells of this row are moved by one
        number += 1
        source, word, to = re.split(r" (to|for) ", heading.removesuffix(" traffic"))
        if word == "for":  # what those machines ask of what is outside
            source, to = to, source
        yield Row(
            table=heading, row=number, strength="must", direction="out" if word == "for" else "in",
            protocols=_protocols(protocol), ports=_ports(ports), source=source, to=to, text=purpose,
        )  # fmt: skip


def _rke2_cilium(text: str) -> Iterator[Row]:
    heading = "Firewall Rules (iptables)"
    section = text.split(f"### {heading}\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    for number, line in enumerate(lines, 1):
        ports, protocol, purpose = _cells(line)
        yield Row(
            table=heading, row=number, strength="must", direction="in", protocols=_protocols(protocol),
            ports=_ports(ports), source="", to="All nodes", text=purpose,
        )  # fmt: skip


_READERS = {
    "opstella_standalone": lambda text: _opstella("Standalone Architecture", text),
    "opstella_multicluster": lambda text: _opstella("Multi-Cluster Architecture", text),
    "tectonic": _tectonic,
    "deckhouse": _deckhouse,
    "rke2_cilium": _rke2_cilium,
}
