"""A limit of the machine that many hosts meet together: the kernel's number of inotify instances."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
"""How many root may have, over all hosts. With Debian's 128, some fourteen hosts boot; the systemd of the next gets
none, and that host ends, or never answers."""

BEFORE = Path("/run/lab-inotify-instances")
"""Holds what the limit was before the first lab."""

PER_HOST = 32
"""systemd, journald, logind and dbus of an idle host have 9; the processes of a server a dozen more."""


@contextlib.contextmanager
def _one_at_a_time(before: Path) -> Iterator[None]:
    """Labs begin and end beside each other."""
    with open(before.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_room(hosts: int, limit: Path = INSTANCES, before: Path = BEFORE) -> None:
    """Raises the limit by what a lab of that many hosts may need; other labs keep what they have."""
    with _one_at_a_time(before):
        now = int(limit.read_text())
        if not before.exists():
            before.write_text(f"{now}\n")
        limit.write_text(f"{now + PER_HOST * hosts}\n")


def give_back(unless: Callable[[], bool], limit: Path = INSTANCES, before: Path = BEFORE) -> None:
    """Sets the limit to what it was before the first lab, `unless` another one is left."""
    with _one_at_a_time(before):
        if before.exists() and not unless():
            limit.write_text(before.read_text())
            before.unlink()
