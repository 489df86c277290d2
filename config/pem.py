"""PEM as strict readers take it: Go's `encoding/pem`, OpenSSL and Java look for BEGIN at the start of a line.

The library that checks certificates and keys here is lenient. A text that only it can read (lines joined by blanks, as
a CI variable holds it, or indented, as pasted below a YAML key) is written again in the strict form; any other stays as
it is, so that what was deployed with it does not change.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

# Placeholder that stands for a key whose text is not known here (see load.from_stack_file); it passes every check.
ENCRYPTED = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n(held encrypted by the stack)\n-----END ENCRYPTED PRIVATE KEY-----\n"
)

_LINE = 64  # RFC 7468, 2
_LOOSE = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]+?)-----(?P<headers>(?:\s*[A-Za-z-]+: [^\n]*(?:\n|\Z))*)"
    r"(?P<body>[A-Za-z0-9+/=\s]*)-----END (?P=label)-----"
)
# A line of more than 76 characters is refused by old readers.
_STRICT = re.compile(
    r"(?:\A|(?<=\n))-----BEGIN (?P<label>[A-Z0-9 ]+?)-----[ \t\r]*\n"
    r"(?:(?:[A-Za-z-]+: [^\n]*\n)+[ \t\r]*\n)?(?:[A-Za-z0-9+/=]{1,76}[ \t\r]*\n)+-----END (?P=label)-----[ \t\r]*(?:\n|\Z)"
)


@dataclass(frozen=True)
class Block:
    """One block of a PEM text. `text` ends with a line end and is in the strict form, unless it has `headers`."""

    label: str
    text: str
    headers: bool = False


def blocks(text: str) -> tuple[Block, ...]:
    """The complete blocks of `text`, in order; what stands between them is left out."""
    return tuple(_block(found) for found in _LOOSE.finditer(text))


def unfinished(text: str) -> bool:
    """Whether some BEGIN line of `text` begins no complete block."""
    return text.count("-----BEGIN ") != len(blocks(text))


def strict(text: str, wanted: str) -> str:
    """`text` with one line end at its end, so that a strict reader finds each block whose label ends in `wanted`.

    It stays as it is if that reader finds them all; else only these blocks are left, written again.
    """
    found = [block for block in blocks(text) if block.label.endswith(wanted)]
    seen = [match["label"] for match in _STRICT.finditer(text.strip() + "\n")]
    if [label for label in seen if label.endswith(wanted)] == [block.label for block in found]:
        return text.strip() + "\n"
    return "".join(block.text for block in found)


def _block(found: re.Match[str]) -> Block:
    label, body = found["label"], "".join(found["body"].split())
    if found["headers"].strip():
        return Block(label, found[0] + "\n", headers=True)
    lines = "\n".join(textwrap.wrap(body, _LINE))
    return Block(label, f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
