"""The rule for the ClusterIssuers' names, as the plan has it; the real API server applies it in tests/lab/test_api_login.py."""

from __future__ import annotations

from plan.tools.certificate_policy import NAME
from plan.tools.order import needs_of
from tests.plan.stacks import plan


def test_every_cluster_with_issuers_has_it_before_them() -> None:
    """Also that of Vault, whose release comes after cert-manager's."""
    for releases in plan("multicluster").releases.values():
        issuers = {r.name for r in releases for m in (*r.before, *r.after) if m.body["kind"] == "ClusterIssuer"}
        named = [r.name for r in releases if {m.name for m in r.before} >= {NAME, f"{NAME}-binding"}]
        assert named == (["cert-manager"] if issuers else [])
        assert all(r.name == "cert-manager" or "cert-manager" in needs_of(r) for r in releases if r.name in issuers)


def test_it_knows_every_name_of_the_platform() -> None:
    stack = plan("multicluster")
    (release,) = [r for r in stack.releases["dev"] if r.name == "cert-manager"]
    (policy,) = [m.body for m in release.before if m.name == NAME]
    text = policy["spec"]["validations"][0]["expression"]
    names = {host for releases in stack.releases.values() for r in releases for host in (r.host, *r.other_hosts) if host}
    assert names and [host for host in names if f"'{host}'" not in text] == []
