"""What the lab reads of the machine: how much its processes use, and the kernel's limit that many hosts meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.hosts import limits, usage


def process(proc: Path, pid: int, command: str, *, ticks: tuple[int, int, int, int], pss_kb: int) -> None:
    """Writes what proc(5) shows of a process; `ticks` are its user and system time and those of its ended children."""
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode())
    (folder / "comm").write_text("comm\n")
    (folder / "stat").write_text(
        f"{pid} (a) b) S 1 1 1 0 -1 4194560 7 8 9 10 {' '.join(map(str, ticks))} 20 0 1 0 99\n"
    )
    (folder / "smaps_rollup").write_text(f"00400000-7fff [rollup]\nRss: 999999 kB\nPss: {pss_kb} kB\nPss_Dirty: 5 kB\n")


def test_usage_is_a_difference_over_time_and_a_sum_since_boot(tmp_path: Path) -> None:
    hertz = usage.TICKS
    process(tmp_path, 7, "/usr/bin/etcd --config-file=x", ticks=(3 * hertz, hertz, 5 * hertz, hertz), pss_kb=2048)
    process(tmp_path, 8, "sshd:ops", ticks=(0, 0, 0, 0), pss_kb=1024)
    process(tmp_path, 9, "/bin/gone", ticks=(0, 0, 0, 0), pss_kb=1024)

    def work(_: float) -> None:
        process(tmp_path, 7, "/usr/bin/etcd --config-file=x", ticks=(4 * hertz, hertz, 5 * hertz, hertz), pss_kb=0)
        (tmp_path / "9/stat").unlink()

    found = usage.measure({"one": [7, 9], "two": [8], "none": []}, 4.0, tmp_path, work)
    (etcd,) = found["one"]
    assert (etcd.program, etcd.memory, etcd.seconds, etcd.own_seconds) == ("etcd", 2048 * 1024, 11.0, 5.0)
    assert etcd.percent == pytest.approx(25, abs=0.5)
    assert found["none"] == [] and [p.program for p in found["two"]] == ["sshd"]
    everything = [p for group in found.values() for p in group]
    assert usage.total(everything).row() == {
        "processes": 2, "memory_mb": 3, "cpu_seconds": 11.0, "cpu_percent": pytest.approx(25, abs=0.5),
    }  # fmt: skip
    # By program only its own time counts: what systemd's children used stands at systemd's host, not at systemd.
    assert {name: used.seconds for name, used in usage.by_program(everything).items()} == {"etcd": 5.0, "sshd": 0.0}


def test_this_process_is_measured() -> None:
    (own,) = usage.measure({"here": [os.getpid()]}, 0.01)["here"]
    assert own.program.startswith(("python", "pytest")) and own.memory > 1 << 20 and own.seconds > 0


def test_each_lab_gets_room_of_its_own_and_the_last_one_gives_it_back(tmp_path: Path) -> None:
    limit, before = tmp_path / "limit", tmp_path / "before"
    limit.write_text("128\n")
    limits.make_room(36, limit, before)
    assert int(limit.read_text()) == 128 + 36 * limits.PER_HOST
    limits.make_room(2, limit, before)
    assert int(limit.read_text()) == 128 + 38 * limits.PER_HOST
    limits.give_back(lambda: True, limit, before)
    assert int(limit.read_text()) == 128 + 38 * limits.PER_HOST
    limits.give_back(lambda: False, limit, before)
    assert (limit.read_text(), before.exists()) == ("128\n", False)
    # Nothing was raised: nothing is set, whatever somebody else has set meanwhile.
    limit.write_text("512\n")
    limits.give_back(lambda: False, limit, before)
    assert limit.read_text() == "512\n"
