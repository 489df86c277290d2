"""The library of the host scripts, function by function."""

from __future__ import annotations

import base64
import hashlib
import http.server
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan import payload
from tests.scripts.sender import bash

# ---- payload ----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_a_value_arrives_byte_for_byte(text: str) -> None:
    done = bash("payload_read; printf '%s' \"${V[odd]}\" | base64 -w0 >&\"$REPLY_TO\"", payload.render({"odd": text, "next": "x"}))
    assert done.status == 0, done.stderr
    assert base64.b64decode(done.stdout) == text.encode()


@pytest.mark.parametrize("text", ["", "\n\n", " lead and trail \n", "$(touch /x) `id` \\ ' \"", "a\r\nb", "OPSTELLA_PAYLOAD\n", "ü✓"])
def test_awkward_values_arrive(text: str) -> None:
    done = bash("payload_read; printf '%s' \"${V[odd]}\" | base64 -w0 >&\"$REPLY_TO\"", payload.render({"odd": text}))
    assert base64.b64decode(done.stdout) == text.encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("odd AGE=", "the value 'odd' contains a NUL byte"),
        ("odd !!!", "the value 'odd' is not valid base64"),
        ("O-dd YQ==", "a line whose name is not [a-z0-9_]+"),
    ],
)
def test_a_broken_payload_is_refused(line: str, message: str) -> None:
    done = bash('payload_read; echo reached >&"$REPLY_TO"', f"{line}\n")
    assert done.status == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_every_missing_value_is_named_at_once() -> None:
    done = bash('payload_read; require a b c; echo reached >&"$REPLY_TO"', payload.render({"b": "1"}))
    assert done.status == 2
    assert "phase unit was sent no value for: a c" in done.stderr


def test_a_payload_larger_than_a_pipe_arrives() -> None:
    text = "x" * 300_000
    done = bash("payload_read; printf '%s' \"${#V[big]}\" >&\"$REPLY_TO\"", payload.render({"big": text}))
    assert done.stdout == "300000"


# ---- errors -----------------------------------------------------------------------------------


def test_an_unforeseen_failure_names_phase_function_and_line_and_no_value() -> None:
    done = bash("secret=hunter2; step() { grep -q \"$secret\" /dev/null; }; step; echo reached")
    assert done.status == 1
    assert "unit: error: the command `grep -q \"$secret\" /dev/null` in step, line " in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


def test_a_refusal_inside_a_substitution_stops_the_phase_and_is_said_once() -> None:
    done = bash("f() { die 'it is broken' 'mend it'; }; x=$(f); echo reached $x")
    assert done.status == 1
    assert done.stderr.count("error:") == 1
    assert "what to do: mend it" in done.stderr
    assert done.stdout == ""


def test_what_looks_like_a_secret_is_blanked() -> None:
    lines = (
        "token: K10abcdef0123456789abcdef::server:geheim1\n"
        'password="geheim2" and more\nGITLAB_ROOT_PASSWORD=geheim3\nAuthorization: Bearer geheim4\n'
        "proxy http://user:geheim5@proxy:3128/\nlevel=info msg=\"joined K10deadbeefdeadbeef::geheim6\"\nthe token expired\n"
    )
    done = bash("redact", lines)
    assert "geheim" not in done.stdout
    assert "the token expired" in done.stdout
    assert "and more" in done.stdout


# ---- files ------------------------------------------------------------------------------------


def test_a_file_is_written_once_and_its_predecessor_kept(tmp_path: Path) -> None:
    root = str(tmp_path)
    code = 'install_text /etc/x/y.conf 0640 "$TEXT"; echo $DID'
    assert bash(code, OPSTELLA_TEST_ROOT=root, TEXT="one\n").stdout == "changed\n"
    assert bash(code, OPSTELLA_TEST_ROOT=root, TEXT="one\n").stdout == "unchanged\n"
    assert bash(code, OPSTELLA_TEST_ROOT=root, TEXT="two").stdout == "changed\n"
    written = tmp_path / "etc/x/y.conf"
    assert written.read_text() == "two"
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    kept = list((tmp_path / "var/backups/opstella").iterdir())
    assert [k.read_text() for k in kept] == ["one\n"]
    assert stat.S_IMODE(kept[0].stat().st_mode) == 0o600
    assert [p.name for p in written.parent.iterdir()] == ["y.conf"]


