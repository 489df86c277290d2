"""The search for secrets finds one in every form in which it could stand somewhere."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.lab.secrets import needles, traces

SECRET = 'a"b/c+d e&f=g\\h-ijklmnop'


@pytest.mark.parametrize(
    "text",
    [
        f"password: {SECRET}",
        f"postgres://user:{quote(SECRET, safe='')}@host/db",
        json.dumps({"password": SECRET}),
        *(base64.b64encode(b"x" * before + SECRET.encode() + b"tail").decode() for before in range(4)),
    ],
)
def test_a_secret_is_found(text: str) -> None:
    assert traces({"one": needles(SECRET), "two": needles("z" * 32)}, {"here": text, "there": "nothing"}) == {"one": ["here"]}


def test_a_line_of_a_key_is_enough() -> None:
    pem = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(letter * 64 for letter in "abc") + "\n-----END PRIVATE KEY-----\n"
    assert traces({"key": needles(pem)}, {"log": "…" + "b" * 64 + "…"}) == {"key": ["log"]}


def test_a_short_one_is_refused() -> None:
    with pytest.raises(AssertionError, match="too short"):
        needles("short")
