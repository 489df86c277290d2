"""What pods mount stands before the release that waits for those pods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.errors import ConfigurationError, Problem
from plan.tools import chart_facts, order
from plan.tools.common import keeping
from plan.tools.model import Clear, Manifest, Release, Secret
from plan.tools.needs import Job
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

NAMESPACE = "argocd"
MADE_AT_RUN_TIME: dict[str, set[order.Reference]] = {}
"""By release, what another one's program makes while the release waits."""


def release(name: str = "argo-cd", namespace: str = NAMESPACE, **fields: Any) -> Release:
    return Release(name=name, namespace=namespace, chart=name, version="0.0.0", repository="https://x", **{"values": {}, **fields})


def manifest(kind: str, name: str, needs: tuple[str, ...] = (), namespace: str | None = NAMESPACE, **spec: Any) -> Manifest:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return Manifest(name=name, namespace=namespace, needs=needs, body={"kind": kind, "metadata": metadata, "spec": spec})


def bundle(name: str, needs: tuple[str, ...] = ("trust-manager",), only: str | None = NAMESPACE) -> Manifest:
    target: dict[str, Any] = {"configMap": {"key": "ca.crt"}}
    if only:
        target["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": only}}
    return manifest("Bundle", name, needs, namespace=None, target=target)


def mounting(*names: str) -> dict[str, Any]:
    return {"extraVolumes": [{"name": "x", "configMap": {"name": name}} for name in names]}


def arranged(*releases: Release) -> dict[str, Release]:
    problems: list[Problem] = []
    found = order.mounts_first(releases, problems)
    assert problems == []
    return {r.name: r for r in order.ordered(found)}


def refused(*releases: Release) -> str:
    problems: list[Problem] = []
    order.mounts_first(releases, problems)
    (problem,) = problems
    return str(problem)


def test_a_mounted_object_moves_in_front_of_its_release_and_what_makes_it_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = frozenset({("ConfigMap", "argocd-tls-certs-cm")})
    monkeypatch.setattr(chart_facts, "mounted", lambda chart, version: facts if chart == "argo-cd" else frozenset())
    argo = release(after=(bundle("argocd-tls-certs-cm"), manifest("AppProject", "apps", ("argo-cd",))))
    found = arranged(argo, release("trust-manager", "cert-manager"))
    assert list(found) == ["trust-manager", "argo-cd"]
    assert [m.name for m in found["argo-cd"].before] == ["argocd-tls-certs-cm"]
    assert [m.name for m in found["argo-cd"].after] == ["apps"]


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (manifest("ConfigMap", "settings"), "settings"),
        (manifest("Secret", "login"), "login"),
        (manifest("ServiceAccount", "robot"), "robot"),
        (manifest("PersistentVolumeClaim", "data"), "data"),
        (manifest("Certificate", "listener", secretName="listener-tls"), "listener-tls"),
        (manifest("Cluster", "db"), "db-ca"),
        (bundle("roots", ()), "roots"),
        (bundle("everywhere", (), only=None), "everywhere"),
    ],
)
def test_what_an_object_brings_about_is_known(made: Manifest, name: str) -> None:
    found = arranged(release(values=mounting(name), after=(made,)))["argo-cd"]
    assert found.before == (made,) and found.after == ()
    elsewhere = replace(release("other", "other", values=mounting(name)), after=())
    if made.name != "everywhere":
        assert arranged(release(after=(made,)), elsewhere)["other"].needs == ()


def test_a_job_that_makes_a_mounted_secret_has_to_come_before_the_release() -> None:
    job = Job(name="registration", image="x", command=(), files={}, rules=keeping("runner-token"))
    values = {"runners": {"secret": "runner-token"}}
    assert arranged(release(values=values, jobs=(replace(job, before=True),)))["argo-cd"].jobs[0].before
    assert "Job registration waits for argo-cd" in refused(release(values=values, jobs=(job,)))
    assert arranged(release(jobs=(job,)))["argo-cd"].jobs == (job,)


def test_an_object_of_another_release_makes_that_one_a_need() -> None:
    theirs = release("maker", NAMESPACE, secrets=(Secret(name="token", namespace=NAMESPACE, data={"t": Clear(text="")}),))
    assert arranged(release(values=mounting("token")), theirs)["argo-cd"].needs == ("maker",)


def test_a_release_that_waits_for_an_object_that_waits_for_it_is_refused() -> None:
    own = release(values=mounting("made-by-itself"), after=(manifest("ConfigMap", "made-by-itself", ("argo-cd",)),))
    message = refused(own)
    assert "opstella:tools.argo-cd.values" in message
    assert "ConfigMap argocd/made-by-itself" in message and "waits for argo-cd" in message
    assert "remove made-by-itself from the values of argo-cd" in message
    assert arranged(replace(own, values={}))["argo-cd"].after == own.after  # the remedy

    chain = release("trust-manager", "cert-manager", needs=("middle",)), release("middle", "m", needs=("argo-cd",))
    message = refused(release(values=mounting("roots"), after=(bundle("roots"),)), *chain)
    assert "Bundle roots" in message and "waits for trust-manager, which waits for argo-cd" in message

    maker = release("maker", NAMESPACE, needs=("argo-cd",), after=(manifest("Secret", "token"),))
    assert "waits for maker, which waits for argo-cd" in refused(release(values=mounting("token")), maker)


def test_the_users_own_values_are_held_to_it() -> None:
    values = {"extraVolumes": [{"name": "x", "secret": {"secretName": "sonarqube-tokens"}}]}
    with pytest.raises(ConfigurationError, match="sonarqube-tokens") as error:
        plan_of("standalone", {"tools": {"sonarqube": {"values": values}}})
    assert "Job sonarqube-settings" in str(error.value)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whatever_pods_of_a_chart_do_not_start_without_is_made_before_them(architecture: str) -> None:
    for cluster, releases in plan_of(architecture, every_tool()).releases.items():
        for one in releases:
            before = {
                *(("Secret", s.name) for s in one.secrets),
                *(("ConfigMap", c.name) for c in one.config_maps),
                *((("ConfigMap", one.ca_bundle),) if one.ca_bundle else ()),
                *(what for m in one.before for what in order.made(m, one.namespace)),
                *(what for job in one.jobs if job.before for what in order.kept(job)),
            }
            for rendering in chart_facts.renderings(one.chart, one.version):
                if f"{architecture}/{cluster}" in rendering["of"]:
                    missing = chart_facts.references(rendering) - before - MADE_AT_RUN_TIME.get(one.name, set())
                    assert not missing, f"{one.name} in {cluster}: nothing makes {sorted(missing)}"


