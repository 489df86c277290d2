"""Stand-in for the package ``tls``: PrivateKey, CertRequest, SelfSignedCert, LocallySignedCert.

The rules follow the Terraform provider that the official plugin bridges, and
Go's ``x509.CreateCertificate`` where that decides what stands in a certificate.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from .schema import BridgedResource, Members, Package, Property, ProviderError
from .values import Properties, contains_unknown, plain, wrap

VERSION = "5.6.2"

_CURVES = ("P224", "P256", "P384", "P521")
_KEY_USAGES = {
    "digital_signature": "digital_signature", "content_commitment": "content_commitment",
    "key_encipherment": "key_encipherment", "data_encipherment": "data_encipherment",
    "key_agreement": "key_agreement", "cert_signing": "key_cert_sign",
    "crl_signing": "crl_sign", "encipher_only": "encipher_only",
    "decipher_only": "decipher_only",
}
_EXTENDED_KEY_USAGES = {
    "any_extended": "2.5.29.37.0", "server_auth": "1.3.6.1.5.5.7.3.1",
    "client_auth": "1.3.6.1.5.5.7.3.2", "code_signing": "1.3.6.1.5.5.7.3.3",
    "email_protection": "1.3.6.1.5.5.7.3.4", "ipsec_end_system": "1.3.6.1.5.5.7.3.5",
    "ipsec_tunnel": "1.3.6.1.5.5.7.3.6", "ipsec_user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8", "ocsp_signing": "1.3.6.1.5.5.7.3.9",
    "microsoft_server_gated_crypto": "1.3.6.1.4.1.311.10.3.3",
    "netscape_server_gated_crypto": "2.16.840.1.113730.4.1",
    "microsoft_commercial_code_signing": "1.3.6.1.4.1.311.2.1.22",
    "microsoft_kernel_code_signing": "1.3.6.1.4.1.311.61.1.1",
}
_USES = (*_KEY_USAGES, *_EXTENDED_KEY_USAGES)

# Wire name, object identifier; in the order in which Go writes a distinguished name.
_SUBJECT_OIDS = (
    ("country", "2.5.4.6"), ("organization", "2.5.4.10"), ("organizationalUnit", "2.5.4.11"),
    ("locality", "2.5.4.7"), ("province", "2.5.4.8"), ("streetAddresses", "2.5.4.9"),
    ("postalCode", "2.5.4.17"), ("commonName", "2.5.4.3"), ("serialNumber", "2.5.4.5"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
)
_EMAIL_OID = "1.2.840.113549.1.9.1"
_SUBJECT_FIELDS = {key: Property("array") if key == "streetAddresses" else Property()
                   for key, _ in _SUBJECT_OIDS}


def now() -> datetime:
    """The time of issuing and of renewal decisions; tests put another one in its place."""
    return datetime.now(UTC)


def _cryptography() -> Any:
    """The parts of ``cryptography`` used here: 0.1 s to import, never needed in a preview."""
    from types import SimpleNamespace

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    return SimpleNamespace(x509=x509, hashes=hashes, serialization=serialization, ec=ec,
                           ed25519=ed25519, rsa=rsa)


def _generate(c: Any, inputs: dict[str, Any]) -> Any:
    algorithm = inputs["algorithm"]
    if algorithm == "RSA":
        try:
            return c.rsa.generate_private_key(public_exponent=65537,
                                              key_size=int(inputs["rsaBits"]))
        except ValueError as error:
            raise ProviderError(f"Unable to generate Key from configuration: {error}") from None
    if algorithm == "ECDSA":
        curve = {"P224": c.ec.SECP224R1, "P256": c.ec.SECP256R1, "P384": c.ec.SECP384R1,
                 "P521": c.ec.SECP521R1}[inputs["ecdsaCurve"]]
        return c.ec.generate_private_key(curve())
    return c.ed25519.Ed25519PrivateKey.generate()


def _algorithm(c: Any, key: Any) -> str:
    if isinstance(key, c.rsa.RSAPrivateKey):
        return "RSA"
    return "ECDSA" if isinstance(key, c.ec.EllipticCurvePrivateKey) else "ED25519"


def _hash(c: Any, key: Any) -> Any:
    """The digest Go signs with for this kind of key; None for Ed25519."""
    if isinstance(key, c.rsa.RSAPrivateKey):
        return c.hashes.SHA256()
    if isinstance(key, c.ec.EllipticCurvePrivateKey):
        return {384: c.hashes.SHA384, 521: c.hashes.SHA512}.get(
            key.curve.key_size, c.hashes.SHA256)()
    return None


def _describe_key(c: Any, key: Any) -> tuple[str, dict[str, str]]:
    """Id and all computed outputs of a PrivateKey."""
    s = c.serialization
    pkcs8 = s.PrivateFormat.PKCS8
    legacy = pkcs8 if _algorithm(c, key) == "ED25519" else s.PrivateFormat.TraditionalOpenSSL

    def private(form: Any) -> str:
        return key.private_bytes(s.Encoding.PEM, form, s.NoEncryption()).decode()

    public = key.public_key()
    der = public.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    out = {
        "privateKeyPem": private(legacy), "privateKeyPemPkcs8": private(pkcs8),
        "publicKeyPem": public.public_bytes(
            s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode(),
        # SSH has no P-224: the official provider leaves these empty for it.
        "privateKeyOpenssh": "", "publicKeyOpenssh": "", "publicKeyFingerprintMd5": "",
        "publicKeyFingerprintSha256": "",
    }
    if not (_algorithm(c, key) == "ECDSA" and key.curve.key_size == 224):
        import base64

        line = public.public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode()
        blob = base64.b64decode(line.split()[1])
        digest = base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()
        out |= {
            "privateKeyOpenssh": private(s.PrivateFormat.OpenSSH),
            "publicKeyOpenssh": line + "\n",
            "publicKeyFingerprintMd5": hashlib.md5(blob, usedforsecurity=False).digest().hex(":"),
            "publicKeyFingerprintSha256": f"SHA256:{digest}",
        }
    return hashlib.sha1(der.strip(), usedforsecurity=False).hexdigest(), out


class PrivateKey(BridgedResource):
    """``tls:index/privateKey:PrivateKey``."""

    token = "tls:index/privateKey:PrivateKey"
    inputs: ClassVar[Members] = {
        "algorithm": Property(required=True, replace=True, choices=("RSA", "ECDSA", "ED25519")),
        "ecdsaCurve": Property(default="P224", replace=True, choices=_CURVES),
        "rsaBits": Property("integer", default=2048, replace=True),
    }
    outputs: ClassVar[Members] = {
        **{key: Property(secret=True) for key in (
            "privateKeyOpenssh", "privateKeyPem", "privateKeyPemPkcs8")},
        **{key: Property() for key in (
            "publicKeyFingerprintMd5", "publicKeyFingerprintSha256", "publicKeyOpenssh",
            "publicKeyPem")},
    }

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Generate in a thread: 4096 bits of RSA take a second."""
        c = _cryptography()
        return await asyncio.to_thread(lambda: _describe_key(c, _generate(c, inputs)))


