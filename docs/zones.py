"""`python -m docs.zones`: draws docs/zones-standalone.svg and docs/zones-multicluster.svg from the contracts of the stack files.

The same picture of any other stack: `opstella network export svg`. `--check` writes nothing and exits 1 when a file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generated import write
from plan.contract.zones_picture import svg
from plan.stack_file import of_stack_file

ROOT = Path(__file__).resolve().parent.parent
FILES = {name: ROOT / f"docs/zones-{name}.svg" for name in ("standalone", "multicluster")}


def drawn(stack: str) -> str:
    """The picture as the committed stack file has it."""
    return svg(of_stack_file(ROOT / f"Pulumi.{stack}.yaml").contract)


if __name__ == "__main__":
    sys.exit(max([write("zones", file, drawn(stack), __doc__, "the contract") for stack, file in FILES.items()]))
