"""Search domains of a machine: what preflight says of a name server that answers for any name below one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plan import dns, hosts, rke2
from tests.plan.stacks import DOMAIN, plan
from tests.plan.test_real_servers import as_root
from tests.scripts.sender import SCRIPTS

# A name server with the record *.devops.example.com, and nothing else.
SERVER = f"""
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    asked, peer = server.recvfrom(512)
    name, at = [], 12
    while asked[at]:
        name.append(asked[at + 1:at + 1 + asked[at]].decode())
        at += 1 + asked[at]
    kind = struct.unpack("!H", asked[at + 1:at + 3])[0]
    known = ".".join(name).lower().endswith(".{DOMAIN}")
    answers = known and kind == 1
    head = asked[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, int(answers), 0, 0)
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 168, 72, 12]) if answers else b""
    server.sendto(head + asked[12:at + 5] + record, peer)
"""
CHECK = f"""set -euo pipefail
. {SCRIPTS}/lib.sh
. {SCRIPTS}/preflight.sh
V[search_below]=$1
check_search_domains
for item in ${{PROBLEMS[@]+"${{PROBLEMS[@]}}"}}; do printf 'problem: %s\\n' "$item"; done
for item in ${{WARNINGS[@]+"${{WARNINGS[@]}}"}}; do printf 'warning: %s\\n' "$item"; done
"""


def said(search: str, folder: Path, below: str = DOMAIN) -> list[str]:
    """What the check says of a machine with this line in its resolv.conf, in namespaces of its own."""
    (folder / "resolv.conf").write_text(f"{search}\nnameserver 127.0.0.1\noptions attempts:1 timeout:2\n")
    (folder / "nsswitch.conf").write_text("hosts: files dns\n")
    (folder / "server.py").write_text(SERVER)
    (folder / "check.sh").write_text(CHECK)
    code = f"""set -e
ip link set lo up
mount --bind {folder}/resolv.conf "$(readlink -f /etc/resolv.conf)"
mount --bind {folder}/nsswitch.conf /etc/nsswitch.conf
exec 3< <(exec python3 {folder}/server.py)
server=$!
read -r _ <&3
bash {folder}/check.sh {below or "''"}
kill $server
"""
    done = subprocess.run(
        ["unshare", "--net", "--mount", "bash", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()




@pytest.mark.toolchain
@as_root
def test_a_wildcard_below_a_search_domain_is_refused(tmp_path: Path) -> None:
    (problem,) = said(f"search nowhere.test {DOMAIN}", tmp_path)
    assert problem.startswith(f"problem: the name servers answer for any name below the search domain {DOMAIN} (opstella-")
    assert "is 192.168.72.12" in problem and "set opstella:dns.servers" in problem
    (problem,) = said(f"domain Sub.{DOMAIN}.", tmp_path)
    assert f"below the search domain sub.{DOMAIN} " in problem


@pytest.mark.toolchain
@as_root
def test_other_search_domains_pass(tmp_path: Path) -> None:
    assert said("search nowhere.test example.com", tmp_path) == []
    assert said("# no search", tmp_path) == []


@pytest.mark.toolchain
@as_root
def test_the_remedy_removes_the_message(tmp_path: Path) -> None:
    """With name servers in the settings nothing is asked: pods get a file without search domains."""
    stack = plan(dns={"servers": ["10.0.0.53"]})
    worker = stack.topology.clusters[0].workers[0]
    below = hosts.preflight(worker, stack.settings, stack.topology, stack.stack)["search_below"]
    assert below == "" and said(f"search {DOMAIN}", tmp_path, below="") == []


def test_pods_get_name_servers_without_a_search_domain() -> None:
    servers = ["10.0.0.53", "10.0.0.54", "10.0.0.55"]
    stack = plan(dns={"servers": servers})
    cluster = stack.topology.clusters[0]
    for host in stack.topology.hosts:
        node = host.role in ("master", "worker")
        told = hosts.prepare(host, stack.contract, stack.stack)["pods_resolv_conf"]
        assert told == ("".join(f"nameserver {server}\n" for server in servers) if node else "")
        if node:
            config = rke2.node_config(cluster, host, stack.settings.kubernetes, "api.x", resolv_conf=dns.pods_file(stack.settings))
            assert config["resolv-conf"] == "/etc/opstella/pods-resolv.conf"


def test_without_name_servers_in_the_settings_first_contact_looks() -> None:
    stack = plan()
    for host in stack.topology.hosts:
        below = hosts.preflight(host, stack.settings, stack.topology, stack.stack)["search_below"]
        assert below == (DOMAIN if host.role in ("master", "worker") else "")
    assert dns.pods_file(stack.settings) is None and dns.for_pods(stack.settings) == ""
