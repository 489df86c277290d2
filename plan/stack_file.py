"""The plan of a stack file, for the commands that need no engine."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from config.load import from_stack_file
from plan.checks import problems_beside
from plan.plan import Plan, build


def of_stack_file(file: Path, stack: str = "", today: date | None = None) -> Plan:
    """The plan of a stack file, read without the engine and without secrets; `stack` is that of its name by default.

    Raises ConfigurationError with all that is wrong with the file, whether the settings' checks or the plan's find it.
    """
    own = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
    return build(from_stack_file(file, beyond=problems_beside), stack or f"opstella/{own}", today)
