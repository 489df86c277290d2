"""Counts that pages repeat: how many resources a stack has. `python -m docs.facts` writes them again.

The resources are those that the program registers with a recorded engine, the stack itself included, which is what the
engine counts as created.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Page, the text around the number, the architecture whose resources it counts.
PLACES = (
    ("docs/architecture.md", r"over one cluster or four: (\d+) and \d+ resources", "standalone"),
    ("docs/architecture.md", r"over one cluster or four: \d+ and (\d+) resources", "multicluster"),
    ("docs/operations.md", r"(\d+) resources for `standalone`", "standalone"),
    ("docs/operations.md", r"(\d+) for\s+`multicluster`", "multicluster"),
)


def resources(architecture: str) -> int:
    """Resources of the committed stack of `architecture`, the stack itself included."""
    from tests.support.platform import reference

    return len(reference(architecture).resources)


def with_counts(page: str, counts: dict[str, int]) -> str:
    """The text of `page` with its counts replaced. Raises `LookupError` where a place is not found."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, pattern, architecture in PLACES:
        if name == page:
            found = re.search(pattern, text, re.MULTILINE)
            if found is None:
                raise LookupError(f"{page}: nothing matches {pattern}")
            text = text[: found.start(1)] + str(counts[architecture]) + text[found.end(1) :]
    return text


if __name__ == "__main__":
    known = {architecture: resources(architecture) for architecture in ("standalone", "multicluster")}
    for changed in dict.fromkeys(page for page, _, _ in PLACES):
        (ROOT / changed).write_text(with_counts(changed, known), encoding="utf-8")
