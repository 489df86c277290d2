"""The stand-in for ``command`` against a real SSH server: the official one's rules."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any

import asyncssh
import pytest

from tests.lab.providers.driver import UNKNOWN, Driver, Failure, plain, secret, secrets_of
from tests.lab.providers.ssh_server import SshServer

pytestmark = pytest.mark.toolchain

REMOTE = "command:remote:Command"
LOCAL = "command:local:Command"


def texts(driver: Driver) -> list[str]:
    return [message for _, message, _ in driver.messages]


def other_key(kind: str = "ssh-ed25519") -> str:
    return asyncssh.generate_private_key(kind).export_public_key().decode().strip()


# --- check ---


def test_connection_gets_its_defaults_and_is_secret(command: Driver) -> None:
    inputs = command.inputs(REMOTE, {"connection": {
        "host": "h", "privateKey": "k", "proxy": {"host": "p", "password": "w"}}})
    defaults = {"port": 22.0, "user": "root", "dialErrorLimit": 10.0, "perDialTimeout": 15.0}
    assert plain(inputs["connection"]) == {
        "host": "h", "privateKey": "k", **defaults,
        "proxy": {"host": "p", "password": "w", **defaults}}
    assert inputs["connection"].is_secret
    assert inputs["connection"].value["privateKey"].is_secret
    assert inputs["connection"].value["proxy"].value["password"].is_secret
    assert not inputs["connection"].value["host"].is_secret


@pytest.mark.parametrize("inputs,property", [
    ({}, "connection"), ({"connection": {}}, "connection"),
    ({"connection": {"host": "h", "port": "x"}}, "connection"),
    ({"connection": {"host": "h", "dialErrorLimit": 1.5}}, "connection"),
    ({"connection": {"host": "h"}, "create": 5}, "create"),
    ({"connection": {"host": "h"}, "environment": {"A": 1}}, "environment"),
])
def test_bad_inputs_are_named(command: Driver, inputs: dict[str, Any], property: str) -> None:
    _, failures = command.check(REMOTE, inputs)
    assert list(failures) == [property]


def test_an_unknown_connection_passes(command: Driver) -> None:
    assert plain(command.inputs(REMOTE, {"connection": secret(UNKNOWN)})["connection"]) == UNKNOWN


def test_glob_inputs_of_a_local_command_are_refused(command: Driver) -> None:
    _, failures = command.check(LOCAL, {"create": "true", "assetPaths": ["*"]})
    assert "does not cover 'assetPaths'" in failures["assetPaths"]


def test_an_uncovered_resource_is_refused_by_name(command: Driver) -> None:
    with pytest.raises(Failure, match="does not cover command:remote:CopyToRemote; it covers"):
        command.check("command:remote:CopyToRemote", {})


# --- diff ---

BASE = {"connection": {"host": "h"}, "create": "a", "triggers": ["1", {"b": "2"}],
        "environment": {"A": "1"}}


@pytest.mark.parametrize("change,expected", [
    ({}, {}),
    ({"create": "b"}, {"create": "UPDATE"}),
    ({"stdin": "x"}, {"stdin": "ADD"}),
    ({"create": None}, {"create": "DELETE"}),
    ({"connection": {"host": "other"}}, {"connection": "UPDATE"}),
    ({"connection": {"host": "h", "dialErrorLimit": 100}}, {"connection": "UPDATE"}),
    ({"connection": {"host": "h", "port": 22}}, {}),
    ({"environment": {"A": "2", "B_C": "3"}}, {"environment.A": "UPDATE", "environment.B_C": "ADD"}),
    ({"triggers": ["1", {"b": "3"}]}, {"triggers[1].b": "UPDATE"}),
    ({"triggers": ["1", {"b": "2"}, "4"]}, {"triggers[2]": "ADD"}),
    ({"triggers": None}, {"triggers": "DELETE_REPLACE"}),
    ({"create": UNKNOWN}, {"create": "UPDATE"}),
    ({"create": secret("a")}, {"create": "UPDATE"}),
])
def test_diff(command: Driver, change: dict[str, Any], expected: dict[str, str]) -> None:
    assert command.diff(REMOTE, BASE, {**BASE, **change}) == expected


def test_diff_compares_inputs_not_outputs(command: Driver) -> None:
    """A property that additionalSecretOutputs made secret in the state has not changed."""
    inputs = {"connection": {"host": "h"}, "create": "a"}
    state = {**command.inputs(REMOTE, inputs), "create": secret("a")}
    assert command.diff(REMOTE, inputs, inputs, state) == {}


def test_a_thousand_resources_at_once(command: Driver) -> None:
    """Check and diff over the wire, as the engine asks: several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    inputs = {**BASE, "stdin": "x" * 10_000}
    checked = command.inputs(REMOTE, inputs)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: command.diff(REMOTE, inputs, inputs, checked), range(1000)))
    assert results == [{}] * 1000
    # Three requests a resource, the driver's own work in the same process: some 3 s on one idle core.
    assert time.monotonic() - started < 30


