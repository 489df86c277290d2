"""The stand-in for ``random``."""

from __future__ import annotations

import base64
import string
import sys
from typing import Any

import pytest

from tests.lab.providers.driver import UNKNOWN, Driver, Failure, plain, secrets_of

PASSWORD = "random:index/randomPassword:RandomPassword"
STRING = "random:index/randomString:RandomString"
ID = "random:index/randomId:RandomId"
BYTES = "random:index/randomBytes:RandomBytes"
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"


def matches(text: bytes, hashed: str) -> bool:
    """Whether ``hashed`` is a bcrypt hash of ``text``, by the library or else the C library."""
    try:
        import bcrypt
    except ImportError:
        import crypt

        return crypt.crypt(text.decode(), hashed) == hashed
    return bcrypt.checkpw(text, hashed.encode())


def test_password(random: Driver) -> None:
    made, state = random.create(PASSWORD, {"length": 40})
    result = plain(state["result"])
    assert made == "none"
    assert len(result) == 40 and set(result) <= set(string.ascii_letters + string.digits + SPECIAL)
    assert secrets_of(state) == {"result", "bcryptHash"}
    hashed = plain(state["bcryptHash"])
    assert hashed.startswith("$2a$10$") and matches(result.encode(), hashed)
    defaults = {**dict.fromkeys(("lower", "upper", "numeric", "number", "special"), True),
                **dict.fromkeys(("minLower", "minUpper", "minNumeric", "minSpecial"), 0.0)}
    assert {key: plain(state[key]) for key in defaults} == defaults
    assert plain(random.create(PASSWORD, {"length": 40})[1]["result"]) != result


def test_password_keeps_its_rules(random: Driver) -> None:
    _, state = random.create(PASSWORD, {
        "length": 12, "minUpper": 3, "minLower": 2, "minNumeric": 4, "minSpecial": 3,
        "overrideSpecial": "_%"})
    result = plain(state["result"])
    assert [sum(character in kind for character in result) for kind in (
        string.ascii_uppercase, string.ascii_lowercase, string.digits, "_%")] == [3, 2, 4, 3]
    _, digits = random.create(PASSWORD, {"length": 30, "upper": False, "lower": False,
                                         "special": False})
    assert plain(digits["result"]).isdigit()
    _, none = random.create(PASSWORD, {"length": 60, "number": False})
    assert not set(plain(none["result"])) & set(string.digits)
    assert plain(none["numeric"]) is False


def test_a_long_password_is_hashed_by_its_first_72_bytes(random: Driver) -> None:
    _, state = random.create(PASSWORD, {"length": 100})
    first = plain(state["result"])[:72].encode()
    assert matches(first, plain(state["bcryptHash"]))


def test_the_c_librarys_bcrypt_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("crypt", reason="Python 3.13 has no crypt; bcrypt is needed there")
    from standin.random_package import _bcrypt

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "bcrypt", None)
        hashed = _bcrypt("päss")
    assert matches("päss".encode(), hashed)


@pytest.mark.parametrize("inputs,property", [
    ({}, "length"), ({"length": 0}, "length"), ({"length": "x"}, "length"),
    ({"length": 3, "minUpper": 2, "minLower": 2}, "length"),
    ({"length": 3, "lenght": 2}, "lenght"),
    ({"length": 3, "upper": False, "lower": False, "special": False, "numeric": False}, "numeric"),
])
def test_bad_inputs_are_named(random: Driver, inputs: dict[str, Any], property: str) -> None:
    assert list(random.check(PASSWORD, inputs)[1]) == [property]


def test_preview_tells_what_is_known(random: Driver) -> None:
    _, state = random.create(PASSWORD, {"length": 8}, preview=True)
    assert plain(state["result"]) == UNKNOWN and plain(state["special"]) is True
    assert {"result", "bcryptHash"} <= secrets_of(state)


@pytest.mark.parametrize("old,new,expected", [
    ({}, {}, {}),
    ({}, {"special": True, "minUpper": 0}, {}),
    ({"numeric": True}, {"number": True}, {}),
    ({}, {"length": 9}, {"length": "UPDATE_REPLACE"}),
    ({}, {"special": False}, {"special": "UPDATE_REPLACE"}),
    ({}, {"numeric": False}, {"numeric": "UPDATE_REPLACE", "number": "UPDATE_REPLACE"}),
    ({}, {"keepers": {"a": "1"}}, {"keepers": "ADD_REPLACE"}),
    ({"keepers": {"a": "1"}}, {"keepers": {"a": "2"}}, {"keepers": "UPDATE_REPLACE"}),
    ({"keepers": {"a": "1"}}, {"keepers": {"a": UNKNOWN}}, {"keepers": "UPDATE_REPLACE"}),
    ({}, {"keepers": {}}, {"keepers": "ADD"}),
    ({"overrideSpecial": ""}, {}, {"overrideSpecial": "DELETE"}),
    ({"overrideSpecial": "%"}, {}, {"overrideSpecial": "DELETE_REPLACE"}),
])
def test_diff(random: Driver, old: dict[str, Any], new: dict[str, Any],
              expected: dict[str, str]) -> None:
    before, after = {"length": 8, **old}, {"length": 8, **new}
    _, state = random.create(PASSWORD, before)
    assert random.diff(PASSWORD, before, after, state) == expected


def test_an_update_keeps_the_password(random: Driver) -> None:
    _, state = random.create(PASSWORD, {"length": 8, "overrideSpecial": ""})
    after = random.update(PASSWORD, state, {"length": 8})
    assert plain(after["result"]) == plain(state["result"]) and after["result"].is_secret


def test_string_shows_itself_in_its_id(random: Driver) -> None:
    made, state = random.create(STRING, {"length": 8, "special": False})
    assert made == plain(state["result"]) and secrets_of(state) == set()


def test_id(random: Driver) -> None:
    made, state = random.create(ID, {"byteLength": 8, "prefix": "p-"})
    data = base64.urlsafe_b64decode(made + "=")
    assert len(data) == 8
    assert {key: plain(state[key]) for key in ("b64Url", "b64Std", "hex", "dec")} == {
        "b64Url": f"p-{made}", "b64Std": "p-" + base64.b64encode(data).decode(),
        "hex": f"p-{data.hex()}", "dec": f"p-{int.from_bytes(data, 'big')}"}
    assert random.diff(ID, {"byteLength": 8}, {"byteLength": 9}) == {"byteLength": "UPDATE_REPLACE"}


def test_bytes(random: Driver) -> None:
    made, state = random.create(BYTES, {"length": 16})
    assert base64.b64decode(plain(state["base64"])).hex() == plain(state["hex"])
    assert made == plain(state["base64"]) and secrets_of(state) == {"base64", "hex"}


def test_an_import_is_refused(random: Driver) -> None:
    with pytest.raises(Failure, match="the stand-in cannot import"):
        random.read(PASSWORD, {})
