"""Annotated scalars of certificates, keys and secrets: what may come from a file, and what their readers can read.

No message repeats a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import AfterValidator, BeforeValidator, SecretStr

from config import pem
from config.errors import Fault
from config.types import shown

_HOST_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
# An ASN.1 sequence that begins with its version, 3 (RFC 7292, 4).
_PKCS12 = re.compile(rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03", re.DOTALL)


def contents(value: Any) -> Any:
    """`file:PATH` is replaced by that file's text; any other text stands for itself."""
    if isinstance(value, str) and value.startswith("file:"):
        name = value.removeprefix("file:")
        try:
            data = Path(name).expanduser().read_bytes()
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not the path of a file"
            raise Fault(
                f"cannot read the file {shown(name)} ({reason})", "write the path of a file that this user may read"
            ) from None
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _binary(name, data) from None
    return value


def _binary(name: str, data: bytes) -> Fault:
    """What to do with a file that holds no UTF-8 text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Fault(f"the file {shown(name)} is UTF-16 text", f"convert it: iconv -f UTF-16 -t UTF-8 {name} >{name}.txt")
    if _PKCS12.match(data):
        return Fault(
            f"the file {shown(name)} is a PKCS #12 archive, not PEM",
            f"take what is wanted out of it: openssl pkcs12 -in {name} -nokeys -out {name}.pem; of a private key, "
            f"openssl pkcs12 -in {name} -nocerts -nodes -out {name}.key. Then name that file",
        )
    if data[:1] == b"\x30":  # an ASN.1 sequence
        return Fault(
            f"the file {shown(name)} is binary (DER), not PEM",
            f"convert it: openssl x509 -inform der -in {name} -out {name}.pem; of a private key, openssl pkey in place of "
            f"openssl x509. Then name {name}.pem",
        )
    return Fault(f"the file {shown(name)} is not text", "name a file of UTF-8 text")


def _pem_certificate(value: str) -> str:
    """PEM in the strict form, of readable certificates only."""
    labels = [block.label for block in pem.blocks(value)]
    if any(label.endswith("PRIVATE KEY") for label in labels):
        raise Fault(
            "it holds a private key, which would be in clear in the stack's state" if "CERTIFICATE" in labels
            else "no PEM certificate: it is a private key",
            "give the certificates alone, from BEGIN CERTIFICATE to END CERTIFICATE",
        )
    if "CERTIFICATE" not in labels:
        other = next(iter(labels), None)
        how = {
            "PKCS7": ": it is PKCS #7; convert it by openssl pkcs7 -print_certs",
            "TRUSTED CERTIFICATE": ": it is OpenSSL's own form; convert it by openssl x509",
        }.get(other or "", f": it is a {other}" if other else "")
        what, _, convert = how.partition("; ")
        give = "give the text from BEGIN CERTIFICATE to END CERTIFICATE, or file:PATH"
        raise Fault(f"no PEM certificate{what}", f"{convert}, then {give}" if convert else give)
    if pem.unfinished(value):
        raise Fault(
            "a BEGIN line has no END line of its kind, or there is something other than Base64 between them",
            "give each certificate whole, from its BEGIN line to its END line",
        )
    text = pem.strict(value, "CERTIFICATE")
    certificates = [block for block in pem.blocks(text) if block.label == "CERTIFICATE"]
    for number, block in enumerate(certificates, 1):
        try:
            x509.load_pem_x509_certificate(block.text.encode())
        except ValueError:
            which = f"its number {number} of {len(certificates)}" if len(certificates) > 1 else "it"
            raise Fault(
                f"{which} is not a readable PEM certificate", "replace it; openssl x509 -noout -text shows whether one is readable"
            ) from None
    return text


def _pem_key(value: SecretStr) -> SecretStr:
    """PEM in the strict form. Whether the key in it is readable is for the checks, which know whose it is."""
    text = value.get_secret_value()
    if text.strip() == pem.ENCRYPTED.strip():
        return SecretStr(pem.ENCRYPTED)
    every = pem.blocks(text)
    found = [block for block in every if block.label.endswith("PRIVATE KEY")]
    if "PuTTY-User-Key-File" in text:
        raise Fault("it is a key in PuTTY's form", "convert it: puttygen KEY.ppk -O private-openssh-new -o KEY; then name KEY")
    if "\\n" in text and not found:
        raise Fault("its line ends are written as \\n", "give the key by file:PATH")
    if not found:
        raise Fault("no PEM or OpenSSH private key", "give a private key by file:PATH, or encrypt its whole text")
    if len(found) > 1:
        raise Fault(f"it holds {len(found)} private keys", "give one of them, alone in its file")
    # The engine reads the first block alone, whatever it is (of openssl ecparam's files, the curve's parameters).
    return SecretStr(pem.strict(text if every[0] is found[0] else found[0].text, "PRIVATE KEY"))


def _secret_text(value: SecretStr) -> SecretStr:
    # Editors and commands end a file with a line end, which is no part of a password.
    text = value.get_secret_value().rstrip("\r\n")
    if not text.strip():
        raise Fault("the secret is empty", "give it its text, or remove it")
    return SecretStr(text)


def _host_key(value: str) -> str:
    """Type and Base64 of a public key, without a comment. RSA's are left out: the engine asks for them by ssh-rsa, that
    is with SHA-1, which OpenSSH refuses since 8.8."""
    fix = "write it as in that machine's /etc/ssh/ssh_host_ed25519_key.pub: ssh-ed25519 AAAA…"
    parts = value.split()
    if len(parts) < 2 or not re.match(r"(ssh-|ecdsa-sha2-|sk-)", parts[0]):
        raise Fault(f"{shown(value)} is not an SSH public host key", fix)
    if parts[0] not in _HOST_KEYS:
        raise Fault(
            f"{shown(parts[0])} is not a kind of host key that a connection of the engine can use", f"of Ed25519 or ECDSA, {fix}"
        )
    try:
        # It compares the type inside with the one before it, and reads the key.
        load_ssh_public_key(" ".join(parts[:2]).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Fault(f"{shown(parts[1])} is not the text of an {parts[0]} key", fix) from None
    return " ".join(parts[:2])


PemCertificate = Annotated[str, BeforeValidator(contents), AfterValidator(_pem_certificate)]
"""One certificate or more."""
PemKey = Annotated[SecretStr, BeforeValidator(contents), AfterValidator(_pem_key)]
SecretText = Annotated[SecretStr, BeforeValidator(contents), AfterValidator(_secret_text)]
HostKey = Annotated[str, AfterValidator(_host_key)]
