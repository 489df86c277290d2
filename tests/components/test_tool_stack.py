"""ToolStack: what each tool becomes, in which order, and where its secrets are."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.passwords import Passwords, PasswordsArgs
from components.pki_chain import ServerCertificate
from components.tool_stack import ToolStack, ToolStackArgs
from plan.tools import sources
from plan.tools.model import Release
from tests.support.platform import plan_of, provided
from tests.support.stack import UNKNOWN, Recording, Registered, Secret, clear_texts, run

HELM = "kubernetes:helm.sh/v3:Release"
RELEASES: tuple[Release, ...] = plan_of().releases["standalone"]
KEY = "the intermediate's key"


@functools.cache
def _whole(preview: bool) -> Recording:
    return _recorded(RELEASES, preview=preview)


def tools(
    releases: tuple[Release, ...] = RELEASES, *, preview: bool = False, certificate: ServerCertificate | None = None
) -> Recording:
    """A stack of `releases`; that of the catalogue is recorded once, and tests only read it."""
    if releases is RELEASES and certificate is None:
        return _whole(preview)
    return _recorded(releases, preview=preview, certificate=certificate)


def _recorded(
    releases: tuple[Release, ...], *, preview: bool = False, certificate: ServerCertificate | None = None
) -> Recording:
    def stack() -> None:
        own = certificate and ServerCertificate(
            chain=pulumi.Output.from_input("the user's chain"), private_key=pulumi.Output.secret("the user's key")
        )
        gate = pulumi.ComponentResource("test:gate:Gate", "gate")
        passwords = Passwords("p", PasswordsArgs(clusters={"one": [p for r in releases for p in r.passwords]}))
        ready = ToolStack("gate", _args((), None, passwords), pulumi.ResourceOptions(parent=gate))
        ToolStack("t", _args(releases, own, passwords, (ready._provider,)))

    return run(stack, preview=preview)


def _args(
    releases: tuple[Release, ...],
    certificate: Any,
    passwords: Passwords,
    after: tuple[pulumi.Resource, ...] = (),
    bundle: str = "the bundle",
) -> ToolStackArgs:
    return ToolStackArgs(
        cluster="one",
        kubeconfig=pulumi.Output.secret("the kubeconfig"),
        releases=releases,
        passwords=passwords,
        authority_chain="the authority's chain",
        authority_key=pulumi.Output.secret(KEY),
        ca_bundle=bundle,
        certificate=certificate,
        after=after,
    )


def test_what_reads_one_certificate_of_a_file_gets_a_file_for_each() -> None:
    one, two = (f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n" for text in ("AAAA", "BBBB"))
    secret = sources.Secret(
        name="ca", namespace="ns", data={"ca-{number}.crt": sources.EachCa(), "other": sources.Clear(text="x")}
    )
    release = Release(
        name="t", namespace="ns", chart="c", version="1", repository="https://charts.example.com", values={}, secrets=(secret,)
    )

    def stack() -> None:
        passwords = Passwords("p", PasswordsArgs(clusters={"one": []}))
        ToolStack("t", _args((release,), None, passwords, bundle=f"# Ours\n{one}{two}{one}"))

    content = run(stack, preview=False).named("t-ns-ca").inputs["stringData"]
    assert content == {"ca-1.crt": one, "ca-2.crt": two, "other": "x"}


def secrets_of(found: Recording) -> list[Registered]:
    return [r for r in found.resources if r.type == "kubernetes:core/v1:Secret"]


def test_the_provider(preview: bool) -> None:
    found = tools(preview=preview)
    provider = found.named("t-kubernetes")
    assert provider.type == "pulumi:providers:kubernetes"
    assert provider.inputs["clusterIdentifier"] == "one"  # a new kubeconfig replaces nothing in the cluster
    assert "kubeconfig" in provider.secrets
    assert found.before(found.named("gate-kubernetes"), provider)
    inside = [r for r in found.resources if r.type.startswith("kubernetes:") and r.name.startswith("t-")]
    assert len(inside) > 15
    for resource in inside:
        assert resource.request.provider.startswith(f"{provider.urn}::"), resource.name
        assert found.before(found.named("gate-kubernetes"), resource)


def test_every_release_is_the_catalogues(preview: bool) -> None:
    found = tools(preview=preview)
    assert [r.name for r in RELEASES] and {r.name for r in found.of_type(HELM)} == {f"t-{r.name}" for r in RELEASES}
    for release in RELEASES:
        chart = found.named(f"t-{release.name}", HELM)
        assert chart.parent == found.named("t").urn
        inputs = chart.inputs
        assert (inputs["name"], inputs["namespace"]) == (release.name, release.namespace)
        assert (inputs["chart"], inputs["version"]) == (release.chart, release.version)
        assert inputs["allowNullValues"] is True  # without it, empty lists never reach the chart
        # A chart of this project is a folder, and has no repository.
        assert inputs.get("repositoryOpts") == (release.repository and {"repo": release.repository})
        assert inputs["values"] == release.values
        # A first installation that failed is taken back, or the next run meets "another operation is in progress".
        assert inputs["atomic"] is True and inputs["timeout"] == release.timeout_seconds
        limits = chart.request.customTimeouts
        assert int(limits.create.removesuffix("s")) > release.timeout_seconds


def test_a_pinned_chart_is_its_archive_and_no_repository_is_asked(preview: bool) -> None:
    def stack() -> None:
        passwords = Passwords("p", PasswordsArgs(clusters={"one": [p for r in RELEASES for p in r.passwords]}))
        ToolStack("t", dataclasses.replace(_args(RELEASES, None, passwords), charts={"harbor": ".charts/harbor.tgz"}))

    found, without = run(stack, preview=preview), tools(preview=preview)
    pinned, plain = (dict(one.named("t-harbor", HELM).inputs) for one in (found, without))
    assert pinned.pop("chart") == ".charts/harbor.tgz" and plain.pop("chart") == "harbor"
    assert "repositoryOpts" not in pinned and plain.pop("repositoryOpts")
    assert pinned == plain
    assert found.named("t-loki", HELM).inputs == without.named("t-loki", HELM).inputs


def test_releases_wait_for_what_they_need(preview: bool) -> None:
    found = tools(preview=preview)
    needs = [(need, release.name) for release in RELEASES for need in release.needs]
    assert len(needs) >= 4
    for need, name in needs:
        needed = next(r for r in RELEASES if r.name == need)
        then = found.named(f"t-{name}", HELM)
        for first in (found.named(f"t-{need}", HELM), *(found.named(f"t-{m.name}") for m in needed.after)):
            assert found.before(first, then), (first.name, name)


def test_releases_that_do_not_need_each_other_do_not_wait() -> None:
    found = tools()
    first, second = (found.named(f"t-{name}", HELM) for name in ("csi-driver-nfs", "cert-manager"))
    assert not found.before(first, second) and not found.before(second, first)


def test_secrets_namespaces_and_bundles_stand_before_their_release(preview: bool) -> None:
    found = tools(preview=preview)
    counted = 0
    for release in RELEASES:
        chart = found.named(f"t-{release.name}", HELM)
        first = [f"t-{s.namespace}-{s.name}" for s in release.secrets] + [f"t-{m.name}" for m in release.before]
        first += [f"t-{c.namespace}-{c.name}" for c in release.config_maps]
        first += [f"t-{release.namespace}-{release.ca_bundle}"] if release.ca_bundle else []
        for name in first:
            counted += 1
            assert found.before(found.named(name), chart), (name, release.name)
        for manifest in release.after:
            assert found.before(chart, found.named(f"t-{manifest.name}"))
        namespaces = [r for r in found.of_type("kubernetes:core/v1:Namespace") if r.inputs["metadata"]["name"] == release.namespace]  # fmt: skip
        assert len(namespaces) == 1 and found.before(namespaces[0], chart)
        level = namespaces[0].inputs["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        assert level == release.pod_security
    assert counted >= 6


def test_a_config_map_of_the_stack_has_its_labels_and_is_left_alone_by_helm(preview: bool) -> None:
    found = tools(preview=preview).named("t-argocd-argocd-tls-certs-cm")
    assert found.inputs["data"] == {"gitlab.devops.example.com": "the bundle"}
    assert found.inputs["metadata"] == {
        "name": "argocd-tls-certs-cm",
        "namespace": "argocd",
        "labels": {"app.kubernetes.io/part-of": "argocd"},
        # A release whose chart made it before would delete it when its values no longer ask for it.
        "annotations": {"helm.sh/resource-policy": "keep"},
    }


def test_a_manifest_that_is_waited_for_says_so(preview: bool) -> None:
    found = tools(preview=preview)
    manifests = [m for r in RELEASES for m in (*r.before, *r.after)]
    assert any(m.wait_for for m in manifests)
    for manifest in manifests:
        made = found.named(f"t-{manifest.name}").inputs
        assert {k: v for k, v in made.items() if k != "metadata"} == {
            k: v for k, v in manifest.body.items() if k != "metadata"
        }
        assert made["metadata"]["name"] == manifest.body["metadata"]["name"]
        annotations = made["metadata"].get("annotations", {})
        assert annotations.get("pulumi.com/waitFor") == manifest.wait_for


def test_the_content_of_every_secret_comes_from_where_the_catalogue_says() -> None:
    found = tools()
    made = {r.name: r for r in secrets_of(found)}
    declared = [s for r in RELEASES for s in r.secrets]
    assert set(made) == {f"t-{s.namespace}-{s.name}" for s in declared}
    for resource in made.values():
        assert isinstance(resource.marked["stringData"], Secret), resource.name
        assert all(value for value in resource.inputs["stringData"].values())
    issuer = made["t-cert-manager-opstella-ca"].inputs
    assert issuer["stringData"] == {"tls.crt": "the authority's chain", "tls.key": KEY}
    assert issuer["type"] == "kubernetes.io/tls"
    owner = made["t-keycloak-keycloak-db-owner"].inputs["stringData"]
    assert owner == {"username": "keycloak", "password": found.named("p-one-keycloak-db").outputs["result"].value}


def test_in_preview_secrets_keep_their_keys_out_of_sight() -> None:
    for resource in secrets_of(tools(preview=True)):
        assert resource.inputs["stringData"] is UNKNOWN or "stringData" in resource.secrets


def test_passwords_are_random_and_hidden(preview: bool) -> None:
    found = tools(preview=preview)
    passwords = found.of_type("random:index/randomPassword:RandomPassword")
    assert {p.name for p in passwords} == {f"p-one-{p.name}" for r in RELEASES for p in r.passwords}
    for password in passwords:
        assert password.inputs["length"] >= 16  # Harbor takes an encryption key of exactly 16 characters
        assert {"result", "bcryptHash"} <= set(password.request.additionalSecretOutputs)
    assert not [r for r in found.resources if "RandomString" in r.type]


def test_nothing_secret_stands_in_a_charts_values_or_anywhere_in_clear() -> None:
    found = tools()
    hidden = [KEY, "the kubeconfig"]
    hidden += [p.outputs["result"].value for p in found.of_type("random:index/randomPassword:RandomPassword")]
    assert len(hidden) >= 5
    for resource in found.resources:
        for text in (*clear_texts(resource.marked), *clear_texts(resource.outputs)):
            assert not [h for h in hidden if h in text], resource.name


def test_credentials_are_where_people_log_in(preview: bool) -> None:
    found = tools(preview=preview)
    credentials = found.outputs_of("t")["credentials"]
    logins = {r.name: r.login for r in RELEASES if r.login}
    people = {f"user-{person.username}": person for r in RELEASES for person in r.people}
    assert logins and people
    logins |= people
    assert set(credentials) == set(logins)
    for name, login in logins.items():
        password = UNKNOWN if preview else found.named(f"p-one-{login.password}").outputs["result"]
        assert credentials[name] == {"url": login.url, "username": login.username, "password": password}


def test_the_users_certificate_is_what_the_ingress_shows(tmp_path: Path) -> None:
    releases = provided(tmp_path).releases["standalone"]
    found = tools(releases, certificate=True)  # type: ignore[arg-type]
    holders = [r for r in secrets_of(found) if "the user's key" in r.inputs["stringData"].values()]
    assert len(holders) == 1
    assert holders[0].inputs["stringData"] == {"tls.crt": "the user's chain", "tls.key": "the user's key"}
    with pytest.raises(ValueError, match="no certificate was provided"):
        tools(releases)


def test_labels_are_left_out_where_there_are_none() -> None:
    """An empty map of labels comes back as none from the API, and would be a difference at every run."""
    for resource in secrets_of(tools()):
        assert resource.inputs["metadata"].get("labels", {"some": "label"})


def test_projects_come_after_what_guards_them_and_their_namespaces_stay(preview: bool) -> None:
    objects = plan_of(changes={"kubernetes": {"projects": {"team-a": {}}}}).projects["standalone"]

    def stack() -> None:
        passwords = Passwords("p", PasswordsArgs(clusters={"one": []}))
        ToolStack("t", dataclasses.replace(_args((), None, passwords), projects=objects))

    found = run(stack, preview=preview)
    made = {m.name: found.named(f"t-{m.name}") for m in objects}
    namespace = made["project-team-a"]
    assert namespace.type == "kubernetes:core/v1:Namespace"
    assert [r.name for r in made.values() if r.request.retainOnDelete] == [namespace.name]
    assert found.before(made["opstella-projects-binding"], namespace)
    for manifest in objects:
        if manifest.namespace:
            assert found.before(namespace, made[manifest.name]), manifest.name


def test_the_default_account_of_every_namespace_has_no_token_before_a_pod_is_there(preview: bool) -> None:
    found = tools(preview=preview)
    namespaces = {n for r in RELEASES for n in (r.namespace, *r.further_namespaces)}
    made = [r for r in found.of_type("kubernetes:core/v1:ServiceAccount") if r.inputs["metadata"]["name"] == "default"]
    accounts = {r.inputs["metadata"]["namespace"]: r for r in made}
    assert set(accounts) == namespaces and len(made) == len(namespaces), "one resource each: two would undo each other"
    assert {a.inputs["automountServiceAccountToken"] for a in accounts.values()} == {False}
    charts = {r.name: r for r in found.of_type(HELM)}
    for release in RELEASES:
        assert found.before(accounts[release.namespace], charts[f"t-{release.name}"])
