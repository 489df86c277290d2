"""Checks of the certificates and keys that the user brings: each is verified with what it is to serve or to issue.

Whoever verifies the platform's names by its CA bundle alone (the API servers, Grafana, Headlamp, Vault, every Job) knows
no public authority. So what is given here has to lead up to a root that is given, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from ipaddress import IPv4Address
from itertools import pairwise

from cryptography import x509

from config import pem
from config.certificates import (
    NotReadable,
    covers,
    is_authority,
    is_root,
    issued_by,
    matches,
    read_certificates,
    read_key,
    refused,
    subject,
    throwaway,
    too_deep,
)
from config.errors import Problem, key
from config.model import Settings, Tls
from config.placement import services

INNER_NAMES = ("svc", "vault-internal", "localhost")
"""What the intermediate issues for besides opstella:domain: each name is one of these, or below it."""
_INTERMEDIATE = "pki.intermediate"
_SHALLOWER = "have that authority issued with a greater path length or none, or let an authority above it sign those below"


def served_chain(tls: Tls) -> tuple[str, str]:
    """PEM of what a server sends for `*.domain`, leaf first, and of what stands above the leaf in it.

    The certificates behind the leaf in `tls.certificate` are its chain, as ACME clients write it.
    """
    leaf, *behind = [block.text for block in pem.blocks(tls.certificate or "")]
    chain = tls.chain or ""
    if not behind:
        return (tls.certificate or "") + chain, chain
    above = "".join(dict.fromkeys([*behind, *(block.text for block in pem.blocks(chain))]))
    return leaf + above, above


def check_ssh(settings: Settings) -> Iterator[Problem]:
    text = settings.ssh.private_key.get_secret_value()
    if text == pem.ENCRYPTED:
        return
    try:
        read_key(text, ssh=True)
    except NotReadable as error:
        yield Problem(key("ssh.privateKey"), str(error), error.fix)


def check_tls(settings: Settings, now: datetime) -> Iterator[Problem]:
    """One problem at most of the certificate's own: what comes first explains the rest."""
    tls = settings.tls
    if tls.source != "provided":
        return
    for name, value in (("certificate", tls.certificate), ("privateKey", tls.private_key)):
        if value is None:
            how = f"write {name}: file:PATH"
            if name == "privateKey":
                how += f", or encrypt it: pulumi config set --secret --path opstella:tls.{name} (it reads standard input)"
            yield Problem(key("tls", name), "tls.source is provided, but this is missing", how)
    if tls.certificate is None:
        return
    leaf, *above = read_certificates(served_chain(tls)[0])
    private_key = tls.private_key.get_secret_value() if tls.private_key else pem.ENCRYPTED
    if is_authority(leaf) and not is_root(leaf):
        yield Problem(
            key("tls.certificate"),
            f"the first certificate, {subject(leaf)}, is an authority",
            "put the server's certificate, the leaf, first; behind it the one that issued it, then those above",
        )
        return
    problems = [
        *_pair("tls", leaf, private_key),
        *check_hosts(settings, [f"{s.label}.{settings.domain}" for s in services(settings)]),
        *_validity("tls.certificate", [leaf], now),
        *_links(_places(tls), now),
    ]
    yield from problems or _verified(settings, leaf, above, now)


