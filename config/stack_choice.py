"""Which stack file a command line means: a stack's own, or any other."""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path

from config.errors import ConfigurationError, Problem

FOLDER = Path(__file__).resolve().parents[1]
"""Where the stacks' files stand: beside the project's."""


def add_arguments(parser: argparse.ArgumentParser, *, default: bool = True) -> None:
    """Lets `parser` take `--stack` or `--config-file`, for `stack_file`.

    Without `default` nothing is set where nothing is given, so that a sub-command may take both once more.
    """
    if default:
        parser.set_defaults(stack=os.environ.get("STACK") or "standalone", config_file=None)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--stack", metavar="NAME", default=argparse.SUPPRESS,
        help="the stack whose file Pulumi.NAME.yaml is read (default: $STACK, else standalone)",
    )  # fmt: skip
    choice.add_argument(
        "--config-file", type=Path, metavar="FILE", default=argparse.SUPPRESS, help="any other stack file"
    )


def stack_file(given: argparse.Namespace) -> Path:
    """The file that the command line means. Raises ConfigurationError."""
    return given.config_file or of_stack(given.stack, FOLDER)


def of_stack(stack: str, folder: Path) -> Path:
    """The file of `stack`. Raises ConfigurationError, which names the stacks that there are."""
    path = folder / f"Pulumi.{stack}.yaml"
    stacks = sorted(p.name.removeprefix("Pulumi.").removesuffix(".yaml") for p in folder.glob("Pulumi.*.yaml"))
    if stack in stacks:
        return path
    close = difflib.get_close_matches(stack, stacks, 1)
    meant = f"write --stack {close[0]}; " if close else ""
    there = f"there are: {', '.join(stacks)}" if stacks else "there is none yet"
    problem = Problem(str(path), f"there is no stack '{stack}'", f"{meant}{there}; any other file by --config-file")
    raise ConfigurationError([problem], "command line")
