"""What other programs said is shown, and the remedy follows from it: curl, RKE2 and its kubelet, RKE2's installer."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.sender import Result, bash

# ---- curl -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A web server whose certificate no store has: its URL, and its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {folder}/key -out {folder}/crt -subj /CN=t -days 2 "
        "-addext subjectAltName=DNS:localhost"
    )
    subprocess.run(command.split(), check=True, capture_output=True)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}/", (folder / "crt").read_text()
    server.shutdown()


def reached(url: str, authority: str = "") -> str:
    code = 'V=([urls]=$URL [ca_bundle]=$CA [proxy_http]="" [proxy_https]="" [proxy_no]=""); check_urls; printf "%s" "${PROBLEMS[*]-}"'
    return bash(code, with_phase="preflight", URL=url, CA=authority).stdout


def test_a_certificate_that_is_not_trusted_is_named_and_the_remedy_works(secure: tuple[str, str]) -> None:
    url, authority = secure
    problem = reached(url)
    assert f"cannot reach {url}: curl: (60) SSL certificate problem: self-signed certificate; add the certificate authority" in problem
    assert "opstella:extraCaCertificates" in problem and "web page mentioned above" not in problem
    assert reached(url, authority) == ""


def test_a_download_says_the_same(secure: tuple[str, str], tmp_path: Path) -> None:
    done = bash(f"fetch {secure[0]} {tmp_path}/x")
    assert done.status == 1 and "curl: (60) SSL certificate problem" in done.stderr
    assert "what to do: add the certificate authority that signed the server's certificate" in done.stderr


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("curl: (5) Could not resolve proxy: proxy.example.com", "the name of the proxy is unknown"),
        ("curl: (6) Could not resolve host: get.rke2.io", "opstella:dns.servers"),
        ("curl: (7) Failed to connect to 192.0.2.1 port 443: Connection refused", "route, firewall"),
        ("curl: (22) The requested URL returned error: 404", "the file is there"),
        ("curl: (23) Failure writing output to destination", "free space"),
        ("curl: (28) Connection timed out after 15000 milliseconds", "route, firewall"),
        ("curl: (56) CONNECT tunnel failed, response 407", "the proxy of opstella:proxy lets this host"),
        ("nothing that curl says", "check that this host reaches the server"),
    ],
)
def test_the_remedy_of_a_download_follows_from_curls_status(message: str, remedy: str) -> None:
    assert remedy in bash('curl_remedy "$M"', M=message).stdout


# ---- proxy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("10.1.2.3", True), ("11.1.2.3", False), ("192.168.72.15", True), ("192.168.73.15", False), ("media.example.com", True),
        ("example.com", True), ("badexample.com", False), ("mirror", True), ("a.mirror", True), ("fd00::1", False), ("10.evil.net", False),
    ],
)  # fmt: skip
def test_what_no_proxy_means_holds_for_every_curl(host: str, direct: bool) -> None:
    """curl before 7.86 ignores networks, so what they hold is asked directly by an argument."""
    values = "[proxy_http]=http://proxy:3128 [proxy_https]='' [proxy_no]=$'10.0.0.0/8\\n192.168.72.0/24\\n.example.com,mirror'"
    done = bash(f'V=({values}); proxy_use "http://{host}:8080/x?y"; echo "${{DIRECT[*]-}}" "$http_proxy" "$no_proxy"')
    assert done.stdout == f"{'--noproxy *' if direct else ''} http://proxy:3128 10.0.0.0/8,192.168.72.0/24,.example.com,mirror\n", done.stderr


def test_without_a_proxy_nothing_is_exported(tmp_path: Path) -> None:
    done = bash('proxy_use http://x/; echo "${http_proxy-unset}${no_proxy-unset}"', OPSTELLA_TEST_ROOT=str(tmp_path))
    assert done.stdout == "unsetunset\n"


# ---- RKE2 -------------------------------------------------------------------------------------

# Lines of RKE2, of its kubelet and of the kernel, and what is to be done about each.
LOGS = [
    ("F1201 05:00:00.1 42 run.go:72] command failed: unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [node-role.kubernetes.io/infra]", "take the labels that are named there out of opstella:clusters"),
    ("level=info msg=\"Waiting to retrieve agent configuration; server is not ready: Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry\"", "delete the Secret worker-1.node-password.rke2"),
    ('level=fatal msg="etcd cluster join failed: duplicate node name found, please use a unique name for this node"', "kubectl delete node worker-1"),
    ('level=fatal msg="starting kubernetes: preparing server: bootstrap data already found and encrypted with different token"', "different tokens"),
    ('level=fatal msg="token CA hash does not match the Cluster CA certificate hash: a != b"', "the cluster has another CA"),
    ('level=fatal msg="failed to validate server configuration: critical configuration value mismatch between servers"', "settings differ from those of the running servers"),
    ('level=fatal msg="invalid kernel parameter value vm.overcommit_memory=0 - expected 1"', "sysctl --system"),
    ("level=fatal msg=\"failed to get CA certs: Get \\\"https://192.168.72.12:9345/cacerts\\\": dial tcp 192.168.72.12:9345: connect: connection refused\"", "does not reach the registration address at port 9345"),
    ('level=fatal msg="listen tcp 0.0.0.0:6443: bind: address already in use"', "ss -lntp"),
    ("Incorrect Usage: flag provided but not defined: -frobnicate", "does not know a setting"),
    ('level=error msg="write /var/lib/rancher/rke2/x: no space left on device"', "df -h"),
    ('level=error msg="tls: failed to verify certificate: x509: certificate signed by unknown authority"', "opstella:extraCaCertificates"),
    ('level=error msg="something new"', "nothing there is known to this program"),
]  # fmt: skip


def given_up(tmp_path: Path, line: str, kubelet: bool = False) -> Result:
    log = tmp_path / "agent/logs/kubelet.log"
    log.parent.mkdir(parents=True)
    if kubelet:
        log.write_text(f"I1201 05:00:00.1 42 x.go:1] fine\n{line}\n")
    code = """
    DATA=$FOLDER UNIT=rke2-agent; V=([node_name]=worker-1 [version]=v1.36.3+rke2r1); stage
    journalctl() { printf 'level=info msg="Starting rke2 agent"\\ntime="2026-12-01T05:00:0%s" %s\\n' 1 "$LINE" 2 "$LINE"; }
    give_up "the service rke2-agent did not become active"
    """
    return bash(code, with_phase="rke2", FOLDER=str(tmp_path), LINE='level=error msg="Kubelet exited: exit status 1"' if kubelet else line)


@pytest.mark.parametrize(("line", "remedy"), LOGS)
def test_the_remedy_follows_from_what_rke2_said(tmp_path: Path, line: str, remedy: str) -> None:
    kubelet = line.startswith("F1201")
    done = given_up(tmp_path, line, kubelet)
    assert done.status == 1
    error = next(text for text in done.stderr.splitlines() if ": error: " in text)
    # Once, although RKE2 says it at every start.
    assert error.count(line[-60:]) == 1
    assert f"what to do: {remedy}" in done.stderr or remedy in done.stderr.split("what to do: ")[1]
    assert ("9345" in done.stderr.split("what to do: ")[1]) == ("9345" in line or "x509" in line)


def test_the_installers_words_decide_its_remedy(tmp_path: Path) -> None:
    words = {
        "curl: (60) SSL certificate problem: unable to get local issuer certificate": "opstella:extraCaCertificates",
        "[ERROR]  download sha256 does not match aa, got bb": "the files of one release",
        "[ERROR]  Cannot perform tar install on host with existing RKE2 RPMs - please run rke2-uninstall.sh first": "rke2-uninstall.sh first",
    }
    for text, remedy in words.items():
        assert remedy in bash('stage; printf "%s\\n" "$T" >"$STAGE/install"; installer_remedy', with_phase="rke2", T=text).stdout


# ---- scripts that are downloaded and run ------------------------------------------------------

_ONLINE = """
MEDIA=$FOLDER/media STAGE=$FOLDER/stage; install -d "$STAGE"; declare -A SUMS=() V=([source]=online [type]=agent [version]=v1 [method]=tar
  [install_url]=file://$FOLDER/installer [artifacts_url]= [artifacts_sha256]="$SUM")
proxy_use() { :; }; systemctl() { :; }; installed_version() { echo v1; }
install_rke2
"""
_REPOSITORY = """
MEDIA=$FOLDER/media STAGE=$FOLDER/stage PACKAGE=gitlab-ce REPOSITORY=$FOLDER/none; install -d "$STAGE"
declare -A V=([package_url]=file://$FOLDER/installer [package_sha256]=$SUM [package_sha256_rpm]=)
proxy_use() { :; }; compgen() { :; }; install -d "$MEDIA"
add_repository deb
"""


@pytest.mark.parametrize(("phase", "code", "line"), [("rke2", _ONLINE, "{}  install.sh"), ("gitlab", _REPOSITORY, "{}")])
def test_a_script_from_the_web_runs_only_with_the_sum_that_the_settings_have(
    phase: str, code: str, line: str, tmp_path: Path
) -> None:
    script = tmp_path / "installer"
    script.write_text(f"echo ran >{tmp_path}/ran\n")
    right = hashlib.sha256(script.read_bytes()).hexdigest()
    for sum_, runs in (("", True), (line.format(right), True), (line.format("0" * 64), False)):
        (tmp_path / "ran").unlink(missing_ok=True)
        done = bash(code, with_phase=phase, FOLDER=str(tmp_path), SUM=sum_)
        assert (tmp_path / "ran").exists() is runs, done.stderr
        assert done.status == (0 if runs else 1), done.stderr
        assert runs or "has a wrong SHA-256: expected 000" in done.stderr