def test_a_changed_mode_alone_is_put_right(tmp_path: Path) -> None:
    code = "install_text /secret 0600 s; echo $DID"
    bash(code, OPSTELLA_TEST_ROOT=str(tmp_path))
    (tmp_path / "secret").chmod(0o644)
    assert bash(code, OPSTELLA_TEST_ROOT=str(tmp_path)).stdout == "changed\n"
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_only_five_copies_are_kept(tmp_path: Path) -> None:
    bash("for i in 1 2 3 4 5 6 7 8; do install_text /f 0644 \"$i\"; done", OPSTELLA_TEST_ROOT=str(tmp_path))
    kept = sorted((tmp_path / "var/backups/opstella").iterdir())
    assert [k.read_text() for k in kept] == ["3", "4", "5", "6", "7"]


def test_a_block_leaves_the_users_lines_alone(tmp_path: Path) -> None:
    hosts = tmp_path / "etc/hosts"
    hosts.parent.mkdir()
    hosts.write_text("127.0.0.1 localhost\n10.0.0.1 mine")
    root = str(tmp_path)
    bash("install_block /etc/hosts $'10.0.0.2 a\\n'", OPSTELLA_TEST_ROOT=root)
    assert hosts.read_text() == "127.0.0.1 localhost\n10.0.0.1 mine\n# BEGIN opstella\n10.0.0.2 a\n# END opstella\n"
    bash("install_block /etc/hosts $'10.0.0.3 b\\n'", OPSTELLA_TEST_ROOT=root)
    assert hosts.read_text().count("opstella") == 2
    assert "10.0.0.2" not in hosts.read_text()
    bash("install_block /etc/hosts ''", OPSTELLA_TEST_ROOT=root)
    assert hosts.read_text() == "127.0.0.1 localhost\n10.0.0.1 mine\n"
    hosts.write_text("# BEGIN opstella\nmine\n")
    done = bash("install_block /etc/hosts x", OPSTELLA_TEST_ROOT=root)
    assert done.status == 1
    assert "without '# END opstella'" in done.stderr
    assert hosts.read_text() == "# BEGIN opstella\nmine\n"


def test_what_was_written_but_not_put_to_use_is_remembered(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert bash("in_use svc one && echo yes || echo no", OPSTELLA_TEST_ROOT=root).stdout == "no\n"
    bash("now_in_use svc one", OPSTELLA_TEST_ROOT=root)
    assert bash("in_use svc one && echo yes || echo no", OPSTELLA_TEST_ROOT=root).stdout == "yes\n"
    assert bash("in_use svc two && echo yes || echo no", OPSTELLA_TEST_ROOT=root).stdout == "no\n"


def test_the_trust_store_folder_holds_one_file_per_certificate(tmp_path: Path) -> None:
    pems = []
    for name in ("one", "two"):
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null", "-subj", f"/CN={name}", "-days", "2"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        pems.append(made.stdout)
    code = 'install_certificates /ca crt "$PEM"; echo $DID'
    root = str(tmp_path)
    assert bash(code, OPSTELLA_TEST_ROOT=root, PEM="# a remark\n" + "".join(pems)).stdout == "changed\n"
    assert sorted(p.read_text() for p in (tmp_path / "ca").iterdir()) == sorted(pems)
    assert bash(code, OPSTELLA_TEST_ROOT=root, PEM="".join(reversed(pems))).stdout == "unchanged\n"
    assert bash(code, OPSTELLA_TEST_ROOT=root, PEM=pems[1]).stdout == "changed\n"
    assert [p.read_text() for p in (tmp_path / "ca").iterdir()] == [pems[1]]
    assert "holds no certificate" in bash(code, OPSTELLA_TEST_ROOT=root, PEM="nonsense").stderr
    assert "ends inside a certificate" in bash(code, OPSTELLA_TEST_ROOT=root, PEM=pems[0][:200]).stderr


# ---- identity ---------------------------------------------------------------------------------


def test_a_foreign_host_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path)
    code = "identity_check p/s/a; echo fine"
    assert bash(code, OPSTELLA_TEST_ROOT=root).stdout == "fine\n"
    (tmp_path / "etc/rancher/rke2").mkdir(parents=True)
    (tmp_path / "etc/rancher/rke2/config.yaml").write_text("token: x\n")
    done = bash(code, OPSTELLA_TEST_ROOT=root)
    assert done.status == 1
    assert "already runs RKE2" in done.stderr and "what to do: give a fresh host" in done.stderr
    (tmp_path / "etc/opstella").mkdir()
    (tmp_path / "etc/opstella/identity").write_text("p/s/b\n")
    done = bash(code, OPSTELLA_TEST_ROOT=root)
    assert "this host already belongs to 'p/s/b'" in done.stderr and "not to 'p/s/a'" in done.stderr
    (tmp_path / "etc/opstella/identity").write_text("p/s/a\n")
    assert bash(code, OPSTELLA_TEST_ROOT=root).stdout == "fine\n"


