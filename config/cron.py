"""Cron schedules by the rules of their reader: robfig/cron version 3 (standard parser), which RKE2 runs etcd's by.

RKE2 starts without a schedule, and says so nowhere, where that parser refuses one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from config.errors import Fault


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of `low` and those after it


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # days of each month
_EXAMPLE = "write five fields (minute, hour, day of the month, month, day of the week), such as 0 */6 * * *"


def check(text: str) -> str:
    """`text` if it is a schedule that comes round. Raises Fault."""
    if not re.fullmatch(r"[0-9*?/,A-Za-z-]+( [0-9*?/,A-Za-z-]+){4}", text):
        raise Fault(f"{text[:60]!r} is not a cron schedule", _EXAMPLE)
    parts = text.split(" ")
    _, _, days, months, weekdays = (_values(part, field, text) for part, field in zip(parts, _FIELDS, strict=True))
    # The two fields of days are alternatives, unless one of them is any.
    if parts[4][0] in "*?" and not any(min(days) <= _LONGEST[month - 1] for month in months):
        raise Fault(
            f"the cron schedule '{text}' never comes: no such month has a day {min(days)}",
            f"write a day of the month up to {max(_LONGEST[month - 1] for month in months)}",
        )
    return text


def _values(part: str, field: _Field, text: str) -> set[int]:
    found: set[int] = set()
    for piece in part.split(","):
        span, slash, step = piece.partition("/")
        if slash and not (step.isdigit() and int(step) > 0):
            raise _refused(text, f"its {field.name} '{piece}' has no step of 1 or more", f"write {span}/2, or {span} alone")
        low, dash, high = span.partition("-")
        if low in ("*", "?"):
            if dash:
                raise _refused(text, f"its {field.name} is '{piece}'", f"write {low} alone")
            first, last = field.low, field.high
        else:
            first = _number(low, field, text)
            last = _number(high, field, text) if dash else field.high if slash else first
        if first > last:
            raise _refused(text, f"the range {span} of its {field.name} is reversed", f"write {high}-{low}")
        found |= set(range(first, last + 1, int(step) if slash else 1))
    return found


def _number(word: str, field: _Field, text: str) -> int:
    if word.lower() in field.names:
        return field.low + field.names.index(word.lower())
    if not word.isdigit() or not field.low <= int(word) <= field.high:
        named = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
        meant = " (Sunday is 0)" if field.names is _DAYS else ""
        raise _refused(text, f"its {field.name} is '{word}'", f"write {field.low} to {field.high}{named}{meant}, or *")
    return int(word)


def _refused(text: str, what: str, fix: str) -> Fault:
    return Fault(f"'{text}' is not a cron schedule: {what}", fix)
