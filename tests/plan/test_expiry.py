"""Certificates of the user's that end soon, or have ended, are warned of by the day that the plan is given."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from config.checks import ENCRYPTED
from plan import expiry
from plan.plan import build
from tests.config.material import DOMAIN, NOW, YEAR, certificate, pem
from tests.plan.stacks import read

ROOT_KEY, KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
ROOT = certificate("Root", ROOT_KEY)
LEAF = certificate("Leaf", KEY, (ROOT, ROOT_KEY), names=[f"*.{DOMAIN}"], end=NOW + timedelta(days=100))
OLD = certificate("Old", KEY, start=NOW - 3 * YEAR, end=NOW - timedelta(days=10))
ENDS = (NOW + timedelta(days=100)).date()
PROVIDED = {"tls": {"source": "provided", "certificate": pem(LEAF), "chain": pem(ROOT), "privateKey": ENCRYPTED}}


def told(today: date, **sections: Any) -> list[str]:
    return list(expiry.warnings(read(**sections), today))


def test_a_certificate_that_ends_within_thirty_days_is_named_with_its_end() -> None:
    assert told(ENDS - timedelta(days=31), **PROVIDED) == []
    (text,) = told(ENDS - timedelta(days=30), **PROVIDED)
    assert text.startswith(f"tls.certificate: CN=Leaf ends on {ENDS}") and "UTC, in 30 days: nothing renews it" in text
    assert "in 1 day:" in told(ENDS - timedelta(days=1), **PROVIDED)[0]


def test_so_is_an_intermediate_of_the_users_own() -> None:
    issuing = certificate("Issuing", KEY, (ROOT, ROOT_KEY), end=NOW + timedelta(days=100))
    given = {"pki": {"intermediate": {"certificate": pem(issuing), "chain": pem(ROOT), "privateKey": ENCRYPTED}}}
    (text,) = told(ENDS - timedelta(days=9), **given)
    assert text.startswith("pki.intermediate.certificate: CN=Issuing ends on ")


def test_an_authority_that_has_ended_is_named_wherever_it_is_trusted() -> None:
    texts = told(NOW.date(), extraCaCertificates=[pem(ROOT), pem(ROOT, OLD)], media={"registryMirrorCa": pem(OLD)})
    ended = f"CN=Old ended on {(NOW - timedelta(days=10)).date()}"
    assert [text.startswith((f"extraCaCertificates[1]: {ended}", f"media.registryMirrorCa: {ended}")) for text in texts] == [True, True]


def test_a_server_certificate_may_be_trusted_by_itself() -> None:
    """That of a proxy which signed its own: OpenSSL, Go and Java take it as an anchor."""
    assert told(NOW.date(), extraCaCertificates=[pem(certificate("proxy", KEY, names=["proxy.example.com"]))]) == []


def test_the_plan_warns_of_them_on_the_day_that_it_is_given() -> None:
    settings = read(**PROVIDED)
    assert any("CN=Leaf ends on" in text for text in build(settings, "opstella/test", ENDS - timedelta(days=3)).warnings)
    assert not any("CN=Leaf" in text for text in build(settings, "opstella/test").warnings)
