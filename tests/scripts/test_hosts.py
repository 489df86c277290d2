"""Phases on a booted host, each run twice; in the order in which a host meets them. See container.py for the limits."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plan.nfs import MOUNTD, NFSD
from tests.scripts import standins
from tests.scripts.container import ADDRESS, OPERATOR, SERVICES, Container
from tests.scripts.sender import Result, send

pytestmark = pytest.mark.lab


def rules(*ports: int) -> str:
    opened = ", ".join(map(str, ports))
    return (
        "table inet opstella {}\ndelete table inet opstella\ntable inet opstella {\n"
        " set ssh_rate {\n  type ipv4_addr\n  size 65535\n  flags dynamic,timeout\n  timeout 5m\n }\n"
        " set ssh_rate6 {\n  type ipv6_addr\n  size 65535\n  flags dynamic,timeout\n  timeout 5m\n }\n chain input {\n"
        "  type filter hook input priority 0; policy drop;\n  ct state established,related accept\n"
        "  ct state new tcp dport 22 update @ssh_rate { ip saddr limit rate over 1200/minute burst 120 packets } drop\n"
        f'  iif "lo" accept\n  tcp dport {{ {opened} }} accept\n }}\n}}\n'
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


OPEN = rules(22, 80, 111, NFSD, MOUNTD)
LOCKED = rules(2222)


@pytest.fixture(scope="module")
def authority() -> str:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=test -days 2"
    return subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    container = Container(tmp_path_factory.mktemp("host"))
    try:
        container.up()
        yield container
    finally:
        container.down()


def prepare(host: Container, authority: str, ruleset: str, rollback_seconds: int = 30, identity: str = "p/s/shared/test", ssh_from: str = "") -> Result:
    return host.send(
        "prepare",
        {
            "hostname": "h1", "identity": identity, "hosts_file": f"{ADDRESS} h1\n", "dns_servers": "",
            "chrony_conf": f"server {SERVICES} iburst\ndriftfile /var/lib/chrony/chrony.drift\nport 0\ncmdport 0\n", "modules": "", "sysctl": "",
            "ca_bundle": authority, "proxy_http": "", "proxy_https": "", "proxy_no": "", "packages_debian": ["chrony", "nftables"],
            "packages_rhel": "", "ruleset": ruleset, "rollback_seconds": rollback_seconds, "cis": True, "ssh_from": ssh_from,
        },
    )  # fmt: skip


def confirm(host: Container, ruleset: str) -> Result:
    return host.send("confirm", {"ruleset_sha256": digest(ruleset)})


def test_first_contact_tells_the_facts_and_changes_nothing(host: Container) -> None:
    done = host.send(
        "preflight",
        {
            "name": "h1", "role": "haproxy", "identity": "p/s/shared/test", "address": ADDRESS, "cpu": 1, "memory_mb": 512, "disk_gb": 1,
            "size_check": "error", "ports": ["tcp/80", "udp/123"], "time_servers": SERVICES, "max_skew_seconds": 30,
            "urls": f"http://{SERVICES}:8000/debian/Packages",
        },
    )  # fmt: skip
    assert done.status == 0, done.stderr
    facts = json.loads(done.reply)
    assert facts["name"] == "h1" and facts["addresses"] == [ADDRESS] and (facts["os"], facts["os_version"]) == ("debian", "12")
    # No SNTP server runs there, so the web server's Date is compared, and the warning says so.
    assert abs(facts["clock_skew_seconds"]) < 3
    assert any("SNTP" in warning for warning in facts["warnings"])
    assert host.ssh("ls /etc/opstella").returncode != 0


def test_the_host_key_is_asked_for_from_the_bastion(host: Container) -> None:
    values = {"name": "h1", "address": ADDRESS, "port": 22, "timeout_seconds": 10}
    key = " ".join((host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    assert host.send("hostkey", values).reply == f"{key}\n"
    assert host.send("hostkey", {**values, "expected": f"h1 {key} remark"}).reply == f"{key}\n"
    other = (host.folder / "key.pub").read_text()
    done = host.send("hostkey", {**values, "expected": other})
    assert done.status == 1 and done.stdout == "" and "answers with the host key SHA256:" in done.stderr


def test_machines_that_were_refused_are_asked_again_through_the_bastion(host: Container) -> None:
    """One host under two names, which differ no more than it; what was recorded of it is not believed any more."""
    key = " ".join((host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])
    facts = [json.dumps({"name": name, "hostname": name, "machine_id": "1111", "addresses": [ADDRESS]}, separators=(",", ":")) for name in ("bastion", "n1")]
    values = {
        "facts": facts, "machines": [f"bastion {ADDRESS}", f"n1 {ADDRESS}"], "host_keys": [key, key], "user": "ops", "port": 22,
        "private_key": (host.folder / "key").read_text(),
    }  # fmt: skip
    real = (host.root / "etc/machine-id").read_text().strip()
    done = send("fleet", values, within=["ip", "netns", "exec", host.operator])
    assert done.status == 1
    assert f"bastion and n1 have the same machine-id '{real}'" in done.stderr and "1111" not in done.stderr
    other = " ".join((host.folder / "key.pub").read_text().split()[:2])
    done = send("fleet", {**values, "host_keys": [key, other]}, within=["ip", "netns", "exec", host.operator])
    assert "n1 could not be asked again, so this may be over: " in done.stderr


def test_prepare_twice_changes_nothing_the_second_time(host: Container, authority: str) -> None:
    first = prepare(host, authority, OPEN)
    assert first.status == 0, first.stderr
    assert {"/etc/opstella/identity", "hostname h1", "packages chrony", "trust store", "user etcd"} <= set(first.changed)
    confirmed = confirm(host, OPEN)
    assert confirmed.status == 0, confirmed.stderr
    before = host.ssh("find /etc -xdev -newermt '1 second ago' -type f; find /etc -xdev -type f -printf '%p %T@\\n' | sort | sha256sum").stdout
    second = prepare(host, authority, OPEN)
    assert second.status == 0, second.stderr
    assert second.changed == [] and len(second.unchanged) > 10
    assert confirm(host, OPEN).changed == []
    after = host.ssh("find /etc -xdev -type f -printf '%p %T@\\n' | sort | sha256sum").stdout
    assert before.splitlines()[-1] == after.splitlines()[-1]
    assert host.ssh("hostname; systemctl is-enabled opstella-firewall; cat /etc/hosts").stdout.startswith("h1\nenabled\n")
    assert host.ssh("openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt /usr/local/share/ca-certificates/opstella-*.crt").returncode == 0


def test_names_outlive_a_boot_at_which_cloud_init_writes_the_hosts_file(host: Container, authority: str) -> None:
    """As with user data that say `manage_etc_hosts: true`, which win over every file of the machine."""
    host.ssh(
        "mkdir -p /etc/cloud/cloud.cfg.d /etc/cloud/templates; "
        "printf '## template:jinja\\n127.0.1.1 {{fqdn}} {{hostname}}\\n' >/etc/cloud/templates/hosts.debian.tmpl"
    )
    assert prepare(host, authority, OPEN).status == 0
    # What cloud-init does: the template, without its first line and with its two variables.
    host.ssh("sed -e 1d -e 's/{{fqdn}} {{hostname}}/h1.example.com h1/' /etc/cloud/templates/hosts.debian.tmpl >/etc/hosts")
    names = host.ssh("cat /etc/hosts").stdout
    assert names == f"127.0.1.1 h1.example.com h1\n# BEGIN opstella\n{ADDRESS} h1\n# END opstella\n"
    assert "/etc/hosts" in prepare(host, authority, OPEN).unchanged


def test_rules_that_lock_the_operator_out_are_rolled_back(host: Container, authority: str) -> None:
    done = prepare(host, authority, LOCKED, rollback_seconds=6)
    assert done.status == 0, done.stderr
    assert host.ssh("true").returncode == 255
    time.sleep(8)
    assert host.ssh("true").returncode == 0
    assert "tcp dport { 22, 80" in host.ssh("nft list table inet opstella").stdout
    assert host.ssh("sha256sum /etc/opstella/firewall.nft").stdout.startswith(digest(OPEN))


def test_rules_that_are_known_to_lock_the_operator_out_are_never_in_force(host: Container, authority: str) -> None:
    others = f"192.0.2.0/24\n{OPERATOR}1/32"  # its text begins as the address does
    refused = prepare(host, authority, rules(22, 8443), ssh_from=others)
    assert refused.status == 1 and not [step for step in refused.changed if "firewall" in step]
    assert f"this connection comes from {OPERATOR}, and they let SSH in from 192.0.2.0/24" in refused.stderr
    assert "what to do: on the bastion, add the network" in refused.stderr
    assert "8443" not in host.ssh("nft list table inet opstella; cat /etc/opstella/firewall*.nft").stdout
    for networks in (f"192.0.2.0/24\n{OPERATOR}/32", "0.0.0.0/0", f"{OPERATOR.rpartition('.')[0]}.0/24"):
        assert prepare(host, authority, OPEN, ssh_from=networks).status == 0


def test_who_dialled_lately_is_no_change_of_the_rules(host: Container, authority: str) -> None:
    assert OPERATOR in host.ssh("nft list set inet opstella ssh_rate").stdout
    assert prepare(host, authority, OPEN).changed == []


def test_a_confirmation_that_comes_too_late_proves_the_rules_by_its_own_packets(host: Container, authority: str) -> None:
    """As after a run that died between the two: the engine sends the confirmation only, once."""
    wider = rules(22, 80, 111, NFSD, MOUNTD, 8080)
    assert prepare(host, authority, wider, rollback_seconds=2).status == 0
    time.sleep(4)
    assert "8080" not in host.ssh("nft list table inet opstella").stdout
    late = confirm(host, wider)
    assert late.status == 0 and "firewall confirmed" in late.changed, late.stderr
    assert host.ssh("systemctl list-timers --no-legend opstella-firewall-rollback.timer").stdout == ""
    assert "8080" in host.ssh("nft list table inet opstella").stdout
    assert "untracked" not in host.ssh("nft list ruleset").stdout
    assert confirm(host, wider).changed == []
    assert prepare(host, authority, OPEN).status == 0
    assert confirm(host, OPEN).status == 0


def test_a_late_confirmation_of_rules_that_lock_the_operator_out_is_refused(host: Container, authority: str) -> None:
    assert prepare(host, authority, LOCKED, rollback_seconds=2).status == 0
    time.sleep(4)
    late = confirm(host, LOCKED)
    assert late.status == 1
    assert f"they do not let in this connection, which comes from {OPERATOR}" in late.stderr
    assert "what to do: on the bastion, add the network" in late.stderr
    rest = host.ssh("nft list ruleset; systemctl list-timers --no-legend opstella-firewall-rollback.timer")
    assert rest.returncode == 0 and "tcp dport { 22, 80" in rest.stdout
    assert "2222" not in rest.stdout and "untracked" not in rest.stdout and "rollback" not in rest.stdout
    assert host.ssh("sha256sum /etc/opstella/firewall.nft").stdout.startswith(digest(OPEN))
    # The next preparation drops them.
    assert prepare(host, authority, OPEN).status == 0
    assert host.ssh("ls /etc/opstella/firewall-candidate.nft").returncode != 0


def test_a_confirmed_firewall_outlives_its_timer_and_the_table_is_put_back_when_it_was_flushed(host: Container, authority: str) -> None:
    narrower = rules(22, 80, 111, NFSD, MOUNTD, 9999)
    assert prepare(host, authority, narrower, rollback_seconds=3).status == 0
    assert confirm(host, narrower).status == 0
    time.sleep(4)
    assert "9999" in host.ssh("nft list table inet opstella").stdout
    host.ssh("nft flush table inet opstella; nft add rule inet opstella input accept")
    again = prepare(host, authority, narrower)
    assert [step for step in again.changed if "firewall" in step]
    assert confirm(host, narrower).status == 0
    assert "9999" in host.ssh("nft list table inet opstella").stdout


def test_without_a_ruleset_the_firewall_goes_for_good(host: Container, authority: str) -> None:
    assert prepare(host, authority, OPEN).status == 0
    assert confirm(host, OPEN).status == 0
    assert "table inet opstella" in host.ssh("nft list ruleset").stdout
    assert "firewall removed" in prepare(host, authority, "").changed
    assert "table inet opstella" not in host.ssh("nft list ruleset").stdout
    assert host.ssh("systemctl is-enabled opstella-firewall || true").stdout.strip() == "disabled"
    again = prepare(host, authority, "")
    assert again.changed == [] and "no firewall" in again.unchanged
    # The tests after this one start from the confirmed rules.
    assert prepare(host, authority, OPEN).status == 0
    assert confirm(host, OPEN).status == 0


@pytest.mark.parametrize(
    ("ruleset", "message"),
    [
        ("table inet opstella { chain input { frobnicate } }\n", "nft refuses the ruleset"),
        ("flush ruleset\ntable inet opstella { }\n", "the ruleset flushes every table"),
        ("table inet opstella { }\ntable ip nat { }\n", "the ruleset holds the tables"),
    ],
)
def test_a_bad_ruleset_is_refused_and_nothing_changes(host: Container, authority: str, ruleset: str, message: str) -> None:
    before = host.ssh("nft -s list ruleset").stdout
    done = prepare(host, authority, ruleset)
    assert done.status == 1 and message in done.stderr
    assert host.ssh("nft -s list ruleset").stdout == before != ""


def test_a_ruleset_that_was_never_applied_cannot_be_confirmed(host: Container) -> None:
    assert "was never put in force" in confirm(host, "other").stderr


def test_a_host_of_another_stack_is_refused_untouched(host: Container, authority: str) -> None:
    done = prepare(host, authority, OPEN, identity="p/other/shared/test")
    assert done.status == 1 and done.changed == []
    assert "this host already belongs to 'p/s/shared/test'" in done.stderr


# ---- load balancer ----------------------------------------------------------------------------

LOAD = """
import sys, threading, time, urllib.request
failures, requests, end = [], 0, time.monotonic() + float(sys.argv[1])
def work():
    global requests
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(sys.argv[2], timeout=5) as answer:
                answer.read()
            requests += 1
        except Exception as error:
            failures.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(requests, len(failures), failures[:3])
