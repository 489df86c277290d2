"""What is read out of a kubeconfig, and TLS with it to a server that asks for the client's certificate."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path

import pytest

from components.kubeconfig import authority, server, tls_context
from tests.support import stack
from tests.support.certificates import loopback_certificate

Pair = tuple[Path, Path]
"""Files with a certificate, its own authority, and with its key."""


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Pair, Pair, Pair]:
    """Of the API server, of its administrator, of a stranger."""
    folders = [tmp_path / name for name in ("api", "administrator", "stranger")]
    for folder in folders:
        folder.mkdir()
    api, administrator, stranger = map(loopback_certificate, folders)
    return api, administrator, stranger


def written(trusted: Path, certificate: Path, key: Path) -> str:
    def text(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {"server": "https://127.0.0.1:6443", "certificate-authority-data": text(trusted)}
    user = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    return json.dumps({"clusters": [{"cluster": cluster}], "users": [{"user": user}]})


def shake_hands(client: ssl.SSLContext, api: Pair, known: Path) -> bytes | None:
    """What the client shows (DER) to an API server that lets in `known`, in memory. Raises ssl.SSLError."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*api)
    serving.load_verify_locations(known)
    serving.verify_mode = ssl.CERT_REQUIRED
    to_api, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = serving.wrap_bio(to_api, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_api, server_hostname="127.0.0.1")
    for side in (here, there) * 3:  # each reads what the other one has said meanwhile
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return there.getpeercert(binary_form=True)


def test_the_cluster_comes_out_of_it() -> None:
    assert authority(stack.kubeconfig("x")) == "authority"
    assert server(stack.kubeconfig("x")) == "https://192.0.2.1:6443"


def test_the_server_sees_the_users_certificate(pairs: tuple[Pair, Pair, Pair]) -> None:
    api, administrator, _ = pairs
    shown = shake_hands(tls_context(written(api[0], *administrator)), api, administrator[0])
    assert shown == ssl.PEM_cert_to_DER_cert(administrator[0].read_text())


def test_another_server_is_refused(pairs: tuple[Pair, Pair, Pair]) -> None:
    api, administrator, stranger = pairs
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tls_context(written(api[0], *administrator)), stranger, administrator[0])


def test_the_key_is_left_nowhere(
    pairs: tuple[Pair, Pair, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, administrator, _ = pairs
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    tls_context(written(api[0], *administrator))
    assert list(folder.iterdir()) == []
