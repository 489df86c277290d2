"""Pages made from the settings, the plan or the catalogue: written, or with --check only compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def write(page: str, file: Path, text: str, about: str | None, source: str) -> int:
    """The command `python -m docs.<page>`: `file` becomes `text`, which `source` says. Returns the exit status."""
    command = f"python -m docs.{page}"
    parser = argparse.ArgumentParser(prog=command, description=about)
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args().check:
        file.write_text(text, encoding="utf-8")
        return 0
    if file.read_text(encoding="utf-8") == text:
        return 0
    print(f"error: {file} is not what {source} says; write it again: {command}", file=sys.stderr)
    return 1


def cell(text: str) -> str:
    """`text` in a cell of a Markdown table."""
    return text.replace("|", "\\|")