"""


def balancer(comment: str, extra: str = "") -> str:
    return (
        "global\n stats socket /run/haproxy/admin.sock mode 660 level admin expose-fd listeners\n hard-stop-after 1m\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
        f"frontend web\n bind :80\n default_backend web\nbackend web\n server {comment} {OPERATOR}:8001\n{extra}"
    )


def test_reloads_under_load_lose_no_request(host: Container, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x" * 2000)
    host.spawn("python3", "-m", "http.server", "8001", "--bind", OPERATOR, "--directory", str(tmp_path))
    assert host.send("haproxy", {"config": balancer("a")}).status == 0
    assert host.send("haproxy", {"config": balancer("a")}).changed == []
    load = subprocess.Popen(
        ["ip", "netns", "exec", host.operator, sys.executable, "-c", LOAD, "8", f"http://{ADDRESS}/"], stdout=subprocess.PIPE, text=True
    )
    for name in "bcdbc":
        done = host.send("haproxy", {"config": balancer(name)})
        assert "haproxy reloaded" in done.changed, done.stderr
    output, _ = load.communicate(timeout=60)
    requests, failures, *_ = output.split()
    assert failures == "0", output
    assert int(requests) > 100


def test_a_broken_configuration_never_reaches_the_balancer(host: Container) -> None:
    done = host.send("haproxy", {"config": balancer("a", " frobnicate\n")})
    assert done.status == 1 and "unknown keyword 'frobnicate'" in done.stderr
    assert "frobnicate" not in host.ssh("cat /etc/haproxy/haproxy.cfg").stdout


def test_a_configuration_that_cannot_start_is_taken_back(host: Container) -> None:
    before = host.ssh("cat /etc/haproxy/haproxy.cfg").stdout
    done = host.send("haproxy", {"config": balancer("a", "frontend taken\n bind :22\n default_backend web\n")})
    assert done.status == 1 and "the previous one is put back" in done.stderr
    assert "haproxy: put back: this machine is as it was before the run" in done.stderr
    assert host.ssh("cat /etc/haproxy/haproxy.cfg").stdout == before
    assert host.within("curl", "-fsS", f"http://{ADDRESS}/").returncode == 0


def test_a_run_that_died_between_writing_and_reloading_is_made_good(host: Container) -> None:
    host.send("haproxy", {"config": balancer("a")})
    host.ssh(f"cat >/etc/haproxy/haproxy.cfg <<'X'\n{balancer('z')}X\n")
    done = host.send("haproxy", {"config": balancer("z")})
    assert "haproxy reloaded" in done.changed, done.stderr


# ---- NFS --------------------------------------------------------------------------------------


def test_nfs_serves_the_allowed_address_and_refuses_another(host: Container, tmp_path: Path) -> None:
    config = (
        f"NFS_CORE_PARAM {{ NFS_Port = {NFSD}; MNT_Port = {MOUNTD}; Protocols = 3, 4; Enable_RQUOTA = false; Enable_NLM = false; }}\n"
        "NFSv4 { Grace_Period = 5; Lease_Lifetime = 5; }\n"
        "EXPORT { Export_Id = 1; Path = /srv/nfs; Pseudo = /srv/nfs; Protocols = 3, 4; SecType = sys; Access_Type = NONE;\n"
        f" CLIENT {{ Clients = {OPERATOR}; Access_Type = RW; Squash = No_Root_Squash; }} FSAL {{ Name = VFS; }} }}\n"
    )
    values = {"server": "ganesha", "path": "/srv/nfs", "exports": "", "nfs_conf": "", "ganesha_conf": config}
    first = host.send("nfs", values)
    assert first.status == 0, first.stderr
    assert host.send("nfs", values).changed == []
    url = f"nfs://{ADDRESS}/srv/nfs/file"
    (tmp_path / "file").write_text("kept\n")
    assert host.within("nfs-cp", str(tmp_path / "file"), url).returncode == 0
    assert host.within("nfs-cat", url).stdout == "kept\n"
    assert host.within("nfs-cat", f"{url}?version=4").stdout == "kept\n"
    refused = host.within("nfs-cat", url, namespace=host.stranger)
    assert refused.returncode != 0 and "ACCES" in refused.stderr
    assert (host.folder / "srv/nfs/file").read_text() == "kept\n"


def test_an_export_that_cannot_work_is_refused(host: Container) -> None:
    values = {"server": "ganesha", "path": "/opt/share", "exports": "", "nfs_conf": "", "ganesha_conf": "x"}
    done = host.send("nfs", values)
    assert done.status == 1 and "lies on an overlay file system" in done.stderr


# ---- RKE2 (a stand-in release) ----------------------------------------------------------------

OLD, NEW = "v1.35.7+rke2r1", "v1.36.3+rke2r1"


def rke2(host: Container, version: str, config: str = "token: geheim\n", phase: str = "rke2", **change: str | list[str]) -> Result:
    sums = standins.rke2_media(host.folder / "web" / version, version)
    values = {
        "type": "agent", "version": version, "method": "tar", "source": "airgap", "install_url": "",
        "artifacts_url": f"http://{SERVICES}:8000/{version.replace('+', '%2B')}", "artifacts_sha256": sums, "config_yaml": config,
        "registries_yaml": "", "manifests": [], "identity": "p/s/shared/test", "node_name": "h1", "timeout_seconds": 15, **change,
    }  # fmt: skip
    return host.send(phase, values, script="rke2")


def starts(host: Container) -> int:
    return int(host.ssh("wc -l </var/lib/rancher/rke2/starts").stdout or 0)


def test_a_wrong_sum_stops_rke2_before_anything_is_installed(host: Container) -> None:
    sums = standins.rke2_media(host.folder / "web" / OLD, OLD)
    bad = [line if "core" not in line else "0" * 64 + line[64:] for line in sums]
    done = rke2(host, OLD, artifacts_sha256=bad)
    assert done.status == 1
    assert "rke2-images-core.linux-amd64.tar.zst from" in done.stderr and f"expected {'0' * 64}, got " in done.stderr
    assert host.ssh("ls -A /var/lib/rancher/rke2/agent/images /usr/local/bin").stdout.split() == [
        "/usr/local/bin:", "/var/lib/rancher/rke2/agent/images:",
    ]  # fmt: skip


def test_rke2_twice_restarts_only_for_a_reason(host: Container) -> None:
    first = rke2(host, OLD)
    assert first.status == 0, first.stderr
    assert starts(host) == 1
    assert rke2(host, OLD).changed == []
    assert host.ssh("stat -c '%a' /etc/rancher/rke2/config.yaml").stdout == "600\n"
    assert "rke2-agent started" in rke2(host, OLD, "token: geheim\nnode-label: [a=b]\n").changed
    assert starts(host) == 2
    assert "rke2-agent started" in rke2(host, OLD, "token: geheim\nnode-label: [a=b]\n", registries_yaml="mirrors: {}\n").changed
    assert starts(host) == 3
    assert "geheim" not in first.stderr


def test_rke2_restarts_when_the_trusted_certificates_change(host: Container) -> None:
    """It reads them when it starts. On a stack from before there was a mark, that is known by when it did."""
    config = "token: geheim\nnode-label: [a=b]\n"
    before = starts(host)
    assert rke2(host, OLD, config, registries_yaml="mirrors: {}\n", trust_sha256="1" * 64).status == 0
    assert starts(host) == before + 1
    assert rke2(host, OLD, config, registries_yaml="mirrors: {}\n", trust_sha256="1" * 64).changed == []
    host.ssh("rm /etc/opstella/in-use/rke2-trust; touch -d '10 minutes ago' /etc/opstella/in-use/trust-store")
    assert rke2(host, OLD, config, registries_yaml="mirrors: {}\n", trust_sha256="2" * 64).changed == []
    host.ssh("rm /etc/opstella/in-use/rke2-trust; touch -d 'now + 2 seconds' /etc/opstella/in-use/trust-store")
    assert rke2(host, OLD, config, registries_yaml="mirrors: {}\n", trust_sha256="2" * 64).status == 0
    assert starts(host) == before + 2


def test_rke2_upgrades_by_one_minor_and_never_back(host: Container) -> None:
    done = rke2(host, NEW)
    assert done.status == 0 and f"RKE2 {NEW}" in done.changed, done.stderr
    assert host.ssh("cat /var/lib/rancher/rke2/agent/images/*").stdout == f"images of {NEW}"
    back = rke2(host, OLD)
    assert back.status == 1 and back.changed == [] and "a downgrade corrupts its data" in back.stderr
    assert "skips a minor release" in rke2(host, "v1.38.1+rke2r1").stderr


def test_rke2_that_died_before_its_restart_is_restarted(host: Container) -> None:
    before = starts(host)
    host.ssh("printf 'token: geheim\\nnode-name: late\\n' >/etc/rancher/rke2/config.yaml")
    done = rke2(host, NEW, "token: geheim\nnode-name: late\n")
    assert done.status == 0 and starts(host) == before + 1, done.stderr


def test_rke2_that_does_not_start_shows_its_journal_without_secrets(host: Container) -> None:
    done = rke2(host, NEW, "broken: true\n")
    assert done.status == 1
    assert "unknown key" in done.stderr and "geheim" not in done.stderr
    assert "rke2-agent" in done.stderr and "what to do:" in done.stderr
    assert rke2(host, NEW).status == 0


def test_rke2_is_removed_and_comes_back(host: Container) -> None:
    done = rke2(host, NEW, phase="rke2-remove")
    assert done.status == 0, done.stderr
    assert host.ssh("ls /etc/rancher /var/lib/rancher /usr/local/bin/rke2 2>/dev/null").stdout == ""
    assert rke2(host, NEW, phase="rke2-remove").changed == []
    assert rke2(host, NEW).status == 0


# ---- GitLab (a stand-in package) --------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for git.example.com and its key."""
    folder = tmp_path_factory.mktemp("pair")
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/key -out {folder}/crt -subj /CN=git "
        "-addext subjectAltName=DNS:git.example.com -days 2"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return (folder / "crt").read_text(), (folder / "key").read_text()


