"""What preflight says of a machine's mounts, name and system, and what the preparation makes of its name and journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.model import Settings
from plan import hosts
from tests.scripts.root import Root
from tests.scripts.sender import Result, bash
from tests.support.platform import plan_of

# ---- mounts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    root = Root(tmp_path_factory.mktemp("mounts"), "image")
    yield root
    root.close()


def looked_at(root: Root, mounts: str, role: str = "worker", disk: str = "/var/lib/rancher", executed: str = "/var/lib/rancher\n/var/lib/kubelet", gb: int = 1) -> list[str]:
    """The problems of a host of `role` after `mounts`, in a mount namespace of its own."""
    done = root.bash(
        f"{mounts}\nV[role]={role} V[disk_path]={disk} V[exec_paths]=$EXECUTED V[disk_gb]={gb} V[cpu]=1 V[memory_mb]=1 V[size_check]=error\n"
        'check_size; check_mounts; printf "%s\\n" ${PROBLEMS[@]+"${PROBLEMS[@]}"}',
        "preflight", EXECUTED=executed,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.toolchain
def test_the_disk_is_measured_where_the_role_writes(root: Root) -> None:
    """An NFS machine whose share is a disk of 64 MB, beside a large /var/lib; and a large share beside a small one."""
    small = "mkdir -p /srv/nfs; mount -t tmpfs -o size=64m tmpfs /srv/nfs"
    found = looked_at(root, small, "nfs", "/srv/nfs/share", gb=5)
    assert "too small: disk at /srv/nfs/share: planned 5 GB, found 1 GB; enlarge the machine or its disk, or set opstella:machines.sizeCheck to warning" in found
    assert not [p for p in looked_at(root, small, "gitlab", "/var/opt/gitlab", gb=5) if "disk" in p]
    reverse = "mount -t tmpfs -o size=64m tmpfs /var/lib; mkdir -p /srv/nfs; mount -t tmpfs -o size=8g tmpfs /srv/nfs"
    assert not [p for p in looked_at(root, reverse, "nfs", "/srv/nfs", gb=5) if "too small" in p]


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("mounts", "role", "message"),
    [
        ("mount --bind /usr /usr; mount -o remount,bind,ro /usr", "haproxy", "/usr lies on /usr, which is mounted read-only"),
        ("mkdir -p /var/lib/rancher; mount -t tmpfs tmpfs /var/lib/rancher; mount -o remount,ro /var/lib/rancher", "worker", "/var/lib/rancher lies on /var/lib/rancher, which is mounted read-only"),
        ("mkdir -p /var/lib/rancher; mount -t tmpfs tmpfs /var/lib/rancher", "worker", "/var/lib/rancher, which is in memory: its data would be lost"),
        ("mount --bind /var/lib /var/lib; mount -o remount,bind,noexec /var/lib", "worker", "/var/lib/rancher lies on /var/lib, which is mounted noexec"),
        ("mkdir -p /var/lib/kubelet; mount -t tmpfs -o noexec tmpfs /var/lib/kubelet", "worker", "/var/lib/kubelet lies on /var/lib/kubelet, which is mounted noexec, and programs run from there; remove noexec from its line in /etc/fstab and: mount -o remount,exec /var/lib/kubelet"),
        ("", "nfs", "lies on an overlay file system, which gives no lasting file handles"),
    ],
    ids=["read-only-usr", "read-only-data", "memory", "noexec-var", "noexec-kubelet", "overlay"],
)  # fmt: skip
def test_a_mount_that_cannot_work_is_refused_once(root: Root, mounts: str, role: str, message: str) -> None:
    found = looked_at(root, mounts, role)
    assert len([p for p in found if message in p]) == 1, found
    assert len(found) == len({p.split(", which")[-1] for p in found}), "said twice"


@pytest.mark.toolchain
def test_mounts_without_fault_pass(root: Root) -> None:
    assert looked_at(root, "mount -t tmpfs -o noexec tmpfs /tmp; mount -o remount,nosuid,nodev /tmp") == []


def test_each_role_is_measured_where_its_data_lie() -> None:
    plan = plan_of(changes={"clusters": {"standalone": {"nfs": {"path": "/data/share"}}}})
    told = {host.role: hosts.preflight(host, plan.settings, plan.topology, plan.stack) for host in plan.topology.hosts}
    assert {role: values["disk_path"] for role, values in told.items()} == {
        "bastion": "/var/lib", "haproxy": "/var/lib", "nfs": "/data/share", "gitlab": "/var/opt/gitlab",
        "master": "/var/lib/rancher", "worker": "/var/lib/rancher",
    }  # fmt: skip
    assert told["worker"]["exec_paths"] == ("/var/lib/rancher", "/var/lib/kubelet") and told["nfs"]["exec_paths"] == ()


# ---- SELinux and nm-cloud-setup ---------------------------------------------------------------

_NODE = """
systemctl() { [[ $* == "is-enabled --quiet ${ENABLED:-none}" ]]; }
ip() { printf '0:\\tfrom all lookup local\\n%s\\n32766:\\tfrom all lookup main\\n' "${RULES:-}"; }
type() { [[ $2 == getenforce ]] || builtin type "$@"; }
getenforce() { echo "${SELINUX:-Disabled}"; }
os_family() { echo "${FAMILY:-rhel}"; }
package_installed() { [[ " ${INSTALLED:-} " == *" $1 "* ]]; }
"""


def node(role: str = "worker", source: str = "online", **environment: str) -> str:
    code = f'{_NODE} dnf() {{ :; }}; command() {{ printf "%s" "${{OFFERED:-}}"; }}; V[role]={role} V[source]={source} V[urls]=https://get.rke2.io; check_node; printf "%s" "${{PROBLEMS[*]-}}"; printf "%s" "${{V[urls]}}" >&2'
    done = bash(code, with_phase="preflight", **environment)
    assert done.status == 0, done.stderr
    policy = environment.get("SELINUX") == "Enforcing" and "INSTALLED" not in environment and source == "online" and "FAMILY" not in environment
    assert done.stderr.split() == ["https://get.rke2.io", *(["https://rpm.rancher.io/public.key"] if policy else [])]
    return done.stdout


@pytest.mark.parametrize("unit", ["nm-cloud-setup.timer", "nm-cloud-setup.service"])
def test_nm_cloud_setup_is_refused_on_nodes(unit: str) -> None:
    assert "systemctl disable --now nm-cloud-setup.timer nm-cloud-setup.service, then reboot" in node(ENABLED=unit)
    assert node("nfs", ENABLED=unit) == ""


def test_what_nm_cloud_setup_left_in_the_kernel_is_refused_until_a_reboot() -> None:
    assert "reboot this host" in node(RULES="30400:\tfrom 10.0.0.5 lookup 30400 proto static")
    assert node(RULES="100:\tfrom 10.0.0.5 lookup 304") == ""


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"SELINUX": "Enforcing"}, ""),
        ({"SELINUX": "Enforcing", "INSTALLED": "rke2-selinux"}, ""),
        ({"SELINUX": "Permissive", "FAMILY": "debian"}, ""),
        ({"SELINUX": "Enforcing", "FAMILY": "debian"}, "RKE2 has a policy for the RHEL family only"),
        ({"SELINUX": "Enforcing", "source": "airgap"}, "rke2-selinux is neither installed nor offered"),
        ({"SELINUX": "Enforcing", "source": "airgap", "INSTALLED": "rke2-selinux"}, ""),
        ({"SELINUX": "Enforcing", "source": "airgap", "OFFERED": "rke2-selinux-0:0.21-1.el9.noarch"}, ""),
    ],
)
def test_selinux_without_a_policy_for_rke2_is_refused(case: dict[str, str], message: str) -> None:
    found = node(**case)
    assert message in found if message else found == ""


def selinux(tmp_path: Path, config: str = "token: x\n", **environment: str) -> Result:
    code = f"""{_NODE}
    dnf() {{ echo "dnf $*" >>"$ROOT/log"; }}
    restorecon() {{ echo "restorecon $*" >>"$ROOT/log"; }}
    selinux_allow() {{ echo "allow $1" >>"$ROOT/log"; }}
    V=([source]=${{SOURCE:-online}} [config_yaml]=$SETTINGS)
    use_selinux
    printf '%s' "${{V[config_yaml]}}$RESTART"
    """
    return bash(code, with_phase="rke2", OPSTELLA_TEST_ROOT=str(tmp_path), SETTINGS=config, **environment)


def test_where_selinux_enforces_rke2_gets_its_policy_and_labels_containers(tmp_path: Path) -> None:
    done = selinux(tmp_path, SELINUX="Enforcing")
    assert (done.status, done.stdout) == (0, "selinux: true\ntoken: x\ntrue"), done.stderr
    log = (tmp_path / "log").read_text()
    assert log.index("--enablerepo=opstella-rke2-common rke2-selinux") < log.index("restorecon") < log.index("allow virt_use_nfs")
    repository = (tmp_path / "etc/yum.repos.d/opstella-rke2-common.repo").read_text()
    assert "baseurl=https://rpm.rancher.io/rke2/stable/common/centos/9/noarch\nenabled=0\ngpgcheck=1\nrepo_gpgcheck=1\n" in repository


def test_a_policy_that_is_there_is_left_and_an_air_gap_takes_the_machines_own(tmp_path: Path) -> None:
    done = selinux(tmp_path, "selinux: true\n", SELINUX="Enforcing", INSTALLED="rke2-selinux")
    assert done.stdout == "selinux: true\nfalse" and (tmp_path / "log").read_text() == "allow virt_use_nfs\n"
    selinux(tmp_path, SELINUX="Enforcing", SOURCE="airgap")
    assert "dnf install --setopt=install_weak_deps=False rke2-selinux\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("mode", ["Permissive", "Disabled"])
def test_elsewhere_nothing_changes(tmp_path: Path, mode: str) -> None:
    assert selinux(tmp_path, SELINUX=mode).stdout == "token: x\nfalse"
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("echo 'virt_use_nfs --> on'", "unchanged: SELinux lets x"),
        ("echo 'virt_use_nfs --> off'", "changed: SELinux lets x"),
        ("echo 'getsebool:  SELinux is disabled' >&2; false", "warning: SELinux's policy here knows no boolean virt_use_nfs"),
    ],
)
def test_a_boolean_is_set_where_the_policy_has_it(answer: str, said: str) -> None:
    done = bash(f'selinux_enforcing() {{ :; }}; getsebool() {{ {answer}; }}; setsebool() {{ [[ $* == "-P virt_use_nfs 1" ]]; }}; selinux_allow virt_use_nfs x')
    assert done.status == 0 and said in done.stderr, done.stderr


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rename", "after", "warned"),
    [
        ("localhost", "true", "worker-1", True),
        ("worker-1", "true", "worker-1", False),
        ("worker-1.corp.example.com", "true", "worker-1.corp.example.com", False),
        ("worker-11.corp.example.com", "true", "worker-1", True),
        ("ip-10-0-0-5.corp.example.com", "false", "ip-10-0-0-5.corp.example.com", False),
    ],
)
@pytest.mark.toolchain
def test_a_name_is_changed_only_where_it_must_be(root: Root, name: str, rename: str, after: str, warned: bool) -> None:
    code = f"""
    hostname {name} 2>/dev/null || printf {name} >/proc/sys/kernel/hostname
    printf '%s\\n' {name} >/etc/hostname
    hostnamectl() {{ printf '%s' "$2" >/proc/sys/kernel/hostname; }}
    V=([hostname]=worker-1 [rename]={rename} [name]=worker-1)
    """
    told = root.bash(f'{code} check_name; printf "%s" "${{WARNINGS[*]-}}"', "preflight")
    assert told.status == 0 and (f"its name will be changed from {name} to worker-1; opstella:machines.rename" in told.stdout) == warned, told.stderr
    done = root.bash(f"{code} set_hostname; cat /proc/sys/kernel/hostname", "prepare")
    assert (done.status, done.stdout) == (0, f"{after}\n"), done.stderr


def test_the_setting_reaches_the_machines() -> None:
    plan = plan_of(changes={"machines": {"rename": False}})
    host = plan.topology.hosts[0]
    assert hosts.preflight(host, plan.settings, plan.topology, plan.stack)["rename"] is False
    assert hosts.prepare(host, plan.contract, plan.stack)["rename"] is False
    assert Settings.model_fields["machines"].default.rename is True


# ---- journal ----------------------------------------------------------------------------------


@pytest.mark.toolchain
def test_a_nodes_journal_is_kept_on_disk(root: Root) -> None:
    """As on the RHEL family, where journald makes no folder of its own."""
    code = """
    rm -rf /var/log/journal; [[ -s /etc/machine-id ]] || printf '%032d\\n' 7 >/etc/machine-id
    systemctl() { [[ $1 == restart ]] || return 0; echo "systemctl $*"; grep -q '^Storage=persistent' /etc/systemd/journald.conf.d/opstella.conf && mkdir -p "/var/log/journal/$(</etc/machine-id)"; }
    journalctl() { echo "journalctl $*"; }
    keep_journal; keep_journal
    """
    done = root.bash(code, "prepare")
    assert (done.status, done.stdout) == (0, "systemctl restart systemd-journald\njournalctl --flush\n"), done.stderr
    assert "journal on disk" in done.changed and "journal on disk" in done.unchanged


def test_only_nodes_journals_are_kept() -> None:
    plan = plan_of()
    told = {host.role: hosts.prepare(host, plan.contract, plan.stack)["persistent_journal"] for host in plan.topology.hosts}
    assert told == {"bastion": False, "haproxy": False, "nfs": False, "gitlab": False, "master": True, "worker": True}


# ---- a confirmation that a restart cuts short -------------------------------------------------


@pytest.mark.toolchain
def test_the_rules_of_before_are_in_force_again_also_after_a_restart(root: Root) -> None:
    """Nothing of the firewall is in /run then, and the journal would be tried in vain at every boot."""
    root.write("/usr/local/sbin/nft", '#!/bin/sh\n[ "$1" = -f ] && cat >/etc/opstella/in-force\n', 0o755)
    root.write("/etc/opstella/firewall.nft", "rules of before\n")
    done = root.bash("set +eu; firewall_again && ls /run/opstella/firewall", "confirm")
    assert done.status == 0, done.stderr
    assert root.read("/etc/opstella/in-force").endswith("delete table inet opstella\nrules of before\n")
    assert "pending" not in done.stdout
    root.remove("/etc/opstella/firewall.nft")


# ---- a first password that is not set yet -----------------------------------------------------


@pytest.mark.toolchain
def test_a_first_password_is_in_no_copy_of_the_configuration(root: Root) -> None:
    """A first installation that failed is repeated with a corrected gitlab.rb, and then ends well."""
    values = "V=([version]=19.2.1 [host]=git.example.com [certificate]=c [private_key]=k [trusted_ca]='' [root_password]=geheim)"
    run = f"stage; {values}; installed_once || [[ -n $JOURNAL ]] || no_way_back ''; V[gitlab_rb]"
    assert root.bash(f"{run}='first '; install_configuration; exit 1", "gitlab").status == 1
    assert root.read("/etc/gitlab/gitlab.rb") == "first \ngitlab_rails['initial_root_password'] = 'geheim'"
    assert root.bash(f"{run}='second '; install_configuration; now_in_use gitlab x; exit 1", "gitlab").status == 1
    done = root.bash(f"{run}='second '; install_configuration; forget_root_password", "gitlab")
    assert done.status == 0, done.stderr
    assert root.read("/etc/gitlab/gitlab.rb") == "second "
    found = root.bash("grep -rl geheim /etc /var/backups /var/lib/opstella || true")
    assert found.stdout == ""
    root.remove("/etc/gitlab")
    root.remove("/etc/opstella/in-use")
