"""A phase that fails, or is killed, anywhere leaves the machine as one that never saw the change.

Every third point is tried, and all of them with OPSTELLA_WAY_BACK_EVERY=1 in the environment: that takes three times as long.

On a booted host: each phase ends well with the values A, then begins with other values B and is stopped behind every
command that changes something, once for each; afterwards the machine is compared with what it was after A. Nothing runs
in between, for the engine runs nothing when the values are those of its state again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from components.host import standard_input
from plan.nfs import MOUNTD, NFSD
from tests.scripts import standins
from tests.scripts.container import ADDRESS, OPERATOR, SERVICES, Container
from tests.scripts.sender import Result, Values
from tests.scripts.test_hosts import balancer, digest, rules

pytestmark = pytest.mark.lab

EVERY = int(os.environ.get("OPSTELLA_WAY_BACK_EVERY", "3"))

# Put in front of the call of `main`: ends the run at the POINT-th of its points. A point is behind a command that
# changes something, as far as its name tells.
FAULT = r"""
POINTS=0 DIRTY=false
set -T
fault() {
  local command=$1
  case ${FUNCNAME[1]:-} in
    finish | settle | journal_drop) trap - DEBUG; return ;;
    before_* | undo_* | journal_* | keep_copy | folder) [[ -n ${DEEP:-} ]] || return 0 ;;
  esac
  ((BASH_SUBSHELL == 0)) || return 0
  if [[ -n $AT_END && $DIRTY == true ]]; then
    DIRTY=false
    POINTS=$((POINTS + 1))
    if ((POINTS == POINT)); then
      trap - DEBUG
      # Where it was stopped, what it says may go anywhere.
      echo "stopped before: $command" >/root/way/stopped
      [[ $HOW != kill ]] || kill -9 $$
      exit 1
    fi
  fi
  case $command in
    install\ * | mv\ * | rm\ * | cp\ * | cat*\>* | printf*\>* | text_sum*\>* | ln\ * | chmod\ * | useradd\ * | hostnamectl\ * | nft\ * | firewall_text* | env\ * | dpkg\ * | apt-get\ * | sysctl\ * | exportfs\ * | modprobe\ * | timeout\ * | gitlab-ctl\ * | systemd-run\ *) DIRTY=true ;;
    systemctl\ is-* | systemctl\ show* | systemctl\ list*) ;;
    systemctl\ * | '"${refresh[@]}"'*) DIRTY=true ;;
  esac
}
trap 'fault "$BASH_COMMAND"' DEBUG
"""

# What a machine is, as far as a phase may change it. Left out: what tells of the past only (copies, logs, downloads, the
# former versions of /etc/passwd), and the unit that waits for leftovers at boot.
SNAPSHOT = r"""
exec 2>/dev/null
find /etc /usr/local /var/lib/opstella /srv /var/lib/rancher/rke2/agent/images ! -path '/var/lib/opstella/media*' ! -path '/etc/*-' ! -path '/etc/.pwd.lock' \
  ! -name 'opstella-undo.service' ! -path '/srv/nfs/*' ! -path /var/lib/opstella ! -path /var/lib/opstella/undo ! -path '/etc/ssl/certs/ca-certificates.crt' -printf '%y %m %u:%g %p %l\n' | sort
