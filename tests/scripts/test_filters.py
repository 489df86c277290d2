"""Packet filters of others, as the kernel has them: loaded into a network namespace by the program that would have done it."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import IPv4Address

import pytest

from plan import nftables
from plan.topology import Host
from tests.plan.packet_filter import parse
from tests.plan.stacks import plan
from tests.plan.test_real_servers import as_root, needs
from tests.scripts.sender import SCRIPTS

pytestmark = [pytest.mark.toolchain, as_root, needs("nft")]


def asked(load: str, role: str = "worker", hide: str = "") -> list[str]:
    """What foreign_filters finds after the commands `load`, without the programs `hide`."""
    hidden = "".join(f"type() {{ [[ $* != *{name}* ]] && builtin type \"$@\"; }}\n" for name in [hide] if name)
    code = f"set -euo pipefail\n{load}\n. {SCRIPTS}/lib.sh\n{hidden}foreign_filters {role or chr(39) * 2}\n"
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", code, "bash", "unit"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def nft(text: str) -> str:
    return f"nft --file - <<'END'\n{text}\nEND"


HARDENED = nft("""table inet filter {
  set allowed { type inet_service; elements = { 22, 80 } }
  chain input {
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    iif lo accept
    tcp dport { 22, 80 } accept
    tcp dport @allowed counter accept comment "drop { reject }"
    counter log prefix "drop all: " level info flags all reject with icmpx admin-prohibited
  }
}""")
POLICY = nft("table ip filter {\n chain INPUT {\n type filter hook input priority 0; policy drop;\n tcp dport 22 accept\n }\n}")
SAVED = """iptables-{kind}-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD {forward} [0:0]
:OUTPUT ACCEPT [0:0]
:LAST - [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -m comment --comment "the rest -j ACCEPT" -j LAST
-A LAST -m limit --limit 5/min -j LOG --log-prefix "all: "
-A LAST -j REJECT --reject-with icmp-host-prohibited
COMMIT
END"""


@pytest.mark.parametrize(
    ("load", "found"),
    [
        (HARDENED, ["inet filter|input|input|rule|"]),
        (POLICY, ["ip filter|INPUT|input|policy|"]),
        (SAVED.format(kind="nft", forward="ACCEPT"), ["ip filter|INPUT|input|rule|"]),
        (SAVED.format(kind="legacy", forward="ACCEPT"), ["ip filter (legacy)|INPUT|input|rule|"]),
        (SAVED.format(kind="legacy", forward="DROP"), ["ip filter (legacy)|INPUT|input|rule|", "ip filter (legacy)|FORWARD|forward|policy|"]),
        (
            nft("table netdev f {\n chain i {\n type filter hook ingress device lo priority 0; policy drop;\n }\n}"),
            ["netdev f|i|ingress|policy|"],
        ),
        (nft("table inet x {\n chain o {\n type filter hook output priority 0; policy drop;\n udp dport 53 accept\n }\n}"), ["inet x|o|output|policy|"]),
        (
            nft("table inet x {\n chain every {\n counter\n drop\n }\n chain i {\n type filter hook input priority 5; policy accept;\n goto every\n }\n}"),
            ["inet x|i|input|rule|"],
        ),
    ],
    ids=["reject-all", "policy", "iptables-nft", "iptables-legacy", "legacy-forward", "ingress", "output", "goto"],
)  # fmt: skip
def test_what_holds_everything_else_back_is_found(load: str, found: list[str]) -> None:
    if "legacy" in load and subprocess.run(["unshare", "--net", "iptables-legacy", "-S"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no legacy tables")
    assert asked(load) == found


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_it_is_found_without_the_program_nft(kind: str) -> None:
    """A machine before its packages are there."""
    if shutil.which(f"iptables-{kind}-save") is None:
        pytest.skip(f"iptables-{kind} is not installed")
    if kind == "legacy" and subprocess.run(["unshare", "--net", "iptables-legacy", "-S"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no legacy tables")
    found = asked(SAVED.format(kind=kind, forward="ACCEPT"), hide="nft\\ ") if kind == "legacy" else asked(SAVED.format(kind=kind, forward="ACCEPT"), hide="P\\ nft")
    assert [line.replace(" (legacy)", "") for line in found] == ["ip filter|INPUT|input|rule|"]


def rulesets() -> list[tuple[Host, str]]:
    stack = plan(network={"egress": {"enforce": True}})
    return [(host, nftables.ruleset(host, stack.contract)) for host in stack.topology.hosts]


CALICO = """iptables-nft-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:cali-FORWARD - [0:0]
:cali-fw-cali0 - [0:0]
:cali-INPUT - [0:0]
-A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block" -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A cali-FORWARD -i cali+ -j cali-fw-cali0
-A cali-FORWARD -j DROP
-A cali-fw-cali0 -j DROP
COMMIT
END"""


@pytest.mark.parametrize(
    "load",
    [
        "true",
        CALICO,
        nft("table inet f2b {\n set banned { type ipv4_addr; elements = { 192.0.2.1 } }\n chain i {\n type filter hook input priority -1; policy accept;\n ip saddr @banned reject\n tcp dport 23 drop\n }\n}"),
        nft("table ip6 filter {\n chain INPUT {\n type filter hook input priority 0; policy drop;\n }\n}"),
        nft("table inet open {\n chain i {\n type filter hook input priority 0; policy drop;\n counter accept\n drop\n }\n}"),
        nft("table inet unused {\n chain every {\n drop\n }\n chain i {\n type filter hook input priority 0; policy accept;\n iif lo jump every\n }\n}"),
    ],
    ids=["nothing", "calico-and-kube-proxy", "conditional", "ipv6", "accepts-first", "conditional-jump"],
)  # fmt: skip
def test_what_lets_the_rest_through_is_not(load: str) -> None:
    assert asked(load) == []


def test_the_programs_own_rules_are_not() -> None:
    for host, ruleset in rulesets():
        assert asked(nft(ruleset), role=host.role) == [], host.name


def test_only_nodes_need_to_forward() -> None:
    docker = SAVED.format(kind="nft", forward="DROP").replace("-A INPUT -m comment --comment \"the rest -j ACCEPT\" -j LAST\n", "")
    assert asked(docker, role="worker") == asked(docker, role="master") == ["ip filter|FORWARD|forward|policy|"]
    assert asked(docker, role="haproxy") == asked(docker, role="") == []


@pytest.mark.parametrize(
    ("chain", "owner"), [("ufw-before-input", "ufw"), ("DOCKER-USER", "docker"), ("LIBVIRT_INP", "libvirt"), ("IN_public", "firewalld")]
)
def test_its_owner_is_known_by_its_chains(chain: str, owner: str) -> None:
    load = nft(f"table ip filter {{\n chain {chain} {{\n }}\n chain INPUT {{\n type filter hook input priority 0; policy drop;\n }}\n}}")
    assert asked(load) == [f"ip filter|INPUT|input|policy|{owner}"]


REMEDIES = {
    "hardened": (HARDENED, "worker"),
    "policy": (POLICY, "worker"),
    "iptables-nft": (SAVED.format(kind="nft", forward="DROP"), "worker"),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_the_remedy_removes_it(case: str) -> None:
    """Applied as the message has it, until nothing is left to say; the program's own table stays."""
    load, role = REMEDIES[case]
    (own,) = (text for host, text in rulesets() if host.name == "worker-1")
    code = f"""set -euo pipefail
{load}
{nft(own)}
. {SCRIPTS}/lib.sh
systemctl() {{ return 1; }}
for _ in 1 2 3; do
  line=$(foreign_filters {role} | head -n 1)
  [[ -n $line ]] || break
  said=$(foreign_filter_problem "$line")
  printf '%s\\n' "$said"
  remedy=${{said##*remove it: }}
  eval "${{remedy%%, and out of*}}"
done
foreign_filters {role}
nft list table inet opstella >/dev/null && echo kept
"""
    done = subprocess.run(
        ["unshare", "--net", "bash", "-c", code, "bash", "unit"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
    *said, last = done.stdout.splitlines()
    assert last == "kept" and said and all(line.startswith("another packet filter drops what the plan lets through: table ") for line in said)


def test_a_packet_that_the_program_accepts_is_held_back_by_another_chain() -> None:
    """Why it is refused: what the plan's text lets in does not come through the other's."""
    stack = plan()
    (cluster,) = stack.topology.clusters
    assert parse(nftables.ruleset(cluster.masters[0], stack.contract)).lets_in(IPv4Address(cluster.workers[0].address), "tcp", 9345)
    assert asked(f"{nft(nftables.ruleset(cluster.masters[0], stack.contract))}\n{HARDENED}", role="master") == ["inet filter|input|input|rule|"]