def gitlab(host: Container, pair: tuple[str, str], /, version: str = "19.2.1", more: str = "", **change: str) -> Result:
    if not (host.folder / "web" / f"gitlab-ce_{version}-ce.0_amd64.deb").exists():
        standins.gitlab_package(host.folder / "web", version)
    package = host.folder / "web" / f"gitlab-ce_{version}-ce.0_amd64.deb"
    return host.send(
        "gitlab",
        {
            "gitlab_rb": f"external_url 'https://git.example.com'\n{more}", "version": version, "source": "airgap", "edition": "ce",
            "package_url": f"http://{SERVICES}:8000/{package.name}", "package_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
            "host": "git.example.com", "certificate": pair[0], "private_key": pair[1], "trusted_ca": pair[0], "root_password": "geheim",
            "timeout_seconds": "20", **change,
        },
    )  # fmt: skip


def test_gitlab_is_refused_a_key_of_another_certificate(host: Container, pair: tuple[str, str]) -> None:
    other = subprocess.run("openssl genpkey -algorithm ed25519".split(), capture_output=True, text=True, check=True).stdout
    done = gitlab(host, (pair[0], other))
    assert done.status == 1 and "does not match its private key" in done.stderr
    assert "does not cover other.example.com" in gitlab(host, pair, host="other.example.com").stderr
    assert host.ssh("ls /etc/gitlab").returncode != 0


