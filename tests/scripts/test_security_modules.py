"""What only a kernel with AppArmor or SELinux refuses: paths that a confined program is given, and types of files.

The tests' containers have neither, so a stand-in for each confined program keeps to the rules of the real profile.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.scripts.container import build
from tests.scripts.sender import SCRIPTS, Result, bash

# Of /etc/apparmor.d/usr.sbin.chronyd in Debian's package chrony: what chronyd may read. Debian 12 and 13, Ubuntu 22.04
# and 24.04 have these alike.
CHRONYD = ("/etc/chrony/{,**}", "/var/lib/chrony/{,*}", "/run/chrony/{,*}")

# `confined PROGRAM PATTERN...`: a program of that name that opens its last argument if a pattern (extended regular
# expression) permits the path below the test's root.
CONFINED = """
confined() {
  local path=${ROOTLESS#"$ROOT"} pattern
  for pattern in $RULES; do [[ ! $path =~ $pattern ]] || { cat "$ROOTLESS" >>"$ROOT/read"; return 0; }; done
  echo "Fatal error : Could not open $ROOTLESS : Permission denied" >&2
  return 1
}
package_install() { unchanged "packages $*"; }
service_enable() { :; }; service_running() { :; }; service_restart() { :; }; selinux_allow() { :; }; in_container() { false; }
chown() { :; }; systemctl() { false; }
"""


def pattern(rule: str) -> str:
    """A path of an AppArmor rule as an extended regular expression (apparmor.d(5), globbing)."""
    text = re.escape(rule).replace(r"\{,\*\*\}", "(.*)?").replace(r"\{,\*\}", "([^/]*)?")
    return f"^{text}$"


def time_set(root: Path, *, family: str = "debian", rules: tuple[str, ...] = CHRONYD, conf: str = "server 192.0.2.1 iburst\n") -> Result:
    code = f"""{CONFINED}
    os_family() {{ echo {family}; }}
    chronyd() {{ ROOTLESS=${{*: -1}} confined; }}
    mkdir -p "$ROOT/etc/chrony"
    V[chrony_conf]=$CONF
    install_text() {{ :; }}
    set_time
    """
    return bash(code, with_phase="prepare", OPSTELLA_TEST_ROOT=str(root), RULES="\n".join(map(pattern, rules)), CONF=conf)


def test_chronyd_checks_a_file_that_apparmor_lets_it_read(tmp_path: Path) -> None:
    done = time_set(tmp_path)
    assert done.status == 0, done.stderr
    assert (tmp_path / "read").read_text() == "server 192.0.2.1 iburst\n"
    assert list((tmp_path / "etc/chrony").iterdir()) == []


def test_on_the_rhel_family_the_file_lies_where_the_configuration_does(tmp_path: Path) -> None:
    """chronyd_t reads etc_t, which a new file in /etc has; /run/opstella has var_run_t."""
    done = time_set(tmp_path, family="rhel", rules=("/etc/{,*}",))
    assert done.status == 0, done.stderr


def test_a_refusal_of_the_kernel_is_not_blamed_on_the_time_servers(tmp_path: Path) -> None:
    done = time_set(tmp_path, rules=("/nowhere",))
    assert done.status == 1
    assert "Permission denied" in done.stderr and "look for DENIED in: journalctl -k" in done.stderr
    assert "time.servers" not in done.stderr
    assert list((tmp_path / "etc/chrony").iterdir()) == []


@pytest.mark.toolchain
def test_the_rules_are_those_of_the_real_profile(tmp_path: Path) -> None:
    package = next(build("debs").rglob("chrony_*.deb"))
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True).stdout
    profile = subprocess.run(["tar", "-xO", "./etc/apparmor.d/usr.sbin.chronyd"], input=data, capture_output=True, check=True).stdout.decode()
    assert re.search(r"^/usr/sbin/chronyd flags=\(attach_disconnected\) \{$", profile, re.M), "complain mode"
    for rule in CHRONYD:
        assert re.search(rf"^\s+{re.escape(rule).replace('/run/', '(@{run}|/run)/')} rw?,$", profile, re.M), rule


def test_programs_that_may_be_confined_are_given_files_beside_their_own_configuration() -> None:
    """A file of /run/opstella or of a temporary folder has a path and a type that no policy knows."""
    confined = r"\b(?:chronyd|haproxy|keepalived|named-checkconf|sshd|ganesha\.nfsd|exportfs|nft|visudo)\b[^|\n#]*"
    for path in sorted(SCRIPTS.glob("*.sh")):
        for line in path.read_text().splitlines():
            if not line.lstrip().startswith("#"):
                found = re.search(rf"(?:^|[;&|!({{]|check_beside )\s*{confined}(?:\$STAGE/|\$RUNTIME|/run/opstella)(?!\S*\.log)", re.sub(r"\d?>>?\S+", "", line))
                assert not found, f"{path.name}: {line.strip()}"


def test_a_written_file_gets_the_type_that_the_policy_has_for_its_path(tmp_path: Path) -> None:
    code = 'selinuxenabled() { :; }; restorecon() { echo "$*" >>"$ROOT/typed"; }; install_text /etc/hosts 0644 x; install_text /etc/hosts 0644 x'
    done = bash(code, OPSTELLA_TEST_ROOT=str(tmp_path))
    assert done.status == 0, done.stderr
    assert (tmp_path / "typed").read_text() == f"{tmp_path}/etc/hosts\n"
    without = bash('selinuxenabled() { false; }; restorecon() { echo typed; }; install_text /etc/x 0644 x', OPSTELLA_TEST_ROOT=str(tmp_path))
    assert without.status == 0 and without.stdout == ""
