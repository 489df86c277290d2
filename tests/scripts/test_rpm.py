"""The RHEL family's branches against the real rpm and dnf, in a root of their own with packages made here.

Debian 12's dnf is 4.14, as the RHEL 9 family's; its rpm is 4.18 (there: 4.16).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.root import Root
from tests.scripts.sender import Result

pytestmark = pytest.mark.toolchain

_CTL = """#!/bin/bash
echo "$*" >>/var/log/gitlab-ctl
"""
# name, version, release, what it provides beside its name
_PACKAGES = [
    ("gitlab-ce", "19.2.1", "ce.0.el9", ""), ("gitlab-ce", "19.3.0", "ce.0.el9", ""), ("openssh-server", "8.7p1", "1.el9", ""),
    ("curl-minimal", "7.76.1", "1.el9", "curl"), ("policycoreutils", "3.6", "1.el9", ""), ("perl", "5.32", "1.el9", ""),
    ("chrony", "4.5", "1.el9", ""),
]  # fmt: skip

# What GitLab's repository script writes, with the tests' repository behind it.
_SCRIPT = """cat >/etc/yum.repos.d/gitlab_gitlab-ce.repo <<'REPO'
[gitlab_gitlab-ce]
name=gitlab_gitlab-ce
baseurl=file:///repo/gitlab
repo_gpgcheck=0
gpgcheck=0
enabled=1

[gitlab_gitlab-ce-source]
name=gitlab_gitlab-ce-source
baseurl=file:///repo/source
gpgcheck=0
enabled=1
REPO
echo "proxy of the script: ${https_proxy:-none}" >/script-ran
"""


def spec(name: str, version: str, release: str, provides: str) -> str:
    files = "%files\n" + ("/usr/bin/gitlab-ctl\n" if name.startswith("gitlab") else "")
    install = f"%install\nmkdir -p %{{buildroot}}/usr/bin\ncat >%{{buildroot}}/usr/bin/gitlab-ctl <<'CTL'\n{_CTL}CTL\nchmod 755 %{{buildroot}}/usr/bin/gitlab-ctl\n"
    return (
        f"Name: {name}\nVersion: {version}\nRelease: {release}\nSummary: stand-in\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n"
        + (f"Provides: {provides} = {version}\n" if provides else "")
        + f"%description\nstand-in\n{install if name.startswith('gitlab') else ''}{files}"
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Repositories `base` and `gitlab` made by rpmbuild and createrepo_c."""
    root = Root(tmp_path_factory.mktemp("rpmbuild"), "rpm-tools")
    for number, package in enumerate(_PACKAGES):
        root.write(f"/spec/{number}.spec", spec(*package))
    done = root.bash(
        "for file in /spec/*.spec; do rpmbuild --quiet -bb --define '_topdir /build' --define '_rpmdir /rpms' $file; done\n"
        "mkdir -p /repo/gitlab /repo/base; mv /rpms/noarch/gitlab-* /repo/gitlab; mv /rpms/noarch/* /repo/base\n"
        "mkdir /repo/source; createrepo_c -q /repo/source; createrepo_c -q /repo/gitlab; createrepo_c -q /repo/base"
    )
    assert done.status == 0, done.stderr
    yield root.path / "repo"
    root.close()


@pytest.fixture
def rhel(tmp_path: Path, packages: Path) -> Iterator[Root]:
    root = Root(tmp_path, "rpm-tools")
    subprocess.run(["cp", "-a", str(packages), str(root.path / "repo")], check=True)
    root.write("/etc/yum.repos.d/base.repo", "[base]\nname=base\nbaseurl=file:///repo/base\ngpgcheck=0\nenabled=1\n")
    root.write("/srv/script.rpm.sh", _SCRIPT)
    yield root
    root.close()


# What the tests of GitLab's phase leave out: its certificate and configuration (which need no package manager), its answers.
_GITLAB = """
certificate_check() { :; }; install_configuration() { RECONFIGURE=true; }; wait_for_https() { :; }
gitlab_phase() {
  V=([gitlab_rb]=x [source]=${SOURCE:-online} [edition]=ce [host]=git.example.com [certificate]=x [private_key]=x [trusted_ca]='' [root_password]=geheim
    [package_url]=${URL-file:///srv/script.rpm.sh} [package_sha256]='' [version]=$1 [package_url_rpm]=${RPM:-} [package_sha256_rpm]=${SUM:-})
  payload_read() { :; }
  main
}
"""


def gitlab(root: Root, version: str, /, **environment: str) -> Result:
    return root.bash(f"{_GITLAB}\ngitlab_phase {version}", "gitlab", **environment)


def test_what_is_not_installed_has_no_version(rhel: Root) -> None:
    found = rhel.bash('printf "<%s>" "$(package_version gitlab-ce)"; dnf install chrony; printf "<%s>" "$(package_version chrony)"')
    assert (found.status, found.stdout) == (0, "<><4.5-1.el9>"), found.stderr


