"""Certificates and keys for the fixtures, made anew at each run: none is committed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from config.reference import ARCHITECTURES
from config.tls_checks import INNER_NAMES

CANARY = "canary0f8e1c"  # in every secret of the fixtures; no message may hold it
DOMAIN = "devops.example.com"
NOW = datetime.now(UTC)
YEAR = timedelta(days=365)

Key = ec.EllipticCurvePrivateKey


def certificate(
    name: str,
    key: Key,
    issuer: tuple[x509.Certificate, Key] | None = None,
    *,
    names: list[str] | None = None,
    start: datetime = NOW - YEAR,
    end: datetime = NOW + YEAR,
    extensions: tuple[x509.ExtensionType, ...] = (),
    path_length: int | None = None,
) -> x509.Certificate:
    """A certificate of `key`; without `names` it is an authority, without `issuer` a root."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=path_length), critical=True)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256())


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """The key usage of an authority that signs revocation lists, and certificates if `signs`."""
    none = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    return x509.KeyUsage(**none, key_cert_sign=signs, crl_sign=True)


def within(*names: str) -> x509.NameConstraints:
    """Constraints that permit `names` and what is below them."""
    return x509.NameConstraints([x509.DNSName(name) for name in names], None)


def openssh_public(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | Key) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def pem(*certificates: x509.Certificate) -> str:
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def private_pem(key: Key, encryption: KeySerializationEncryption | None = None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def make(folder: Path) -> dict[str, str]:
    """Writes every file the fixtures name; returns what stands for `${name}`: its path, or with `_text` a JSON text."""
    root_key, other_key, leaf_key, intermediate_key, lower_key = (
        ec.generate_private_key(ec.SECP256R1()) for _ in "12345"
    )
    root, other_root = certificate("Root", root_key), certificate("Other Root", other_key)
    intermediate = certificate("Intermediate", intermediate_key, (root, root_key))
    expired = certificate(
        "Expired Intermediate", intermediate_key, (root, root_key), start=NOW - 3 * YEAR, end=NOW - timedelta(days=1)
    )
    issuer, wildcard = (intermediate, intermediate_key), [f"*.{DOMAIN}"]
    services = [f"{label}.{DOMAIN}" for label in ARCHITECTURES["standalone"]["domains"].values()]
    leaf = certificate("Leaf", leaf_key, issuer, names=[f"*.{DOMAIN.upper()}"])
    ssh = ed25519.Ed25519PrivateKey.generate()
    openssh = {
        lock: ssh.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption).decode()
        for lock, encryption in ((False, NoEncryption()), (True, BestAvailableEncryption(b"passphrase")))
    }
    short = rsa.generate_private_key(65537, 1024)

    # Of the same name and key as the root, it stands above the same certificates.
    shallow = certificate("Root", root_key, path_length=0)

    def authority(*extensions: x509.ExtensionType) -> str:
        return pem(certificate("Bound", intermediate_key, (root, root_key), extensions=extensions))

    texts = {
        "root": pem(root),
        "other_root": pem(other_root),
        "root_shallow": pem(shallow),
        "chain_shallow": pem(intermediate, shallow),
        "intermediate": pem(intermediate),
        "intermediate_expired": pem(expired),
        "intermediate_key": private_pem(intermediate_key),
        "intermediate_elsewhere": authority(key_usage(signs=True), within("corp.example.org")),
        "intermediate_within": authority(key_usage(signs=True), within(DOMAIN)),
        "intermediate_within_all": authority(key_usage(signs=True), within(DOMAIN, *INNER_NAMES)),
        "intermediate_crl": authority(key_usage(signs=False)),
        "intermediate_client": authority(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
        "intermediate_and_root": pem(intermediate, root),
        "fullchain": pem(leaf, intermediate),
        "fullchain_root": pem(leaf, intermediate, root),
        "chain_first": pem(intermediate, leaf),
        "leaf_and_key": pem(leaf) + private_pem(leaf_key),
        "leaf_of_client": pem(
            certificate(
                "Client", leaf_key, issuer, names=wildcard,
                extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),),
            )
        ),
        "leaf_self_signed": pem(certificate("Own", leaf_key, names=wildcard)),
        "leaf_key_openssh": leaf_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
        "lower": pem(certificate("Lower", lower_key, issuer)),
        "lower_key": private_pem(lower_key),
        "chain": pem(intermediate, root),
        "chain_reversed": pem(root, intermediate),
        "chain_broken": pem(intermediate, other_root),
        "leaf": pem(leaf),
        "leaf_key": private_pem(leaf_key),
        "leaf_key_locked": private_pem(leaf_key, BestAvailableEncryption(b"passphrase")),
        "leaf_names": pem(certificate("Names", leaf_key, issuer, names=services)),
        "leaf_one_missing": pem(certificate("Names", leaf_key, issuer, names=services[:-1])),
        "leaf_elsewhere": pem(certificate("Elsewhere", leaf_key, issuer, names=["*.other.example.com", DOMAIN])),
        "leaf_expired": pem(certificate("Old", leaf_key, issuer, names=wildcard, end=NOW - timedelta(minutes=1))),
        "leaf_future": pem(certificate("New", leaf_key, issuer, names=wildcard, start=NOW + timedelta(days=1))),
        "leaf_of_expired": pem(certificate("Leaf", leaf_key, (expired, intermediate_key), names=wildcard)),
        "leaf_garbled": "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
        "root_and_garbled": pem(root) + "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
        "root_and_half": pem(root) + "\n".join(pem(other_root).splitlines()[:-1]) + "\n",
        "pkcs7": "-----BEGIN PKCS7-----\nMIIB\n-----END PKCS7-----\n",
        "ssh_one_line": openssh[False].replace("\n", " "),
        "ssh_indented": "".join(f"    {line}\n" for line in openssh[False].splitlines()),
        "ssh_twice": openssh[False] * 2,
        "ssh_rsa_short": short.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "ssh_putty": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
        "host_key": openssh_public(ed25519.Ed25519PrivateKey.generate()),
        "host_key_rsa": openssh_public(short),
        "other_key": private_pem(other_key),
        "ssh": openssh[False],
        "ssh_locked": openssh[True],
        "ssh_public": openssh_public(ssh),
        "canary": CANARY,
        "empty": "\n",
        "webhook": "https://hooks.example.com/" + CANARY + "\n",
        "docker": json.dumps({"auths": {"registry.example.com": {"auth": CANARY}}}),
        "ssh_garbled": openssh[False][:80] + "\n-----END OPENSSH PRIVATE KEY-----\n",
    }
    names = {"dir": str(folder)}
    for name, text in texts.items():
        path = folder / f"{name}.pem"
        path.write_text(text)
        names |= {name: str(path), f"{name}_text": json.dumps(text)}
    binary = {
        "leaf.der": leaf.public_bytes(Encoding.DER),
        "leaf.p12": serialize_key_and_certificates(None, leaf_key, leaf, None, BestAvailableEncryption(b"x")),
        "utf16": openssh[False].encode("utf-16"),
    }
    for name, data in binary.items():
        (folder / name).write_bytes(data)
    return names
