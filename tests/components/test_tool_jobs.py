"""Jobs, kinds of objects, and sources of secrets in a ToolStack; passwords that clusters share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
import pytest

from components.cluster_trust import ClusterTrust
from components.passwords import Passwords, PasswordsArgs
from components.tool_objects import DIGEST, Sources
from components.tool_stack import ToolStack, ToolStackArgs
from plan.tools.model import Manifest, Password, Release
from plan.tools.needs import FromSecret, Job
from plan.tools.sources import (
    Bcrypt,
    CaBundle,
    Clear,
    ClusterAccountKeys,
    ClusterAuthority,
    Composed,
    Generated,
    Given,
    Htpasswd,
    Secret,
)
from tests.support.stack import UNKNOWN, Recording, answers, run
from tests.support.stack import Secret as Hidden

KEY = "the intermediate's key"
JOB = Job(
    name="provision", image="i", command=("run",), files={"a.py": "1"}, secret_files={"users": "tool-users"},
    environment={"TOKEN": FromSecret(secret="tool-token", key="token")},
)  # fmt: skip
TOOL = Release(
    name="tool", namespace="tool", chart="charts/tool", version="1.0.0", repository=None, values={}, ca_bundle="bundle",
    passwords=(Password(name="own", length=40), Password(name="other", special=True)),
    secrets=(
        Secret(name="tool-users", namespace="tool", data={"a": Generated(password="own"), "b": Clear(text="x")}),
        Secret(name="tool-token", namespace="tool", data={"token": Given(name="token")}),
        Secret(name="unread", namespace="tool", data={"c": Generated(password="shared", cluster="two")}),
        Secret(name="peers", namespace="tool", data={
            "authority": ClusterAuthority(cluster="two"), "keys": ClusterAccountKeys(cluster="two"),
        }),
        Secret(name="more", namespace="tool", data={
            "ca.crt": CaBundle(), "line": Composed(template="{{own}}: {own} {other}", passwords=("own", "other")),
            "htpasswd": Bcrypt(password="own", prefix="me:"), "users": Htpasswd(passwords={"prd": "other", "dev": "own"}),
        }),
    ),
    before=(
        Manifest(name="settings", namespace="tool", needs=(), body={
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "tool"}, "data": {"a": "b"},
        }),
        Manifest(name="role", needs=(), body={
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "role"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        }),
    ),
    after=(Manifest(name="thing", needs=(), body={
        "apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "thing"}, "spec": {"x": 1},
    }),),
    jobs=(JOB,),
)  # fmt: skip


def recorded(tool: Release = TOOL, *, preview: bool = False, given: str = "the user's", **made: str) -> Recording:
    """`made`: other values of passwords, by name."""

    def answering(type_: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        usual = answers(type_, name, inputs)
        value = made.get(password := name.rpartition("-")[2], f"the value of {password}")
        return usual | ({"result": type(usual["result"])(value)} if "result" in usual else {})

    def program() -> None:
        passwords = Passwords("p", PasswordsArgs(clusters={"one": tool.passwords, "two": (Password(name="shared"),)}))
        outside = pulumi.CustomResource("test:index:Outside", "outside", {})
        ToolStack(
            "t",
            ToolStackArgs(
                cluster="one", kubeconfig=pulumi.Output.secret("kubeconfig"), releases=(tool,), passwords=passwords,
                authority_chain="chain", authority_key=pulumi.Output.secret(KEY), ca_bundle="the bundle",
                given={"token": given}, external={"outside": (outside,)}, until="2027-07-01",
                clusters={"two": ClusterTrust(authority="two's authority", account_keys="two's keys")},
            ),
        )  # fmt: skip

    return run(program, preview=preview, answer=answering)


@pytest.mark.parametrize("until", [True, False])
def test_a_job_that_makes_what_expires_is_told_the_day_and_runs_again_with_it(until: bool, preview: bool) -> None:
    found = job(recorded(replace(TOOL, jobs=(replace(JOB, until=until),)), preview=preview))
    (container,) = found.inputs["spec"]["template"]["spec"]["containers"]
    told = [one["value"] for one in container["env"] if one["name"] == "UNTIL"]
    assert told == (["2027-07-01"] if until else [])


def content(found: Recording, name: str) -> dict[str, str]:
    return dict(found.named(f"t-tool-{name}", "kubernetes:core/v1:Secret").inputs["stringData"])


def job(found: Recording) -> Any:
    return found.named("t-tool-provision", "kubernetes:batch/v1:Job")


def digest(found: Recording) -> Any:
    return job(found).inputs["spec"]["template"]["metadata"]["annotations"][DIGEST]


def test_sources() -> None:
    found = recorded()
    own, other = (found.named(f"p-one-{name}").outputs["result"].value for name in ("own", "other"))
    assert content(found, "tool-users") == {"a": own, "b": "x"}
    assert content(found, "tool-token") == {"token": "the user's"}
    assert content(found, "peers") == {"authority": "two's authority", "keys": "two's keys"}
    assert content(found, "unread") == {"c": found.named("p-two-shared").outputs["result"].value}
    hashed, another = (found.named(f"p-one-{name}").outputs["bcryptHash"].value for name in ("own", "other"))
    assert content(found, "more") == {
        "ca.crt": "the bundle", "line": f"{{own}}: {own} {other}", "htpasswd": f"me:{hashed}",
        "users": f"dev:{hashed}\nprd:{another}\n",
    }  # fmt: skip


def test_any_kind_of_object(preview: bool) -> None:
    found = recorded(preview=preview)
    config = found.named("t-settings", "kubernetes:core/v1:ConfigMap")
    assert config.inputs["data"] == {"a": "b"}
    role = found.named("t-role", "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")
    assert role.inputs["rules"][0]["verbs"] == ["get"]
    assert found.named("t-thing", "kubernetes:example.com/v1:Thing").inputs["spec"] == {"x": 1}


def test_a_chart_of_the_project_has_no_repository(preview: bool) -> None:
    chart = recorded(preview=preview).named("t-tool", "kubernetes:helm.sh/v3:Release")
    assert chart.inputs["chart"] == "charts/tool" and "repositoryOpts" not in chart.inputs


def test_a_job_runs_after_its_release_and_before_what_follows(preview: bool) -> None:
    found = recorded(preview=preview)
    chart, after = found.named("t-tool", "kubernetes:helm.sh/v3:Release"), found.named("t-thing")
    assert found.before(chart, job(found)) and found.before(job(found), after)
    for kind in ("core/v1:ConfigMap", "core/v1:ServiceAccount"):
        assert found.before(found.named("t-tool-provision", f"kubernetes:{kind}"), job(found))


def test_a_job_that_comes_before_has_what_it_needs_and_its_release_waits(preview: bool) -> None:
    found = recorded(replace(TOOL, jobs=(replace(JOB, before=True, needs=("outside",)),)), preview=preview)
    chart = found.named("t-tool", "kubernetes:helm.sh/v3:Release")
    assert found.before(job(found), chart)
    for first in ("t-tool-tool-users", "t-settings", "outside"):
        assert found.before(found.named(first), job(found)), first
    assert not found.before(found.named("outside"), found.named("t-tool-tool-users"))


def test_what_stands_outside_is_waited_for_by_whom_it_is_needed_alone(preview: bool) -> None:
    found = recorded(preview=preview)
    assert not found.before(found.named("outside"), found.named("t-tool", "kubernetes:helm.sh/v3:Release"))
    found = recorded(replace(TOOL, needs=("outside",)), preview=preview)
    assert found.before(found.named("outside"), found.named("t-tool", "kubernetes:helm.sh/v3:Release"))


def test_a_further_namespace_has_its_own_level_and_the_bundle(preview: bool) -> None:
    found = recorded(replace(TOOL, further_namespaces={"pods": "baseline"}), preview=preview)
    chart = found.named("t-tool", "kubernetes:helm.sh/v3:Release")
    own, further = found.named("t-tool", "kubernetes:core/v1:Namespace"), found.named("t-pods")
    levels = [n.inputs["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for n in (own, further)]
    assert levels == ["restricted", "baseline"]
    assert found.named("t-pods-bundle").inputs["metadata"]["namespace"] == "pods"
    assert found.before(further, chart) and found.before(found.named("t-pods-bundle"), chart)


def test_a_secret_of_a_job_holds_back_the_job_alone(preview: bool) -> None:
    own = Secret(name="own", namespace="tool", data={"keys": ClusterAccountKeys(cluster="two")})
    found = recorded(replace(TOOL, jobs=(replace(JOB, secrets=(own,), secret_files={"own": "own"}),)), preview=preview)
    made = found.named("t-tool-own", "kubernetes:core/v1:Secret")
    assert found.before(made, job(found))
    assert not found.before(made, found.named("t-tool", "kubernetes:helm.sh/v3:Release"))


def test_what_another_cluster_was_not_asked_for_is_an_error() -> None:
    sources = Sources(
        cluster="one", passwords=None, authority_chain="", authority_key="", ca_bundle="", certificate=None, given={},  # type: ignore[arg-type]
        clusters={"two": ClusterTrust()},
    )  # fmt: skip
    with pytest.raises(ValueError, match="cluster='two'.* was not provided"):
        sources.value(ClusterAuthority(cluster="two"))


def test_a_job_is_made_anew_and_never_beside_the_old_one(preview: bool) -> None:
    request = job(recorded(preview=preview)).request
    assert request.deleteBeforeReplace is True and list(request.replaceOnChanges) == ["spec"]


def test_what_a_job_was_run_with_is_no_secret_in_clear() -> None:
    found = recorded()
    marked = job(found).marked["spec"]["template"]["metadata"]["annotations"][DIGEST]
    assert isinstance(marked, Hidden) and len(digest(found)) == 64
    assert digest(recorded(preview=True)) is UNKNOWN or isinstance(marked, Hidden)


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({}, False),
        ({"own": "another"}, True),
        ({"given": "another"}, True),
        ({"tool": replace(TOOL, jobs=(replace(JOB, files={"a.py": "2"}),))}, True),
        ({"tool": replace(TOOL, jobs=(replace(JOB, command=("go",)),))}, True),
        ({"shared": "another"}, False),  # in a Secret that the Job does not read
        ({"tool": replace(TOOL, values={"replicas": 3})}, False),
    ],
)  # fmt: skip
def test_a_job_runs_again_when_what_it_is_given_changes(changed: dict[str, Any], again: bool) -> None:
    assert (digest(recorded(**changed)) != digest(recorded())) == again


def test_passwords_are_made_once_for_all_clusters(preview: bool) -> None:
    found = recorded(preview=preview)
    made = {r.name: r for r in found.of_type("random:index/randomPassword:RandomPassword")}
    assert set(made) == {"p-one-own", "p-one-other", "p-two-shared"}
    assert made["p-one-own"].inputs["length"] == 40 and made["p-one-own"].inputs["special"] is False
    assert made["p-one-other"].inputs["special"] is True
    for one in made.values():
        assert {"result", "bcryptHash"} <= set(one.request.additionalSecretOutputs)
        # Under which they were known before clusters shared them.
        cluster, _, name = one.name.removeprefix("p-").partition("-")
        (alias,) = one.request.aliases
        assert alias.spec.name == f"{cluster}-tools-{name}"
        assert alias.spec.parentUrn.endswith(f"opstella:tools:ToolStack::{cluster}-tools")
    assert found.outputs_of("p")["names"] == {"one": ["own", "other"], "two": ["shared"]}


def test_a_password_of_no_cluster_is_none() -> None:
    seen: list[Any] = []

    def program() -> None:
        passwords = Passwords("p", PasswordsArgs(clusters={"one": (Password(name="own"),)}))
        seen.append(passwords.anywhere("own") is not None)
        seen.append(passwords.anywhere("gone"))
        with pytest.raises(KeyError):
            passwords.clear("two", "own")

    run(program)
    assert seen == [True, None]