def test_a_broken_database_of_rpm_is_not_taken_for_an_empty_one(rhel: Root) -> None:
    rhel.bash("dnf install chrony")
    done = rhel.bash("db=$(rpm --eval '%_dbpath'); rm -rf $db; echo x >$db; found=$(package_version chrony); echo reached")
    assert done.status == 1 and done.stdout == ""
    assert "error: rpm cannot read its database: error: " in done.stderr


def test_what_another_package_provides_is_not_installed_again(rhel: Root) -> None:
    done = rhel.bash("dnf install curl-minimal; package_install curl; package_install curl chrony; package_install chrony")
    assert done.status == 0, done.stderr
    assert done.unchanged == ["packages curl", "packages chrony"] and done.changed == ["packages chrony"]


def test_gitlab_is_installed_kept_upgraded_and_never_taken_back(rhel: Root) -> None:
    first = gitlab(rhel, "19.2.1")
    assert first.status == 0, first.stderr
    assert "gitlab-ce 19.2.1-ce.0.el9" in first.changed and "geheim" not in first.stderr
    assert rhel.read("/var/log/gitlab-ctl") == "reconfigure\n"
    # Not with everything else: its repository is off.
    held = rhel.bash("command dnf -q repolist --enabled")
    assert "base" in held.stdout and "gitlab" not in held.stdout
    again = gitlab(rhel, "19.2.1")
    assert again.status == 0 and "gitlab-ce 19.2.1-ce.0.el9" in again.unchanged, again.stderr
    newer = gitlab(rhel, "19.3.0")
    assert newer.status == 0 and "gitlab-ce 19.3.0-ce.0.el9" in newer.changed, newer.stderr
    back = gitlab(rhel, "19.2.1")
    assert back.status == 1 and "GitLab 19.3.0 is installed and 19.2.1 is wanted" in back.stderr


def test_gitlab_in_an_air_gap_is_an_rpm_and_no_repository_is_named(rhel: Root) -> None:
    file = rhel.path / "repo/gitlab/gitlab-ce-19.2.1-ce.0.el9.noarch.rpm"
    total = subprocess.run(["sha256sum", str(file)], capture_output=True, text=True, check=True).stdout.split()[0]
    deb = gitlab(rhel, "19.2.1", SOURCE="airgap", URL="file:///srv/gitlab.deb")
    assert deb.status == 1 and "this host needs GitLab as rpm, and the settings name no such file" in deb.stderr
    assert "Unknown repo" not in deb.stderr
    done = gitlab(rhel, "19.2.1", SOURCE="airgap", URL="", RPM=f"file:///repo/gitlab/{file.name}", SUM=total)
    assert done.status == 0 and "gitlab-ce 19.2.1-ce.0.el9" in done.changed, done.stderr


def test_a_repository_under_another_name_will_do(rhel: Root) -> None:
    """Of a mirror, say: then there is no file that GitLab's script would have written."""
    rhel.write("/srv/script.rpm.sh", "printf '[mirror]\\nname=m\\nbaseurl=file:///repo/gitlab\\ngpgcheck=0\\n' >/etc/yum.repos.d/mirror.repo\n")
    assert gitlab(rhel, "19.2.1").status == 0


def test_a_version_that_is_not_offered_is_named_with_dnfs_words(rhel: Root) -> None:
    done = gitlab(rhel, "19.9.9")
    assert done.status == 1
    assert "cannot install gitlab-ce 19.9.9" in done.stderr and "Unable to find a match: gitlab-ce-19.9.9-ce.0.el9" in done.stderr
    assert "what to do: add a package source that offers it" in done.stderr


# ---- locks ------------------------------------------------------------------------------------

# Python in the root, because dnf is: what dnf's own processes do with these files.
_HOLD = {
    "metadata": "import dnf,time; b=dnf.Base(); l=dnf.lock.build_metadata_lock(b.conf.cachedir, True); l.__enter__(); open('/held','w'); time.sleep({seconds})",
    "rpm": "import fcntl,os,time,subprocess as s; p=s.check_output(['rpm','--eval','%_dbpath'],text=True).strip(); os.makedirs(p,exist_ok=True); "
    "f=open(p+'/.rpm.lock','w'); fcntl.lockf(f,fcntl.LOCK_EX); open('/held','w'); time.sleep({seconds})",
}


def holding(lock: str, seconds: int) -> str:
    return f'python3 -c "{_HOLD[lock].format(seconds=seconds)}" & until [[ -e /held ]]; do sleep 0.1; done\n'


@pytest.mark.parametrize("lock", _HOLD)
def test_another_dnf_is_waited_for(rhel: Root, lock: str) -> None:
    done = rhel.bash(f"{holding(lock, 5)} package_install chrony")
    assert done.status == 0 and done.changed == ["packages chrony"], done.stderr
    assert "waiting for another program: " in done.stderr


@pytest.mark.parametrize("lock", _HOLD)
def test_a_lock_that_is_never_let_go_is_named(rhel: Root, lock: str) -> None:
    done = rhel.bash(f"LOCK_SECONDS=3; {holding(lock, 60)} package_install chrony", seconds=40)
    assert done.status == 1
    assert "another program has held a lock of the package manager for 3 s: " in done.stderr and "fuser -v" in done.stderr


