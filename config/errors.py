"""The error page of a configuration: every problem at once, each with its key and its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Path = tuple[str | int, ...]
"""Where a value is: names of mappings and indices of lists, from the top-level key without its namespace on."""


def key(*parts: object) -> str:
    """The path of a setting as the user writes it: `opstella:clusters.standalone.subnet`."""
    return "opstella:" + ".".join(str(part) for part in parts)


class _Remove:
    """In place of a value: the key is taken out."""

    def __repr__(self) -> str:
        return "remove"


REMOVE: Final = _Remove()


@dataclass(frozen=True)
class Rename:
    """In place of a value: its key gets the name `to`."""

    to: str


@dataclass(frozen=True)
class Problem:
    """One fault of the configuration.

    `key` is the path as the user writes it (`opstella:clusters.standalone.masters.count`), `what` names the offending
    value or both offenders, `fix` says what to write instead. Where that can be said to the letter, `change` says it
    again as data: paths to the values that belong there, REMOVE or a Rename. A test applies it to what was wrong.
    """

    key: str
    what: str
    fix: str
    change: Mapping[Path, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return f"{self.key}: {self.what}\n    fix: {self.fix}"


class Fault(ValueError):
    """A single value is wrong: `what` is wrong with it, and the `fix`. Raised by the types of `config.types`.

    `value` is what belongs there instead, where that is known.
    """

    def __init__(self, what: str, fix: str, value: Any = None) -> None:
        self.what, self.fix, self.value = what, fix, value
        super().__init__(f"{what}; {fix}")


class ConfigurationError(ValueError):
    """The stack's configuration cannot be used; nothing was touched."""

    def __init__(self, problems: Sequence[Problem], source: str) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source}: {count} {'problem' if count == 1 else 'problems'}; nothing was changed."
        super().__init__("\n".join([head, *(f"  {number}. {p}" for number, p in enumerate(self.problems, 1))]))
