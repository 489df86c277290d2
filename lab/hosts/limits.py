"""A limit of the machine that many hosts meet together: the kernel's number of inotify instances."""

from __future__ import annotations

from pathlib import Path

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
"""How many root may have, over all hosts. With Debian's 128, some fourteen hosts boot; the systemd of the next gets
none, and that host ends, or never answers."""

BEFORE = Path("/run/lab-inotify-instances")
"""Holds what the limit was before the first lab."""

PER_HOST = 32
"""systemd, journald, logind and dbus of an idle host have 9; the processes of a server a dozen more."""


def make_room(hosts: int, limit: Path = INSTANCES, before: Path = BEFORE) -> None:
    """Raises the limit by what a lab of that many hosts may need; other labs keep what they have."""
    now = int(limit.read_text())
    if not before.exists():
        before.write_text(f"{now}\n")
    limit.write_text(f"{now + PER_HOST * hosts}\n")


def give_back(limit: Path = INSTANCES, before: Path = BEFORE) -> None:
    """Sets the limit to what it was before the first lab; for when none is left."""
    if before.exists():
        limit.write_text(before.read_text())
        before.unlink()
