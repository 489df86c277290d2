"""The stand-in for ``tls``: what it issues is judged by ``openssl`` and ``cryptography``."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.lab.providers.driver import UNKNOWN, Driver, Failure, plain, secret, secrets_of

from standin import tls_package  # noqa: E402  isort: skip

KEY = "tls:index/privateKey:PrivateKey"
REQUEST = "tls:index/certRequest:CertRequest"
SELF = "tls:index/selfSignedCert:SelfSignedCert"
LOCAL = "tls:index/locallySignedCert:LocallySignedCert"
CA_USES = ["cert_signing", "crl_signing"]


def openssl(*arguments: str, text: str = "") -> str:
    return subprocess.run(["openssl", *arguments], input=text, text=True, check=True,
                          capture_output=True).stdout


def key_of(tls: Driver, **inputs: Any) -> dict[str, Any]:
    _, state = tls.create(KEY, inputs or {"algorithm": "ECDSA", "ecdsaCurve": "P256"})
    return {name: plain(value) for name, value in state.items()}


def root_of(tls: Driver, **more: Any) -> tuple[str, dict[str, Any]]:
    """A root's private key and its certificate's outputs."""
    key = key_of(tls)["privateKeyPem"]
    _, state = tls.create(SELF, {
        "privateKeyPem": key, "isCaCertificate": True, "validityPeriodHours": 1000,
        "allowedUses": CA_USES, "subject": {"commonName": "root", "organization": "o"}, **more})
    return key, {name: plain(value) for name, value in state.items()}


def request_of(tls: Driver, **inputs: Any) -> str:
    _, state = tls.create(REQUEST, {"privateKeyPem": key_of(tls)["privateKeyPem"], **inputs})
    return plain(state["certRequestPem"])


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def extension(certificate: x509.Certificate, kind: Any) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


# --- keys ---


@pytest.mark.parametrize("inputs,label,bits", [
    ({"algorithm": "RSA"}, "RSA PRIVATE KEY", 2048),
    ({"algorithm": "RSA", "rsaBits": 3072}, "RSA PRIVATE KEY", 3072),
    ({"algorithm": "ECDSA", "ecdsaCurve": "P224"}, "EC PRIVATE KEY", 224),
    ({"algorithm": "ECDSA", "ecdsaCurve": "P384"}, "EC PRIVATE KEY", 384),
    ({"algorithm": "ECDSA", "ecdsaCurve": "P521"}, "EC PRIVATE KEY", 521),
    ({"algorithm": "ED25519"}, "PRIVATE KEY", None),
])
def test_private_key(tls: Driver, inputs: dict[str, Any], label: str, bits: int | None) -> None:
    made, state = tls.create(KEY, inputs)
    assert secrets_of(state) == {"privateKeyPem", "privateKeyPemPkcs8", "privateKeyOpenssh"}
    out = {name: plain(value) for name, value in state.items()}
    assert (out["rsaBits"], out["ecdsaCurve"]) == (inputs.get("rsaBits", 2048),
                                                   inputs.get("ecdsaCurve", "P224"))
    assert out["privateKeyPem"].startswith(f"-----BEGIN {label}-----\n")
    assert out["privateKeyPemPkcs8"].startswith("-----BEGIN PRIVATE KEY-----\n")
    for form in ("privateKeyPem", "privateKeyPemPkcs8"):
        assert openssl("pkey", "-pubout", text=out[form]) == out["publicKeyPem"]
    public: Any = serialization.load_pem_public_key(out["publicKeyPem"].encode())
    assert bits is None or public.key_size == bits
    der = public.public_bytes(serialization.Encoding.DER,
                              serialization.PublicFormat.SubjectPublicKeyInfo)
    assert made == hashlib.sha1(der.strip()).hexdigest()
    if bits == 224:
        assert not any(out[name] for name in (
            "privateKeyOpenssh", "publicKeyOpenssh", "publicKeyFingerprintMd5",
            "publicKeyFingerprintSha256"))
        return
    ssh = asyncssh.import_public_key(out["publicKeyOpenssh"])
    assert out["publicKeyOpenssh"].endswith("\n")
    assert ssh.get_fingerprint("sha256") == out["publicKeyFingerprintSha256"]
    assert ssh.get_fingerprint("md5") == "MD5:" + out["publicKeyFingerprintMd5"]
    assert asyncssh.import_private_key(out["privateKeyOpenssh"]).convert_to_public() == ssh


@pytest.mark.parametrize("inputs,property", [
    ({}, "algorithm"), ({"algorithm": "DSA"}, "algorithm"),
    ({"algorithm": "ECDSA", "ecdsaCurve": "P512"}, "ecdsaCurve")])
def test_bad_keys_are_named(tls: Driver, inputs: dict[str, Any], property: str) -> None:
    assert list(tls.check(KEY, inputs)[1]) == [property]


def test_keys_are_replaced(tls: Driver) -> None:
    base = {"algorithm": "ED25519"}
    _, state = tls.create(KEY, base)
    assert tls.diff(KEY, base, base, state) == {}
    assert tls.diff(KEY, base, {"algorithm": "RSA", "rsaBits": 4096}, state) == {
        "algorithm": "UPDATE_REPLACE", "rsaBits": "UPDATE_REPLACE"}


# --- certificates ---


def test_a_chain_verifies(tls: Driver, tmp_path: Path) -> None:
    """RSA root, intermediate and leaf, as the product's PKI has them (with shorter keys)."""
    keys = {name: key_of(tls, algorithm="RSA", rsaBits=2048)["privateKeyPem"]
            for name in ("root", "middle", "leaf")}
    _, root = tls.create(SELF, {
        "privateKeyPem": secret(keys["root"]), "isCaCertificate": True,
        "validityPeriodHours": 24 * 365 * 15, "allowedUses": CA_USES, "setSubjectKeyId": True,
        "setAuthorityKeyId": True, "subject": {"commonName": "root"}})

    def issue(name: str, signer: str, parent: Any, subject: dict[str, Any], **more: Any) -> Any:
        _, request = tls.create(REQUEST, {"privateKeyPem": keys[name], "subject": subject,
                                          **more.pop("names", {})})
        return tls.create(LOCAL, {
            "certRequestPem": plain(request["certRequestPem"]), "caCertPem": plain(parent["certPem"]),
            "caPrivateKeyPem": keys[signer], **more})

    _, middle = issue("middle", "root", root, {"commonName": "middle"}, isCaCertificate=True,
                      validityPeriodHours=24 * 365 * 10, allowedUses=CA_USES, maxPathLength=1)
    made, leaf = issue(
        "leaf", "middle", middle, {"commonName": "www.example.org"}, validityPeriodHours=720,
        allowedUses=["digital_signature", "key_encipherment", "server_auth"],
        names={"dnsNames": ["www.example.org", "*.example.org"], "ipAddresses": ["192.0.2.1"],
               "uris": ["spiffe://example.org/x"]})
    assert secrets_of(leaf) == {"caPrivateKeyPem"} and secrets_of(root) == {"privateKeyPem"}
    for name, state in (("root", root), ("middle", middle), ("leaf", leaf)):
        (tmp_path / name).write_text(plain(state["certPem"]))
    for purpose, options in (("sslserver", ["-verify_hostname", "a.example.org"]),
                             ("sslserver", ["-verify_ip", "192.0.2.1"])):
        openssl("verify", "-x509_strict", "-purpose", purpose, *options,
                "-CAfile", str(tmp_path / "root"), "-untrusted", str(tmp_path / "middle"),
                str(tmp_path / "leaf"))
    certificate = load(plain(leaf["certPem"]))
    assert made == str(certificate.serial_number)
    assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical and usage.value.digital_signature and usage.value.key_encipherment
    assert not usage.value.key_cert_sign
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH]
    above = load(plain(middle["certPem"]))
    assert extension(above, x509.BasicConstraints).value == x509.BasicConstraints(True, 1)
    assert (extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier
            == extension(above, x509.SubjectKeyIdentifier).value.digest)
    with pytest.raises(x509.ExtensionNotFound):
        extension(certificate, x509.SubjectKeyIdentifier)
    start, end = (datetime.fromisoformat(plain(leaf[name]))
                  for name in ("validityStartTime", "validityEndTime"))
    assert end - start == timedelta(hours=720)
    assert abs(certificate.not_valid_after_utc - end) < timedelta(seconds=1)
    assert plain(leaf["readyForRenewal"]) is False and plain(leaf["caKeyAlgorithm"]) == "RSA"
    assert plain(root["keyAlgorithm"]) == "RSA" and plain(root["earlyRenewalHours"]) == 0


