"""The RHEL family's other tools, as Debian packages them: what the phases write is read by the real programs.

Not run for want of a kernel or a booted system: SELinux in force, firewalld as a service, kernel modules, the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.root import Root

pytestmark = pytest.mark.toolchain

_ACTIVE = 'systemctl() { case $* in "is-active --quiet NetworkManager") ;; is-*) return 3 ;; esac; }\n'


@pytest.fixture
def rhel(tmp_path: Path) -> Iterator[Root]:
    root = Root(tmp_path, "rpm-tools")
    yield root
    root.close()


def test_the_system_is_taken_for_what_it_is(rhel: Root) -> None:
    """Although apt-get is there as well."""
    done = rhel.bash('type -P apt-get >/dev/null && os_family; os_supported "$(os_value ID)" "$(os_value VERSION_ID)" && echo supported', "preflight")
    assert done.stdout == "rhel\nsupported\n", done.stderr


def test_network_manager_reads_its_name_servers_and_leaves_the_plugins_interfaces(rhel: Root) -> None:
    done = rhel.bash(f"{_ACTIVE} V[dns_servers]=$'192.0.2.1\\n192.0.2.2'; set_name_servers; NetworkManager --print-config", "prepare")
    assert "[global-dns-domain-*]\nservers=192.0.2.1,192.0.2.2" in done.stdout, done.stdout + done.stderr
    done = rhel.bash(f"{_ACTIVE} leave_interfaces_to_cni; NetworkManager --print-config", "rke2")
    line = next(text for text in done.stdout.splitlines() if text.startswith("unmanaged-devices="))
    assert {"interface-name:cali*", "interface-name:flannel*", "interface-name:cilium*", "interface-name:vxlan.calico"} <= set(line.split("=", 1)[1].split(";"))


@pytest.mark.parametrize("words", ["dns=none", "rc-manager=unmanaged"])
def test_name_servers_go_into_the_file_that_network_manager_was_told_to_leave(rhel: Root, words: str) -> None:
    rhel.write("/etc/NetworkManager/conf.d/99-cloud-init.conf", f"[main]\n{words}\n")
    rhel.write("/etc/resolv.conf", "search corp.example.com\nnameserver 192.0.2.9\n")
    done = rhel.bash(f"{_ACTIVE} V[dns_servers]=192.0.2.1; set_name_servers; cat /etc/resolv.conf", "prepare")
    assert "nameserver 192.0.2.1\n" in done.stdout and "192.0.2.9" not in done.stdout, done.stderr
    assert not (rhel.path / "etc/NetworkManager/conf.d/opstella-dns.conf").exists()


@pytest.mark.parametrize("rename", [True, False])
def test_cloud_init_reads_whose_the_name_is_and_writes_the_hosts_file_with_ours(rhel: Root, rename: bool) -> None:
    """Also where user data ask for the hosts file at every boot."""
    code = f"""
    V=([hostname]=h1 [rename]={str(rename).lower()} [hosts_file]=$'192.0.2.7 git.example.com\\n'); hostnamectl() {{ :; }}; tell_cloud_init
    python3 - <<'PYTHON'
from cloudinit import templater, util
c = util.read_conf_with_confd('/etc/cloud/cloud.cfg')
print(c['preserve_hostname'], c['manage_etc_hosts'])
templater.render_to_file('/etc/cloud/templates/hosts.redhat.tmpl', '/etc/hosts', {{'hostname': 'h1', 'fqdn': 'h1.example.com'}})
PYTHON
    cat /etc/hosts
    """
    lines = rhel.bash(code, "prepare").stdout.splitlines()
    assert lines[0] == f"{rename} False"
    assert "192.0.2.7 git.example.com" in lines and any("127.0.0.1" in line and "h1.example.com" in line for line in lines)


def test_journald_reads_that_its_journal_is_persistent(rhel: Root) -> None:
    code = """
    printf '%032d\\n' 7 >/etc/machine-id
    systemctl() { mkdir -p "/var/log/journal/$(</etc/machine-id)"; }; journalctl() { :; }
    keep_journal; systemd-analyze cat-config systemd/journald.conf
    """
    done = rhel.bash(code, "prepare")
    assert [line for line in done.stdout.splitlines() if line.startswith("Storage=")][-1] == "Storage=persistent", done.stderr


def test_with_selinuxs_tools_and_no_selinux_nothing_fails(rhel: Root) -> None:
    done = rhel.bash('getenforce; selinux_allow haproxy_connect_any x; install_text /etc/hosts.new 0644 x; selinux_enforcing || echo off')
    assert (done.status, done.stdout) == (0, "Disabled\noff\n"), done.stderr


def test_a_file_that_is_renamed_into_place_would_have_the_wrong_type(rhel: Root) -> None:
    """A new file in /etc has etc_t there; the policy wants another one, so each written file is labelled."""
    done = rhel.bash("matchpathcon -n -f /etc/selinux/default/contexts/files/file_contexts /etc/hosts /etc/resolv.conf /etc/hostname /etc/dnf/dnf.conf")
    assert [line.split(":")[2] for line in done.stdout.splitlines()] == ["net_conf_t", "net_conf_t", "net_conf_t", "etc_t"], done.stderr
