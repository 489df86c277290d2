"""Reading a stack file without the engine, as the engine reads it.

YAML has two dialects: Python's readers take `yes` for true, `22:22` for a number and a key that stands twice for its
last value; the engine does none of that. Reading as the engine does keeps a file's meaning the same everywhere.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigurationError, Problem


class _Loader(yaml.SafeLoader):
    """Scalars as the engine resolves them; a key that stands twice is an error, and so is what the engine cannot read either:
    a key that is a list or a mapping, a value that holds itself, half a character, a tag that its value does not fit."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        return None if node is None else self.construct_object(node, deep=True)  # deep: what holds itself is found

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError):
            tag = str(node.tag).rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"the value does not fit its tag !!{tag}", problem_mark=node.start_mark) from None

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str) and re.search("[\ud800-\udfff]", text):
            raise yaml.MarkedYAMLError(problem="\\ud800 to \\udfff are halves of characters", problem_mark=node.start_mark)
        return text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=name.start_mark)
            if name.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{name.value}' is there twice", problem_mark=name.start_mark)
            seen.add(name.value)
        return super().construct_mapping(node, deep)


def _whole(loader: _Loader, node: Any) -> int | str:
    """The number, or the text itself where the engine finds none in it either (0x_, thousands of digits)."""
    written = str(loader.construct_scalar(node))
    try:
        return int(re.sub(r"^([+-]?)0(?=[0-7])", r"\g<1>0o", written.replace("_", "")), 0)
    except ValueError:
        return written


def _float(loader: _Loader, node: Any) -> float | str:
    """The number, or the text itself where it is larger than any (1e400)."""
    found = loader.construct_yaml_float(node)
    return found if math.isfinite(found) else str(node.value)


_PATTERNS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN"),
    ("tag:yaml.org,2002:int", r"[+-]?(0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)", "+-0123456789"),
    ("tag:yaml.org,2002:float", r"[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?", "+-.0123456789"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
for _tag, _regex, _first in _PATTERNS:
    # The empty scalar is null, and has no first character.
    _letters = [*_first, ""] if _tag.endswith("null") else list(_first)
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_regex})\Z"), _letters)
_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read(path: Path, namespace: str) -> tuple[dict[str, Any], list[str]]:
    """The settings of stack file `path` without their namespace, and the other namespaces' full keys.

    Raises ConfigurationError.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise _refused(path, f"cannot be read ({reason})", "name a stack file, as Pulumi.standalone.yaml") from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the whole"
        raise _refused(path, f"is not valid YAML: {where}: {problem or 'unreadable'}", "correct that line") from None
    config = (document or {}).get("config") or {} if isinstance(document or {}, dict) else None
    if not isinstance(config, dict):
        raise _refused(path, "is not a stack file", "write a mapping 'config:' with the settings below it")
    # A key without a namespace is the project's own, as for the engine.
    others = [str(name) for name in config if ":" in str(name) and not str(name).startswith(f"{namespace}:")]
    own = {str(name).removeprefix(f"{namespace}:"): value for name, value in config.items() if str(name) not in others}
    return own, others


def _refused(path: Path, what: str, fix: str) -> ConfigurationError:
    return ConfigurationError([Problem(str(path), what, fix)], path.name)
