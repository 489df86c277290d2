"""`python -m docs.settings`: writes docs/settings.md from the comments and defaults of Pulumi.standalone.yaml.

That file holds every setting there is (tests/config holds it to the model); here it becomes a list to search in.
`--check` writes nothing and exits 1 when the list differs from the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.generated import cell, write

ROOT = Path(__file__).resolve().parent.parent
SOURCE, FILE = ROOT / "Pulumi.standalone.yaml", ROOT / "docs/settings.md"
EXAMPLE = "  # example"
# Settings that are only there when wanted: marked as examples, what stands below them are settings all the same.
GROUPS = ("intermediate", "seal", "mail", "apps", "s3")
# Settings by a name that the user chooses; the page says NAME for it.
MAPS = ("clusters", "tools", "users", "repositories", "projects")

HEAD = """\
# Settings

Every setting, its default in `standalone`, and what it means: the comments of [Pulumi.standalone.yaml](../Pulumi.standalone.yaml),
from which `python -m docs.settings` makes this page. Write settings in the stack file; that file says how.
`none` means: no default, and the column shows what a value looks like. [Pulumi.multicluster.yaml](../Pulumi.multicluster.yaml)
has the same settings with four clusters; `architecture: custom` takes clusters of any name.

- Sizes are CPU cores and GB (2**30 bytes). Times are seconds unless the name says otherwise.
- A certificate or key may be `file:PATH`, relative to the project's folder. A private key is a file or encrypted
  (`lab/toolchain/pulumi config set --secret --path opstella:ssh.privateKey < KEY`), never in clear.
- An unknown key is an error that names the nearest known one.
- `./opstella plan` prints the plan that follows from a file, as JSON, without an engine.
"""


@dataclass(frozen=True)
class _Open:
    """A key under which the lines stand that are being read; `free`: the keys below it are the user's."""

    indent: int
    name: str
    example: bool
    free: bool


@dataclass(frozen=True)
class Setting:
    """`path` without the namespace; `value` is a default or, with `example`, what one looks like; `leaf` has no
    settings below."""

    path: str
    value: str
    example: bool
    meaning: str
    leaf: bool


def settings(text: str) -> Iterator[Setting]:
    """The settings of a stack file in which all stand, commented out or not; below a map, those of its first names."""
    stack: list[_Open] = []
    seen: set[str] = set()
    comment: list[str] = []
    lines = [_uncommented(line) for line in text.partition("config:\n")[2].splitlines()]
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("# "):
            comment.append(stripped[2:])
            continue
        found = re.match(r"( *)((?:opstella:)?[A-Za-z][\w.-]*):(?: (.*))?$", line)
        if not found:
            comment = []
            continue
        indent, name, value = len(found[1]), found[2].removeprefix("opstella:"), found[3] or ""
        while stack and stack[-1].indent >= indent:
            stack.pop()
        named = bool(stack) and stack[-1].name in MAPS
        parents = [o.name for o in stack]
        inside_example = any(o.example for o in stack)
        marked = f"  {value}".endswith(EXAMPLE)
        value = f"  {value}".removesuffix(EXAMPLE).strip()
        following = next(
            (later for later in lines[number + 1 :] if later.strip() and not later.strip().startswith("# ")), ""
        )
        alone = len(following) - len(following.lstrip()) <= indent
        # A map of free keys (labels, sums) is one setting: its keys are the user's.
        free = marked and not value and not named and name not in (*GROUPS, *MAPS)
        own = not any(o.free for o in stack)
        stack.append(_Open(indent, "NAME" if named else name, marked and not value, free))
        path = ".".join([*parents, stack[-1].name])
        if own and path not in seen:
            seen.add(path)
            yield Setting(path, value, marked or inside_example, " ".join(comment), bool(value) or free or alone)
        comment = []


def _uncommented(line: str) -> str:
    """`#key: value` and `#  # text` as the file would have them; text of its own (`# text`) stays."""
    found = re.match(r"( *)#((?:  )*(?:[A-Za-z#-].*))$", line)
    return found[1] + found[2] if found else line


def page(text: str) -> str:
    """The whole page."""
    parts = [HEAD]
    rows: list[str] = []
    for setting in settings(text):
        if "." not in setting.path:
            parts += rows and ["| setting | default | meaning |\n|---|---|---|\n" + "".join(rows)]
            rows = []
            parts.append(f"\n## {setting.path}\n\n" + (f"{_plain(setting.meaning)}\n\n" if setting.meaning else ""))
        meaning = _plain(setting.meaning) if "." in setting.path else ""
        if setting.leaf or (setting.example and meaning):
            shown = f"`{setting.value}`" if setting.value else ""
            default = f"none {shown}".strip() if setting.example else shown
            rows.append(f"| `opstella:{setting.path}` | {cell(default)} | {cell(meaning)} |\n")
    parts += rows and ["| setting | default | meaning |\n|---|---|---|\n" + "".join(rows)]
    return "".join(parts)


def _plain(text: str) -> str:
    return text.replace("EDIT: ", "**must be set**: ", 1)


if __name__ == "__main__":
    sys.exit(write("settings", FILE, page(SOURCE.read_text(encoding="utf-8")), __doc__, SOURCE.name))