def test_check_and_diff_take_less_than_a_millisecond(command: Driver) -> None:
    """At a thousand resources: measured without the wire, which Pulumi has anyway."""
    from standin.command_package import RemoteCommand
    from standin.values import wrap

    kind = RemoteCommand()
    news = {key: wrap(value) for key, value in {
        **BASE, "stdin": "x" * 20_000,
        "connection": {"host": "h", "privateKey": "k" * 500, "proxy": {"host": "p"}}}.items()}
    started = time.process_time()
    for _ in range(200):
        inputs, _ = kind.check(news)
        kind.diff(inputs, inputs, inputs)
    assert (time.process_time() - started) / 200 < 1e-3


# --- create, update, delete ---


def test_create_runs_with_stdin_and_trims_one_newline(command: Driver, sshd: SshServer) -> None:
    made, state = command.create(REMOTE, {
        "connection": sshd.connection(), "create": "cat; printf 'e\\n\\n' >&2",
        "stdin": "päss\n"}, name="db")
    assert (plain(state["stdout"]), plain(state["stderr"])) == ("päss", "e\n")
    assert re.fullmatch("db[0-9a-f]{8}", made)


def test_without_stdin_the_command_reads_an_empty_input(command: Driver, sshd: SshServer) -> None:
    _, state = command.create(REMOTE, {"connection": sshd.connection(), "create": "wc -c"})
    assert plain(state["stdout"]).strip() == "0"


def test_a_large_stdin_and_output_pass(command: Driver, sshd: SshServer) -> None:
    text = "0123456789abcde\n" * 200_000
    _, state = command.create(REMOTE, {"connection": sshd.connection(), "create": "cat",
                                       "logging": "none", "stdin": text})
    assert plain(state["stdout"]) == text[:-1]


def test_a_command_that_does_not_read_its_stdin_succeeds(command: Driver, sshd: SshServer) -> None:
    _, state = command.create(REMOTE, {"connection": sshd.connection(), "create": "echo done",
                                       "stdin": "x" * 5_000_000})
    assert plain(state["stdout"]) == "done"


def test_secrets_follow_the_inputs_only(command: Driver, sshd: SshServer) -> None:
    """stdout is in clear even when stdin was secret, as with the official provider."""
    _, state = command.create(REMOTE, {"connection": sshd.connection(), "create": "cat",
                                       "stdin": secret("s")})
    assert secrets_of(state) == {"connection", "stdin"}
    assert plain(state["stdout"]) == "s"


def test_nothing_runs_without_create_nor_in_a_preview(command: Driver, sshd: SshServer) -> None:
    before = sshd.connections()
    _, state = command.create(REMOTE, {"connection": sshd.connection()})
    assert (plain(state["stdout"]), plain(state["stderr"])) == ("", "")
    _, planned = command.create(REMOTE, {"connection": sshd.connection(), "create": "true"},
                                preview=True)
    assert (plain(planned["stdout"]), plain(planned["stderr"])) == (UNKNOWN, UNKNOWN)
    assert plain(planned["create"]) == "true"
    assert sshd.connections() == before


