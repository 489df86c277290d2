"""The client of the provisioning Jobs, against a server on loopback."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import client
import pytest
from client import Client, Failure, Refused, Report

from tests.support.certificates import loopback_certificate


class Service:
    """Answers with `answers` in turn, the last of them for ever; `seen` is what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], bytes]] = [(200, {}, b"{}")]
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                service.seen.append((self.command, self.path, headers, self.rfile.read(length)))
                status, more, body = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_hidden", set())


def made(service: Service, **more: Any) -> Client:
    return Client(service.url, patience=more.pop("patience", 5), pause=0.01, **more)


def test_json_and_forms_are_sent_as_what_they_are(service: Service) -> None:
    service.answers = [(201, {}, b'{"id": 7}'), (200, {}, b""), (204, {}, b"")]
    api = made(service, headers={"Authorization": client.bearer("token-of-mine")})
    assert api.post("/things", {"name": "ä"}) == {"id": 7}
    assert api.request("POST", "/token", form={"a": "b c"}).json() is None
    api.delete("/things/7", query={"now": "yes"})
    (first, second, third) = service.seen
    assert first[:2] == ("POST", "/things") and json.loads(first[3]) == {"name": "ä"}
    assert first[2]["content-type"] == "application/json"
    assert first[2]["authorization"] == "Bearer token-of-mine"
    assert second[3] == b"a=b+c" and second[2]["content-type"] == "application/x-www-form-urlencoded"
    assert third[:2] == ("DELETE", "/things/7?now=yes")


@pytest.mark.parametrize("status", client.STARTING)
def test_a_service_that_starts_is_waited_for(service: Service, status: int) -> None:
    service.answers = [(status, {}, b"")] * 3 + [(200, {}, b'"up"')]
    assert made(service).get("/") == "up"
    assert len(service.seen) == 4


def test_a_service_that_does_not_listen_yet_is_waited_for() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        # Bound and not listening: connections are refused.
        with pytest.raises(Failure) as raised:
            Client(f"http://127.0.0.1:{port}", patience=0.05, pause=0.01).get("/health?x=hidden")
        reserved.listen()
        accepted = threading.Thread(target=_answer_once, args=(reserved,))
        accepted.start()
        assert Client(f"http://127.0.0.1:{port}", patience=5, pause=0.01).get("/") == 1
        accepted.join()
    text = str(raised.value)
    assert f"where: GET http://127.0.0.1:{port}/health\n" in text and "refused" in text and "what to do:" in text


def _answer_once(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1")


def test_waiting_has_an_end(service: Service) -> None:
    service.answers = [(503, {}, b"not yet")]
    with pytest.raises(Refused) as raised:
        made(service, patience=0.05).get("/x")
    assert raised.value.status == 503 and len(service.seen) > 1


def test_a_refusal_says_what_where_why_and_what_to_do_without_a_secret(service: Service) -> None:
    password = client.hide("p4ss/w0rd")
    service.answers = [(400, {}, f"bad: {password} or p4ss%2Fw0rd".encode())]
    with pytest.raises(Refused) as raised:
        made(service).request("POST", f"/login?p={password}", form={"password": password})
    text = str(raised.value)
    assert text.startswith("error: the service answered 400\n  where: POST http://127.0.0.1:")
    assert "why: bad: *** or ***" in text and "what to do:" in text
    assert "p4ss" not in text


def test_only_expected_statuses_come_back_and_redirects_are_not_followed(service: Service) -> None:
    service.answers = [(404, {}, b"no"), (302, {"Location": "/login"}, b""), (302, {"Location": "/login"}, b"")]
    api = made(service)
    assert api.find("/thing") is None
    assert api.request("GET", "/", also=(302,)).headers["location"] == "/login"
    with pytest.raises(Refused, match="302"):
        api.get("/")


def test_secrets_come_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "password").write_text("long-and-secret\n", encoding="utf-8")
    monkeypatch.setenv("SECRETS", str(tmp_path))
    assert client.secret("admin", "password") == "long-and-secret"
    assert client.blank("x long-and-secret y") == "x *** y"
    with pytest.raises(Failure, match="the secret admin has no readable token"):
        client.secret("admin", "token")
    monkeypatch.delenv("REALM", raising=False)
    assert client.environment("REALM", "other") == "other"
    with pytest.raises(Failure, match="REALM is not set"):
        client.environment("REALM")
    header = client.basic("me", "long-and-secret")
    assert header == "Basic bWU6bG9uZy1hbmQtc2VjcmV0" and client.blank(header) == "Basic ***"


def test_a_certificate_that_is_not_trusted_is_not_waited_for(tmp_path: Path) -> None:
    certificate, key = loopback_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    running = Service()
    running.server.socket = context.wrap_socket(running.server.socket, server_side=True)
    url = running.url.replace("http:", "https:")
    try:
        assert Client(url, ca_file=str(certificate), patience=5, pause=0.01).get("/") == {}
        with pytest.raises(Failure, match="cannot be reached") as raised:
            Client(url, patience=60, pause=60).get("/")
    finally:
        running.stop()
    assert "not trusted" in str(raised.value)
    with pytest.raises(Failure, match="CA bundle cannot be read"):
        Client(url, ca_file=str(tmp_path / "absent.pem"))


def test_an_authority_without_key_usage_is_trusted_as_other_clients_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(cafile: str | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as since Python 3.13
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    context = client._trust(None)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname


def test_a_run_says_what_it_changed_or_that_there_was_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def changes(report: Report) -> None:
        report.did(f"password of {client.hide('s3cret-value')}")

    def fails(_report: Report) -> None:
        raise Failure("it broke", "here", f"of {client.hide('s3cret-value')}", "mend it")

    assert client.main(changes) == 0
    assert capsys.readouterr().out == "changed: password of ***\n1 changes\n"
    assert client.main(lambda _report: None) == 0
    assert capsys.readouterr().out == "nothing to change\n"
    assert client.main(fails) == 1
    assert capsys.readouterr().err == "error: it broke\n  where: here\n  why: of ***\n  what to do: mend it\n"


def test_what_nobody_expected_is_said_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks(_report: Report) -> None:
        raise KeyError(client.hide("s3cret-value"))

    assert client.main(breaks) == 1
    error = capsys.readouterr().err
    assert "why: KeyError: '***'" in error and "where: test_client.py, line" in error and "Traceback" not in error
