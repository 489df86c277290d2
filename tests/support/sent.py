"""Reads back what a command sends to a machine: its program and the values behind it (scripts/README.md)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from tests.support.stack import UNKNOWN, Registered

_LINE = re.compile(r"sudo -n timeout --kill-after=10 ([1-9][0-9]*) env -i bash -s -- ([a-z0-9-]+)")
_CALL = "main <<'OPSTELLA_PAYLOAD'\n"
_END = "OPSTELLA_PAYLOAD\n"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """`values` as the script reads them: texts, booleans and lists included."""

    phase: str
    seconds: int
    program: str
    values: dict[str, str]


def phase_of(line: str) -> tuple[str, int]:
    """The phase and its bound; the line is exactly what `timeout` and `sudo` are called with."""
    found = _LINE.fullmatch(line)
    assert found, f"not the command line of a phase: {line}"
    return found[2], int(found[1])


def values_in(stdin: str) -> tuple[str, dict[str, str]]:
    """The program, and the values of its payload."""
    program, call, rest = stdin.partition(_CALL)
    assert call and rest.endswith(_END), f"no payload in {stdin[-200:]!r}"
    values = {}
    for line in rest.removesuffix(_END).splitlines():
        name, _, text = line.partition(" ")
        assert re.fullmatch(r"[a-z0-9_]+", name), line
        values[name] = base64.b64decode(text, validate=True).decode()
    return program, values


def sent(command: Registered) -> Sent:
    """What `command` sends, all of it known."""
    assert command.inputs["stdin"] is not UNKNOWN, f"{command.name}: its standard input is not known in preview"
    phase, seconds = phase_of(command.inputs["create"])
    program, values = values_in(command.inputs["stdin"])
    return Sent(phase=phase, seconds=seconds, program=program, values=values)


def decoded(text: str) -> str:
    """`text`, with whatever in it reads as Base64 appended in clear: where a canary could hide."""
    found = [text]
    # The program in front of a payload is the same in every run and holds nothing encoded.
    for word in re.findall(r"[A-Za-z0-9+/]{8,}={0,2}", text.rpartition(_CALL)[2]):
        try:
            found.append(base64.b64decode(word, validate=True).decode("utf-8", "replace"))
        except (binascii.Error, ValueError):
            continue
    return "\n".join(found)