def test_update_runs_update_else_create(command: Driver, sshd: SshServer) -> None:
    base = {"connection": sshd.connection(), "create": "echo made"}
    _, state = command.create(REMOTE, base)
    assert plain(command.update(REMOTE, state, {**base, "update": "echo new"})["stdout"]) == "new"
    again = command.update(REMOTE, state, {**base, "stdin": "x"})
    assert plain(again["stdout"]) == "made" and plain(again["stdin"]) == "x"
    kept = command.update(REMOTE, state, {"connection": sshd.connection(), "delete": "true"})
    assert plain(kept["stdout"]) == "made" and "create" not in kept


def test_preview_of_an_update(command: Driver) -> None:
    base = {"connection": {"host": "h"}, "create": "a", "stdin": "1"}
    state = {**command.inputs(REMOTE, base), "stdout": "old", "stderr": ""}
    changed = command.update(REMOTE, state, {**base, "stdin": "2"}, preview=True)
    assert plain(changed["stdout"]) == UNKNOWN
    waiting = command.update(REMOTE, state, {**base, "create": UNKNOWN}, preview=True)
    assert plain(waiting["stderr"]) == UNKNOWN
    # An input that the state does not have does not count: the official provider's rule.
    added = command.update(REMOTE, state, {**base, "update": "b"}, preview=True)
    assert plain(added["stdout"]) == "old"