def check_hosts(settings: Settings, hosts: Iterable[str]) -> Iterator[Problem]:
    """A problem if the user's own certificate, given and readable, does not stand for all of `hosts`."""
    if settings.tls.source != "provided" or settings.tls.certificate is None:
        return
    certificate = read_certificates(settings.tls.certificate)[0]
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
    certificate, *more = read_certificates(given.certificate)
    if more:
        yield Problem(
            key(_INTERMEDIATE, "certificate"),
            f"it holds {len(more) + 1} certificates",
            f"give the intermediate alone; those above it belong to {key(_INTERMEDIATE, 'chain')}",
        )
        return
    chain = read_certificates(given.chain)
    problems = [
        *_pair(_INTERMEDIATE, certificate, given.private_key.get_secret_value()),
        *_validity(f"{_INTERMEDIATE}.certificate", [certificate], now),
        *_links([(f"{_INTERMEDIATE}.certificate", certificate), *((f"{_INTERMEDIATE}.chain", c) for c in chain)], now),
    ]
    if not problems and not is_root(chain[-1]):
        problems.append(
            Problem(
                key(_INTERMEDIATE, "chain"),
                f"it ends with {subject(chain[-1])}, which is not a root: {chain[-1].issuer.rfc4514_string()} signed it",
                "add the certificates above it, up to and with the root",
            )
        )
    if not problems and (deep := too_deep([certificate, certificate, *chain])):
        problems.append(Problem(key(_INTERMEDIATE, "chain"), deep[1], _SHALLOWER))
    yield from problems
    if not problems:
        hosts = [f"{service.label}.{settings.domain}" for service in services(settings)]
        yield from check_issuing(settings, [((settings.domain, f"*.{settings.domain}", *hosts), ())])


def check_issuing(
    settings: Settings, leaves: Iterable[tuple[Sequence[str], Sequence[IPv4Address]]]
) -> Iterator[Problem]:
    """A problem if a TLS client would refuse what the user's intermediate issues for the names of any of `leaves`.

    Of what is known of it alone: nothing is said where its key is not known here, or does not fit.
    """
    given = settings.pki.intermediate
    if given is None or given.private_key.get_secret_value() == pem.ENCRYPTED:
        return
    try:
        issuer_key = read_key(given.private_key.get_secret_value())
        issuer, chain = read_certificates(given.certificate)[0], read_certificates(given.chain)
    except NotReadable:
        return  # reported where it is read
    if not matches(issuer, issuer_key):
        return
    refusals: dict[str, list[str]] = {}
    for names, addresses in leaves:
        # One leaf for them all first: what is permitted together is permitted alone.
        asked = [(names, addresses)]
        if _refusal(issuer, issuer_key, chain, names, addresses):
            asked = [*(((name,), ()) for name in names), *(((), (address,)) for address in addresses)]
        for some, numbers in asked:
            if reason := _refusal(issuer, issuer_key, chain, some, numbers):
                refusals.setdefault(reason, []).extend([*some, *map(str, numbers)])
    for reason, names in refusals.items():
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Problem(
            key(_INTERMEDIATE, "certificate"),
            f"TLS clients would refuse what it issues for {shown}: {reason}",
            "have it issued as an authority for these names: basicConstraints CA:TRUE, keyUsage keyCertSign, no "
            f"extendedKeyUsage, and no nameConstraints, or such as permit {', '.join((settings.domain, *INNER_NAMES))} (DNS) and GitLab's "
            "address",
        )


def _refusal(
    issuer: x509.Certificate,
    issuer_key: object,
    chain: Sequence[x509.Certificate],
    names: Sequence[str],
    addresses: Sequence[IPv4Address],
) -> str | None:
    leaf, moment = throwaway(issuer, issuer_key, names, addresses)
    asked = next((name for name in names if not name.startswith("*.")), None) or next(iter(addresses), None)
    if asked is None:
        asked = names[0].replace("*", "any", 1)
    return refused(leaf, asked, [issuer, *chain[:-1]], chain[-1:], moment)


def _places(tls: Tls) -> list[tuple[str, x509.Certificate]]:
    """Every certificate of a provided one, leaf first, with the setting that it stands in; each once."""
    inside = read_certificates(tls.certificate or "")
    below = read_certificates(tls.chain) if tls.chain else []
    behind = [] if len(inside) == 1 else inside[1:]
    found = [("tls.certificate", certificate) for certificate in (inside[0], *behind)]
    return found + [("tls.chain", certificate) for certificate in below if certificate not in behind]


