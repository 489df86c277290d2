"""The clients of the faults: their writes are their own, whatever a run before left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos import probe
from chaos.probe import Refused, Writer


class _ApiServer:
    """Answers as an API server whose namespace needs so many more questions until it has ended."""

    def __init__(self, terminating: int) -> None:
        self.asked: list[str] = []
        self._terminating = terminating

    def ask(self, method: str, path: str, body: Any = None, *, seconds: float = 2) -> tuple[int, bytes]:
        self.asked.append(f"{method} {path}")
        if method == "POST" and path.endswith("/namespaces"):
            self._terminating -= 1
            if self._terminating >= 0:
                return 409, json.dumps({"reason": "AlreadyExists", "message": "object is being deleted"}).encode()
            return 201, b"{}"
        return (200, b"{}") if method == "DELETE" else (201, b"{}")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.time, "sleep", lambda _seconds: None)



@pytest.mark.usefixtures("hurried")
def test_a_namespace_that_is_still_going_is_waited_for() -> None:
    server = _ApiServer(terminating=3)
    writer = Writer(server)  # type: ignore[arg-type]
    assert server.asked.count("POST /api/v1/namespaces") == 4
    assert server.asked[-1] == "POST /api/v1/namespaces", "the last word is that it was made"
    writer.write()
    assert writer.acknowledged == [1]


def test_one_that_never_goes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_READ_BACK_SECONDS", 0)
    with pytest.raises(Refused, match="opstella-chaos of a run before is still there"):
        Writer(_ApiServer(terminating=10**6))  # type: ignore[arg-type]
