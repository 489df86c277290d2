"""Keys and certificates that only a lenient reader can read are written again; what a strict one can read stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config import pem
from config.certificates import NotReadable, read_key
from config.load import from_values
from config.model import Settings
from tests.config.material import CANARY

LOOSE = {
    "one line, as in a CI variable": lambda text: text.replace("\n", " "),
    "indented, as below a YAML key": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "one long line of Base64": lambda text: _joined(text),
    "words before BEGIN": lambda text: f"key: {text}",
    "END on the last line of Base64": lambda text: text.replace("\n-----END", "-----END"),
}
STRICT = {
    "as it is": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "bag attributes": lambda text: f"Bag Attributes\n    friendlyName: x\n{text}",
    "blanks behind": lambda text: text.replace("\n", "  \n"),
}


def _joined(text: str) -> str:
    begin, *body, end = text.splitlines()
    return f"{begin}\n{''.join(body)}\n{end}\n"


def settings(**sections: Any) -> Settings:
    return from_values({"architecture": "standalone", "domain": "devops.example.com", **sections}, "test")


@pytest.mark.parametrize("form", LOOSE)
@pytest.mark.parametrize("kind", ["ssh", "leaf_key"])
def test_a_loose_key_is_sent_as_it_was_made(form: str, kind: str, names: dict[str, str]) -> None:
    made = Path(names[kind]).read_text()
    assert settings(ssh={"privateKey": LOOSE[form](made)}).ssh.private_key.get_secret_value() == made


@pytest.mark.parametrize("form", STRICT)
def test_a_strict_key_is_not_touched(form: str, names: dict[str, str]) -> None:
    given = STRICT[form](Path(names["ssh"]).read_text())
    assert settings(ssh={"privateKey": given}).ssh.private_key.get_secret_value() == given.strip() + "\n"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
@pytest.mark.parametrize("form", LOOSE)
def test_openssh_reads_what_is_sent_and_not_what_was_given(form: str, names: dict[str, str], tmp_path: Path) -> None:
    given = LOOSE[form](Path(names["ssh"]).read_text())
    sent = settings(ssh={"privateKey": given}).ssh.private_key.get_secret_value()
    assert readable(sent, tmp_path)
    if form not in ("words before BEGIN", "one long line of Base64", "END on the last line of Base64"):
        assert not readable(given, tmp_path)


def readable(text: str, folder: Path) -> bool:
    path = folder / "key"
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)
    return subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, check=False).returncode == 0


def test_the_curve_before_the_key_is_left_out(names: dict[str, str]) -> None:
    key = Path(names["leaf_key"]).read_text()
    curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert settings(ssh={"privateKey": curve + key}).ssh.private_key.get_secret_value() == key


@pytest.mark.parametrize("form", LOOSE)
def test_loose_certificates_are_written_again(form: str, names: dict[str, str]) -> None:
    made = Path(names["root"]).read_text()
    ssh = {"privateKey": pem.ENCRYPTED}
    assert settings(ssh=ssh, extraCaCertificates=[LOOSE[form](made)]).extra_ca_certificates == (made,)
    commented = f"# Our root\n{made}"
    assert settings(ssh=ssh, extraCaCertificates=[commented]).extra_ca_certificates == (commented,)


def test_a_block_with_headers_keeps_them() -> None:
    text = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: {CANARY}\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    assert [block.headers for block in pem.blocks(text)] == [True]
    assert pem.strict(text, "PRIVATE KEY") == text


def test_a_kind_of_key_that_is_not_for_tls_is_told_in_one_negation() -> None:
    own = ed25519.Ed25519PrivateKey.generate()
    text = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(NotReadable, match="^some TLS clients accept no key of its kind"):
        read_key(text)
