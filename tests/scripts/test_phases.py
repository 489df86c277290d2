"""Every phase as it is sent: lint, missing values, refusals, and what the read-only phases print."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.program import program
from plan import payload
from tests.scripts.sender import SCRIPTS, Result, Values, bash, send

pytestmark = pytest.mark.toolchain

PHASES = sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "lib")

# Every value that a phase requires, each in a form that gets past its own check.
COMPLETE: dict[str, dict[str, str]] = {
    "account-keys": {"cluster": "c", "timeout_seconds": "0"},
    "cluster-ca": {"cluster": "c", "absent": "false", "asked_for": "x"},
    "confirm": {"ruleset_sha256": "0" * 64},
    "fleet": {"facts": "{}", "machines": "a 127.0.0.1", "host_keys": "x", "user": "ops", "port": "22", "private_key": "x"},
    "gitlab": dict.fromkeys(
        ("gitlab_rb", "version", "source", "edition", "host", "certificate", "private_key", "package_url", "package_sha256", "trusted_ca", "root_password"), "x"
    ),
    "gitlab-tokens": {"program": "x", "wanted": "x"},
    "haproxy": {"config": "x"},
    "hostkey": {"name": "h", "address": "127.0.0.1", "port": "22", "timeout_seconds": "0"},
    "keepalived": {"config": "x", "address": "192.168.72.12", "virtual_addresses": "192.168.72.10\n192.168.72.8", "peers": "192.168.72.9"},
    "kubeconfig": {"server_url": "https://api.example.com:6443"},
    "nfs": dict.fromkeys(("server", "path", "exports", "ganesha_conf", "nfs_conf"), "x"),
    "node": dict.fromkeys(("node_name", "timeout_seconds", "labels", "taints"), "1"),
    "preflight": dict.fromkeys(
        ("name", "role", "identity", "address", "cpu", "memory_mb", "disk_gb", "size_check", "ports", "time_servers", "max_skew_seconds", "urls"), "1"
    ),
    "prepare": dict.fromkeys(
        (
            "hostname", "identity", "hosts_file", "dns_servers", "chrony_conf", "modules", "sysctl", "ca_bundle",
            "proxy_http", "proxy_https", "proxy_no", "packages_debian", "packages_rhel", "ruleset",
        ), "1",
    ),
    "rke2": dict.fromkeys(
        (
            "type", "version", "method", "source", "install_url", "artifacts_url", "artifacts_sha256", "config_yaml", "registries_yaml",
            "manifests", "identity", "node_name", "timeout_seconds",
        ), "1",
    ),
}  # fmt: skip


def test_no_phase_is_untested() -> None:
    assert sorted(COMPLETE) == PHASES


@pytest.mark.parametrize("phase", PHASES)
def test_the_program_as_sent_is_clean(phase: str, tmp_path: Path) -> None:
    """Linted together with the library, as it runs; directives are comments, so before they are stripped."""
    whole = tmp_path / "whole.sh"
    whole.write_text("".join((SCRIPTS / f"{name}.sh").read_text() for name in ("lib", phase)))
    done = subprocess.run(["shellcheck", "-s", "bash", str(whole)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert subprocess.run(["bash", "-n"], input=program(phase), text=True, capture_output=True, check=False).stderr == ""


def _functions(source: str) -> dict[str, str]:
    """Name to text of what bash knows after reading `source`, as bash itself writes it."""
    done = subprocess.run(["bash", "-c", f"{source}\ndeclare -f"], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^(\w+) \(\) \n(\{ \n(?:.*\n)*?\}\n)", done.stdout, re.M))


@pytest.mark.parametrize("phase", PHASES)
def test_the_program_says_what_its_sources_say(phase: str) -> None:
    """A line that looks like a comment, inside a here-document or a string, would be lost on the way; and so would a
    function that is called by a name which nobody reads."""
    plain = _functions("".join((SCRIPTS / f"{name}.sh").read_text() for name in ("lib", phase)))
    kept = _functions(program(phase))
    assert len(plain) > 50 and kept.items() <= plain.items()
    words = set(re.findall(r"\w+", program(phase)))
    assert not words & (plain.keys() - kept.keys())


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.sh")), ids=lambda path: path.stem)
def test_folders_are_made_by_the_library_only(path: Path) -> None:
    """`install -d` and `mkdir -m` set the mode of folders that are there, too."""
    lines = [line for line in path.read_text().splitlines() if re.search(r"\binstall (.* )?-d\b|\bmkdir\b.* -m", line)]
    assert lines == [line for line in lines if line.startswith("folder() {")]


def test_a_program_has_only_the_functions_that_it_calls() -> None:
    hostkey, prepare = _functions(program("hostkey")), _functions(program("prepare"))
    assert "package_install" in prepare and "package_install" not in hostkey


@pytest.mark.parametrize(("phase", "missing"), [(phase, name) for phase, names in COMPLETE.items() for name in names])
def test_a_missing_value_is_named(phase: str, missing: str) -> None:
    values = {name: value for name, value in COMPLETE[phase].items() if name != missing}
    done = send(phase, values)
    assert done.status == 2
    assert re.search(rf"^{phase}: error: phase {phase} was sent no value for: .*\b{missing}\b", done.stderr, re.M)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("phase", "change", "message"),
    [
        ("rke2", {"type": "both"}, "the value 'type' is 'both'"),
        ("rke2", {"type": "server", "source": "airgap", "timeout_seconds": "soon"}, "the value 'timeout_seconds' is 'soon'"),
        ("rke2", {"type": "server", "source": "airgap", "method": "zip"}, "the value 'method' is 'zip'"),
        ("rke2", {"type": "server", "source": "airgap", "method": "tar", "version": "latest"}, "the RKE2 version 'latest' is not one"),
        ("nfs", {"server": "samba"}, "the value 'server' is 'samba'"),
        ("nfs", {"server": "kernel", "path": "srv"}, "the value 'path' is 'srv'"),
        ("gitlab", {"source": "airgap", "edition": "free"}, "the value 'edition' is 'free'"),
        ("gitlab-tokens", {"timeout_seconds": "soon"}, "the value 'timeout_seconds' is 'soon'"),
        ("gitlab-tokens", {"wanted": ""}, "sent an empty value for: wanted"),
        ("prepare", {"cis": "perhaps"}, "the value 'cis' is 'perhaps'"),
        ("prepare", {"hostname": ""}, "sent an empty value for: hostname"),
        ("kubeconfig", {"server_url": "http://x|y"}, "the value 'server_url' is 'http://x|y'"),
        ("hostkey", {"expected": "0123"}, "the host key given for h is not one"),
        ("keepalived", {"virtual_addresses": "192.168.72.10\napi.example.com"}, "'api.example.com' is not an IPv4 address"),
        ("keepalived", {"peers": "192.168.72.9\neth0"}, "'eth0' is not an IPv4 address"),
    ],
)
def test_a_wrong_value_is_named(phase: str, change: Values, message: str) -> None:
    done = send(phase, {**COMPLETE[phase], **change})
    assert done.status == 2
    assert message in done.stderr and "what to do:" in done.stderr


# ---- hostkey ----------------------------------------------------------------------------------


def test_an_unreachable_host_says_what_was_tried_and_for_how_long() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        done = send("hostkey", {"name": "worker-3", "address": "127.0.0.1", "port": port, "timeout_seconds": 3})
    assert done.status == 1 and done.stdout == ""
    assert re.search(rf"host worker-3 \(127\.0\.0\.1 port {port}\) gave no ssh-ed25519 host key: asked \d+ times .* over \d s; last answer: .*refused", done.stderr)


# ---- preflight and fleet ----------------------------------------------------------------------


def facts(**change: str) -> str:
    host = {"name": "a", "hostname": "a", "machine_id": "11", "addresses": "10.0.0.1", **change}
    code = (
        f"printf '{{\"name\":%s,\"hostname\":%s,\"machine_id\":%s,\"addresses\":%s}}' "
        f"\"$(json_string '{host['name']}')\" \"$(json_string '{host['hostname']}')\" \"$(json_string '{host['machine_id']}')\" \"$(json_list {host['addresses']})\""
    )
    return bash(code).stdout


def test_json_is_json() -> None:
    text = "quote \" slash \\ tab \t newline \n ü"
    assert json.loads(bash('json_string "$T"', T=text).stdout) == text
    assert json.loads(bash('json_list "a b" "$T"', T=text).stdout) == ["a b", text]
    assert bash("json_list").stdout == "[]"


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBe0nbW4jzGuzQ3dlBD0N1Yp6mYv7MDQ2ZAtmLkPIaiT"


def compared(recorded: list[str], today: dict[str, str] | None = None, names: str = "a b") -> Result:
    """The phase on the operator's machine; a machine that is asked again answers with what `today` has by its address:
    its host name and machine id. Standard output is who was asked, with the options."""
    machines = names.split()
    values = {
        "facts": recorded, "machines": [f"{name} 10.0.0.{n}" for n, name in enumerate(machines, 1)], "host_keys": [KEY] * len(machines),
        "user": "ops", "port": 22, "private_key": "secret key",
    }  # fmt: skip
    answers = "".join(f"{address}) printf 'motd\\n----- opstella facts -----\\n{text}\\n' ;;\n" for address, text in (today or {}).items())
    ssh = f'ssh() {{ local words=("$@")\necho "asked ${{*: -2:1}} $*"  >&3\ncase ${{words[${{#words[@]}}-2]}} in {answers}*) echo "no route to host" >&2; return 255 ;; esac; }}\nexec 3>&1\n'
    return bash(f"{ssh}main <<'OPSTELLA_PAYLOAD'\n{payload.render(values)}OPSTELLA_PAYLOAD\n", with_phase="fleet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine_id": "11"}, "a and b have the same machine-id '11'"),
        ({"hostname": "a"}, "a and b have the same hostname 'a'"),
        ({"addresses": "10.0.0.1 172.17.0.1"}, "a and b have the same address '10.0.0.1'"),
    ],
)
def test_hosts_that_share_what_must_be_unique_are_both_named(change: dict[str, str], message: str) -> None:
    host = {"name": "b", "hostname": "b", "machine_id": "22", "addresses": "10.0.0.2 172.17.0.1", **change}
    today = {"10.0.0.1": "a\\n11", "10.0.0.2": f"{host['hostname']}\\n{host['machine_id']}"}
    done = compared([facts(addresses="10.0.0.1 172.17.0.1"), facts(**host)], today)
    assert done.status == 1
    assert message in done.stderr and "what to do:" in done.stderr
    assert done.stderr.count(" have the same ") == 1
    assert "secret key" not in done.stderr + done.stdout


def test_different_hosts_pass_and_nobody_is_asked() -> None:
    done = compared([facts(), facts(name="b", hostname="b", machine_id="22", addresses="10.0.0.2")])
    assert (done.status, done.stdout) == (0, ""), done.stderr


def test_the_private_key_never_lies_on_a_disk() -> None:
    """As whoever operates it: not as root, with the environment that the engine's command gives."""
    values = {"facts": [f"{{{' ' * 90000}}}"], "machines": ["a 10.0.0.1"], "host_keys": [KEY], "user": "ops", "port": 22, "private_key": "secret key"}
    look = """ssh() {
      { readlink "/proc/$$/fd/0"; stat -c '%a %n' "$STAGE"; stat -L -c %a "$4"; cat "$4" "$4"; grep -rl 'secret key' "$STAGE"; } >&"$REPLY_TO"
      echo no >&2
      return 1
    }
    """
    done = subprocess.run(
        [*(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []), "bash", "-s", "--", "fleet"],
        input=f"{program('fleet')}{look}main <<'OPSTELLA_PAYLOAD'\n{payload.render(values)}OPSTELLA_PAYLOAD\n",
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "HOME": "/"},
    )  # fmt: skip
    payload_file, folder, *key = done.stdout.splitlines()
    assert payload_file.startswith("/dev/shm/"), "bash keeps a long payload in a file"
    assert folder.startswith("700 /dev/shm/") and key == ["600", "secret key", "secret key"], done.stderr
    assert not Path(folder[4:]).exists()


