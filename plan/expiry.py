"""Certificates of the user's that end soon, or that are trusted though they have ended. The plan reads no clock: `today` comes
from whoever asks. A served or issuing certificate that has ended is a fault, which config.tls_checks reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from config.certificates import read_certificates, subject
from config.model import Settings

SOON_DAYS = 30


def warnings(settings: Settings, today: date) -> Iterator[str]:
    """One sentence for each certificate that ends within SOON_DAYS, or of an authority that ended before `today`."""
    for path, text in _used(settings):
        for certificate in read_certificates(text):
            end = certificate.not_valid_after_utc
            left = (end.date() - today).days
            if left <= SOON_DAYS:
                yield (
                    f"{path}: {subject(certificate)} ends on {end:%Y-%m-%d %H:%M} UTC, in {left} {'day' if left == 1 else 'days'}: nothing "
                    "renews it; have it issued again, and run `make up` with it before that day"
                )
    for path, text in _trusted(settings):
        for certificate in read_certificates(text):
            end = certificate.not_valid_after_utc
            if end.date() < today:
                yield (
                    f"{path}: {subject(certificate)} ended on {end:%Y-%m-%d %H:%M} UTC, and programs refuse what it signed; "
                    "give the one that replaces it, or remove it"
                )


def _used(settings: Settings) -> Iterator[tuple[str, str]]:
    """What servers send, and what issues: the path of the setting, and PEM."""
    if settings.tls.source == "provided":
        for name, text in (("certificate", settings.tls.certificate), ("chain", settings.tls.chain)):
            if text:
                yield f"tls.{name}", text
    if given := settings.pki.intermediate:
        yield "pki.intermediate.certificate", given.certificate
        yield "pki.intermediate.chain", given.chain


def _trusted(settings: Settings) -> Iterator[tuple[str, str]]:
    for number, text in enumerate(settings.extra_ca_certificates):
        yield f"extraCaCertificates[{number}]", text
    if settings.media.registry_mirror_ca:
        yield "media.registryMirrorCa", settings.media.registry_mirror_ca
