"""Applying a remedy to the stack file that it is for.

What a problem says as data (`Problem.change`) is applied as it is. Where the remedy is a command, or asks for what only the
user knows, the fixture states an example that follows it, in lines of its head:

    # remedy: opstella:ssh.port = 22                  a YAML value; parts of a path with dots are written ["a.b"]
    # remedy: remove opstella:ssh.port
    # remedy: replace "bastion: {cpu: 1" with "bastion: {cpu: 1}"     for what is no YAML, or no mapping
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from config.errors import REMOVE, Problem, Rename
from config.errors import Path as Where
from config.stack_file import _Loader

_PART = re.compile(r"""\["([^"]+)"\]|\[(\d+)\]|\.?([^.\[]+)""")


def stated(fixture: Path) -> list[str]:
    """The remedies in the head of `fixture`."""
    lines = fixture.read_text().splitlines()
    return [line.removeprefix("# remedy: ") for line in lines if line.startswith("# remedy: ")]


def where(path: str) -> Where:
    """`opstella:a.b[0]` as the names and indices on the way."""
    rest = path.removeprefix("opstella:")
    return tuple(int(m[2]) if m[2] else m[1] or m[3] for m in _PART.finditer(rest))


def applied(fixture: Path, problem: Problem, names: Mapping[str, str]) -> str:
    """The text of `fixture` after the remedy of `problem`."""
    lines, text = stated(fixture), fixture.read_text()
    for line in lines:
        if found := re.fullmatch(r'replace "(.*)" with "(.*)"', line):
            assert found[1] in text, line
            text = text.replace(found[1], found[2])
    document = yaml.load(Template(text).substitute(names), _Loader)  # noqa: S506
    for line in lines:
        if line.startswith("remove "):
            put(document["config"], where(line.removeprefix("remove ")), REMOVE)
        elif not line.startswith("replace "):
            path, _, value = line.partition(" = ")
            put(document["config"], where(path), yaml.load(Template(value).substitute(names), _Loader))  # noqa: S506
    if not lines:
        for path, value in problem.change.items():
            put(document["config"], path, value)
    return yaml.safe_dump(document)


def put(config: dict[str, Any], path: Where, value: Any) -> None:
    """`value` at `path` of `config`, with the mappings on the way."""
    top = f"opstella:{path[0]}"
    holder: Any = config
    parts: Where = (top, *path[1:])
    for part, following in zip(parts, parts[1:], strict=False):
        if isinstance(holder, dict) and not isinstance(holder.get(part), dict | list):
            holder[part] = [] if isinstance(following, int) else {}
        holder = holder[part]
    last = parts[-1]
    if value is REMOVE:
        del holder[last]
    elif isinstance(value, Rename):
        assert isinstance(holder, dict)
        items = [(value.to if len(parts) > 1 and k == last else f"opstella:{value.to}" if k == last else k, v) for k, v in holder.items()]
        holder.clear()
        holder.update(items)
    elif isinstance(holder, list) and last == len(holder):
        holder.append(value)
    else:
        holder[last] = value


def written(value: Any) -> str:
    """How the sentence of a remedy has `value`."""
    if value is REMOVE:
        return "remove"
    if isinstance(value, Rename):
        return value.to
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "["
    return str(value)