# ---- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "sign"),
    [
        ("v1.36.3+rke2r1", "v1.36.3+rke2r1", 0),
        ("v1.36.3+rke2r1", "v1.36.3+rke2r2", -1),
        ("v1.36.10+rke2r1", "v1.36.9+rke2r1", 1),
        ("v1.36.3-rc2+rke2r1", "v1.36.3+rke2r1", -1),
        ("19.2.1", "19.10.0", -1),
        ("2.0.0", "1.99.99", 1),
        ("v1.08.09+rke2r1", "v1.8.9+rke2r1", 0),
    ],
)
def test_versions_compare(a: str, b: str, sign: int) -> None:
    assert bash(f"version_compare '{a}' '{b}'").stdout == f"{sign}\n"
    assert bash(f"version_compare '{b}' '{a}'").stdout == f"{-sign}\n"


@pytest.mark.parametrize(
    ("installed", "wanted", "message"),
    [
        ("v1.36.3+rke2r1", "v1.36.2+rke2r1", "a downgrade corrupts its data"),
        ("v1.34.1+rke2r1", "v1.36.3+rke2r1", "skips a minor release"),
        ("v1.36.3+rke2r1", "v2.0.0+rke2r1", "skips a minor release"),
        ("v1.35.7+rke2r1", "v1.36.3+rke2r1", ""),
        ("v1.36.3+rke2r1", "v1.36.3+rke2r2", ""),
    ],
)
def test_a_forbidden_step_between_versions_is_refused(installed: str, wanted: str, message: str) -> None:
    done = bash(f"version_step_check RKE2 '{installed}' '{wanted}'; echo fine")
    if message:
        assert done.status == 1 and message in done.stderr and installed in done.stderr and wanted in done.stderr
    else:
        assert (done.status, done.stdout) == (0, "fine\n")


# ---- downloads --------------------------------------------------------------------------------