def test_gitlab_tokens_want_gitlab(host: Container) -> None:
    done = host.send("gitlab-tokens", {"program": "p", "wanted": "w"})
    assert done.status == 1 and "gitlab-rails is not here" in done.stderr


def test_gitlab_twice_reconfigures_once_and_sees_the_password_once(host: Container, pair: tuple[str, str]) -> None:
    first = gitlab(host, pair)
    assert first.status == 0, first.stderr
    assert gitlab(host, pair).changed == []
    log = host.ssh("cat /var/log/gitlab-ctl").stdout.splitlines()
    # The package's own, and the one of the phase.
    assert [line for line in log if line.startswith("reconfigure")] == ["reconfigure password=geheim"] * 2
    assert host.ssh("grep -rl initial_root_password /etc /var/backups /var/lib/opstella").stdout == ""
    assert "geheim" not in first.stderr
    assert host.ssh("apt-mark showhold").stdout == "gitlab-ce\n"
    assert host.ssh("stat -c '%a' /etc/gitlab/gitlab.rb /etc/gitlab/ssl/*.key").stdout == "600\n600\n"
    changed = gitlab(host, pair, more="# more\n")
    assert "gitlab-ctl reconfigure" in changed.changed
    assert host.ssh("tail -n 1 /var/log/gitlab-ctl").stdout == "reconfigure password=\n"


