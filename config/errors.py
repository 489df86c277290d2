"""The error page of a configuration: every problem at once, each with its key and its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def key(*parts: object) -> str:
    """The path of a setting as the user writes it: `opstella:clusters.standalone.subnet`."""
    return "opstella:" + ".".join(str(part) for part in parts)


@dataclass(frozen=True)
class Problem:
    """One fault of the configuration.

    `key` is the path as the user writes it (`opstella:clusters.standalone.masters.count`), `what` names the
    offending value or both offenders, `fix` says what to write instead.
    """

    key: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what}\n    fix: {self.fix}"


class Fault(ValueError):
    """A single value is wrong: `what` is wrong with it, and the `fix`. Raised by the types of `config.types`."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(f"{what}; {fix}")


class ConfigurationError(ValueError):
    """The stack's configuration cannot be used; nothing was touched."""

    def __init__(self, problems: Sequence[Problem], source: str) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{source}: {count} {'problem' if count == 1 else 'problems'}; nothing was changed."
        super().__init__("\n".join([head, *(f"  {number}. {p}" for number, p in enumerate(self.problems, 1))]))