@pytest.mark.parametrize("corrected", ["10.0.0.1", "10.0.0.2"])
def test_what_was_corrected_since_is_believed(corrected: str) -> None:
    """The facts recorded are those of before, in every run: whichever of the two was corrected, and only they are asked."""
    recorded = [facts(), facts(name="b", hostname="b", addresses="10.0.0.2"), facts(name="c", hostname="c", machine_id="33", addresses="10.0.0.3")]
    today = {"10.0.0.1": "a\\n11", "10.0.0.2": "b\\n11"}
    assert compared(recorded, today, "a b c").status == 1
    done = compared(recorded, {**today, corrected: f"{'ab'[int(corrected[-1]) - 1]}\\n44"}, "a b c")
    assert done.status == 0, done.stderr
    assert re.findall(r"^asked (\S+)", done.stdout, re.M) == ["10.0.0.1", "10.0.0.2"]
    first, second = done.stdout.splitlines()
    assert "StrictHostKeyChecking=yes" in first and "HostKeyAlias=a " in first and "ProxyCommand" not in first
    assert "ProxyCommand=ssh " in second and "HostKeyAlias=b " in second


def test_facts_that_cannot_be_read_are_asked_for_again() -> None:
    recorded = ["Authorised use only.", facts(name="b", hostname="b", machine_id="22", addresses="10.0.0.2")]
    assert compared(recorded, {"10.0.0.1": "a\\n11"}).status == 0
    done = compared(recorded)
    assert done.status == 1
    assert "what a said about itself at first contact cannot be read: Authorised use only." in done.stderr
    assert "a could not be asked again, so this may be over: no route to host" in done.stderr


