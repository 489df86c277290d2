"""Reading certificates and keys that the user brings, and verifying them as a TLS client does.

A certificate is not judged by its fields: it is verified with what it is to serve, or with throw-away leaves that it is
to issue. The verifier is that of `cryptography`, held to what OpenSSL, Go and Java hold authorities to; the rules of
browsers' root programmes (key identifiers and the like) do not bind a company's own authority.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

SHORTEST_RSA = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class NotReadable(ValueError):
    """A text is no PEM certificate or key; the message never repeats it. `fix` is what to do."""

    def __init__(self, what: str, fix: str) -> None:
        self.fix = fix
        super().__init__(what)


def read_certificates(pem: str) -> list[x509.Certificate]:
    """The certificates of `pem`, in order; at least one. Raises NotReadable."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise NotReadable("it is not a readable PEM certificate", "give the certificate as PEM") from None


def read_key(pem: str, *, ssh: bool = False) -> Any:
    """The private key of `pem`, if what uses it can read it: `ssh` is the engine, else what serves or signs by TLS.

    Raises NotReadable.
    """
    openssh = "OPENSSH PRIVATE KEY" in pem
    if openssh and not ssh:
        raise NotReadable(
            "it is a key in OpenSSH's form, which TLS servers do not read",
            "convert a copy of it: ssh-keygen -p -m PKCS8 -N '' -f COPY; then name that by file:COPY",
        )
    try:
        key = (load_ssh_private_key if openssh else load_pem_private_key)(pem.encode(), password=None)
    except TypeError:
        how = "ssh-keygen -p -N '' -f COPY" if ssh else "openssl pkey -in KEY -out COPY"
        raise NotReadable("it is locked by a passphrase", f"make a copy without one: {how}; then name that by file:COPY") from None
    except (ValueError, UnsupportedAlgorithm):
        raise NotReadable(
            "it is not a readable private key",
            f"give a whole private key; {'ssh-keygen -y -f KEY' if ssh else 'openssl pkey -noout -in KEY'} shows whether one is",
        ) from None
    kinds = f"{'Ed25519, ' if ssh else ''}ECDSA (P-256, P-384, P-521) or RSA of {SHORTEST_RSA} bits or more"
    if not (
        (isinstance(key, rsa.RSAPrivateKey) and key.key_size >= SHORTEST_RSA)
        or (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, _CURVES))
        or (ssh and isinstance(key, ed25519.Ed25519PrivateKey))
    ):
        what = f"RSA key of {key.key_size} bits" if isinstance(key, rsa.RSAPrivateKey) else "key of its kind"
        raise NotReadable(f"{'the engine accepts' if ssh else 'some TLS clients accept'} no {what}", f"give a key of {kinds}")
    return key


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


def is_root(certificate: x509.Certificate) -> bool:
    """Whether `certificate` signed itself, so that nothing above it is asked for."""
    return issued_by(certificate, certificate)


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether `certificate` says that it may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def too_deep(chain: Sequence[x509.Certificate]) -> tuple[x509.Certificate, str] | None:
    """The first authority of `chain`, leaf first, that has more authorities below it than its path length permits, and a
    sentence that says so (RFC 5280, 4.2.1.9: those that issued themselves do not count)."""
    below: list[x509.Certificate] = []
    for certificate in chain[1:]:
        try:
            permitted = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        except (x509.ExtensionNotFound, ValueError):
            permitted = None
        if permitted is not None and len(below) > permitted:
            names = " and ".join(map(subject, below))
            return certificate, (
                f"{subject(certificate)} has the path length {permitted} (basicConstraints): it permits "
                f"{permitted or 'no'} {'authority' if permitted <= 1 else 'authorities'} between itself and a server's certificate, and {names} "
                f"{'is' if len(below) == 1 else 'are'} there"
            )
        if certificate.subject != certificate.issuer:
            below.append(certificate)
    return None


def refused(
    leaf: x509.Certificate,
    name: str | IPv4Address,
    between: Iterable[x509.Certificate],
    roots: Sequence[x509.Certificate],
    moment: datetime,
) -> str | None:
    """Why a TLS client refuses `leaf` for `name` at `moment`, trusting `roots` alone; None: it does not."""
    reasons: list[str] = []

    def signs(_: Any, certificate: x509.Certificate, extension: x509.KeyUsage | None) -> None:
        if extension is not None and not extension.key_cert_sign:
            hold(f"{subject(certificate)} may not sign certificates (its key usage lacks keyCertSign)")

    def serves(_: Any, certificate: x509.Certificate, extension: x509.ExtendedKeyUsage | None) -> None:
        wanted = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
        if extension is not None and not any(usage in wanted for usage in extension):
            hold(f"{subject(certificate)} may not be used by servers (its extended key usage lacks serverAuth)")

    def hold(reason: str) -> None:
        reasons.append(reason)
        raise ValueError(reason)

    anything = Criticality.AGNOSTIC
    extended = ExtensionPolicy.permit_all().may_be_present(x509.ExtendedKeyUsage, anything, serves)
    authorities = extended.require_present(x509.BasicConstraints, anything, None)
    authorities = authorities.may_be_present(x509.KeyUsage, anything, signs)
    servers = extended.require_present(x509.SubjectAlternativeName, anything, None)
    policy = PolicyBuilder().store(Store(list(roots))).time(moment)
    policy = policy.extension_policies(ca_policy=authorities, ee_policy=servers)
    server = x509.IPAddress(name) if isinstance(name, IPv4Address) else x509.DNSName(name)
    try:
        policy.build_server_verifier(server).verify(leaf, list(between))
    except VerificationError as error:
        return reasons[0] if reasons else _plainly(str(error), [*between, *roots])
    return None


def throwaway(
    issuer: x509.Certificate, issuer_key: Any, names: Sequence[str], addresses: Sequence[IPv4Address] = ()
) -> tuple[x509.Certificate, datetime]:
    """A server certificate for `names` and `addresses` as `issuer` would issue it, and a moment at which both are valid."""
    key = ec.generate_private_key(ec.SECP256R1())
    start, end = issuer.not_valid_before_utc, issuer.not_valid_after_utc
    alternatives = [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return leaf, start + (end - start) / 2


def _plainly(error: str, authorities: Sequence[x509.Certificate]) -> str:
    """The verifier's `error` in plain words."""
    if "name constraints" in error or "name constraint" in error:
        bound = [subject(c) for c in authorities if _constrains(c)]
        return f"the name constraints of {' and '.join(bound) or 'an authority'} do not permit it"
    if "basicConstraints" in error:
        bare = [subject(c) for c in authorities if not is_authority(c)]
        return f"{' and '.join(bare) or 'an issuer'} is not an authority (its basic constraints do not say CA)"
    if "critical extensions" in error:
        return "an authority has a critical extension that TLS clients do not know"
    if "key algorithm" in error or "signature algorithm" in error or "RSA" in error:
        return f"a key or a signature of the chain is of a kind that TLS clients refuse ({error.rpartition(': ')[2]})"
    return error.removeprefix("validation failed: ")


def _constrains(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return True


def subject(certificate: x509.Certificate) -> str:
    """The name of `certificate`, for a message."""
    return certificate.subject.rfc4514_string() or "a certificate without a name"