_PEM_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")


def _load_private_key(c: Any, pem: str, what: str) -> Any:
    found = _PEM_LABEL.search(pem)
    if found is None:
        raise ProviderError(f"Failed to parse {what} PEM: failed to decode PEM block: decoded "
                            f"bytes 0, undecoded {len(pem.encode())}")
    if found.group(1) not in ("RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"):
        raise ProviderError(f"Failed to parse {what} PEM: unsupported PEM preamble/type: "
                            f"{found.group(1)}")
    try:
        return c.serialization.load_pem_private_key(pem[found.start():].encode(), None)
    except (ValueError, TypeError) as error:
        raise ProviderError(f"Failed to parse {what} PEM: failed to parse private key given PEM "
                            f"preamble '{found.group(1)}': {error}") from None


def _load(pem: str, label: str, what: str, load: Any) -> Any:
    found = _PEM_LABEL.search(pem)
    if found is None:
        raise ProviderError(f"Failed to parse {what} PEM: failed to decode PEM of expected type "
                            f'"{label}" from bytes')
    if found.group(1) != label:
        raise ProviderError(f"Failed to parse {what} PEM: invalid PEM type - expected \"{label}\", "
                            f'got "{found.group(1)}"')
    try:
        return load(pem[found.start():].encode())
    except ValueError as error:
        raise ProviderError(f"Failed to parse {what} PEM: {error}") from None