@pytest.fixture
def media(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server over a folder: its URL, the folder, and the paths that were asked for."""
    asked: list[str] = []
    folder = tmp_path / "media"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()


def test_a_wrong_sum_is_refused_and_the_file_removed(tmp_path: Path, media: tuple[str, Path, list[str]]) -> None:
    url, folder, _ = media
    (folder / "rke2.tar.gz").write_bytes(b"tampered")
    expected, got = hashlib.sha256(b"right").hexdigest(), hashlib.sha256(b"tampered").hexdigest()
    target = tmp_path / "staged/rke2.tar.gz"
    done = bash(f"fetch_verified '{url}/rke2.tar.gz' '{target}' {expected}; echo reached")
    assert done.status == 1 and done.stdout == ""
    assert all(part in done.stderr for part in ("rke2.tar.gz", expected, got, "the file was removed"))
    assert list(target.parent.iterdir()) == []


def test_a_right_file_is_loaded_once(tmp_path: Path, media: tuple[str, Path, list[str]]) -> None:
    url, folder, asked = media
    (folder / "a+b.zst").write_bytes(b"right")
    target = tmp_path / "a+b.zst"
    code = f"fetch_verified '{url}/a%2Bb.zst' '{target}' {hashlib.sha256(b'right').hexdigest().upper()}; echo $DID"
    assert bash(code).stdout == "changed\n"
    assert bash(code).stdout == "unchanged\n"
    assert len(asked) == 1
    target.write_bytes(b"half")
    assert bash(code).stdout == "changed\n"
    assert target.read_bytes() == b"right"


def test_a_file_that_is_not_there_says_so(tmp_path: Path, media: tuple[str, Path, list[str]]) -> None:
    url, _, _ = media
    done = bash(f"fetch '{url}/none' '{tmp_path}/none'")
    assert done.status == 1
    assert f"cannot download {url}/none" in done.stderr and "404" in done.stderr
    assert not (tmp_path / "none.part").exists()


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o1777)
    done = bash(f"folder {tmp_path}/there; folder {tmp_path}/made 0700; folder {tmp_path}/by/default")
    assert done.status == 0, done.stderr
    modes = {name: oct((tmp_path / name).stat().st_mode & 0o7777) for name in ("there", "made", "by", "by/default")}
    assert modes == {"there": "0o1777", "made": "0o700", "by": "0o755", "by/default": "0o755"}


# ---- clock ------------------------------------------------------------------------------------


@pytest.fixture
def time_server() -> Iterator[tuple[int, dict[str, float]]]:
    """A small SNTP responder on loopback whose clock is `shift` seconds ahead and whose stratum can be set."""
    state: dict[str, float] = {"shift": 0, "stratum": 2}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                request, peer = server.recvfrom(512)
            except OSError:
                return
            if len(request) != 48 or request[0] & 7 != 3:
                continue
            now = time.time() + state["shift"] + 2208988800
            stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
            server.sendto(bytes([0x24, int(state["stratum"]), 6, 0xEC]) + bytes(12) + stamp + request[40:48] + stamp + stamp, peer)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], state
    server.close()


@pytest.mark.parametrize("shift", [0, 45, -3600, 0.5])
def test_clock_skew_is_measured_by_sntp(time_server: tuple[int, dict[str, float]], shift: float) -> None:
    port, state = time_server
    state["shift"] = shift
    done = bash(f"sntp_offset 127.0.0.1 {port}", with_phase="preflight")
    assert done.status == 0, done.stderr
    assert int(done.stdout) == pytest.approx(-shift * 1000, abs=250)


def test_a_time_server_without_time_of_its_own_is_not_believed(time_server: tuple[int, dict[str, float]]) -> None:
    port, state = time_server
    state["stratum"] = 16
    assert bash(f"sntp_offset 127.0.0.1 {port} || echo refused", with_phase="preflight").stdout == "refused\n"


def test_a_silent_time_server_ends_within_its_bound() -> None:
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    started = time.monotonic()
    done = bash(f"sntp_offset 127.0.0.1 {silent.getsockname()[1]} || echo refused", with_phase="preflight")
    assert done.stdout == "refused\n"
    assert time.monotonic() - started < 6


@pytest.mark.parametrize(("ms", "text"), [(0, "0.000"), (-1, "-0.001"), (45123, "45.123"), (-3600000, "-3600.000")])
def test_milliseconds_read_as_seconds(ms: int, text: str) -> None:
    assert bash(f"seconds {ms}", with_phase="preflight").stdout == text


@pytest.mark.parametrize(
    ("limit", "sessions", "refused"),
    [("100", 60, True), ("100", 50, False), ("infinity", 9000, False), ("[not set]", 60, False), ("10", 0, False)],
)
def test_a_bastion_whose_slice_takes_too_few_processes_is_refused(limit: str, sessions: int, refused: bool) -> None:
    done = bash(
        f"SUDO_UID=1000; systemctl() {{ echo '{limit}'; }}; V[sessions]={sessions}; check_processes; printf '%s' \"${{PROBLEMS[*]}}\"",
        with_phase="preflight",
    )
    assert done.status == 0, done.stderr
    if refused:
        assert "100 processes run in user-1000.slice" in done.stdout
        assert "systemctl set-property user-1000.slice TasksMax=180" in done.stdout
    else:
        assert done.stdout == ""


# ---- firewall ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_the_other_end_acknowledged_is_read_of_both_families(address: str) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            served, _ = server.accept()
            with served:
                served.sendall(b"twelve bytes")
                assert client.recv(100)
                port = client.getsockname()[1]
                done = bash(f"acknowledged {address} {port}")
    assert (done.status, done.stdout) == (0, "12\n"), done.stderr
    gone = bash(f"acknowledged {address} {port}")
    assert gone.status != 0


# Stands in for nft, by what it is told, and for ss, whose count grows or does not.
TRIED = """
undo_by() { :; }
sleep() { :; }
nft() { local rules; rules=$(</dev/stdin); printf '%s\\n' "$rules"; [[ $rules != *notrack* ]] || NFT; }
ss() { printf 'ESTAB\\n\\tcubic bytes_acked:%s\\n' "$(date +%N | sed 's/^0*//')"; }
if firewall_admits 'CONNECTION'; then echo admitted; else echo refused; fi
"""


def test_rules_are_not_proven_where_the_packets_stay_tracked() -> None:
    """What answers then is let in as a connection that is known."""
    done = bash(TRIED.replace("NFT", "false").replace("CONNECTION", "192.0.2.1 50000 192.0.2.2 22"))
    assert done.status == 1
    assert "admitted" not in done.stdout
    assert "cannot be told: nft does not leave its packets untracked" in done.stderr
    assert "what to do: replace this host's preparation" in done.stderr


def test_the_interface_of_an_address_of_a_link_is_left_out_of_the_rules() -> None:
    done = bash(TRIED.replace("NFT", "true").replace("CONNECTION", "fe80::1%eth0 50000 fe80::2%eth0 22"))
    assert "%" not in done.stdout and "ip6 saddr fe80::1 tcp sport 50000 ip6 daddr fe80::2" in done.stdout, done.stderr