def _links(places: Sequence[tuple[str, x509.Certificate]], now: datetime) -> Iterator[Problem]:
    """A problem if one of `places` was not signed by the next, or is not valid; the first is another check's."""
    numbers = {setting: 0 for setting, _ in places}
    for (_, lower), (setting, upper) in pairwise(places):
        numbers[setting] += 1
        number = numbers[setting]
        if not issued_by(lower, upper):
            chain = setting.endswith("chain")
            below = f"its number {number - 1}" if number > 1 else f"{places[0][0]}" if lower is places[0][1] else subject(lower)
            yield Problem(
                key(setting),
                f"its certificate number {number if chain else number + 1} ({subject(upper)}) did not sign {below}",
                "put the issuing authority first, then those above it, each once",
            )
            return
    for setting in dict.fromkeys(setting for setting, _ in places[1:]):
        yield from _validity(setting, [certificate for where, certificate in places[1:] if where == setting], now)


def _verified(
    settings: Settings, leaf: x509.Certificate, above: Sequence[x509.Certificate], now: datetime
) -> Iterator[Problem]:
    """A problem if the platform's own bundle does not verify `leaf`, and what is sent along with it, for its names."""
    extra = [c for text in settings.extra_ca_certificates for c in read_certificates(text)]
    given = [leaf, *above, *extra]
    # Whoever verifies by OpenSSL's own rules takes nothing but a root for the end of a chain.
    roots = [certificate for certificate in given if is_root(certificate)]
    top, climbed = leaf, [leaf]
    while not is_root(top):
        issuer = next((certificate for certificate in given if issued_by(top, certificate)), None)
        if issuer is None:
            whose = "it" if top is leaf else f"its chain, which ends with {subject(top)},"
            yield Problem(
                key("tls.certificate"),
                f"{whose} was issued by {top.issuer.rfc4514_string()}, which is in none of {key('tls.chain')}, "
                f"{key('extraCaCertificates')} and tls.certificate itself: what trusts the platform's authorities alone would "
                "refuse it",
                f"add the certificates above it to {key('tls.chain')}, and the root to {key('extraCaCertificates')} (a public "
                "root is in /etc/ssl/certs of a machine with the package ca-certificates)",
            )
            return
        top = issuer
        climbed.append(top)
    if deep := too_deep(climbed):
        places = [*_places(settings.tls), *((f"extraCaCertificates[{n}]", c) for n, t in enumerate(settings.extra_ca_certificates) for c in read_certificates(t))]
        yield Problem(key(next(path for path, certificate in places if certificate == deep[0])), deep[1], _SHALLOWER)
        return
    for host in [f"{service.label}.{settings.domain}" for service in services(settings)]:
        if reason := refused(leaf, host, [*above, *extra], roots, now):
            yield Problem(
                key("tls.certificate"), f"TLS clients would refuse it for {host}: {reason}", "have it issued as a server's certificate"
            )
            return


def _validity(path: str, certificates: Sequence[x509.Certificate], now: datetime) -> Iterator[Problem]:
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > end:
            yield Problem(
                key(path),
                f"{subject(certificate)} expired on {end:%Y-%m-%d %H:%M} UTC",
                "give a certificate that is valid today",
            )
        if now < start:
            yield Problem(
                key(path),
                f"{subject(certificate)} is not valid before {start:%Y-%m-%d %H:%M} UTC",
                "give one that is valid today, or set this machine's clock right",
            )


def _pair(path: str, certificate: x509.Certificate, private_key: str) -> Iterator[Problem]:
    if private_key == pem.ENCRYPTED:
        return
    try:
        matching = matches(certificate, read_key(private_key))
    except NotReadable as error:
        yield Problem(key(path, "privateKey"), str(error), error.fix)
        return
    if not matching:
        yield Problem(
            key(path, "privateKey"),
            f"it is not the key of {path}.certificate: their public keys differ",
            "give the private key with which the certificate was requested",
        )