def _subject(c: Any, subject: dict[str, Any] | None) -> Any:
    x509 = c.x509
    names = []
    for key, oid in _SUBJECT_OIDS:
        given = (subject or {}).get(key)
        for value in given if isinstance(given, list) else [given]:
            if value:
                names.append(x509.NameAttribute(x509.ObjectIdentifier(oid), value,
                                                _validate=False))
    return x509.Name(names)


def _alternative_names(c: Any, inputs: dict[str, Any]) -> list[Any]:
    x509 = c.x509
    names: list[Any] = [x509.DNSName(name) for name in inputs.get("dnsNames") or []]
    for address in inputs.get("ipAddresses") or []:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            raise ProviderError(f'Invalid IP address: Failed to parse "{address}"') from None
    return names + [x509.UniformResourceIdentifier(uri) for uri in inputs.get("uris") or []]


def _key_identifier(c: Any, public: Any) -> bytes:
    """SHA-1 of the public key as the official provider takes it (for Ed25519 not RFC 5280's)."""
    s = c.serialization
    if isinstance(public, c.rsa.RSAPublicKey):
        data = public.public_bytes(s.Encoding.DER, s.PublicFormat.PKCS1)
    elif isinstance(public, c.ec.EllipticCurvePublicKey):
        data = public.public_bytes(s.Encoding.X962, s.PublicFormat.UncompressedPoint)
    else:
        raw = public.public_bytes(s.Encoding.Raw, s.PublicFormat.Raw)
        data = bytes([4, len(raw)]) + raw
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _spki(c: Any, public: Any) -> bytes:
    s = c.serialization
    return public.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)


def _extension(certificate: Any, kind: Any) -> Any:
    found = [e.value for e in certificate.extensions if isinstance(e.value, kind)]
    return found[0] if found else None


def _timestamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _certificate(c: Any, inputs: dict[str, Any], *, subject: Any, names: list[Any], public: Any,
                 signer: Any, parent: Any = None) -> tuple[str, dict[str, Any]]:
    """Issue: serial number as id, and the computed outputs all certificates share.

    ``parent`` is the issuing certificate, None for a self-signed one.
    """
    x509 = c.x509
    is_ca = inputs["isCaCertificate"]
    start = now()
    end = start + timedelta(hours=int(inputs["validityPeriodHours"]))
    if is_ca and not list(subject):
        raise ProviderError("Invalid Certificate Subject: Must contain at least one Distinguished "
                            "Name when creating Certificate Authority (CA)")
    key_id = _key_identifier(c, public) if is_ca or inputs["setSubjectKeyId"] else None
    # Go takes a maximum path length of 0 for "none" unless told otherwise, and the
    # official provider does not tell it: only a positive one reaches the certificate.
    length = int(inputs.get("maxPathLength") or 0)
    length_limit = length if length > 0 else None
    if length_limit is not None and not is_ca:
        raise ProviderError("Failed to create certificate: x509: only CAs are allowed to specify "
                            "MaxPathLen")
    serial = secrets.randbelow(2 ** 128 - 1) + 1
    issuer = subject if parent is None else parent.subject
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
               .public_key(public).serial_number(serial)
               .not_valid_before(start.replace(microsecond=0))
               .not_valid_after(end.replace(microsecond=0)))
    uses = inputs["allowedUses"]
    bits = {member: False for member in _KEY_USAGES.values()}
    bits |= {_KEY_USAGES[use]: True for use in uses if use in _KEY_USAGES}
    if any(bits.values()):
        try:
            builder = builder.add_extension(x509.KeyUsage(**bits), critical=True)
        except ValueError as error:
            raise ProviderError(f"Failed to create certificate: {error}") from None
    extended = [x509.ObjectIdentifier(_EXTENDED_KEY_USAGES[use]) for use in uses
                if use in _EXTENDED_KEY_USAGES]
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, length_limit), critical=True)
    if key_id is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
    if parent is None:
        if inputs.get("setAuthorityKeyId"):
            if key_id is None:
                raise ProviderError("Invalid Certificate Authority: Could not determine Authority "
                                    "Key Identifier")
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier(key_id, None, None), critical=False)
    else:
        authority = _extension(parent, x509.SubjectKeyIdentifier)
        if authority is not None and parent.subject != subject:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier(authority.digest, None, None), critical=False)
        if _spki(c, signer.public_key()) != _spki(c, parent.public_key()):
            raise ProviderError("Failed to create certificate: x509: provided PrivateKey doesn't "
                                "match parent's PublicKey")
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names),
                                        critical=not list(subject))
    certificate = builder.sign(signer, _hash(c, signer))
    validity, early = int(inputs["validityPeriodHours"]), int(inputs["earlyRenewalHours"])
    return str(serial), {
        "certPem": certificate.public_bytes(c.serialization.Encoding.PEM).decode(),
        "validityStartTime": _timestamp(start), "validityEndTime": _timestamp(end),
        "readyForRenewal": validity == 0 or early >= validity,
    }