def test_all_problems_of_a_host_are_told_at_once() -> None:
    """On whatever machine runs the tests: an impossible plan for it."""
    with socket.socket() as held:
        held.bind(("0.0.0.0", 0))
        held.listen()
        port = held.getsockname()[1]
        done = send(
            "preflight",
            {
                "name": "worker-1", "role": "worker", "identity": "p/s/w", "address": "203.0.113.9", "cpu": 4000,
                "memory_mb": 99_000_000, "disk_gb": 9_000_000, "size_check": "error", "ports": [f"tcp/{port}"],
                "time_servers": "127.0.0.1", "max_skew_seconds": 30, "urls": "http://127.0.0.1:9/none",
            },
        )  # fmt: skip
    assert done.status == 1 and done.stdout == ""
    for part in (
        "host worker-1 (worker, 203.0.113.9) cannot be used yet",
        "the address 203.0.113.9 is on none of its interfaces",
        "too small: CPUs: planned 4000, found",
        "too small: memory: planned 99000000 MB, found",
        "too small: disk at /var/lib: planned 9000000 GB, found",
        f"port {port}/tcp is taken by ",
        "cannot reach http://127.0.0.1:9/none",
        "no usable time from: 127.0.0.1",
    ):
        assert part in done.stderr


# ---- node -------------------------------------------------------------------------------------


