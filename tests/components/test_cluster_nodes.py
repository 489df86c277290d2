"""ClusterNodes: who joins when, what each node is told, and what is secret about it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from components.cluster_nodes import ClusterNodes, ClusterNodesArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from plan import audit, cilium, dns, media, rke2
from plan.plan import Plan
from tests.support.platform import airgap, met, plan_of
from tests.support.sent import sent
from tests.support.stack import UNKNOWN, Recording, Secret, kubeconfig, run

TAINT = {"key": "node-role.kubernetes.io/control-plane", "value": "true", "effect": "NoSchedule"}
CLUSTER: dict[str, Any] = {
    "clusters": {
        "standalone": {
            "masters": {"count": 3, "taints": [TAINT]},
            "workers": {"count": 2, "memoryGb": 32, "labels": {"example.com/zone": "a"}},
        }
    }
}
MASTERS = ["master-1", "master-2", "master-3"]
WORKERS = ["worker-1", "worker-2"]


def nodes(plan: Plan, preview: bool = False, **more: Any) -> Recording:
    cluster = plan.topology.clusters[0]

    def stack() -> None:
        hosts = met(plan, "haproxy", *(h.name for h in cluster.nodes))
        balancer = LoadBalancer("lb", LoadBalancerArgs(hosts=hosts, balancer=plan.topology.load_balancers[0]))
        component = ClusterNodes(
            "c",
            ClusterNodesArgs(
                cluster=cluster, settings=plan.settings, stack=plan.stack, hosts=hosts,
                registration=balancer.ready, ca_bundle="the CA bundle", issuer=plan.issuer, **more,
            ),
        )  # fmt: skip
        opts = pulumi.ResourceOptions(depends_on=list(component.ready))
        pulumi.ComponentResource("test:after:After", "after", None, opts)
        pulumi.export("authority", component.authority)
        pulumi.export("account_keys", component.account_keys)

    return run(stack, preview=preview)


def test_names_types_and_parents(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    component = found.named("c")
    assert component.type == "opstella:cluster:ClusterNodes"
    steps = {f"c-{node}-{step}" for node in (*MASTERS, *WORKERS) for step in ("rke2", "ready")}
    others = {"c-token", "c-agent-token", "c-ca", "c-living-ca", "c-kubeconfig"}
    assert {c.name for c in found.children(component)} == {*others, *steps}
    assert found.named("c-token").type == "random:index/randomPassword:RandomPassword"
    assert found.named("c-token").inputs["length"] >= 32


def test_the_registration_address_stands_before_anyone_joins(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    for node in (*MASTERS, *WORKERS):
        assert found.before(found.named("lb-haproxy"), found.named(f"c-{node}-rke2"))


def test_servers_join_one_after_another_each_after_the_one_before_is_ready(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    for earlier, later in zip(MASTERS, MASTERS[1:], strict=False):
        assert found.before(found.named(f"c-{earlier}-ready"), found.named(f"c-{later}-rke2"))
        assert found.before(found.named(f"c-{earlier}-rke2"), found.named(f"c-{later}-rke2"))


def test_agents_join_after_all_servers_and_side_by_side(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    for worker in WORKERS:
        for master in MASTERS:
            assert found.before(found.named(f"c-{master}-ready"), found.named(f"c-{worker}-rke2"))
    one, two = (found.named(f"c-{worker}-rke2") for worker in WORKERS)
    assert not found.before(one, two) and not found.before(two, one)
    assert not found.before(found.named("c-worker-1-ready"), two)


def test_no_more_agents_than_allowed_join_at_once(preview: bool) -> None:
    workers = [f"worker-{number}" for number in range(1, 8)]
    cluster = {"workers": {"count": len(workers), "memoryGb": 32}}
    plan = plan_of(changes={"clusters": {"standalone": cluster}, "kubernetes": {"workersAtOnce": 3}})
    found = nodes(plan, preview)
    for earlier, one in enumerate(workers):
        for later, two in list(enumerate(workers))[earlier + 1 :]:
            waits = found.before(found.named(f"c-{one}-ready"), found.named(f"c-{two}-rke2"))
            # Three lanes: one that fails holds up those of its own only.
            assert waits == ((later - earlier) % 3 == 0), (one, two)


def test_every_node_has_been_seen_ready_before_what_comes_after(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    for node in (*MASTERS, *WORKERS):
        seen = found.named(f"c-{node}-ready")
        assert found.before(found.named(f"c-{node}-rke2"), seen)
        assert found.before(seen, found.named("after"))


def test_each_node_is_told_its_own_configuration() -> None:
    plan = plan_of(changes=CLUSTER)
    cluster, settings = plan.topology.clusters[0], plan.settings
    found = nodes(plan)
    token, agents = (found.named(f"c-{name}").outputs["result"].value for name in ("token", "agent-token"))
    joins = {
        "worker": {"token": f"K10stdout-of-c-ca::node:{agents}"},
        "master": {"token": f"K10stdout-of-c-ca::server:{token}", "agent-token": agents},
        # It has nobody to verify: it makes the cluster.
        "first": {"token": token, "agent-token": agents},
    }
    for node in cluster.nodes:
        command = found.named(f"c-{node.name}-rke2")
        told = sent(command)
        assert told.phase == "rke2"
        assert command.inputs["connection"]["host"] == str(node.address)
        config = yaml.safe_load(told.values["config_yaml"])
        name = dns.api_name(settings, "standalone")
        wanted = rke2.node_config(cluster, node, settings.kubernetes, name, plan.issuer, resolv_conf=dns.pods_file(settings))
        credential = joins["first" if node == cluster.masters[0] else node.role]
        assert config == {**credential, **wanted}
        assert told.values["config_yaml"].startswith("token: "), "rke2.sh looks for it there"
        assert node.role == "master" or token not in told.values["config_yaml"], "good for every right in the cluster"
        assert told.values["type"] == ("agent" if node.role == "worker" else "server")
        assert told.values["node_name"] == config["node-name"] == node.name
        assert told.values["identity"] == f"opstella/standalone/standalone/{node.role}"
        assert told.values["version"] == media.rke2_version(settings)
        assert (told.values["source"], told.values["artifacts_sha256"]) == ("online", "")
        # The script must give up before its own bound cuts it off without a word.
        assert int(told.values["timeout_seconds"]) < told.seconds
    assert "server" not in yaml.safe_load(sent(found.named("c-master-1-rke2")).values["config_yaml"])


def test_nodes_join_after_the_hash_of_the_clusters_ca_is_known() -> None:
    found = nodes(plan_of(changes=CLUSTER))
    made, read = found.named("c-master-1-rke2"), found.named("c-ca")
    assert sent(read).values == {"cluster": "standalone", "absent": "false", "asked_for": "id-of-c-master-1-rke2"}
    assert found.before(made, read)
    for node in (*MASTERS[1:], *WORKERS):
        assert found.before(read, found.named(f"c-{node}-rke2"))
    # Who takes the first server's place asks another server, whenever its own host key is another one.
    living = found.named("c-living-ca")
    assert living.inputs["connection"]["host"] == "192.168.72.16"
    assert sent(living).values == {"cluster": "standalone", "absent": "true", "asked_for": "stdout-of-host-master-1-hostkey"}
    told = {node: sent(found.named(f"c-{node}-rke2")).values["cluster_ca"] for node in (*MASTERS, *WORKERS)}
    assert told.pop("master-1") == "stdout-of-c-living-ca" and set(told.values()) == {""}
    alone = nodes(plan_of())
    assert [c.name for c in alone.resources if c.name.endswith("-living-ca")] == []
    assert sent(alone.named("c-master-1-rke2")).values["cluster_ca"] == ""


def test_servers_have_the_audit_policy() -> None:
    found = nodes(plan_of(changes=CLUSTER))
    told = {node: sent(found.named(f"c-{node}-rke2")).values["audit_policy"] for node in (*MASTERS, *WORKERS)}
    assert {told[node] for node in MASTERS} == {audit.policy()} and {told[node] for node in WORKERS} == {""}


def test_a_first_server_looks_for_its_cluster_before_it_makes_one() -> None:
    found = nodes(plan_of(changes=CLUSTER))
    told = {node: sent(found.named(f"c-{node}-rke2")).values["cluster_urls"].split() for node in (*MASTERS, *WORKERS)}
    # The registration address, by which it would join, then the other servers themselves.
    assert told.pop("master-1") == ["https://192.168.72.12:9345", "https://192.168.72.16:9345", "https://192.168.72.17:9345"]
    assert set(map(tuple, told.values())) == {()}
    alone = nodes(plan_of())
    assert sent(alone.named("c-master-1-rke2")).values["cluster_urls"] == ""


def test_the_credential_of_the_snapshots_store_goes_to_servers_alone_and_only_by_standard_input(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("access", "secret")}
    for name, file in files.items():
        file.write_text(f"canary-{name}")
    s3 = {"endpoint": "s3.example.com", "bucket": "etcd", "accessKey": "access", "secretKey": "secret"}
    changes = {
        **CLUSTER,
        "kubernetes": {"etcdSnapshots": {"s3": s3}},
        "secrets": {name: f"file:{file}" for name, file in files.items()},
    }
    found = nodes(plan_of(changes=changes))
    for node in (*MASTERS, *WORKERS):
        command = found.named(f"c-{node}-rke2")
        config = yaml.safe_load(sent(command).values["config_yaml"])
        wanted = ("canary-access", "canary-secret") if node in MASTERS else (None, None)
        assert (config.get("etcd-s3-access-key"), config.get("etcd-s3-secret-key")) == wanted
        assert "canary" not in str({key: value for key, value in command.inputs.items() if key != "stdin"})


def test_servers_get_what_logins_to_the_api_need() -> None:
    plan = plan_of(changes=CLUSTER)
    assert plan.issuer
    ((name, text),) = rke2.manifests(plan.issuer).items()
    for node in (*MASTERS, *WORKERS):
        told = sent(nodes(plan).named(f"c-{node}-rke2")).values
        server = node in MASTERS
        assert told["oidc_ca"] == ("the CA bundle" if server else "")
        # Every node reads the trusted certificates when it starts.
        assert told["trust_sha256"] == hashlib.sha256(b"the CA bundle").hexdigest()
        assert told["manifests"] == (name if server else "")
        assert told.get("manifest_1") == (text if server else None)


def test_servers_apply_what_the_network_plugin_is_given() -> None:
    plan = plan_of(changes={**CLUSTER, "kubernetes": {"cni": "cilium"}})
    (cluster,) = plan.topology.clusters
    given = cilium.manifests(plan.contract, cluster)
    found = nodes(plan, manifests=given)
    for node in (*MASTERS, *WORKERS):
        told = sent(found.named(f"c-{node}-rke2")).values
        names = [*rke2.manifests(plan.issuer), *given] if node in MASTERS else []
        assert told["manifests"].splitlines() == names
        texts = [told[f"manifest_{number}"] for number, _ in enumerate(names, 1)]
        assert texts[1:] == (list(given.values()) if names else [])


def test_online_nodes_hold_the_installer_to_its_sum_where_there_is_one() -> None:
    plan = plan_of(changes={"media": {"sha256": {"install.sh": "ab" * 32, "script.deb.sh": "cd" * 32}}})
    told = sent(nodes(plan).named("c-worker-1-rke2")).values
    assert (told["source"], told["artifacts_sha256"].strip()) == ("online", f"{'ab' * 32}  install.sh")


def test_air_gapped_nodes_get_every_artifact_with_its_sum() -> None:
    plan = plan_of(changes={**airgap()})
    told = sent(nodes(plan).named("c-worker-1-rke2")).values
    assert told["artifacts_url"] == "http://media.example.com/opstella"
    sums = dict(reversed(line.split("  ")) for line in told["artifacts_sha256"].splitlines())
    assert sums == {name: plan.settings.media.sha256[name] for name in media.rke2_artifacts("calico")}


def test_what_is_secret(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    hidden = [f"c-{node}-rke2" for node in (*MASTERS, *WORKERS)] + ["c-kubeconfig"]
    for name in hidden:
        assert {"stdout", "stderr"} <= set(found.named(name).request.additionalSecretOutputs), name
        assert preview or "stdin" in found.named(name).secrets, name
    for name in ("c-token", "c-agent-token"):
        assert {"result", "bcryptHash"} <= set(found.named(name).request.additionalSecretOutputs)
    declared = found.outputs_of("c")
    assert declared["api_url"] == "https://192.168.72.12:6443"
    if preview:
        assert declared["kubeconfig"] is declared["token"] is UNKNOWN
    else:
        assert declared["kubeconfig"] == Secret(kubeconfig("stdout-of-c-kubeconfig"))
        assert declared["token"] == found.named("c-token").outputs["result"]


def test_the_kubeconfig_comes_from_the_first_server_and_leads_to_the_load_balancer(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview)
    command = found.named("c-kubeconfig")
    assert found.before(found.named("c-master-1-ready"), command)
    if not preview:
        assert sent(command).values == {"server_url": "https://192.168.72.12:6443"}
        assert command.inputs["connection"]["host"] == "192.168.72.15"


def test_what_others_verify_the_cluster_by(preview: bool) -> None:
    found = nodes(plan_of(changes=CLUSTER), preview, account_keys=True)
    command = found.named("c-account-keys")
    assert command.parent == found.named("c").urn and found.before(found.named("c-master-1-ready"), command)
    if preview:
        assert found.exports["authority"] is found.exports["account_keys"] is UNKNOWN
        return
    told = sent(command)
    assert told.phase == "account-keys" and int(told.values["timeout_seconds"]) < told.seconds
    assert command.inputs["connection"]["host"] == "192.168.72.15"
    assert found.exports["authority"] == Secret("authority")  # cut out of the kubeconfig, so it stays one
    assert str(found.exports["account_keys"]).startswith("-----BEGIN PUBLIC KEY-----\n")
    assert nodes(plan_of(changes=CLUSTER)).exports.get("account_keys") is None


def test_nodes_are_looked_at_from_the_first_server() -> None:
    found = nodes(plan_of(changes=CLUSTER))
    for node in (*MASTERS, *WORKERS):
        command = found.named(f"c-{node}-ready")
        assert command.inputs["connection"]["host"] == "192.168.72.15"
        told = sent(command)
        assert (told.phase, told.values["node_name"]) == ("node", node)
        master = node in MASTERS
        assert told.values["labels"].splitlines() == ([] if master else ["example.com/zone=a"])
        taint = "node-role.kubernetes.io/control-plane=true:NoSchedule"
        assert told.values["taints"].splitlines() == ([taint] if master else [])
        assert int(told.values["timeout_seconds"]) < told.seconds


@pytest.mark.parametrize(("step", "leave"), [("rke2", "rke2-remove"), ("ready", "node-remove")])
def test_leaving_runs_a_phase_that_its_program_knows(step: str, leave: str) -> None:
    """The node goes from the cluster first: what depends on it is deleted before it."""
    found = nodes(plan_of(changes=CLUSTER))
    command = found.named(f"c-worker-2-{step}")
    assert command.inputs["delete"].endswith(f" bash -s -- {leave}")
    assert f"$PHASE == {leave}" in sent(command).program
    assert found.before(found.named("c-worker-2-rke2"), found.named("c-worker-2-ready"))


def test_one_more_worker_changes_nothing_of_the_others() -> None:
    more = {"clusters": {"standalone": {**CLUSTER["clusters"]["standalone"], "workers": {"count": 3, "memoryGb": 32, "labels": {"example.com/zone": "a"}}}}}  # fmt: skip
    before, after = nodes(plan_of(changes=CLUSTER)), nodes(plan_of(changes=more))
    for node in (*MASTERS, *WORKERS):
        for step in ("rke2", "ready"):
            one, two = (sent(found.named(f"c-{node}-{step}")).values for found in (before, after))
            for name in ("c-token", "c-agent-token"):
                token = tuple(found.named(name).outputs["result"].value for found in (before, after))
                one = {k: v.replace(*token) for k, v in one.items()}
            assert one == two
