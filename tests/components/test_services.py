"""LoadBalancer, NfsShare and GitLabServer: one machine each, told what the plan says."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from components.gitlab_server import GitLabServer, GitLabServerArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from components.nfs_share import NfsShare, NfsShareArgs
from plan import gitlab, haproxy, hosts, keepalived, media, nfs
from plan.plan import Plan
from tests.support.platform import airgap, met, plan_of
from tests.support.sent import sent
from tests.support.stack import UNKNOWN, Recording, Secret, run


def balancer(plan: Plan, preview: bool = False) -> Recording:
    (planned,) = plan.topology.load_balancers

    def stack() -> None:
        hosts = met(plan, *(host.name for host in planned.hosts))
        LoadBalancer("c-lb", LoadBalancerArgs(hosts=hosts, balancer=planned))

    return run(stack, preview=preview)


def share(plan: Plan, preview: bool = False) -> Recording:
    cluster = plan.topology.clusters[0]

    def stack() -> None:
        NfsShare("c-nfs", NfsShareArgs(host=met(plan, "nfs")["nfs"], cluster=cluster))

    return run(stack, preview=preview)


def server(plan: Plan, preview: bool = False, key: Any = "", **more: Any) -> Recording:
    def stack() -> None:
        GitLabServer(
            "gitlab",
            GitLabServerArgs(
                host=met(plan, "gitlab")["gitlab"],
                settings=plan.settings,
                domain="gitlab.devops.example.com",
                certificate="chain",
                private_key=key or pulumi.Output.secret("the key"),
                trusted_ca="bundle",
                **more,
            ),
        )

    return run(stack, preview=preview)


def test_load_balancer(preview: bool) -> None:
    plan = plan_of()
    found = balancer(plan, preview)
    component = found.named("c-lb")
    assert component.type == "opstella:network:LoadBalancer"
    assert [c.name for c in found.children(component)] == ["c-lb-haproxy"]
    told = sent(found.named("c-lb-haproxy"))
    assert told.phase == "haproxy"
    assert told.values == {"config": haproxy.configuration(plan.topology.load_balancers[0])}
    assert found.named("c-lb-haproxy").secrets <= {"connection"}
    assert found.outputs_of("c-lb") == {"addresses": {"standalone": "192.168.72.12"}}


TWO = {"count": 2, "virtualAddress": "192.168.72.10", "addresses": ["192.168.72.12", "192.168.72.9"]}


def test_two_load_balancers_share_an_address() -> None:
    plan = plan_of(changes={"clusters": {"standalone": {"loadBalancer": TWO}}})
    (planned,) = plan.topology.load_balancers
    found = balancer(plan)
    # Those of the first are called as if it were alone: it is not made anew when the second comes.
    names = {"c-lb-haproxy", "c-lb-keepalived", "c-lb-haproxy-2", "c-lb-keepalived-2"}
    assert {c.name for c in found.children(found.named("c-lb"))} == names
    for host, suffix in zip(planned.hosts, ("", "-2"), strict=True):
        haproxy_of_it, command = found.named(f"c-lb-haproxy{suffix}"), found.named(f"c-lb-keepalived{suffix}")
        assert haproxy_of_it.inputs["connection"]["host"] == command.inputs["connection"]["host"] == str(host.address)
        assert sent(haproxy_of_it).values == {"config": haproxy.configuration(planned)}
        told = sent(command)
        assert told.phase == "keepalived"
        assert told.values["config"] == keepalived.configuration(planned, host)
        assert (told.values["address"], told.values["virtual_addresses"].split()) == (str(host.address), ["192.168.72.10"])
        (other,) = set(planned.hosts) - {host}
        assert told.values["peers"].split() == [str(other.address)]
        # The address answers only where HAProxy runs already.
        assert found.before(haproxy_of_it, command)
        assert command.inputs["delete"].endswith(" bash -s -- keepalived-remove")
        assert "$PHASE == keepalived-remove" in told.program
    assert found.outputs_of("c-lb") == {"addresses": {"standalone": "192.168.72.10"}}


SHARED = {
    "first": {"loadBalancer": {"sharedWith": "second", "virtualAddress": "10.2.0.9"}},
    "second": {"loadBalancer": {"count": 2, "virtualAddress": "10.2.0.10", "addresses": ["10.2.0.7", "10.2.0.8"]}},
}


def test_a_shared_load_balancer_is_one_component_of_one_clusters_machines() -> None:
    room = {"cpu": 64, "memoryGb": 256, "count": 1}
    clusters = {
        name: {"subnet": f"10.{number}.0.0/24", "workers": room, **SHARED[name]} for number, name in enumerate(SHARED, 1)
    }
    plan = plan_of("custom", {"clusters": clusters})
    (planned,) = plan.topology.load_balancers
    found = balancer(plan)
    names = {"c-lb-haproxy", "c-lb-keepalived", "c-lb-haproxy-2", "c-lb-keepalived-2"}
    assert {c.name for c in found.children(found.named("c-lb"))} == names
    for host, suffix in zip(planned.hosts, ("", "-2"), strict=True):
        command = found.named(f"c-lb-keepalived{suffix}")
        assert command.inputs["connection"]["host"] == str(host.address)
        assert sent(command).values["virtual_addresses"].split() == ["10.2.0.10", "10.2.0.9"]
        assert sent(found.named(f"c-lb-haproxy{suffix}")).values == {"config": haproxy.configuration(planned)}
    assert found.outputs_of("c-lb") == {"addresses": {"first": "10.2.0.9", "second": "10.2.0.10"}}


@pytest.mark.parametrize("kind", ["kernel", "ganesha"])
def test_nfs_share(preview: bool, kind: str) -> None:
    plan = plan_of(changes={"clusters": {"standalone": {"nfs": {"server": kind, "path": "/data"}}}})
    cluster = plan.topology.clusters[0]
    found = share(plan, preview)
    component = found.named("c-nfs")
    assert component.type == "opstella:storage:NfsShare"
    assert [c.name for c in found.children(component)] == ["c-nfs-nfs"]
    told = sent(found.named("c-nfs-nfs"))
    assert told.phase == "nfs"
    assert told.values == {
        "server": kind,
        "path": "/data",
        "exports": nfs.exports(cluster),
        "ganesha_conf": nfs.ganesha_conf(cluster),
        "nfs_conf": nfs.nfs_conf(),
    }
    assert found.outputs_of("c-nfs") == {"server": "192.168.72.13", "path": "/data"}


def test_gitlab_server() -> None:
    found = server(plan_of(), administrators_from=("192.168.72.11/32", "10.9.0.0/16"))
    component = found.named("gitlab-omnibus")
    assert component.parent == found.named("gitlab").urn
    told = sent(component)
    password = found.named("gitlab-root-password").outputs["result"]
    assert told.phase == "gitlab"
    assert told.values == {
        "gitlab_rb": gitlab.gitlab_rb("gitlab.devops.example.com", media.gitlab_version(plan_of().settings)),
        "version": media.gitlab_version(plan_of().settings),
        "edition": "ce",
        "source": "online",
        "package_url": "",
        "package_sha256": "",
        "package_url_rpm": "",
        "package_sha256_rpm": "",
        "host": "gitlab.devops.example.com",
        "certificate": "chain",
        "private_key": "the key",
        "trusted_ca": "bundle",
        "root_password": password.value,
        "administrators_from": "192.168.72.11/32\n10.9.0.0/16",
    }
    assert found.outputs_of("gitlab") == {"url": "https://gitlab.devops.example.com", "root_password": password}


def test_gitlab_names_types_and_secrets(preview: bool) -> None:
    found = server(plan_of(), preview)
    component = found.named("gitlab")
    assert component.type == "opstella:scm:GitLabServer"
    assert {c.name: c.type for c in found.children(component)} == {
        "gitlab-root-password": "random:index/randomPassword:RandomPassword",
        "gitlab-omnibus": "command:remote:Command",
    }
    assert {"stdout", "stderr"} <= set(found.named("gitlab-omnibus").request.additionalSecretOutputs)
    assert {"result", "bcryptHash"} <= set(found.named("gitlab-root-password").request.additionalSecretOutputs)
    assert found.named("gitlab-root-password").inputs["length"] >= 20
    if preview:
        assert found.named("gitlab-omnibus").inputs["stdin"] is UNKNOWN
    else:
        assert "stdin" in found.named("gitlab-omnibus").secrets
        assert isinstance(found.outputs_of("gitlab")["root_password"], Secret)


def test_what_gitlab_gets_is_secret_even_with_a_key_that_is_not_marked() -> None:
    assert "stdin" in server(plan_of(), key="the key").named("gitlab-omnibus").secrets


def test_the_script_that_adds_gitlabs_repository_is_held_to_its_sum_where_there_is_one() -> None:
    sums = {"script.deb.sh": "ab" * 32, "script.rpm.sh": "cd" * 32}
    told = sent(server(plan_of(changes={"media": {"sha256": sums}})).named("gitlab-omnibus")).values
    assert (told["package_url"], told["package_sha256"], told["package_sha256_rpm"]) == ("", "ab" * 32, "cd" * 32)


@pytest.mark.parametrize("family", ["debian", "rhel"])
def test_an_air_gapped_gitlab_comes_from_the_users_own_media(family: str) -> None:
    """The package is that of its machine's system: the settings choose it by the sum that they have."""
    changes = airgap()
    names = media.gitlab_packages(plan_of().settings)
    sums = changes["media"]["sha256"]
    sums[names[family]] = sums.pop(names["debian"])
    plan = plan_of(changes=changes)
    told = sent(server(plan).named("gitlab-omnibus")).values
    suffix, other = ("", "_rpm") if family == "debian" else ("_rpm", "")
    assert told["source"] == "airgap"
    assert told[f"package_url{suffix}"] == f"http://media.example.com/opstella/{names[family]}"
    assert told[f"package_sha256{suffix}"] == plan.settings.media.sha256[names[family]]
    assert told[f"package_url{other}"] == told[f"package_sha256{other}"] == ""
    machine = plan.topology.gitlab
    assert machine and hosts.preflight(machine, plan.settings, plan.topology, plan.stack)["families"] == (family,)
    assert media.reachable(machine, plan.settings) == (told[f"package_url{suffix}"],)


TOKENS = gitlab.access_tokens(plan_of().releases)


def test_gitlabs_tokens_are_made_once_it_stands(preview: bool) -> None:
    values = [pulumi.Output.secret(f"value {number}") for number, _ in enumerate(TOKENS)]
    found = server(plan_of(), preview, tokens=TOKENS, token_values=values, tokens_until="2027-07-01")
    made = found.named("gitlab-tokens")
    assert found.before(found.named("gitlab-omnibus"), made) and made.parent == found.named("gitlab").urn
    assert {"stdout", "stderr"} <= set(made.request.additionalSecretOutputs)
    if preview:
        assert made.inputs["stdin"] is UNKNOWN or "stdin" in made.secrets
        return
    assert "stdin" in made.secrets and "value 0" not in made.inputs["create"]
    told = sent(made)
    assert told.phase == "gitlab-tokens"
    wanted = json.loads(told.values["wanted"])
    assert [token["value"] for token in wanted["tokens"]] == [f"value {number}" for number, _ in enumerate(TOKENS)]
    assert wanted["expires"] == "2027-07-01"


def test_gitlab_without_tokens_runs_no_rails() -> None:
    assert not [r for r in server(plan_of()).commands if r.name == "gitlab-tokens"]
