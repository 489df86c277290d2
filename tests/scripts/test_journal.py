"""The journal of a phase, in a folder instead of the root of a machine; test_way_back.py stops whole phases with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.scripts.sender import Result, bash

pytestmark = pytest.mark.toolchain


def phase(root: Path, body: str, end: str = "exit 1") -> Result:
    """A run whose steps are `body`, under the lock; without `end` it ends well."""
    return bash(f"one_at_a_time\nV[token]=geheim\n{body}\n{end}", OPSTELLA_TEST_ROOT=str(root))


def tree(root: Path) -> dict[str, tuple[str, str]]:
    """Modes and contents below /etc and /srv."""
    found = [path for top in ("etc", "srv") for path in (root / top).rglob("*")]
    return {str(p.relative_to(root)): (oct(p.lstat().st_mode), str(p.readlink()) if p.is_symlink() else p.read_text() if p.is_file() else "") for p in found}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/a").mkdir(parents=True)
    (tmp_path / "etc/a/file").write_text("before\n")
    (tmp_path / "etc/a/file").chmod(0o640)
    (tmp_path / "etc/a/other").write_text("other\n")
    (tmp_path / "etc/a/link").symlink_to("other")
    (tmp_path / "etc/opstella/in-use").mkdir(parents=True, mode=0o700)
    bash("now_in_use service before", OPSTELLA_TEST_ROOT=str(tmp_path))
    return tmp_path


CHANGES = """
install_text /etc/a/file 0600 after; install_text /etc/a/file 0600 'after that'
install_text /etc/a/link 0644 text
install_text /etc/new/folder/file 0644 new
remove_file /etc/a/other
undo_by touch "$ROOT/srv/restarted with spaces"
not_in_use service
now_in_use service after
"""


def test_all_of_it_is_put_back_or_all_of_it_stays(root: Path) -> None:
    (root / "srv").mkdir()
    before = tree(root)
    done = phase(root, CHANGES)
    assert done.status == 1 and "put back: this machine is as it was before the run" in done.stderr
    after = tree(root)
    assert after.pop("srv/restarted with spaces")
    assert after == before
    assert list((root / "var/lib/opstella/undo").iterdir()) == []
    done = phase(root, CHANGES, end="")
    assert done.status == 0 and "put back" not in done.stderr
    assert (root / "etc/new/folder/file").read_text() == "new" and not (root / "etc/a/other").exists()
    assert list((root / "var/lib/opstella/undo").iterdir()) == []


@pytest.mark.parametrize("end", ["kill -9 $$", "kill -TERM $$; sleep 1"], ids=["killed", "out of time"])
def test_a_program_of_its_own_puts_back_what_a_killed_run_left(root: Path, end: str) -> None:
    (root / "srv").mkdir()
    before = tree(root)
    done = phase(root, CHANGES, end)
    assert done.status != 0
    program = root / "var/lib/opstella/undo/unit/undo.sh"
    if "-9" in end:
        assert tree(root) != before
        assert "geheim" not in program.read_text()
        assert (program.parent.stat().st_mode & 0o077, program.parent.parent.stat().st_mode & 0o077) == (0, 0)
        subprocess.run(["bash", str(program)], check=True, capture_output=True)
    after = tree(root)
    assert after.pop("srv/restarted with spaces")
    assert after == before and not program.exists()


def test_a_repeated_run_goes_on_and_its_failure_leads_to_what_worked_last(root: Path) -> None:
    (root / "srv").mkdir()
    before = tree(root)
    phase(root, CHANGES, "kill -9 $$")
    phase(root, "install_text /etc/a/file 0600 'yet another'; install_text /etc/a/third 0600 third", "kill -9 $$")
    done = phase(root, "install_text /etc/a/file 0600 'a last one'")
    assert "put back" in done.stderr
    after = tree(root)
    after.pop("srv/restarted with spaces")
    assert after == before
    phase(root, CHANGES, "kill -9 $$")
    assert phase(root, CHANGES, end="").status == 0
    assert (root / "etc/a/file").read_text() == "after that"
    assert list((root / "var/lib/opstella/undo").iterdir()) == []


def test_another_phase_settles_it_first(root: Path) -> None:
    (root / "srv").mkdir()
    before = tree(root)
    phase(root, CHANGES, "kill -9 $$")
    done = bash("PHASE=other-remove; one_at_a_time; cat \"$ROOT/etc/a/file\"", OPSTELLA_TEST_ROOT=str(root))
    assert done.stdout == "before\n" and "a run of the phase unit did not end well here" in done.stderr
    after = tree(root)
    after.pop("srv/restarted with spaces")
    assert after == before


def test_a_step_that_fails_is_told_and_tried_again_and_its_mark_is_not_believed(root: Path) -> None:
    (root / "srv").mkdir()
    failing = 'undo_by test -e "$ROOT/srv/repaired"\n' + CHANGES
    done = phase(root, failing)
    assert "warning: putting back: `test -e " in done.stderr and "not everything could be put back on this machine" in done.stderr
    assert (root / "etc/a/file").read_text() == "before\n" and (root / "srv/restarted with spaces").exists()
    assert not (root / "etc/opstella/in-use/service").exists()
    (root / "srv/repaired").touch()
    subprocess.run(["bash", str(root / "var/lib/opstella/undo/unit/undo.sh")], check=True, capture_output=True)
    assert (root / "etc/opstella/in-use/service").exists()
    assert list((root / "var/lib/opstella/undo").iterdir()) == []


def test_a_second_try_leaves_alone_what_was_repaired_by_hand(root: Path) -> None:
    """At the next boot, or before another phase, days later: only what failed is tried again."""
    (root / "srv").mkdir()
    phase(root, 'undo_by test -e "$ROOT/srv/repaired"\n' + CHANGES)
    (root / "srv/restarted with spaces").unlink()
    (root / "etc/a/file").write_text("by hand\n")
    (root / "etc/a/link").unlink()
    (root / "etc/new/folder").mkdir(parents=True)
    (root / "etc/new/folder/file").write_text("by hand, too\n")
    bash("PHASE=other; one_at_a_time", OPSTELLA_TEST_ROOT=str(root))
    assert [(root / path).read_text() for path in ("etc/a/file", "etc/new/folder/file")] == ["by hand\n", "by hand, too\n"]
    assert not (root / "etc/a/link").exists() and not (root / "srv/restarted with spaces").exists()
    # A run that begins there leads back to there; the mark is still that of what worked last.
    phase(root, CHANGES)
    assert (root / "etc/a/file").read_text() == "by hand\n" and not (root / "etc/opstella/in-use/service").exists()
    (root / "srv/repaired").touch()
    assert bash("PHASE=other; one_at_a_time; in_use service before", OPSTELLA_TEST_ROOT=str(root)).status == 0
    assert list((root / "var/lib/opstella/undo").iterdir()) == []
    assert (root / "etc/a/file").read_text() == "by hand\n"


def test_what_cannot_be_put_back_says_so_and_stays(root: Path) -> None:
    (root / "srv").mkdir()
    done = phase(root, f"{CHANGES}\nno_way_back 'the data were converted'")
    assert "not put back: the data were converted" in done.stderr and (root / "etc/a/file").read_text() == "after that"
    done = phase(root, "no_way_back 'the data may be converted'\ninstall_text /etc/a/file 0600 later\nway_back")
    assert "not put back" not in done.stderr and (root / "etc/a/file").read_text() == "after that"


def test_a_user_that_could_not_be_made_need_not_be_removed(root: Path) -> None:
    """The way back is written down before the user is made, and is gone twice when something else fails."""
    users = "id() { return 1; }; userdel() { return 6; }; useradd() { echo 'group etcd exists' >&2; return 9; }"
    done = bash(f"one_at_a_time; {users}; add_etcd_user", with_phase="prepare", OPSTELLA_TEST_ROOT=str(root))
    assert done.status == 1 and "put back: this machine is as it was before the run" in done.stderr, done.stderr
    assert list((root / "var/lib/opstella/undo").iterdir()) == []


def test_a_run_whose_journal_cannot_be_dropped_has_not_ended_well(root: Path) -> None:
    """Its changes will be put back by whoever finds it, so the engine must not believe that they stand."""
    (root / "srv").mkdir()
    before = tree(root)
    done = phase(root, CHANGES, 'mv() { [[ $* != *.ended ]] && command mv "$@"; }')
    assert done.status == 1
    subprocess.run(["bash", str(root / "var/lib/opstella/undo/unit/undo.sh")], check=True, capture_output=True)
    after = tree(root)
    after.pop("srv/restarted with spaces")
    assert after == before


def test_a_journal_that_was_half_removed_goes_with_the_next_run(root: Path) -> None:
    ended = root / "var/lib/opstella/undo/.ended/files/etc"
    ended.mkdir(parents=True)
    (ended / "secret").write_text("former password\n")
    assert phase(root, "", end="").status == 0
    assert list((root / "var/lib/opstella/undo").iterdir()) == []


def test_a_name_goes_back_to_that_of_before_the_first_of_two_runs(root: Path) -> None:
    """One is killed after it has renamed the machine; another one, with another name, goes on and fails."""
    kernel = root / "name"
    kernel.write_text("before\n")
    stub = (
        "hostnamectl() { echo \"$2\" >\"$ROOT/name\"; }; hostname() { echo \"$1\" >\"$ROOT/name\"; }\n"
        'eval "$(declare -f set_hostname | sed "s#/proc/sys/kernel/hostname#$ROOT/name#g; s#/etc/hostname#$ROOT/etc/hostname#g")"\n'
        "one_at_a_time; V[rename]=true; V[hostname]"
    )
    for name, end in (("first", "kill -9 $$"), ("second", "exit 1")):
        bash(f"{stub}={name}; set_hostname; {end}", with_phase="prepare", OPSTELLA_TEST_ROOT=str(root))
    assert kernel.read_text() == "before\n" and list((root / "var/lib/opstella/undo").iterdir()) == []


@pytest.mark.parametrize("who", ["the run", "the way back"])
def test_nobody_else_can_hold_the_lock(root: Path, who: str) -> None:
    """On Debian /run/lock is everybody's: a file there, held or owned by any user, would keep runs and ways back waiting."""
    phase(root, "undo_by true", "kill -9 $$")
    if who == "the way back":
        subprocess.run(["rm", "-r", str(root / "run")], check=True)
        subprocess.run(["bash", str(root / "var/lib/opstella/undo/unit/undo.sh")], check=True, capture_output=True)
    locks = [path for path in (root / "run").rglob("*lock") if path.is_file()]
    assert len(locks) == 1 and locks[0].parent.stat().st_mode & 0o077 == 0


def test_swap_that_was_in_use_is_in_use_again_whatever_fstab_names(root: Path) -> None:
    """One that no line of fstab names, and a line whose device is missing, by which `swapon -a` fails."""
    (root / "swaps").write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n/swapfile file 1 0 -2\n")
    stub = (
        'in_container() { return 1; }; swapoff() { sed -i 1q "$ROOT/swaps"; }\n'
        'swapon() { [[ $1 != -a ]] && echo "$1 again" >>"$ROOT/swaps"; }\n'
        'for name in turn_swap_off swap_back; do eval "$(declare -f "$name" | sed "s#/proc/swaps#$ROOT/swaps#g; s#/etc/fstab#$ROOT/none#g")"; done\n'
        "one_at_a_time; turn_swap_off; swapon /swapfile; exit 1"
    )
    done = bash(stub, with_phase="prepare", OPSTELLA_TEST_ROOT=str(root))
    assert (root / "swaps").read_text().splitlines()[1:] == ["/swapfile again", "/dev/zram0 again"], done.stderr
    assert list((root / "var/lib/opstella/undo").iterdir()) == []