# ---- proxy ------------------------------------------------------------------------------------

# A proxy at port 3128 and a web server at 127.0.0.2:8000, both over /repo/base; each says what it was asked for.
_SERVERS = """
import http.server, os, threading, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open('/asked', 'a').write(f"{self.server.server_port} {self.path}\\n")
        path = '/repo/base' + urllib.parse.urlsplit(self.path).path
        if not os.path.isfile(path):
            return self.send_error(404)
        data = open(path, 'rb').read()
        self.send_response(200); self.send_header('Content-Length', str(len(data))); self.end_headers(); self.wfile.write(data)
    def log_message(self, *a): pass
for address in (('127.0.0.1', 3128), ('127.0.0.2', 8000)):
    threading.Thread(target=http.server.ThreadingHTTPServer(address, Handler).serve_forever).start()
open('/serving', 'w')
"""


def proxied(root: Root, code: str, http: str = "http://127.0.0.1:3128", no_proxy: str = "127.0.0.2", phase: str = "prepare") -> Result:
    root.write("/srv/servers.py", _SERVERS)
    return root.bash(
        "python3 /srv/servers.py & until [[ -e /serving ]]; do sleep 0.1; done\n"
        f"V=([proxy_http]={http} [proxy_https]='' [proxy_no]={no_proxy}); set_proxy\n{code}\nkill %1", phase,
    )  # fmt: skip


def repositories(root: Root) -> None:
    root.write("/etc/yum.repos.d/base.repo", "[far]\nname=far\nbaseurl=http://far.example.com/\ngpgcheck=0\n[near]\nname=near\nbaseurl=http://127.0.0.2:8000/\ngpgcheck=0\n")


def asked(root: Root) -> set[str]:
    return {line.split("repodata")[0].rsplit("/", 1)[0].strip() for line in root.read("/asked").splitlines()}


@pytest.mark.parametrize("no_proxy", ["127.0.0.2", "10.0.0.0/8,127.0.0.0/8", ".example.org\n127.0.0.2"], ids=["address", "network", "lines"])
def test_dnf_goes_through_the_proxy_and_past_it_where_the_settings_say_so(rhel: Root, no_proxy: str) -> None:
    repositories(rhel)
    done = proxied(rhel, "package_install chrony", no_proxy=f"$'{no_proxy!r}'".replace("$''", "$'").replace("''", "'"))
    assert done.status == 0, done.stderr
    assert asked(rhel) == {"3128 http://far.example.com", "8000"}


def test_a_later_phase_takes_the_proxy_that_the_preparation_left(rhel: Root) -> None:
    repositories(rhel)
    done = proxied(rhel, "unset 'V[proxy_http]' 'V[proxy_https]' 'V[proxy_no]'; package_install chrony; fetch http://far.example.com/repodata/repomd.xml /tmp/x; fetch http://127.0.0.2:8000/repodata/repomd.xml /tmp/y")
    assert done.status == 0, done.stderr
    assert asked(rhel) == {"3128 http://far.example.com", "8000"}


def test_gitlabs_own_script_finds_the_proxy(rhel: Root) -> None:
    rhel.write("/etc/opstella/proxy", "http_proxy=\nhttps_proxy=http://127.0.0.1:3128\nno_proxy=.example.com\n")
    assert gitlab(rhel, "19.2.1").status == 0
    assert rhel.read("/script-ran") == "proxy of the script: http://127.0.0.1:3128\n"


_PARSED = "python3 -c 'import dnf; b=dnf.Base(); b.conf.read(); print(repr(b.conf.proxy), b.conf.installonly_limit)'"


@pytest.mark.parametrize(
    "former",
    [
        "[main]\ngpgcheck=1\ninstallonly_limit=3\n",
        "[main]\nproxy=http://old:1 # opstella\ngpgcheck=1\ninstallonly_limit=3\n",
        "[main]\nproxy=http://mine:1\ninstallonly_limit=3\n[some-repository]\nname=x\nbaseurl=file:///x\nenabled=0\n",
        "[main]\ninstallonly_limit=3",
    ],
    ids=["plain", "of-an-earlier-version", "with-another-proxy-and-section", "without-a-last-line-break"],
)
def test_dnf_reads_the_proxy_and_its_file_comes_back(rhel: Root, former: str) -> None:
    rhel.write("/etc/dnf/dnf.conf", former)
    kept = "".join(line for line in former.splitlines(keepends=True) if "# opstella" not in line).rstrip("\n") + "\n"
    done = proxied(rhel, _PARSED)
    assert (done.status, done.stdout) == (0, "'http://127.0.0.1:3128' 3\n"), done.stderr
    assert proxied(rhel, "").changed == []
    assert proxied(rhel, "", http="''").status == 0
    assert rhel.read("/etc/dnf/dnf.conf") == kept
    assert not (rhel.path / "etc/opstella/proxy").exists()
    assert proxied(rhel, "", http="''").changed == []
