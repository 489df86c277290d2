"""Vault, its unsealer and trust-manager: what the plan says of keys, rights, and the three ways to open it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigurationError
from config.services import Vault, VaultSeal
from plan.tools import alloy, cert_manager, trust_manager, vault, vault_config, vault_unsealer
from plan.tools.model import FromPki, Given, Override, Release, ToolInputs
from plan.tools.vault_objects import TLS_SECRET
from tests.plan.test_tools import DOMAIN, INPUTS

ALL = replace(INPUTS, present=frozenset({"vault", "vault-unsealer", "kube-prometheus-stack"}), replicas=2, workers=5)
HOST = f"vault.{DOMAIN}"
TRANSIT = VaultSeal(
    type="transit", parameters={"address": "https://keys.example.com:8300"}, environment={"VAULT_TOKEN": "seal-token"}
)
KEYS = tuple(base64.b64encode(bytes([0x99, 1, 13, n])).decode() for n in range(3))  # as a public key begins


def opened(mode: str, **more: Any) -> ToolInputs:
    return replace(ALL, vault=Vault(unseal=mode, **more))


def server(release: Release) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(release.values["server"]["ha"]["raft"]["config"])
    return config


def job_config(inputs: ToolInputs) -> dict[str, Any]:
    job, _ = vault.release(inputs).jobs
    config: dict[str, Any] = json.loads(job.files["vault.json"])
    return config


def may(config: dict[str, Any], name: str, path: str) -> list[str]:
    """The capabilities that the policy `name` gives on exactly `path`, or by the longest prefix."""
    paths = json.loads(config["policies"][name])["path"]
    fits = [p for p in paths if p == path or p.endswith("*") and path.startswith(p[:-1])]
    found: list[str] = paths[max(fits, key=len)]["capabilities"] if fits else []
    return found


def test_every_replica_joins_the_others_over_verified_tls() -> None:
    release = vault.release(ALL)
    config = server(release)
    joins = config["storage"]["raft"]["retry_join"]
    assert [j["leader_api_addr"] for j in joins] == [f"https://vault-{n}.vault-internal:8200" for n in range(3)]
    assert {j["leader_ca_cert_file"] for j in joins} == {"/vault/tls/ca.crt"}
    assert all("tls_disable" not in listener["tcp"] for listener in config["listener"])
    assert release.values["global"] == {"tlsDisable": False}
    certificate = next(m.body["spec"] for m in release.before if m.body["kind"] == "Certificate")
    assert certificate["secretName"] == TLS_SECRET
    assert {"*.vault-internal", "*.vault-internal.vault.svc", "vault-active.vault.svc"} <= set(certificate["dnsNames"])
    assert certificate["ipAddresses"] == ["127.0.0.1"]
    # Traefik and cert-manager verify the name that they use.
    transport = next(m.body["spec"] for m in release.before if m.body["kind"] == "ServersTransport")
    issuer = next(m.body["spec"]["vault"] for m in release.after if m.body["kind"] == "ClusterIssuer")
    assert transport["serverName"] in certificate["dnsNames"]
    assert issuer["server"].removeprefix("https://").removesuffix(":8200") in certificate["dnsNames"]
    for address in vault.addresses(ALL):
        name = address.removeprefix("https://").removesuffix(":8200").partition(".")[2]
        assert f"*.{name}" in certificate["dnsNames"]


def test_a_single_replica_has_nobody_to_join() -> None:
    for inputs in (INPUTS, replace(ALL, workers=2)):
        release = vault.release(inputs)
        assert release.values["server"]["ha"]["replicas"] == 1 == release.workloads[0].replicas
        assert "retry_join" not in server(release)["storage"]["raft"]


@pytest.mark.parametrize(("number", "message"), [(2, "bear no more failures than 1"), (7, "need as many workers")])
def test_a_number_of_replicas_that_helps_nobody_is_refused(number: int, message: str) -> None:
    inputs = replace(ALL, overrides={"vault": Override(replicas=number)})
    with pytest.raises(ConfigurationError, match=message) as caught:
        vault.release(inputs)
    assert "opstella:tools.vault.replicas" in str(caught.value)


def test_the_release_does_not_wait_for_what_comes_after_it() -> None:
    probe = vault.release(ALL).values["server"]["readinessProbe"]["path"]
    assert {"standbyok=true", "sealedcode=200", "uninitcode=200"} == set(probe.partition("?")[2].split("&"))
    # A check from outside must not take a sealed one for healthy.
    assert "sealedcode" not in vault.release(ALL).path


def test_only_one_budget_holds_a_pod() -> None:
    release = vault.release(ALL)
    assert release.values["server"]["ha"]["disruptionBudget"] == {"enabled": False}
    assert release.workloads[0].selector and release.workloads[0].replicas == 3


def test_the_intermediate_itself_is_imported_and_its_key_is_in_a_secret_alone() -> None:
    release = vault.release(ALL)
    secret = next(s for s in release.secrets if s.name == vault.AUTHORITY_SECRET)
    assert secret.namespace == "vault"
    assert secret.data == {"chain": FromPki(item="intermediate.chain"), "key": FromPki(item="intermediate.key")}
    authority = job_config(ALL)["authority"]
    assert authority == {"mount": "pki", "chain": ["authority", "chain"], "key": ["authority", "key"]}
    job, _ = release.jobs
    assert job.secret_files["authority"] == secret.name and job.secret_files["client"] == release.clients[0].secret


def test_certificates_are_for_the_domain_only() -> None:
    role = next(i["data"] for i in job_config(ALL)["items"] if i["path"] == "pki/roles/opstella")
    assert role["allowed_domains"] == [DOMAIN]
    assert not (role["allow_any_name"] or role["allow_ip_sans"] or role["allow_localhost"] or role["client_flag"])
    assert role["enforce_hostnames"] and role["max_ttl"] == 720 * 3600


def test_every_login_of_a_pod_is_bound_to_one_account_and_one_audience() -> None:
    config = job_config(ALL)
    roles = {i["path"]: i["data"] for i in config["items"] if "/role/" in i["path"] and "kubernetes" in i["path"]}
    assert len(roles) == 3
    for path, role in roles.items():
        name = path.rpartition("/")[2]
        (account,), (namespace,) = role["bound_service_account_names"], role["bound_service_account_namespaces"]
        assert "*" not in account + namespace and role["audience"]
        assert role["token_policies"] == [name] and name in config["policies"]
        assert role["token_max_ttl"] <= 15 * 60
    assert roles["auth/kubernetes/role/vault-issuer"]["audience"] == "vault://vault-issuer"
    job, _ = vault.release(ALL).jobs
    assert job.environment["ACCOUNT_NAME"] == job.name
    assert roles["auth/kubernetes/role/opstella-provisioner"]["bound_service_account_names"] == [job.name]
    assert [dict(rule)["resourceNames"] for rule in job.rules] == [[job.name]] and not job.cluster_rules


def test_the_provisioner_manages_what_stands_in_its_configuration_and_nothing_else() -> None:
    config = job_config(ALL)
    name = vault_config.PROVISIONER
    for item in config["items"]:
        assert may(config, name, item["path"]) == ["create", "read", "update"]
    for path in (
        "kv/data/developers/x",
        "pki/issue/opstella",
        "auth/token/create",
        "sys/seal",
        "sys/generate-root/attempt",
    ):
        assert may(config, name, path) == []
    for path in json.loads(config["policies"][name])["path"]:
        assert "*" not in path or path in ("pki/issuer/*", "identity/group-alias/id/*")
    assert "delete" not in str(config["policies"][name])


def test_groups_have_their_policies() -> None:
    config = job_config(ALL)
    assert config["groups"] == {"via": "oidc", "policies": {g: [g] for g in vault_config.GROUPS}}
    assert "sudo" in may(config, "platform-admins", "sys/anything")
    assert "update" in may(config, "developers", "kv/data/developers/a/b")
    assert may(config, "developers", "kv/data/shared/x") == ["read"] == may(config, "viewers", "kv/data/shared/x")
    assert may(config, "viewers", "kv/data/developers/a") == [] == may(config, "developers", "sys/mounts")
    assert set(vault.release(ALL).clients[0].roles) == set(vault_config.GROUPS)


def test_shares_stay_in_the_cluster_in_one_mode_only() -> None:
    config = job_config(opened("secret", shares=5, threshold=3))
    assert (config["handover"], config["automatic"]) == (False, False)
    assert config["temporary"] == {"shares": 5, "threshold": 3}


def test_custodians_get_theirs_by_a_handover_from_a_single_temporary_share() -> None:
    inputs = opened("pgp", shares=3, threshold=2, pgp_keys=KEYS)
    assert job_config(inputs)["handover"] and job_config(inputs)["temporary"] == {"shares": 1, "threshold": 1}
    handover = vault_unsealer.handover(inputs)
    assert (handover["shares"], handover["threshold"], handover["target"]) == (3, 2, "rekey")
    assert handover["pgp_keys"] == list(KEYS)
    # Vault's own answer tells whose shares are in force: the numbers must differ.
    alone = opened("pgp", shares=1, threshold=1, pgp_keys=KEYS[:1])
    assert job_config(alone)["temporary"] == {"shares": 2, "threshold": 2}


def test_an_automatic_seal_gets_its_credentials_by_name() -> None:
    inputs = opened("auto", shares=3, threshold=2, seal=TRANSIT)
    release = vault.release(inputs)
    assert server(release)["seal"] == {"transit": {"address": "https://keys.example.com:8300"}}
    assert release.values["server"]["extraSecretEnvironmentVars"] == [
        {"envName": "VAULT_TOKEN", "secretName": "vault-seal", "secretKey": "VAULT_TOKEN"}
    ]
    secret = next(s for s in release.secrets if s.name == "vault-seal")
    assert secret.data == {"VAULT_TOKEN": Given(name="seal-token")}
    assert [f.ports for f in release.flows if f.peer == "outside"] == [(8300,)]
    assert job_config(inputs)["automatic"] and vault_unsealer.handover(inputs)["target"] == "rekey-recovery-key"
    # Nobody has anything to do there, unless recovery keys are for custodians.
    assert vault_unsealer.release(inputs).workloads == ()
    handed = opened("auto", shares=3, threshold=2, seal=TRANSIT, pgp_keys=KEYS)
    assert vault_unsealer.release(handed).workloads and job_config(handed)["handover"]
    assert "rekey-recovery-key/init" in job_config(handed)["policies"][vault_config.UNSEALER]
    # A seal that the mode does not use is none.
    assert "seal" not in server(vault.release(opened("secret", seal=TRANSIT)))


def test_the_record_is_where_the_job_and_the_unsealer_look_for_it() -> None:
    job, _ = vault.release(ALL).jobs
    values = vault_unsealer.release(ALL).values
    assert job.environment["RECORD"] == values["environment"]["RECORD"] == "vault-unseal/vault-unseal"
    assert job.environment["VAULT_REPLICAS"] == values["environment"]["VAULT_REPLICAS"]
    assert values["setup"] == {"name": job.name, "namespace": "vault"}
    assert vault_unsealer.NAME in job.needs
    assert {f.peer: f.ports for f in vault_unsealer.release(ALL).flows} == {"kubernetes-api": (6443,), "vault": (8200,)}
    assert not vault_unsealer.release(replace(ALL, present=frozenset())).values["enabled"]


def test_cert_manager_may_ask_for_one_accounts_tokens() -> None:
    after = vault.release(ALL).after
    role = next(m.body for m in after if m.body["kind"] == "Role")
    assert role["metadata"]["namespace"] == cert_manager.NAMESPACE
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": ["vault-issuer"],
            "verbs": ["create"],
        }
    ]
    issuer = next(m for m in after if m.body["kind"] == "ClusterIssuer")
    assert issuer.wait_for == "condition=Ready" and issuer.name == "vault-issuer" != ALL.cluster_issuer
    auth = issuer.body["spec"]["vault"]["auth"]["kubernetes"]
    assert auth["serviceAccountRef"] == {"name": "vault-issuer"} and auth["mountPath"] == "/v1/auth/kubernetes"
    assert issuer.body["spec"]["vault"]["path"] == "pki/sign/opstella"


def test_metrics_have_a_port_of_their_own_without_a_token() -> None:
    release = vault.release(ALL)
    public, inner = [listener["tcp"] for listener in server(release)["listener"]]
    assert "telemetry" not in public and inner["telemetry"] == {"unauthenticated_metrics_access": True}
    assert public["address"].endswith(":8200") and inner["address"].endswith(":8203")
    assert release.ports_for_ingress == (8200,) and release.ports_for_metrics == (8203,)
    assert any(m.body["kind"] == "PodMonitor" for m in release.after)
    alone = vault.release(replace(ALL, present=frozenset({"vault"})))
    assert not any(m.body["kind"] == "PodMonitor" for m in alone.after)


def test_who_scrapes_reads_no_secrets() -> None:
    rules = alloy.release(replace(ALL, present=frozenset({"kube-prometheus-stack"}))).values["rbac"]["rules"]
    assert rules and not any("secrets" in rule["resources"] or "*" in rule["resources"] for rule in rules)
    monitor = next(m.body for m in vault.release(ALL).after if m.body["kind"] == "PodMonitor")
    assert "secret" not in str(monitor)


def test_trust_is_spread_from_the_stacks_own_bundle_under_another_name() -> None:
    release = trust_manager.release(ALL)
    (bundle,) = release.after
    assert bundle.body["spec"]["sources"] == [{"configMap": {"name": "opstella-ca-bundle", "key": "ca.crt"}}]
    # The target bears the Bundle's name; the stack's own ConfigMap must stay what it is.
    assert bundle.body["metadata"]["name"] != release.ca_bundle == "opstella-ca-bundle"
    assert "namespaceSelector" not in bundle.body["spec"]["target"]
    assert release.namespace == cert_manager.NAMESPACE == release.values["app"]["trust"]["namespace"]
    assert release.values["secretTargets"] == {"enabled": False}
    assert not release.values["defaultPackage"]["enabled"]


def test_a_new_certificate_and_a_full_audit_log_are_told_to_vault(tmp_path: Path) -> None:
    (container,) = vault.release(ALL).values["server"]["extraContainers"]
    script = container["command"][-1].replace("/vault/", f"{tmp_path}/").replace("sleep 60", f"touch {tmp_path}/looked && sleep 0.05")
    script = script.replace("209715200", "9").replace("$(pidof vault)", "$VAULT")
    (tmp_path / "tls").mkdir()
    (tmp_path / "audit").mkdir()
    log, certificate, told = tmp_path / "audit/audit.log", tmp_path / "tls/tls.crt", tmp_path / "told"
    certificate.write_text("one")
    log.write_text("short")
    listener = subprocess.Popen(
        ["bash", "-c", f"trap 'echo x >> {told}' HUP; touch {told}; while :; do sleep 0.02; done"]
    )
    care = None

    def wait(what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not done():
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    try:
        wait("the listener listens", told.exists)
        care = subprocess.Popen(["sh", "-ec", script], env={**os.environ, "VAULT": str(listener.pid)})
        wait("the first certificate is seen", (tmp_path / "looked").exists)
        time.sleep(0.3)
        assert told.read_text() == "" and log.exists()
        certificate.write_text("two")
        wait("the certificate is told", lambda: told.read_text().count("x") == 1)
        log.write_text("longer than nine")
        wait("the log is moved and told", lambda: told.read_text().count("x") == 2)
        assert (tmp_path / "audit/audit.log.1").read_text() == "longer than nine" and not log.exists()
        log.write_text("once more too long")
        wait("again", lambda: told.read_text().count("x") == 3)
        assert (tmp_path / "audit/audit.log.2").read_text() == "longer than nine"
    finally:
        for process in (care, listener):
            if process is not None:
                process.kill()
                process.wait()