def test_delete_uses_what_is_stored(command: Driver, sshd: SshServer, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    _, state = command.create(REMOTE, {
        "connection": sshd.connection(), "create": "echo made", "stdin": "content",
        "delete": f"cat > {mark}"})
    command.delete(REMOTE, state)
    assert mark.read_text() == "content"
    before = sshd.connections()
    command.delete(REMOTE, {key: value for key, value in state.items() if key != "delete"})
    assert sshd.connections() == before


def test_each_run_is_one_new_connection(command: Driver, sshd: SshServer) -> None:
    before = sshd.connections()
    base = {"connection": sshd.connection(), "create": "true"}
    _, state = command.create(REMOTE, base)
    command.update(REMOTE, state, base)
    assert sshd.connections() == before + 2


# --- failures ---


def test_a_failure_tells_command_and_output(command: Driver, sshd: SshServer) -> None:
    with pytest.raises(Failure) as failure:
        command.create(REMOTE, {"connection": sshd.connection(),
                                "create": 'echo "one"; sleep .2; echo two >&2; exit 3'})
    assert str(failure.value) == (
        'Process exited with status 3: running "echo \\"one\\"; sleep .2; echo two >&2; '
        'exit 3":\none\ntwo\n')


def test_a_signal_is_named(command: Driver, sshd: SshServer) -> None:
    if not sshd.real:
        pytest.skip("asyncssh's server passes no signal on: needs OpenSSH's sshd")
    with pytest.raises(Failure, match="from signal TERM"):
        command.create(REMOTE, {"connection": sshd.connection(), "create": "kill -TERM $$"})


def refused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_dials_are_counted_and_spaced(command: Driver) -> None:
    port = refused_port()
    started = time.monotonic()
    with pytest.raises(Failure) as failure:
        command.create(REMOTE, {"create": "true", "connection": {
            "host": "127.0.0.1", "port": port, "dialErrorLimit": 3}})
    assert str(failure.value) == (f"after 3 failed attempts: dial tcp 127.0.0.1:{port}: connect: "
                                  "connection refused")
    assert texts(command) == [f"Dial {n}/3 failed: retrying" for n in (1, 2, 3)]
    # 0.1 s, 0.15 s, 0.225 s
    assert 0.47 < time.monotonic() - started < 1.5


def test_a_limit_of_zero_dials_once(command: Driver) -> None:
    with pytest.raises(Failure, match="^after 0 failed attempts: "):
        command.create(REMOTE, {"create": "true", "connection": {
            "host": "127.0.0.1", "port": refused_port(), "dialErrorLimit": 0}})
    assert texts(command) == []


def test_the_delays_grow_by_half_up_to_five_seconds() -> None:
    import asyncio

    from standin.schema import Call, ProviderError
    from standin.ssh import DialError, dial_with_retry

    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def dial() -> None:
        raise DialError("no")

    with pytest.raises(ProviderError, match="after 13 failed attempts: no"):
        asyncio.run(dial_with_retry(Call("n", "u", lambda *_: None, sleep), "Dial", 13, dial))
    assert waits == pytest.approx([0.1 * 1.5 ** n for n in range(10)] + [5.0] * 3)
    # What a refused connection costs with the default of ten.
    assert sum(waits[:10]) == pytest.approx(11.33, abs=0.01)


def test_a_host_that_comes_up_late_is_reached(command: Driver, sshd: SshServer) -> None:
    port = refused_port()
    relay = socket.socket()
    relay.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def serve() -> None:
        time.sleep(0.4)
        relay.bind(("127.0.0.1", port))
        relay.listen()
        client, _ = relay.accept()
        upstream = socket.create_connection(("127.0.0.1", sshd.port))

        def pump(source: socket.socket, target: socket.socket) -> None:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

        threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
        pump(client, upstream)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    _, state = command.create(REMOTE, {"connection": sshd.connection(port=port, dialErrorLimit=-1),
                                       "create": "echo up"})
    assert plain(state["stdout"]) == "up"
    assert "Dial 1/inf failed: retrying" in texts(command)
    relay.close()


def test_a_silent_host_times_out_by_dial(command: Driver) -> None:
    """A full backlog answers no SYN: perDialTimeout bounds the connect."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        started = time.monotonic()
        with pytest.raises(Failure, match=rf"dial tcp 127.0.0.1:{port}: i/o timeout"):
            command.create(REMOTE, {"create": "true", "connection": {
                "host": "127.0.0.1", "port": port, "dialErrorLimit": 0, "perDialTimeout": 1}})
        assert 0.9 < time.monotonic() - started < 3
        for filler in fillers:
            filler.close()


def test_the_resources_own_time_out_ends_the_dialling(command: Driver) -> None:
    started = time.monotonic()
    with pytest.raises(Failure, match="^context deadline exceeded$"):
        command.create(REMOTE, {"create": "true", "connection": {
            "host": "127.0.0.1", "port": refused_port(), "dialErrorLimit": -1}}, timeout=1)
    assert 0.9 < time.monotonic() - started < 3


def test_a_cancel_ends_the_dialling(command: Driver) -> None:
    from google.protobuf import empty_pb2

    threading.Timer(0.3, lambda: command.stub.Cancel(empty_pb2.Empty())).start()
    with pytest.raises(Failure, match="^context canceled$"):
        command.create(REMOTE, {"create": "true", "connection": {
            "host": "127.0.0.1", "port": refused_port(), "dialErrorLimit": -1}})


def test_a_wrong_host_key_is_refused(command: Driver, sshd: SshServer) -> None:
    before = sshd.connections()
    with pytest.raises(Failure) as failure:
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            hostKey=other_key(), dialErrorLimit=1)})
    assert str(failure.value) == ("after 1 failed attempts: ssh: handshake failed: ssh: host key "
                                  "mismatch")
    assert sshd.connections() == before


def test_a_host_key_of_another_kind_is_refused(command: Driver, sshd: SshServer) -> None:
    with pytest.raises(Failure, match="handshake failed: ssh: no common algorithm for host key"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            hostKey=other_key("ecdsa-sha2-nistp256"), dialErrorLimit=0)})


def test_a_host_key_that_is_none(command: Driver, sshd: SshServer) -> None:
    with pytest.raises(Failure, match="^failed to parse host key: "):
        command.create(REMOTE, {"create": "true",
                                "connection": sshd.connection(hostKey="nonsense")})


def test_without_a_host_key_any_host_is_trusted(command: Driver, sshd: SshServer) -> None:
    _, state = command.create(REMOTE, {"connection": sshd.connection(hostKey=None),
                                       "create": "echo in"})
    assert plain(state["stdout"]) == "in"


def test_a_refused_key(command: Driver, sshd: SshServer) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with pytest.raises(Failure, match=r"ssh: unable to authenticate, attempted methods \[none "
                                      r"publickey\], no supported methods remain"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            privateKey=key, dialErrorLimit=0)})


def test_an_encrypted_key_needs_its_password(command: Driver, sshd: SshServer) -> None:
    locked = asyncssh.import_private_key(sshd.private_key).export_private_key(
        "pkcs8-pem", passphrase="open sesame").decode()
    _, state = command.create(REMOTE, {"create": "echo in", "connection": sshd.connection(
        privateKey=locked, privateKeyPassword="open sesame")})
    assert plain(state["stdout"]) == "in"
    with pytest.raises(Failure, match="^ssh: this private key is passphrase protected$"):
        command.create(REMOTE, {"create": "true",
                                "connection": sshd.connection(privateKey=locked)})
    with pytest.raises(Failure, match="^x509: decryption password incorrect$"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            privateKey=locked, privateKeyPassword="wrong")})
    with pytest.raises(Failure, match="^ssh: no key found$"):
        command.create(REMOTE, {"create": "true",
                                "connection": sshd.connection(privateKey="rubbish")})


# --- proxy ---


def test_the_proxy_is_used(command: Driver, sshd: SshServer) -> None:
    before = sshd.connections()
    _, state = command.create(REMOTE, {
        "connection": sshd.connection(proxy=sshd.connection()), "create": "echo through"})
    assert plain(state["stdout"]) == "through"
    assert sshd.connections() == before + 2


def test_a_proxy_that_is_away(command: Driver, sshd: SshServer) -> None:
    port = refused_port()
    with pytest.raises(Failure, match=f"^proxy: after 1 failed attempts: dial tcp 127.0.0.1:{port}"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            proxy=sshd.connection(port=port, dialErrorLimit=1))})
    assert texts(command) == ["Dial proxy 1/1 failed: retrying"]


def test_a_target_that_is_away_behind_the_proxy(command: Driver, sshd: SshServer) -> None:
    with pytest.raises(Failure, match="^proxy: after 2 failed attempts: ssh: rejected: connect "
                                      "failed"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            port=refused_port(), dialErrorLimit=2, proxy=sshd.connection())})
    assert texts(command) == ["Dial from proxy 1/2 failed: retrying",
                              "Dial from proxy 2/2 failed: retrying"]


def test_a_wrong_host_key_behind_the_proxy_ends_as_eof(command: Driver, sshd: SshServer) -> None:
    """The official provider retries on the closed channel: the reason is lost unless limit is 0."""
    def attempt(limit: int) -> str:
        with pytest.raises(Failure) as failure:
            command.create(REMOTE, {"create": "true", "connection": sshd.connection(
                hostKey=other_key(), dialErrorLimit=limit, proxy=sshd.connection())})
        return str(failure.value)

    assert attempt(0) == ("proxy: after 0 failed attempts: ssh: handshake failed: ssh: host key "
                          "mismatch")
    assert attempt(2) == "proxy: after 2 failed attempts: ssh: handshake failed: EOF"


def test_a_wrong_host_key_of_the_proxy(command: Driver, sshd: SshServer) -> None:
    before = sshd.connections()
    with pytest.raises(Failure, match="^proxy: after 0 failed attempts: .*host key mismatch$"):
        command.create(REMOTE, {"create": "true", "connection": sshd.connection(
            proxy=sshd.connection(hostKey=other_key(), dialErrorLimit=0))})
    assert sshd.connections() == before


# --- environment and logging ---


def test_environment_needs_the_servers_consent(command: Driver, sshd: SshServer) -> None:
    if not sshd.real:
        pytest.skip("asyncssh's server accepts every variable: needs OpenSSH's sshd")
    base = {"connection": sshd.connection(), "create": "echo $LAB_ONE$OTHER"}
    _, state = command.create(REMOTE, {**base, "environment": {"LAB_ONE": "1"}})
    assert plain(state["stdout"]) == "1"
    with pytest.raises(Failure) as failure:
        command.create(REMOTE, {**base, "environment": {"OTHER": "2"}})
    assert str(failure.value) == 'could not set environment variable "OTHER": ssh: setenv failed'
    severity, message, ephemeral = command.messages[-1]
    assert message.startswith("Unable to set 'OTHER'.") and "AcceptEnv" in message
    assert severity == 3 and not ephemeral


def test_previous_output_is_offered_and_its_refusal_only_warns(
        command: Driver, sshd: SshServer) -> None:
    if not sshd.real:
        pytest.skip("asyncssh's server accepts every variable: needs OpenSSH's sshd")
    base = {"connection": sshd.connection(), "create": "echo [$PULUMI_COMMAND_STDOUT]",
            "logging": "none"}
    _, state = command.create(REMOTE, base)
    assert command.messages == []
    again = command.update(REMOTE, state, base)
    assert plain(again["stdout"]) == "[]"
    assert [(severity, text.split(".")[0]) for severity, text, _ in command.messages] == [
        (2, "Unable to set 'PULUMI_COMMAND_STDOUT'")]
    off = {**base, "addPreviousOutputInEnv": False}
    command.update(REMOTE, state, off)
    assert len(command.messages) == 1


@pytest.mark.parametrize("logging,expected", [
    (None, {"out", "err"}), ("stdoutAndStderr", {"out", "err"}), ("stdout", {"out"}),
    ("stderr", {"err"}), ("none", set())])
def test_logging(command: Driver, sshd: SshServer, logging: str | None,
                 expected: set[str]) -> None:
    _, state = command.create(REMOTE, {"connection": sshd.connection(), "logging": logging,
                                       "create": "echo out; printf err >&2"})
    assert set(texts(command)) == expected
    assert all(ephemeral for _, _, ephemeral in command.messages)
    assert (plain(state["stdout"]), plain(state["stderr"])) == ("out", "err")


def test_many_commands_at_once(command: Driver, sshd: SshServer, tmp_path: Any) -> None:
    """Each waits for all others to have begun: one after another, the first would wait in vain."""
    wait = f"for i in $(seq 300); do set -- {tmp_path}/*; [ $# = 16 ] && echo $N && exit; sleep .2; done; exit 1"
    results: list[str] = []

    def one(number: int) -> None:
        _, state = command.create(REMOTE, {"connection": sshd.connection(), "create": f"N={number}; touch {tmp_path}/$N; {wait}"})
        results.append(plain(state["stdout"]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=int) == [str(number) for number in range(16)]


# --- local ---


def test_local_command(command: Driver, tmp_path: Any) -> None:
    base = {"create": "cat; pwd; echo $A$PULUMI_COMMAND_STDOUT >&2", "stdin": "in\n",
            "dir": str(tmp_path), "environment": {"A": "a"}}
    _, state = command.create(LOCAL, base)
    assert plain(state["stdout"]) == f"in\n{tmp_path}" and plain(state["stderr"]) == "a"
    again = command.update(LOCAL, state, {**base, "update": "echo [$PULUMI_COMMAND_STDOUT]"})
    assert plain(again["stdout"]) == f"[in {tmp_path}]"
    _, other = command.create(LOCAL, {"create": "print(6 * 7)", "interpreter": ["python3", "-c"]})
    assert plain(other["stdout"]) == "42"


@pytest.mark.parametrize("inputs,message", [
    ({"create": "echo a; exit 4"}, 'exit status 4: running "echo a; exit 4":\na\n'),
    ({"create": "kill -9 $$"}, 'signal: killed: running "kill -9 $$":\n'),
    ({"create": "x", "interpreter": ["/none"]},
     'fork/exec /none: no such file or directory: running "x":\n'),
])
def test_local_failures(command: Driver, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure) as failure:
        command.create(LOCAL, inputs)
    assert str(failure.value) == message


def test_a_local_command_is_killed_when_time_is_up(command: Driver) -> None:
    started = time.monotonic()
    with pytest.raises(Failure, match="^signal: killed"):
        command.create(LOCAL, {"create": "exec sleep 30"}, timeout=1)
    assert time.monotonic() - started < 5


def test_local_run(command: Driver) -> None:
    result = command.invoke("command:local:run", {"command": "cat", "stdin": "x\n"})
    assert result == {"command": "cat", "stdin": "x\n", "stdout": "x", "stderr": ""}
    with pytest.raises(Failure, match="missing required property 'command'"):
        command.invoke("command:local:run", {})


def test_go_quoting() -> None:
    from standin.values import go_quote

    assert go_quote('a"\\\n\t\x01é\u200b\U000e0001') == '"a\\"\\\\\\n\\t\\x01é\\u200b\\U000e0001"'