def labelled(labels: str, taints: str, *, had: dict[str, str], refuse: int = 0, why: str = "the object has been modified") -> tuple[Result, list[dict[str, Any]]]:
    """What `node` asks the API server for; `had` is the node by the end of each query, and the first `refuse` requests fail."""
    answers = "".join(f"*'{end}') printf '%s' '{text}' ;;\n" for end, text in had.items())
    code = f"""
    kube() {{
      case "$*" in
        patch*) echo "${{*: -1}}" >&3; ASKED=$((ASKED + 1)); ((ASKED > {refuse})) || {{ echo 'Error from server: {why}' >&2; return 1; }} ;;
        *) case "$*" in {answers} *) ;; esac ;;
      esac
    }}
    exec 3>&1
    ASKED=0 V[node_name]=w1 V[labels]=$LABELS V[taints]=$TAINTS
    set_labels_and_taints
    """
    done = bash(code, with_phase="node", LABELS=labels, TAINTS=taints)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


HAD = {
    "{.metadata.resourceVersion}": "7", r"{.metadata.labels.pool}": "old", r"{.metadata.annotations.opstella\.io/labels}": "pool,gone.example.com/x",
    "{range .spec.taints[*]}{.key}={.value}:{.effect} {end}": "mine=1:NoSchedule other=:NoExecute ", r"{.metadata.annotations.opstella\.io/taints}": "mine:NoSchedule",
}  # fmt: skip


def test_a_node_gets_its_labels_and_taints_in_one_request() -> None:
    """Half of a change could not be taken back: nothing runs once it is out of the settings."""
    done, asked = labelled("pool=new\nexample.com/disk=ssd", "dedicated=db:NoExecute", had=HAD)
    assert done.status == 0, done.stderr
    assert asked == [
        {
            "metadata": {
                "resourceVersion": "7",
                "labels": {"pool": "new", "example.com/disk": "ssd", "gone.example.com/x": None},
                "annotations": {"opstella.io/labels": "pool,example.com/disk", "opstella.io/taints": "dedicated:NoExecute"},
            },
            "spec": {"taints": [{"key": "other", "effect": "NoExecute"}, {"key": "dedicated", "value": "db", "effect": "NoExecute"}]},
        }
    ]