def test_subject_stands_in_gos_order(tls: Driver) -> None:
    _, root = root_of(tls, subject={
        "commonName": "cn", "country": "DE", "organization": "o", "organizationalUnit": "ou",
        "locality": "l", "province": "p", "streetAddresses": ["s1", "s2"], "postalCode": "1",
        "serialNumber": "7", "emailAddress": "a@example.org"})
    assert [(name.oid, name.value) for name in load(root["certPem"]).subject] == [
        (NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "o"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "ou"), (NameOID.LOCALITY_NAME, "l"),
        (NameOID.STATE_OR_PROVINCE_NAME, "p"), (NameOID.STREET_ADDRESS, "s1"),
        (NameOID.STREET_ADDRESS, "s2"), (NameOID.POSTAL_CODE, "1"), (NameOID.COMMON_NAME, "cn"),
        (NameOID.SERIAL_NUMBER, "7"), (NameOID.EMAIL_ADDRESS, "a@example.org")]


def test_a_path_length_of_zero_is_no_limit(tls: Driver) -> None:
    """Go's rule, which the official provider does not override."""
    _, root = root_of(tls, maxPathLength=0)
    constraints = extension(load(root["certPem"]), x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(True, None)
    assert root["maxPathLength"] == 0


def test_names_without_a_subject_are_critical(tls: Driver) -> None:
    key, root = root_of(tls)
    _, leaf = tls.create(LOCAL, {
        "certRequestPem": request_of(tls, dnsNames=["a"]), "caCertPem": root["certPem"],
        "caPrivateKeyPem": key, "validityPeriodHours": 1, "allowedUses": []})
    assert extension(load(plain(leaf["certPem"])), x509.SubjectAlternativeName).critical


@pytest.mark.parametrize("change,message", [
    ({"caPrivateKeyPem": "other"}, "x509: provided PrivateKey doesn't match parent's PublicKey"),
    ({"caPrivateKeyPem": "x"}, "^Failed to parse CA private key PEM: failed to decode PEM block"),
    ({"caCertPem": "x"}, "^Failed to parse CA certificate PEM: failed to decode PEM of expected "),
    ({"certRequestPem": "cert"}, "invalid PEM type - expected \"CERTIFICATE REQUEST\", got \"CERT"),
    ({"maxPathLength": 2}, "x509: only CAs are allowed to specify MaxPathLen"),
])
def test_what_cannot_be_signed(tls: Driver, change: dict[str, Any], message: str) -> None:
    key, root = root_of(tls)
    special = {"other": lambda: key_of(tls)["privateKeyPem"], "cert": lambda: root["certPem"]}
    change = {name: special.get(value, lambda value=value: value)()
              for name, value in change.items()}
    with pytest.raises(Failure, match=message):
        tls.create(LOCAL, {"certRequestPem": request_of(tls, subject={"commonName": "c"}),
                           "caCertPem": root["certPem"], "caPrivateKeyPem": key,
                           "validityPeriodHours": 1, "allowedUses": [], **change})


@pytest.mark.parametrize("change,message", [
    ({"subject": None}, "^Invalid Certificate Subject: Must contain at least one"),
    ({"isCaCertificate": False, "setAuthorityKeyId": True}, "Could not determine Authority Key"),
    ({"ipAddresses": ["300.1.1.1"]}, 'Invalid IP address: Failed to parse "300.1.1.1"'),
])
def test_what_cannot_be_self_signed(tls: Driver, change: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        root_of(tls, **change)


@pytest.mark.parametrize("change,property", [
    ({"allowedUses": ["server"]}, "allowedUses[0]"), ({"allowedUses": None}, "allowedUses"),
    ({"validityPeriodHours": -1}, "validityPeriodHours"), ({"maxPathLength": -2}, "maxPathLength"),
    ({"privateKeyPemWo": "x"}, "privateKeyPemWo"), ({"privateKeyPem": None}, "privateKeyPem"),
    ({"subject": {"commonName": 5}}, "subject.commonName"), ({"dnsNames": "a"}, "dnsNames"),
])
def test_bad_certificates_are_named(tls: Driver, change: dict[str, Any], property: str) -> None:
    base = {"privateKeyPem": "k", "validityPeriodHours": 1, "allowedUses": []}
    assert list(tls.check(SELF, {**base, **change})[1]) == [property]


# --- diff and renewal ---

BASE = {"privateKeyPem": "", "validityPeriodHours": 100, "allowedUses": ["cert_signing"],
        "isCaCertificate": True, "subject": {"commonName": "c"}, "dnsNames": ["a"]}


@pytest.mark.parametrize("change,expected", [
    ({}, {}), ({"setSubjectKeyId": False}, {}),
    ({"earlyRenewalHours": 5}, {"earlyRenewalHours": "UPDATE"}),
    ({"validityPeriodHours": 101}, {"validityPeriodHours": "UPDATE_REPLACE"}),
    ({"allowedUses": ["crl_signing"]}, {"allowedUses": "UPDATE_REPLACE"}),
    ({"isCaCertificate": None}, {"isCaCertificate": "UPDATE_REPLACE"}),
    ({"subject": {"commonName": "d"}}, {"subject": "UPDATE_REPLACE"}),
    ({"dnsNames": None}, {"dnsNames": "DELETE_REPLACE"}),
    ({"ipAddresses": ["192.0.2.1"]}, {"ipAddresses": "ADD_REPLACE"}),
    ({"maxPathLength": 1}, {"maxPathLength": "ADD_REPLACE"}),
    ({"privateKeyPem": UNKNOWN}, {"privateKeyPem": "UPDATE_REPLACE"}),
    # 100 hours of validity, to be renewed 100 hours before its end: now.
    ({"earlyRenewalHours": 100}, {"earlyRenewalHours": "UPDATE",
                                  "readyForRenewal": "UPDATE_REPLACE"}),
])
def test_diff(tls: Driver, change: dict[str, Any], expected: dict[str, str]) -> None:
    base = {**BASE, "privateKeyPem": key_of(tls)["privateKeyPem"]}
    _, state = tls.create(SELF, base)
    assert tls.diff(SELF, base, {**base, **change}, state) == expected


def test_renewal(tls: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {**BASE, "privateKeyPem": key_of(tls)["privateKeyPem"], "earlyRenewalHours": 20}
    _, state = tls.create(SELF, base)
    real = datetime.now(timezone.utc)
    monkeypatch.setattr(tls_package, "now", lambda: real + timedelta(hours=79))
    assert tls.diff(SELF, base, base, state) == {}
    assert plain(tls.read(SELF, state)["readyForRenewal"]) is False
    monkeypatch.setattr(tls_package, "now", lambda: real + timedelta(hours=81))
    assert tls.diff(SELF, base, base, state) == {"readyForRenewal": "UPDATE_REPLACE"}
    assert plain(tls.read(SELF, state)["readyForRenewal"]) is True


def test_a_certificate_renewed_earlier_than_it_lives_is_always_ready(tls: Driver) -> None:
    _, root = root_of(tls, validityPeriodHours=10, earlyRenewalHours=10)
    assert root["readyForRenewal"] is True


def test_an_update_keeps_the_certificate(tls: Driver) -> None:
    base = {**BASE, "privateKeyPem": key_of(tls)["privateKeyPem"]}
    _, state = tls.create(SELF, base)
    after = tls.update(SELF, state, {**base, "earlyRenewalHours": 7})
    assert plain(after["certPem"]) == plain(state["certPem"])
    assert plain(after["earlyRenewalHours"]) == 7 and secrets_of(after) == {"privateKeyPem"}


def test_preview(tls: Driver) -> None:
    _, state = tls.create(LOCAL, {
        "certRequestPem": UNKNOWN, "caCertPem": UNKNOWN, "caPrivateKeyPem": secret(UNKNOWN),
        "validityPeriodHours": 1, "allowedUses": []}, preview=True)
    assert plain(state["certPem"]) == UNKNOWN and plain(state["readyForRenewal"]) is False
    assert plain(state["isCaCertificate"]) is False and secrets_of(state) == {"caPrivateKeyPem"}
