"""What a command wrote: kept for the state, sent line by line to the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from .schema import Call


@dataclass
class Output:
    """What a command wrote: bytes by stream, and both in the order they came."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    both: bytearray = field(default_factory=bytearray)


class LineLog:
    """Whole lines of the streams that ``logging`` names, as status lines to the engine."""

    def __init__(self, call: Call, logging: str | None) -> None:
        self._call = call
        self._streams = {"stdout": logging in (None, "stdout", "stdoutAndStderr"),
                         "stderr": logging in (None, "stderr", "stdoutAndStderr")}
        self._rest = b""

    def feed(self, stream: str, data: bytes) -> None:
        """Take what ``stream`` wrote; send the lines that are complete."""
        if self._streams[stream]:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._send(line)

    def close(self) -> None:
        """Send what is left of a last line without its end."""
        if self._rest:
            self._send(self._rest)

    def _send(self, line: bytes) -> None:
        self._call.log("info", line.removesuffix(b"\r").decode(errors="replace"), True)


def text(data: bytes | bytearray) -> str:
    """Output as the state keeps it: one newline at the end removed."""
    return bytes(data).decode(errors="replace").removesuffix("\n")