def test_a_node_that_has_them_is_left_alone_and_taints_of_others_too() -> None:
    had = {**HAD, r"{.metadata.annotations.opstella\.io/labels}": "pool"}
    assert labelled("pool=old", "mine=1:NoSchedule", had=had)[1] == []
    _, asked = labelled("pool=new", "mine=1:NoSchedule", had=had)
    assert asked == [{"metadata": {"resourceVersion": "7", "labels": {"pool": "new"}, "annotations": {}}}]


def test_a_node_that_somebody_changed_meanwhile_is_asked_again_and_a_refusal_is_told() -> None:
    done, asked = labelled("pool=new", "", had=HAD, refuse=2)
    assert done.status == 0 and len(asked) == 3
    done, asked = labelled("pool=new", "", had=HAD, refuse=9, why="is invalid: metadata.labels")
    assert done.status == 1 and len(asked) == 1
    assert "which has what it had: Error from server: is invalid: metadata.labels" in done.stderr


# ---- rke2 -------------------------------------------------------------------------------------


def _applied(root: Path, share: Path, call: str) -> Result:
    """What `call` runs, on standard output."""
    code = f"""
    stage
    id() {{ :; }}
    exec 3>&1
    systemctl() {{ [[ $1 == is-active ]] || echo "systemctl $*" >&3; }}
    sysctl() {{ echo "sysctl $*" >&3; }}
    CIS_SHARE=({share})
    {call}
    """
    return bash(code, with_phase="rke2", OPSTELLA_TEST_ROOT=str(root))


@pytest.mark.parametrize(
    ("call", "path", "applies"),
    [
        ("V[config_yaml]='profile: cis'; set_cis_sysctls", "etc/sysctl.d/60-rke2-cis.conf", "sysctl -q -p"),
        ("leave_interfaces_to_cni", "etc/NetworkManager/conf.d/opstella-cni.conf", "systemctl reload NetworkManager"),
    ],
    ids=["sysctls", "interfaces"],
)
def test_what_was_written_and_not_applied_is_applied_by_the_next_run(tmp_path: Path, call: str, path: str, applies: str) -> None:
    """A run that died in between leaves the file as it shall be, so comparing files tells nothing."""
    share = tmp_path / "share"
    share.mkdir()
    (share / "rke2-cis-sysctl.conf").write_text("vm.panic_on_oom=0\n")
    done = [_applied(tmp_path, share, call) for _ in range(3)]
    assert applies in done[0].stdout, done[0].stderr
    assert (tmp_path / path).exists()
    assert done[1].stdout == "", "it is in use now"
    for mark in (tmp_path / "etc/opstella/in-use").iterdir():
        mark.unlink()
    assert applies in _applied(tmp_path, share, call).stdout




CA = "a certificate\n"
CA_HASH = hashlib.sha256(CA.encode()).hexdigest()


def joined(
    tmp_path: Path, answers: str, *, twice: bool = False, data: bool = False, urls: str = "https://lb:9345\nhttps://m2:9345",
    known: str = CA_HASH, verified: str = "*",
) -> Result:  # fmt: skip
    """What a first server writes into its configuration; `answers` is a pattern of the URLs of servers that say pong, and
    `verified` of those whose certificate is the CA's."""
    (tmp_path / "etc/opstella").mkdir(parents=True, exist_ok=True)
    if data:
        (tmp_path / "data/server/db").mkdir(parents=True)
    again = f"""
    mkdir -p $DATA/server
    printf 'K10{7:064d}::server:geheim' >$DATA/server/token
    V[config_yaml]=$'token: geheim\\nagain'
    V[cluster_ca]=
    curl() {{ return 7; }}
    join_what_lives
    """
    code = f"""
    DATA={tmp_path}/data
    STAGE={tmp_path}/stage
    mkdir -p $STAGE
    curl() {{
      local url=${{*: -1}}
      printf '%s\\n' "$*" >>{tmp_path}/asked
      [[ $url == {answers} ]] || return 7
      case "$url $*" in
        */cacerts*--insecure*) printf '%s' "$CA" ;;
        */ping*--insecure*) printf pong ;;
        */ping*--cacert*) [[ $url != {verified} ]] || printf pong ;;
      esac
    }}
    V[cluster_ca]=$KNOWN
    V[config_yaml]=$'token: geheim\nnode-name: master-1\n'
    V[cluster_urls]=$URLS
    join_what_lives
    {again if twice else ""}
    printf '%s' "${{V[config_yaml]}}"
    """
    return bash(code, with_phase="rke2", URLS=urls, KNOWN=known, CA=CA, OPSTELLA_TEST_ROOT=str(tmp_path))


