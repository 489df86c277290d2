"""The limits on the way, read back from what is rendered, and their order from the outside to the inside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from plan import gitlab, haproxy, limits
from plan.plan import Plan
from plan.tools.model import Release
from plan.tools.realm import SETTINGS
from tests.plan.stacks import plan

DOCS = Path(__file__).resolve().parents[2] / "docs/network.md"


def release(stack: Plan, name: str) -> Release:
    return next(r for releases in stack.releases.values() for r in releases if r.name == name)


def rendered(stack: Plan) -> dict[limits.Limit, set[str]]:
    """Each limit of the table, as the texts by which it is in what the machines and the cluster get."""
    load_balancer = haproxy.configuration(stack.topology.load_balancers[0])
    traefik = release(stack, "traefik").values["ports"]
    mimir, defectdojo = release(stack, "mimir").values, release(stack, "defectdojo").values
    omnibus = gitlab.gitlab_rb("gitlab.example.com", "19.3.1")
    (login,) = (m.body["spec"]["rateLimit"] for m in release(stack, "keycloak").before if "rateLimit" in m.body.get("spec", {}))

    def of_haproxy(keyword: str) -> set[str]:
        return set(re.findall(rf"^    {keyword} (\S+)$", load_balancer.partition("\nfrontend ")[0], re.M))

    def of_traefik(name: str) -> set[str]:
        return {traefik[entry]["transport"]["respondingTimeouts"][name] for entry in ("web", "websecure")}

    def of_gitlab(name: str) -> set[str]:
        return set(re.findall(rf"^gitlab_rails\['nginx'\]\['{name}'\] = '?(\w+)'?$", omnibus, re.M))

    return {
        limits.CONNECT: of_haproxy("timeout connect"),
        limits.IDLE: of_haproxy("timeout client") | of_haproxy("timeout server"),
        limits.DRAIN: of_haproxy("hard-stop-after"),
        limits.REQUEST: of_traefik("readTimeout"),
        limits.RESPONSE: of_traefik("writeTimeout"),
        limits.KEEP_ALIVE: of_traefik("idleTimeout"),
        limits.LOGIN_RATE: {str(login["average"])},
        limits.LOGIN_BURST: {str(login["burst"])},
        limits.GITLAB_BODY: of_gitlab("client_max_body_size"),
        limits.GITLAB_READ: of_gitlab("proxy_read_timeout"),
        limits.METRICS_BODY: {mimir["gateway"]["nginx"]["config"]["clientMaxBodySize"]},
        limits.SCAN_FILE: {defectdojo["extraConfigs"]["DD_SCAN_FILE_MAX_SIZE"]},
    }


EXPECTED = {
    limits.CONNECT: "1s", limits.IDLE: "3600s", limits.DRAIN: "600s", limits.REQUEST: "21600s", limits.RESPONSE: "0s",
    limits.KEEP_ALIVE: "180s", limits.LOGIN_RATE: "6", limits.LOGIN_BURST: "5", limits.GITLAB_BODY: "250m", limits.GITLAB_READ: "3600",
    limits.METRICS_BODY: "100M", limits.SCAN_FILE: "100",
}  # fmt: skip


def test_each_limit_is_rendered_as_the_table_has_it() -> None:
    """With five workers, of which each has a fifth of the log-ins."""
    assert rendered(plan()) == {limit: {value} for limit, value in EXPECTED.items()}
    assert set(EXPECTED) == set(limits.TABLE)


def test_an_upload_may_take_longer_than_a_minute() -> None:
    """Traefik's own limit for a whole request is 60 s."""
    ports = release(plan(), "traefik").values["ports"]
    for entry in ("web", "websecure"):
        written = ports[entry]["transport"]["respondingTimeouts"]["readTimeout"]
        assert int(written.removesuffix("s")) >= 3600 * 4, entry


def test_an_outer_hop_waits_at_least_as_long_as_an_inner_one() -> None:
    assert limits.IDLE.value > limits.KEEP_ALIVE.value  # HAProxy does not cut what Traefik keeps for the next request
    assert limits.IDLE.value >= limits.GITLAB_READ.value
    assert limits.REQUEST.value >= limits.IDLE.value and limits.RESPONSE.value == 0


@pytest.mark.parametrize("workers", [1, 3, 5, 7])
def test_the_logins_of_one_address_are_limited_over_all_workers(workers: int) -> None:
    nodes: dict[str, Any] = {"standalone": {"workers": {"count": workers, "cpu": 64, "memoryGb": 256}}}
    (rate,) = (
        m.body["spec"]["rateLimit"]
        for m in release(plan(clusters=nodes), "keycloak").before
        if "rateLimit" in m.body.get("spec", {})
    )
    assert rate["period"] == "1m" and rate["sourceCriterion"] == {"ipStrategy": {"depth": 0}}
    if workers <= 5:
        # What one address may send at once over all of them does not lock an account.
        assert rate["burst"] * workers < SETTINGS["failureFactor"] and rate["average"] * workers <= limits.LOGIN_RATE.value
    assert rate["average"] >= 6 and rate["burst"] >= 5


@pytest.mark.parametrize(
    ("identity", "paths"),
    [
        # Where the master realm is closed, a longer path below it would open it again.
        ({"realm": "ours"}, ["/realms/ours/login-actions"]),
        ({"realm": "ours", "masterConsole": True}, ["/realms/ours/login-actions", "/realms/master/login-actions"]),
    ],
)
def test_the_limit_is_in_front_of_every_login_form_that_is_open(identity: dict[str, Any], paths: list[str]) -> None:
    keycloak = release(plan(identity=identity), "keycloak")
    bodies = [m.body for m in keycloak.before]
    (limit,) = (b for b in bodies if "rateLimit" in b.get("spec", {}))
    (way,) = (b for b in bodies if b["kind"] == "Ingress" and b["metadata"]["name"] == limit["metadata"]["name"])
    (rule,) = way["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == paths
    assert rule["host"] == keycloak.host
    named = way["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"]
    assert named == f"keycloak-{limit['metadata']['name']}@kubernetescrd"
    assert way["metadata"]["namespace"] == limit["metadata"]["namespace"] == "keycloak"


def test_the_page_has_the_table() -> None:
    assert limits.as_markdown() in DOCS.read_text(encoding="utf-8")