def due_for_renewal(end: str, early_renewal_hours: float) -> bool:
    """Whether ``end`` (RFC 3339) less the early-renewal hours has passed."""
    moment = datetime.fromisoformat(end)
    return moment - timedelta(hours=early_renewal_hours) <= now()


def _write_only(key: str) -> dict[str, str]:
    why = "write-only keys are not supported"
    return {f"{key}Wo": why, f"{key}WoVersion": why}


class _Certificate(BridgedResource):
    """Renewal, the same for both kinds of certificate."""

    def extra_changes(self, state: Properties,
                      wanted: dict[str, Any]) -> dict[str, tuple[str, bool]]:
        end = plain(state.get("validityEndTime"))
        early = wanted.get("earlyRenewalHours", 0)
        if end is not None and not contains_unknown(early) and due_for_renewal(end, early):
            return {"readyForRenewal": ("update", True)}
        return {}

    def read(self, state: Properties) -> Properties:
        end = plain(state.get("validityEndTime"))
        if end is not None and due_for_renewal(end, plain(state.get("earlyRenewalHours")) or 0):
            return {**state, "readyForRenewal": wrap(True)}
        return state

    def planned(self, inputs: Properties) -> Properties:
        out = super().planned(inputs)
        bare = {key: plain(value) for key, value in out.items()}
        validity, early = bare["validityPeriodHours"], bare["earlyRenewalHours"]
        if not contains_unknown([validity, early]):
            out["readyForRenewal"] = wrap(validity == 0 or early >= validity)
        return out


_CERTIFICATE_INPUTS = {
    "allowedUses": Property("array", required=True, replace=True, items_choices=_USES),
    "validityPeriodHours": Property("integer", required=True, replace=True, minimum=0),
    "earlyRenewalHours": Property("integer", default=0, minimum=0),
    "isCaCertificate": Property("boolean", default=False, replace=True),
    "maxPathLength": Property("integer", replace=True, sticky=True, minimum=-1),
    "setSubjectKeyId": Property("boolean", default=False, replace=True),
}
_CERTIFICATE_OUTPUTS = {"certPem": Property(), "readyForRenewal": Property("boolean"),
                        "validityEndTime": Property(), "validityStartTime": Property()}


def _names(subject_type: str) -> dict[str, Property]:
    return {
        "subject": Property("object", replace=True, fields=_SUBJECT_FIELDS, ref=subject_type),
        "dnsNames": Property("array", replace=True),
        "ipAddresses": Property("array", replace=True),
        "uris": Property("array", replace=True),
    }


