"""Certificates and keys that the user brings: read, and judged before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from config.errors import Problem, key
from config.model import Settings
from config.placement import services

# Placeholder that stands for a key whose text is not known here (see load.from_stack_file); it passes every check.
ENCRYPTED = (
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n(held encrypted by the stack)\n-----END ENCRYPTED PRIVATE KEY-----\n"
)


class NotReadable(ValueError):
    """A text is no PEM certificate or key; the message never repeats it."""


def read_certificates(pem: str) -> list[x509.Certificate]:
    """The certificates of `pem`, in order; at least one. Raises NotReadable."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise NotReadable("it is not a readable PEM certificate") from None


def read_key(pem: str) -> Any:
    """The private key of `pem`, without a passphrase. Raises NotReadable."""
    load = load_ssh_private_key if "OPENSSH PRIVATE KEY" in pem else load_pem_private_key
    try:
        return load(pem.encode(), password=None)
    except TypeError:
        raise NotReadable("it is locked by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise NotReadable("it is not a readable private key") from None


def matches(certificate: Any, private_key: Any) -> bool:
    """Whether both hold the same public key."""

    def public(value: Any) -> bytes:
        return value.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    return public(certificate) == public(private_key)


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a subject alternative name stands for `name`; a wildcard stands for one label (RFC 6125)."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return False
    names = {given.lower() for given in extension.value.get_values_for_type(x509.DNSName)}
    parent = "*." + name.partition(".")[2]
    return name in names or (not name.startswith("*.") and parent in names)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`'s key signed `certificate` and the names fit."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether `certificate` may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def check_ssh(settings: Settings) -> Iterator[Problem]:
    text = settings.ssh.private_key.get_secret_value()
    if text == ENCRYPTED:
        return
    try:
        read_key(text)
    except NotReadable as error:
        yield Problem(key("ssh.privateKey"), str(error), "give an OpenSSH or PEM private key without a passphrase")


def check_tls(settings: Settings, now: datetime) -> Iterator[Problem]:
    tls = settings.tls
    if tls.source != "provided":
        return
    for name, value in (("certificate", tls.certificate), ("privateKey", tls.private_key)):
        if value is None:
            secret = "--secret " if name == "privateKey" else ""
            yield Problem(
                key("tls", name),
                "tls.source is provided, but this is missing",
                f"pulumi config set {secret}--path opstella:tls.{name} (it reads standard input), or file:PATH",
            )
    if tls.certificate is None:
        return
    try:
        certificate = read_certificates(tls.certificate)[0]
    except NotReadable as error:
        yield Problem(key("tls.certificate"), str(error), "give the certificate as PEM")
        return
    yield from check_hosts(settings, [f"{s.label}.{settings.domain}" for s in services(settings)])
    yield from _validity("tls.certificate", [certificate], now)
    if tls.private_key is not None:
        yield from _pair("tls", certificate, tls.private_key.get_secret_value())
    if tls.chain is not None:
        yield from _chain("tls", certificate, tls.chain, now)


def check_hosts(settings: Settings, hosts: Iterable[str]) -> Iterator[Problem]:
    """A problem if the user's own certificate, given and readable, does not stand for all of `hosts`."""
    if settings.tls.source != "provided" or settings.tls.certificate is None:
        return
    try:
        certificate = read_certificates(settings.tls.certificate)[0]
    except NotReadable:
        return  # reported where it is read
    missing = [host for host in hosts if not covers(certificate, host)]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        yield Problem(
            key("tls.certificate"),
            f"its names do not cover opstella:domain {settings.domain}: missing {shown}",
            f"have it issued for *.{settings.domain}, or correct the domain",
        )


def check_intermediate(settings: Settings, now: datetime) -> Iterator[Problem]:
    given = settings.pki.intermediate
    if given is None:
        return
    path = "pki.intermediate"
    try:
        certificate = read_certificates(given.certificate)[0]
    except NotReadable as error:
        yield Problem(key(path, "certificate"), str(error), "give the certificate as PEM")
        return
    if not is_authority(certificate):
        yield Problem(
            key(path, "certificate"),
            "it may not sign other certificates (its basic constraints do not say CA)",
            "have it issued as a certificate authority: basicConstraints CA:TRUE, keyUsage keyCertSign",
        )
    yield from _validity(f"{path}.certificate", [certificate], now)
    yield from _pair(path, certificate, given.private_key.get_secret_value())
    yield from _chain(path, certificate, given.chain, now, to_root=True)


def _chain(path: str, leaf: x509.Certificate, pem: str, now: datetime, to_root: bool = False) -> Iterator[Problem]:
    try:
        chain = read_certificates(pem)
    except NotReadable as error:
        yield Problem(key(path, "chain"), str(error), "give the issuing certificates as PEM")
        return
    links: Sequence[x509.Certificate] = [leaf, *chain]
    for number, (lower, upper) in enumerate(pairwise(links), 1):
        if not issued_by(lower, upper):
            signed = f"{path}.certificate" if number == 1 else f"its number {number - 1}"
            yield Problem(
                key(path, "chain"),
                f"its certificate number {number} ({upper.subject.rfc4514_string()}) did not sign {signed}",
                "put the issuing authority first, then those above it, each once",
            )
            return
    last = chain[-1]
    if to_root and not issued_by(last, last):
        yield Problem(
            key(path, "chain"),
            f"it ends with {last.subject.rfc4514_string()}, which is no root: {last.issuer.rfc4514_string()} signed it",
            "add the certificates above it, up to and with the root",
        )
    yield from _validity(f"{path}.chain", chain, now)


def _validity(path: str, certificates: Sequence[x509.Certificate], now: datetime) -> Iterator[Problem]:
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        name = certificate.subject.rfc4514_string()
        if now > end:
            yield Problem(
                key(path), f"{name} expired on {end:%Y-%m-%d %H:%M} UTC", "give a certificate that is valid today"
            )
        if now < start:
            yield Problem(
                key(path),
                f"{name} is not valid before {start:%Y-%m-%d %H:%M} UTC",
                "give one that is valid today, or set this machine's clock right",
            )


def _pair(path: str, certificate: x509.Certificate, private_key: str) -> Iterator[Problem]:
    if private_key == ENCRYPTED:
        return
    try:
        matching = matches(certificate, read_key(private_key))
    except NotReadable as error:
        yield Problem(key(path, "privateKey"), str(error), "give the key as PEM, without a passphrase")
        return
    if not matching:
        yield Problem(
            key(path, "privateKey"),
            f"it is not the key of {path}.certificate: their public keys differ",
            "give the private key with which the certificate was requested",
        )
