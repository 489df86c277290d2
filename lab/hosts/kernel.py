"""The few things the lab asks of the kernel: namespaces, links, mounts, cgroups, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")


class KernelError(Exception):
    """A system command failed; the message holds the command and what it said."""


def run(*command: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Runs a command to its end and returns its output; raises `KernelError` when it fails."""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip()
        raise KernelError(f"`{' '.join(command)}` ended with {result.returncode}: {said or 'no message'}")
    return result.stdout


def ip_batch(lines: Sequence[str], namespace: str | None = None) -> None:
    """Carries out many `ip` commands in one process, stopping at the first that fails."""
    prefix = ["-n", namespace] if namespace else []
    run("ip", *prefix, "-batch", "-", stdin="".join(line + "\n" for line in lines))


def ip_json(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(run("ip", "-j", *arguments) or "[]")


def namespaces(prefix: str) -> list[str]:
    """Names of the network namespaces that begin with `prefix`."""
    return sorted(p.name for p in NETNS.glob(f"{prefix}*")) if NETNS.is_dir() else []


def processes_in(namespaces: Iterable[str], cgroup: str) -> dict[int, str]:
    """Processes whose network namespace is one of `namespaces`, or that are in the cgroup tree.

    Both, because nspawn's own process stays in the machine's network namespace, and because a
    command run in the operator's namespace is in no cgroup of the lab. Returns pid to name.
    """
    inodes = set()
    for name in namespaces:
        try:
            inodes.add(os.stat(NETNS / name).st_ino)
        except OSError:
            continue
    pids: set[int] = set(cgroup_processes(cgroup))
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino in inodes:
                    pids.add(int(entry))
            except OSError:
                continue
    found = {}
    for pid in pids:
        try:
            found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
    return found


def cgroup_roots() -> list[Path]:
    """Where to make cgroups for the lab: every hierarchy that systemd keeps its own tree in."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return [root for root in (CGROUPS / "systemd", CGROUPS / "unified") if (root / "cgroup.procs").exists()]


def _cgroup_trees(cgroup: str) -> list[Path]:
    """Every folder of that name in any hierarchy, those that a host's systemd made included."""
    roots = [CGROUPS] + [p for p in CGROUPS.iterdir() if p.is_dir() and not p.is_symlink()] if CGROUPS.is_dir() else []
    return [root / cgroup for root in roots if (root / cgroup / "cgroup.procs").exists()]


def cgroup_processes(cgroup: str) -> list[int]:
    pids: list[int] = []
    for tree in _cgroup_trees(cgroup):
        for folder, _, files in os.walk(tree):
            if "cgroup.procs" in files:
                try:
                    pids += [int(line) for line in Path(folder, "cgroup.procs").read_text().split()]
                except OSError:
                    continue
    return sorted(set(pids))


def make_cgroup(cgroup: str) -> list[Path]:
    """Makes the cgroup and returns the files that a process writes its pid to, to join it."""
    paths = [root / cgroup for root in cgroup_roots()]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return [path / "cgroup.procs" for path in paths]


def remove_cgroup(cgroup: str) -> None:
    """Removes the cgroup tree wherever it still stands; what is still in use stays."""
    for tree in _cgroup_trees(cgroup):
        for folder, _, _ in os.walk(tree, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue


def cgroups(cgroup: str) -> list[str]:
    return [str(tree) for tree in _cgroup_trees(cgroup)]


def spawn(command: Sequence[str], cgroup: str, log: str) -> subprocess.Popen[bytes]:
    """Starts a long-running process in a session and cgroup of its own, its output in `log`."""
    joins = make_cgroup(cgroup)

    def join() -> None:
        for file in joins:
            file.write_text(str(os.getpid()))

    with open(log, "ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=join,
            cwd="/",
        )


def mounts_under(folder: str) -> list[str]:
    """Mount points at or below `folder`, the deepest first."""
    points = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split(" ")[1].encode().decode("unicode_escape")
        if point == folder or point.startswith(folder + "/"):
            points.append(point)
    return sorted(points, key=lambda p: p.count("/"), reverse=True)


def unmount_under(folder: str) -> None:
    """Unmounts everything at or below `folder`; what is busy stays, for the caller to report."""
    for _ in range(20):
        points = mounts_under(folder)
        if not points:
            return
        for point in points:
            subprocess.run(["umount", point], capture_output=True, check=False)
        if mounts_under(folder):
            time.sleep(0.1)


def nspawn_locks(mounts: Iterable[str]) -> list[Path]:
    """The locks that nspawn has of the root file systems at `mounts`; killed, it leaves them.

    They are named after device and inode, so they can be told only while it is mounted.
    """
    roots = [os.stat(mount) for mount in mounts]
    return [Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}") for root in roots]


def kill_all(namespaces: Iterable[str], cgroup: str, seconds: float = 15) -> dict[int, str]:
    """Kills what runs in the namespaces and the cgroup; returns what is left after `seconds`."""
    names = list(namespaces)
    own = {os.getpid(), os.getppid()}
    end = time.monotonic() + seconds
    while True:
        left = {pid: name for pid, name in processes_in(names, cgroup).items() if pid not in own}
        if not left or time.monotonic() > end:
            return left
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