class SelfSignedCert(_Certificate):
    """``tls:index/selfSignedCert:SelfSignedCert``."""

    token = "tls:index/selfSignedCert:SelfSignedCert"
    inputs: ClassVar[Members] = {
        **_CERTIFICATE_INPUTS,
        **_names("tls:index/SelfSignedCertSubject:SelfSignedCertSubject"),
        "privateKeyPem": Property(required=True, secret=True, replace=True),
        "setAuthorityKeyId": Property("boolean", default=False, replace=True),
    }
    outputs: ClassVar[Members] = {**_CERTIFICATE_OUTPUTS, "keyAlgorithm": Property()}
    uncovered: ClassVar[Mapping[str, str]] = _write_only("privateKeyPem")

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Sign with the certificate's own key."""
        c = _cryptography()
        key = _load_private_key(c, inputs["privateKeyPem"], "private key")
        serial, out = _certificate(
            c, inputs, subject=_subject(c, inputs.get("subject")),
            names=_alternative_names(c, inputs), public=key.public_key(), signer=key)
        return serial, {**out, "keyAlgorithm": _algorithm(c, key)}


class CertRequest(BridgedResource):
    """``tls:index/certRequest:CertRequest``."""

    token = "tls:index/certRequest:CertRequest"
    inputs: ClassVar[Members] = {
        **_names("tls:index/CertRequestSubject:CertRequestSubject"),
        "privateKeyPem": Property(required=True, secret=True, replace=True),
    }
    outputs: ClassVar[Members] = {"certRequestPem": Property(), "keyAlgorithm": Property()}
    uncovered: ClassVar[Mapping[str, str]] = _write_only("privateKeyPem")

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The id is the SHA-1 of the request."""
        c = _cryptography()
        key = _load_private_key(c, inputs["privateKeyPem"], "private key")
        builder = c.x509.CertificateSigningRequestBuilder().subject_name(
            _subject(c, inputs.get("subject")))
        names = _alternative_names(c, inputs)
        if names:
            builder = builder.add_extension(c.x509.SubjectAlternativeName(names), critical=False)
        request = builder.sign(key, _hash(c, key))
        encoding = c.serialization.Encoding
        digest = hashlib.sha1(request.public_bytes(encoding.DER).strip(), usedforsecurity=False)
        return digest.hexdigest(), {
            "certRequestPem": request.public_bytes(encoding.PEM).decode(),
            "keyAlgorithm": _algorithm(c, key)}


class LocallySignedCert(_Certificate):
    """``tls:index/locallySignedCert:LocallySignedCert``."""

    token = "tls:index/locallySignedCert:LocallySignedCert"
    inputs: ClassVar[Members] = {
        **_CERTIFICATE_INPUTS,
        "caCertPem": Property(required=True, replace=True),
        "caPrivateKeyPem": Property(required=True, secret=True, replace=True),
        "certRequestPem": Property(required=True, replace=True),
    }
    outputs: ClassVar[Members] = {**_CERTIFICATE_OUTPUTS, "caKeyAlgorithm": Property()}
    uncovered: ClassVar[Mapping[str, str]] = _write_only("caPrivateKeyPem")

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Names come from the request; its e-mail address does not, as Go drops it."""
        c = _cryptography()
        x509 = c.x509
        request = _load(inputs["certRequestPem"], "CERTIFICATE REQUEST", "certificate request",
                        x509.load_pem_x509_csr)
        signer = _load_private_key(c, inputs["caPrivateKeyPem"], "CA private key")
        parent = _load(inputs["caCertPem"], "CERTIFICATE", "CA certificate",
                       x509.load_pem_x509_certificate)
        subject = x509.Name([name for name in request.subject
                             if name.oid.dotted_string != _EMAIL_OID])
        alternative = _extension(request, x509.SubjectAlternativeName)
        serial, out = _certificate(c, inputs, subject=subject, names=list(alternative or []),
                                   public=request.public_key(), signer=signer, parent=parent)
        return serial, {**out, "caKeyAlgorithm": _algorithm(c, signer)}


PACKAGE = Package(
    "tls", VERSION,
    {kind.token: kind() for kind in (PrivateKey, CertRequest, SelfSignedCert, LocallySignedCert)},
    types={token: _SUBJECT_FIELDS for token in (
        "tls:index/CertRequestSubject:CertRequestSubject",
        "tls:index/SelfSignedCertSubject:SelfSignedCertSubject")},
)
