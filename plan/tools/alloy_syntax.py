"""Alloy's configuration language from data: blocks, attributes and expressions, as its formatter would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Expression:
    """Text that stands as it is: a reference to what a component exports, or a call."""

    text: str


Value = str | bool | int | Expression | tuple["Value", ...] | Mapping[str, "Value"]


@dataclass(frozen=True)
class Block:
    """`name "label" { … }`; `label` is None where the block has none. Blocks of the same name may repeat."""

    name: str
    label: str | None = None
    attributes: Mapping[str, Value] | None = None
    blocks: tuple[Block, ...] = ()


def _value(value: Value, depth: int) -> str:
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        # Both languages escape alike what occurs here; a character beyond ASCII may stand as it is.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(v, depth) for v in value) + "]"
    inner, outer = "\t" * (depth + 1), "\t" * depth
    entries = [f"{inner}{json.dumps(k)} = {_value(v, depth + 1)},\n" for k, v in value.items()]
    return "{\n" + "".join(entries) + outer + "}" if entries else "{}"


def render(blocks: tuple[Block, ...], depth: int = 0) -> str:
    """The text of `blocks`; ends with a line feed."""
    lines: list[str] = []
    tabs = "\t" * depth
    for block in blocks:
        name = block.name if block.label is None else f"{block.name} {json.dumps(block.label)}"
        attributes = block.attributes or {}
        width = max((len(key) for key in attributes), default=0)
        body = "".join(f"{tabs}\t{k.ljust(width)} = {_value(v, depth + 1)}\n" for k, v in attributes.items())
        if block.blocks:
            body += ("\n" if body else "") + render(block.blocks, depth + 1)
        lines.append(f"{tabs}{name} {{\n{body}{tabs}}}\n" if body else f"{tabs}{name} {{ }}\n")
    return "\n".join(lines)
