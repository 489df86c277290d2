"""TOML as a parser reads it back."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from plan import toml

# What TOML holds: text of any kind but lone halves of a surrogate pair, 64-bit numbers, and lists of such values.
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tables = st.recursive(
    st.dictionaries(keys, scalars | st.lists(scalars, max_size=3), max_size=3),
    lambda inner: st.dictionaries(keys, inner | st.lists(inner, min_size=1, max_size=3) | scalars, max_size=3),
    max_leaves=12,
)


@given(tables)
@settings(deadline=None)
def test_what_is_written_is_what_is_read(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml.render(table)) == table


def test_values_stand_before_tables_and_names_are_quoted_where_they_must() -> None:
    text = toml.render({"runners": [{"kubernetes": {"a b": "x", "on": True}, "n": 1}], "top": ["y"]})
    assert text == 'top = ["y"]\n[[runners]]\nn = 1\n[runners.kubernetes]\n"a b" = "x"\non = true\n'