find /etc /usr/local /var/lib/opstella -type f ! -path '/var/lib/opstella/media*' ! -path '/etc/*-' ! -name 'opstella-undo.service' -exec sha256sum {} + | sort -k 2
hostname; mount | grep -v ' /run/' | sort
ip -4 -o addr show | awk '{ print $2, $4 }' | sort
for unit in haproxy keepalived chrony nfs-ganesha rpcbind rke2-agent gitlab-standin opstella-firewall; do echo "$unit $(systemctl is-active $unit) $(systemctl is-enabled $unit)"; done
ss -H -l -n -t | awk '{ print $4 }' | sort -u
nft -s list table inet opstella | awk '/^\tset ssh_rate6? \{/ { inside = 1 } !inside { print } /^\t\}/ { inside = 0 }'
cat /proc/sys/net/ipv4/conf/default/rp_filter /var/lib/rancher/rke2/runs-with /var/opt/gitlab-runs-with /proc/sys/net/ipv4/ip_forward
"""

# DRIVER PHASE FILE HOW EVERY: one run for each point, each compared with the first look; ends with the run that reaches none.
DRIVER = r"""
set -u
phase=$1 file=$2 how=$3 every=$4 before=$5 after=$6
look() { bash /root/way/snapshot; }
look >/root/way/first
point=1 tried=0
while true; do
  [ -z "$before" ] || bash -s -- prepare <"$before" >/root/way/said 2>&1 || { echo "FAILED: the step before"; cat /root/way/said; exit 1; }
  rm -f /root/way/stopped
  POINT=$point HOW=$how timeout --kill-after=10 120 bash -s -- "$phase" <"$file" >/root/way/said 2>&1
  status=$?
  if [ $status = 0 ]; then break; fi
  if [ ! -e /root/way/stopped ]; then echo "FAILED: ended with $status by itself at point $point"; cat /root/way/said; exit 1; fi
  n=0
  while ls /var/lib/opstella/undo/*/undo.sh >/dev/null 2>&1; do
    n=$((n + 1)); [ $n -lt 300 ] || { echo "FAILED: the journal is still there at point $point"; cat /root/way/said; journalctl -n 40 -o cat -u 'opstella-undo*'; exit 1; }
    sleep 0.1
  done
  [ -z "$after" ] || bash -s -- prepare <"$after" >>/root/way/said 2>&1 || { echo "FAILED: the step after"; cat /root/way/said; exit 1; }
  # keepalived takes an address after some seconds.
  for wait in 1 1 2 2 3 0; do
    look >/root/way/second
    ! cmp -s /root/way/first /root/way/second || break
    sleep $wait
  done
  if ! cmp -s /root/way/first /root/way/second; then
    echo "FAILED: another machine after point $point ($how)"; diff /root/way/first /root/way/second; cat /root/way/stopped /root/way/said; journalctl -n 20 -o cat -u 'opstella-undo*'; exit 1
  fi
  tried=$((tried + 1)) point=$((point + every))
done
echo "tried $tried"
"""

OPEN = rules(22, 80, 111, NFSD, MOUNTD)
WIDER = rules(22, 80, 111, NFSD, MOUNTD, 8080)
TRIED: dict[str, int] = {}


@dataclasses.dataclass
class Way:
    """A host, and what is tried there."""

    host: Container

    def try_all(
        self, phase: str, values: Values, how: str = "exit", every: int = 1, script: str = "", before: Values | None = None,
        after: Values | None = None, deep: bool = False,
    ) -> None:
        """Stops `phase` at every `every`-th point, `deep` also while it writes its journal; `before` and `after` are values
        of a prepare around each."""
        folder = self.host.root / "root/way"
        program, call, payload = standard_input(script or phase, dict(values)).rpartition("main <<'OPSTELLA_PAYLOAD'\n")
        (folder / "program").write_text(program + FAULT + call + payload)
        around = []
        for name, other in (("before", before), ("after", after)):
            (folder / name).write_text(standard_input("prepare", dict(other)) if other else "")
            around.append(f"/root/way/{name}" if other else "''")
        done = self.host.ssh(f"{'DEEP=1 ' if deep else ''}bash /root/way/driver {phase} /root/way/program {how} {every * EVERY if how == 'exit' else every} {' '.join(around)}", seconds=1200)
        assert done.returncode == 0 and "FAILED" not in done.stdout, f"{phase}: {done.stdout[-6000:]}{done.stderr[-2000:]}"
        tried = int(done.stdout.rpartition("tried ")[2])
        assert tried > 0, done.stdout
        TRIED[f"{phase} ({how})"] = TRIED.get(f"{phase} ({how})", 0) + tried

    def well(self, phase: str, values: Values, script: str = "") -> Result:
        done = self.host.send(phase, values, script=script)
        assert done.status == 0, done.stderr
        return done


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    container = Container(tmp_path_factory.mktemp("host"))
    try:
        container.up()
        folder = container.root / "root/way"
        folder.mkdir()
        (folder / "snapshot").write_text(SNAPSHOT)
        (folder / "driver").write_text(DRIVER)
        way = Way(container)
        confirmed(way)
        yield way
    finally:
        container.down()
        print("\npoints tried: " + ", ".join(f"{name} {count}" for name, count in TRIED.items()) + f"; {sum(TRIED.values())} in all")


def certificate(name: str) -> tuple[str, str]:
    """A self-signed certificate for `name`, and its key."""
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/stderr -subj /CN={name} -addext subjectAltName=DNS:{name} -days 2"
    done = subprocess.run(command.split(), capture_output=True, text=True, check=True)
    key = done.stderr[done.stderr.index("-----BEGIN") :]
    return done.stdout, key


CERTIFICATES = {name: certificate("git.example.com") for name in "AB"}


def prepared(ruleset: str = OPEN, **change: str | bool | list[str]) -> dict[str, str | int | bool | list[str]]:
    return {
        "hostname": "h1", "identity": "p/s/shared/test", "hosts_file": f"{ADDRESS} h1\n", "time_servers": SERVICES, "dns_servers": "",
        "chrony_conf": f"server {SERVICES} iburst\nport 0\ncmdport 0\n", "modules": "", "sysctl": "", "ca_bundle": CERTIFICATES["A"][0],
        "proxy_http": "", "proxy_https": "", "proxy_no": "", "packages_debian": ["chrony", "nftables"], "packages_rhel": "",
        "ruleset": ruleset, "rollback_seconds": 30, "cis": False, **change,
    }  # fmt: skip


def confirmed(way: Way, ruleset: str = OPEN) -> None:
    way.well("prepare", prepared(ruleset))
    way.well("confirm", {"ruleset_sha256": digest(ruleset)})


OTHERWISE = {
    "hostname": "h2", "hosts_file": f"{ADDRESS} h2\n192.0.2.9 other\n", "dns_servers": "192.0.2.53", "modules": ["br_netfilter"],
    "chrony_conf": f"server {OPERATOR} iburst\nport 0\ncmdport 0\n", "ca_bundle": CERTIFICATES["B"][0], "proxy_http": "http://192.0.2.1:3128",
    "sysctl": "net.ipv4.conf.default.rp_filter = 2\nnet.ipv4.ip_forward = 1\n", "cis": True,
}  # fmt: skip


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 6)])
def test_prepare(way: Way, how: str, every: int) -> None:
    confirmed(way)
    way.try_all("prepare", prepared(WIDER, **OTHERWISE), how, every)


def test_prepare_without_firewall(way: Way) -> None:
    confirmed(way)
    way.try_all("prepare", prepared(""))


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 2)])
def test_confirm(way: Way, how: str, every: int) -> None:
    """The machine was prepared with the new rules, the confirmation fails, and the old rules are prepared again."""
    confirmed(way)
    way.try_all("confirm", {"ruleset_sha256": digest(WIDER)}, how, every, before=prepared(WIDER), after=prepared(OPEN))
    confirmed(way)


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 3)])
def test_haproxy(way: Way, how: str, every: int) -> None:
    way.well("haproxy", {"config": balancer("a")})
    way.try_all("haproxy", {"config": balancer("b", "frontend more\n bind :8081\n default_backend web\n")}, how, every, deep=True)


def virtual(*addresses: str) -> dict[str, str | list[str]]:
    lines = "".join(f"    {address}/32 dev @INTERFACE@\n" for address in addresses)
    config = f"vrrp_instance a {{\n  state BACKUP\n  interface @INTERFACE@\n  virtual_router_id 51\n  priority 100\n  advert_int 1\n  virtual_ipaddress {{\n{lines}  }}\n}}\n"
    return {"config": config, "address": ADDRESS, "virtual_addresses": list(addresses), "peers": ""}


def test_keepalived(way: Way) -> None:
    first = virtual("192.168.72.8")
    way.well("haproxy", {"config": balancer("a")})
    way.well("keepalived", first)
    way.try_all("keepalived", virtual("192.168.72.8", "192.168.72.10"), every=2)
    way.well("keepalived", first)
    way.try_all("keepalived-remove", first, script="keepalived")
    way.try_all("keepalived", first)


def ganesha(port: int) -> Values:
    config = (
        f"NFS_CORE_PARAM {{ NFS_Port = {NFSD}; MNT_Port = {MOUNTD}; NLM_Port = {port}; Protocols = 3, 4; Enable_RQUOTA = false; }}\n"
        "NFSv4 { Grace_Period = 5; Lease_Lifetime = 5; }\n"
        f"EXPORT {{ Export_Id = 1; Path = /srv/nfs; Pseudo = /srv/nfs; SecType = sys; Access_Type = RO; FSAL {{ Name = VFS; }} }}\n"
    )
    return {"server": "ganesha", "path": "/srv/nfs", "exports": "", "nfs_conf": "", "ganesha_conf": config}


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 3)])
def test_nfs(way: Way, how: str, every: int) -> None:
    way.well("nfs", ganesha(4045))
    way.try_all("nfs", {**ganesha(4046), "path": "/srv/other"}, how, every)


OLD, NEW = "v1.35.7+rke2r1", "v1.36.3+rke2r1"


def rke2(way: Way, version: str = OLD, config: str = "token: geheim\n", **change: str | list[str]) -> Values:
    folder = way.host.folder / "web" / version
    sums = standins.rke2_media(folder, version)
    return {
        "type": "agent", "version": version, "method": "tar", "source": "airgap", "install_url": "",
        "artifacts_url": f"http://{SERVICES}:8000/{version.replace('+', '%2B')}", "artifacts_sha256": sums, "config_yaml": config,
        "registries_yaml": "", "manifests": [], "identity": "p/s/shared/test", "node_name": "h1", "timeout_seconds": 15, **change,
    }  # fmt: skip


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 3)])
def test_rke2(way: Way, how: str, every: int) -> None:
    way.well("rke2", rke2(way))
    changed = rke2(way, config="token: geheim\nnode-label: [a=b]\n", registries_yaml="mirrors: {}\n", proxy_http="http://192.0.2.1:3128", trust_sha256="1" * 64)
    way.try_all("rke2", changed, how, every)


def test_rke2_that_does_not_start_runs_with_its_former_settings(way: Way) -> None:
    way.well("rke2", rke2(way))
    before = way.host.ssh("sha256sum /etc/rancher/rke2/config.yaml").stdout
    done = way.host.send("rke2", rke2(way, config="broken: true\n"))
    assert done.status == 1 and "rke2: put back: this machine is as it was before the run" in done.stderr
    assert way.host.ssh("sha256sum /etc/rancher/rke2/config.yaml").stdout == before
    assert way.host.ssh("systemctl is-active rke2-agent").stdout == "active\n"
    assert way.host.send("rke2", rke2(way)).changed == []


def test_rke2_of_an_agent_goes_back_to_its_former_release(way: Way) -> None:
    way.well("rke2", rke2(way))
    way.try_all("rke2", rke2(way, NEW))


def gitlab(way: Way, version: str = "19.2.1", pair: str = "A", more: str = "") -> Values:
    folder = way.host.folder / "web"
    package = folder / f"gitlab-ce_{version}-ce.0_amd64.deb"
    if not package.exists():
        standins.gitlab_package(folder, version)
    return {
        "gitlab_rb": f"external_url 'https://git.example.com'\n{more}", "version": version, "source": "airgap", "edition": "ce",
        "package_url": f"http://{SERVICES}:8000/{package.name}", "package_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        "host": "git.example.com", "certificate": CERTIFICATES[pair][0], "private_key": CERTIFICATES[pair][1],
        "trusted_ca": CERTIFICATES[pair][0], "root_password": "geheim", "timeout_seconds": "20",
    }  # fmt: skip


UNPACKED = """
apt() {
  [[ $1 == install ]] || return 0
  dpkg --unpack "${@: -1}" >&2
  kill -9 $$
}
"""


def test_gitlab_configured_by_another_after_an_interruption_has_its_password(way: Way) -> None:
    program, call, payload = standard_input("gitlab", dict(gitlab(way))).rpartition("main <<'OPSTELLA_PAYLOAD'\n")
    (way.host.root / "root/way/program").write_text(program + UNPACKED + call + payload)
    assert way.host.ssh("bash -s -- gitlab </root/way/program").returncode != 0
    assert way.host.ssh("dpkg --configure -a").returncode == 0
    way.well("gitlab", gitlab(way))
    assert way.host.ssh("cat /var/opt/gitlab-password").stdout == "geheim\n"
    assert way.host.ssh("grep -rl initial_root_password /etc /var/backups /var/lib/opstella").stdout == ""


@pytest.mark.parametrize(("how", "every"), [("exit", 1), ("kill", 3)])
def test_gitlab(way: Way, how: str, every: int) -> None:
    way.well("gitlab", gitlab(way))
    way.try_all("gitlab", gitlab(way, pair="B", more="# more\n"), how, every)


def test_gitlab_says_when_there_is_no_way_back(way: Way) -> None:
    way.well("gitlab", gitlab(way))
    done = way.host.send("gitlab", gitlab(way, "19.3.0", more="broken\n"))
    assert done.status == 1
    assert "gitlab: not put back: gitlab-ce is being upgraded from 19.2.1-ce.0 to 19.3.0" in done.stderr
    way.well("gitlab", gitlab(way, "19.3.0"))
    assert way.host.ssh("ls /var/lib/opstella/undo").stdout == ""


def test_gitlab_tokens(way: Way) -> None:
    way.well("gitlab-tokens", {"program": "p", "wanted": "w"})
    way.try_all("gitlab-tokens", {"program": "q", "wanted": "v"})


# ---- killed, and again ------------------------------------------------------------------------


def killed(way: Way, phase: str, values: Values, point: int, freeze: Callable[[], object] = lambda: None) -> None:
    program, call, payload = standard_input(phase, dict(values)).rpartition("main <<'OPSTELLA_PAYLOAD'\n")
    (way.host.root / "root/way/program").write_text(program + FAULT + call + payload)
    assert way.host.ssh(f"POINT={point} HOW=kill bash -s -- {phase} </root/way/program").returncode != 0
    freeze()


def test_a_killed_run_that_is_repeated_goes_on(way: Way) -> None:
    way.well("haproxy", {"config": balancer("a")})
    other = {"config": balancer("c", "frontend more\n bind :8082\n default_backend web\n")}
    for point in (2, 4):
        killed(way, "haproxy", other, point)
        way.well("haproxy", other)
        assert way.host.send("haproxy", other).changed == []
        assert ":8082" in way.host.ssh("ss -Hlnt").stdout
        way.well("haproxy", {"config": balancer("a")})


def test_a_machine_that_restarts_in_the_middle_puts_back_at_boot(way: Way) -> None:
    """Without the unit that waits for the run: what a lost machine had in its memory."""
    way.well("haproxy", {"config": balancer("a")})
    before = way.host.ssh("bash /root/way/snapshot").stdout
    other = {"config": balancer("c", "frontend more\n bind :8083\n default_backend web\n")}
    program, call, payload = standard_input("haproxy", other).rpartition("main <<'OPSTELLA_PAYLOAD'\n")
    (way.host.root / "root/way/program").write_text(program + "systemd-run() { :; }\n" + FAULT + call + payload)
    assert way.host.ssh("POINT=4 HOW=kill bash -s -- haproxy </root/way/program").returncode != 0
    assert "/root/way" not in before and way.host.ssh("bash /root/way/snapshot").stdout != before
    assert way.host.ssh("systemctl is-enabled opstella-undo").stdout == "enabled\n"
    way.host.ssh("systemctl start opstella-undo; sleep 1; while systemctl is-active -q opstella-undo; do sleep 0.2; done")
    assert way.host.ssh("bash /root/way/snapshot").stdout == before


def test_another_phase_puts_back_what_was_left_first(way: Way) -> None:
    way.well("haproxy", {"config": balancer("a")})
    program, call, payload = standard_input("haproxy", {"config": balancer("d")}).rpartition("main <<'OPSTELLA_PAYLOAD'\n")
    (way.host.root / "root/way/program").write_text(program + "systemd-run() { :; }\n" + FAULT + call + payload)
    assert way.host.ssh("POINT=2 HOW=kill bash -s -- haproxy </root/way/program").returncode != 0
    done = way.well("prepare", prepared(OPEN))
    assert "a run of the phase haproxy did not end well here; what it changed is put back first" in done.stderr
    assert "server a " in way.host.ssh("cat /etc/haproxy/haproxy.cfg").stdout
