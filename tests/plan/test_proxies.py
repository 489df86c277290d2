"""Who connects to something outside, and by what way: machines' phases, tools, GitLab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.program import program
from plan import gitlab, hosts, proxies
from plan.plan import Plan
from plan.tools.needs import OUTSIDE
from tests.scripts.sender import SCRIPTS
from tests.support.platform import plan_of

PROXY: dict[str, Any] = {"proxy": {"http": "http://proxy.example.net:3128", "https": "http://proxy.example.net:3129", "noProxy": ["mirror.example.net"]}}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of("multicluster", PROXY)


def outward(plan: Plan) -> Iterator[tuple[str, int]]:
    for releases in plan.releases.values():
        for release in releases:
            flows = (*release.flows, *(f for more in release.further_flows.values() for f in more), *(f for job in release.jobs for f in job.flows))
            yield from ((release.name, port) for flow in flows if flow.peer == OUTSIDE and not flow.inbound for port in flow.ports)


def test_every_tool_that_reaches_outside_goes_through_the_proxy_or_is_named_in_a_warning(plan: Plan) -> None:
    every = plan_of("multicluster", {**PROXY, "vault": {"unseal": "auto", "seal": {"type": "awskms"}}, "alerts": {"webhook": "hook"}, "secrets": {"hook": "https://hook.example.net"}})
    for stack in (plan, every):
        found = {name for name, port in outward(stack)}
        assert found == {*proxies.THROUGH, *proxies.past(stack.settings)}
        told = {text for text in stack.warnings if text.startswith("proxy:")}
        assert told == {f"proxy: {name} does not use it; let its pods out directly to {proxies.PAST[name]}" for name in proxies.past(stack.settings)}
    assert proxies.past(every.settings) == tuple(proxies.PAST) and proxies.past(plan.settings) == ("defectdojo", "sonarqube")
    assert not [text for text in plan_of("multicluster").warnings if text.startswith("proxy:")]


def test_tools_that_go_through_it_may_reach_it(plan: Plan) -> None:
    allowed = set(outward(plan))
    assert {(name, port) for name in proxies.THROUGH for port in (3128, 3129)} <= allowed
    assert not {port for _, port in outward(plan_of("multicluster"))} & {3128, 3129}


def values_of(plan: Plan, name: str) -> dict[str, Any]:
    return next(dict(r.values) for releases in plan.releases.values() for r in releases if r.name == name)


def test_what_these_tools_are_told(plan: Plan) -> None:
    harbor = values_of(plan, "harbor")["proxy"]
    assert harbor["httpProxy"] == "http://proxy.example.net:3128" and harbor["components"] == ["core", "jobservice", "trivy"]
    told = {item["name"]: item["value"] for item in values_of(plan, "argo-cd")["repoServer"]["env"]}
    assert told["HTTPS_PROXY"] == "http://proxy.example.net:3129"
    runner = values_of(plan, "gitlab-runner")["runners"]["config"]
    for text in (harbor["noProxy"], told["NO_PROXY"], runner):
        assert {"localhost", ".svc", ".cluster.local", ".devops.example.com", "mirror.example.net"} <= set(re.split(r"[,=\"]", text)), text
    assert '"https_proxy=http://proxy.example.net:3129"' in runner and '"HTTP_PROXY=http://proxy.example.net:3128"' in runner
    plain = plan_of("multicluster")
    assert "proxy" not in values_of(plain, "harbor") and "env" not in values_of(plain, "argo-cd")["repoServer"]
    assert "environment" not in values_of(plain, "gitlab-runner")["runners"]["config"]


def test_gitlab_goes_through_it_itself(plan: Plan) -> None:
    text = gitlab.gitlab_rb("git.example.com", "19.2.1", proxy=proxies.of_gitlab(plan.settings))
    for part in ("gitaly", "gitlab_rails", "gitlab_workhorse"):
        line = next(line for line in text.splitlines() if line.startswith(f"{part}['env']"))
        assert "http://proxy.example.net:3129" in line and "'no_proxy'" in line
    assert "['env']" not in gitlab.gitlab_rb("git.example.com", "19.2.1")


# Commands of the phases that connect to something outside of the platform, and those that never do.
_FETCHES = re.compile(r"(?<![\w.$/-])(?:curl|wget|apt-get|dnf|yum|git|bash \"\$MEDIA|sh \"\$MEDIA)(?![\w.:=/-])(?=[ $])")
# Functions of the scripts that run such commands: each calls proxy_use before, or asks this host or its cluster only.
_THROUGH = {"fetch", "check_urls", "http_offset", "packages_by", "install_rke2", "add_repository"}
_CALLED_BY_THEM = {"apt_once", "dnf_once"}  # packages_by has called proxy_use
_OWN = {"answers", "api", "join_what_lives", "supervisor"}
_REPOSITORIES_ONLY = {"check_node"}  # reads what the machine's own dnf.conf says
_USER = {"git_alone_from_elsewhere"}  # its git is the user


def functions(text: str) -> dict[str, str]:
    return {found[1]: found[0] for found in re.finditer(r"^([a-z_]\w*)\(\) (?:\{.*\}\n|\{\n(?:.*\n)*?\}\n)", text, re.M)}


def test_every_phase_that_fetches_is_on_the_list_and_takes_the_proxy() -> None:
    found: dict[str, str] = {}
    for path in sorted(SCRIPTS.glob("*.sh")):
        for name, text in functions(path.read_text()).items():
            code = re.sub(r'"[^"$]*"|\'[^\']*\'', "''", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
            code = re.sub(r'(die|warning|problem|say|echo|printf|packages_failed) .*', "", code)
            if _FETCHES.search(code):
                found[name] = text
    helpers = {"install_by_dnf", "use_selinux", "package_install", "os_family", "packages_remedy"}  # they call dnf(), the function
    assert set(found) - helpers <= _THROUGH | _CALLED_BY_THEM | _OWN | _REPOSITORIES_ONLY | _USER, sorted(set(found) - helpers)
    library = functions((SCRIPTS / "lib.sh").read_text())
    for name in _THROUGH:
        text = found.get(name) or library.get(name) or next(functions(p.read_text())[name] for p in SCRIPTS.glob("*.sh") if name in functions(p.read_text()))
        assert re.search(r"\bproxy_use\b|\bfetch\b", text), name
    for name in _OWN & set(found):
        assert "--noproxy '*'" in found[name], name


def test_every_phase_that_fetches_has_the_function_and_its_values() -> None:
    """A phase after the preparation needs none: the machine keeps the proxy in /etc/opstella/proxy."""
    for phase in ("gitlab", "haproxy", "keepalived", "nfs", "prepare", "rke2"):
        assert "proxy_use()" in program(phase) and "$STATE/proxy" in program(phase), phase


def test_machines_are_told_before_anything_is_fetched(plan: Plan) -> None:
    for host in plan.topology.hosts:
        for values in (hosts.preflight(host, plan.settings, plan.topology, plan.stack), hosts.prepare(host, plan.contract, plan.stack)):
            assert (values["proxy_http"], values["proxy_https"]) == ("http://proxy.example.net:3128", "http://proxy.example.net:3129")
            assert "mirror.example.net" in str(values["proxy_no"])