def test_gitlab_says_why_reconfigure_failed(host: Container, pair: tuple[str, str]) -> None:
    done = gitlab(host, pair, more="broken\n")
    assert done.status == 1 and "NameError" in done.stderr and "geheim" not in done.stderr
    assert "gitlab-ctl reconfigure" in gitlab(host, pair).changed


def test_gitlab_tokens_are_made_by_rails_only_when_something_changed(host: Container) -> None:
    def tokens(wanted: str, program: str = "the program") -> Result:
        return host.send("gitlab-tokens", {"program": program, "wanted": wanted})

    first = tokens("geheim-1")
    assert first.status == 0, first.stderr
    assert "token 'a'" in first.changed and "geheim" not in first.stderr
    assert tokens("geheim-1").changed == []
    assert "token 'a'" in tokens("geheim-2").changed
    refused = tokens("refuse geheim-3")
    assert refused.status == 1 and "the user x is not ours" in refused.stderr and "what to do: rename it" in refused.stderr
    broken = tokens("break geheim-4")
    assert broken.status == 1 and "PG::ConnectionBad" in broken.stderr and "geheim" not in broken.stderr
    assert tokens("geheim-2").changed == []  # what failed was never in use
    assert tokens("geheim-2", "another program").changed
    asked = [line.split(" ", 2)[2] for line in host.ssh("cat /var/log/gitlab-rails").stdout.splitlines()]
    assert asked == ["geheim-1", "geheim-2", "refuse geheim-3", "break geheim-4", "geheim-2"]


def test_gitlab_is_upgraded_on_purpose_and_never_back(host: Container, pair: tuple[str, str]) -> None:
    done = gitlab(host, pair, version="19.3.0")
    assert done.status == 0 and "gitlab-ce 19.3.0-ce.0" in done.changed, done.stderr
    assert "a downgrade corrupts its database" in gitlab(host, pair).stderr