@pytest.mark.parametrize("answers", ["https://lb:9345/*", "https://m2:9345/*"], ids=["load-balancer", "server"])
def test_an_empty_first_server_joins_the_cluster_that_lives(tmp_path: Path, answers: str) -> None:
    done = joined(tmp_path, answers)
    wanted = f"server: https://lb:9345\ntoken: K10{CA_HASH}::server:geheim\nnode-name: master-1\n"
    assert done.stdout == wanted, done.stderr
    assert "it joins that cluster instead of making another" in done.stderr


def test_a_server_that_joined_stays_one_that_joined(tmp_path: Path) -> None:
    """Also when no other server says its CA any more: its own files do."""
    assert joined(tmp_path, "*", twice=True).stdout == f"server: https://lb:9345\ntoken: K10{7:064d}::server:geheim\nagain"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"known": ""}, "answers at https://lb:9345 whose CA is not known"),
        ({"known": "0" * 64}, "what answers at https://lb:9345 is not the cluster whose CA has the SHA-256 000"),
        ({"verified": "nobody"}, f"what answers at https://lb:9345 is not the cluster whose CA has the SHA-256 {CA_HASH}"),
    ],
    ids=["unknown", "another CA", "another certificate"],
)
def test_an_empty_first_server_joins_nobody_that_it_cannot_verify(
    tmp_path: Path, case: dict[str, Any], message: str
) -> None:
    done = joined(tmp_path, "*", **case)
    assert done.status != 0 and message in done.stderr
    assert "pulumi up --replace '**-living-ca'" in done.stderr
    assert not (tmp_path / "etc/opstella/rke2-joined").exists()
    assert "geheim" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    "case",
    [{"answers": "nobody"}, {"answers": "*", "data": True}, {"answers": "*", "urls": ""}],
    ids=["none-lives", "has-data", "no-others"],
)
def test_otherwise_a_first_server_makes_the_cluster(tmp_path: Path, case: dict[str, Any]) -> None:
    assert joined(tmp_path, **case).stdout == "token: geheim\nnode-name: master-1\n"


@pytest.mark.parametrize(
    ("text", "absent", "code", "found"),
    [
        (f"K10{CA_HASH}::server:geheim\n", "false", 0, f"{CA_HASH}\n"),
        (None, "true", 0, "\n"),
        (None, "false", 1, ""),
        ("geheim\n", "false", 1, ""),
    ],
    ids=["token", "no cluster yet", "no token", "short token"],
)
def test_the_hash_of_the_clusters_ca_is_read_from_the_servers_token(
    tmp_path: Path, text: str | None, absent: str, code: int, found: str
) -> None:
    if text is not None:
        (tmp_path / "token").write_text(text)
    done = bash(
        f"must_be_root() {{ :; }}; payload_read() {{ V[cluster]=c V[absent]={absent} V[asked_for]=x; }}; TOKEN={tmp_path}/token; main",
        with_phase="cluster-ca",
    )
    assert (done.status, done.reply) == (code, found), done.stderr
    assert "geheim" not in done.stdout + done.stderr



def test_nothing_but_the_reply_comes_out_on_standard_output() -> None:
    """A line there could displace the error of a phase that fails (the plugin copies both streams without a lock)."""
    start = 'payload_read <<< ""\necho "by accident"\nprintf x\n'
    failed = bash(start + "exit 1")
    assert (failed.status, failed.stdout) == (1, "") and "by accident" in failed.stderr
    assert bash(start + 'reply "asked for"').stdout == "----- opstella reply -----\nasked for\n"


@pytest.mark.parametrize("phase", [p for p in PHASES if "  reply " in (SCRIPTS / f"{p}.sh").read_text()])
def test_a_reply_is_a_phases_last_step(phase: str) -> None:
    lines = [line.strip() for line in (SCRIPTS / f"{phase}.sh").read_text().splitlines()]
    (at,) = [n for n, line in enumerate(lines) if line.startswith("reply ")]
    assert lines[at + 1] in ("}", "return", "return 0"), f"{phase}: {lines[at + 1]} follows its reply"
