"""Vault: secrets and certificates, on integrated storage; initialised, opened and configured by a Job (docs/vault.md).

The injector is left out: it would have a webhook in the way of every pod of the cluster, and nothing here asks for it.
Pods read secrets by the Kubernetes login method, or by what the user installs for it.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from config.errors import ConfigurationError, Problem, key
from plan import versions
from plan.tools import cert_manager, ci, cloudnative_pg, traefik, vault_config, vault_issuer, vault_unsealer
from plan.tools.common import PYTHON_IMAGE, provision_files, resources, storage_of, trusting
from plan.tools.ingress import closed
from plan.tools.model import (
    ClusterAccountKeys,
    FromPki,
    Given,
    Release,
    Secret,
    Tool,
    ToolInputs,
    Values,
    Workload,
)  # fmt: skip
from plan.tools.needs import ITSELF, KUBERNETES_API, OUTSIDE, PUBLIC, Flow, Job, OidcClient
from plan.tools.vault_objects import LABELS, NAME, NAMESPACE, PORT, TLS_SECRET, after, before

DOMAIN_KEY = "vault"
CLUSTER_PORT, METRICS_PORT = 8201, 8203
SEAL_SECRET, AUTHORITY_SECRET, CLIENT_SECRET = "vault-seal", "vault-authority", "vault-oidc"
CLUSTERS_SECRET = "vault-clusters"  # cluster to the keys of its ServiceAccounts
TLS = "/vault/tls"
# What needs no login, and is not for everybody who reaches the public name: whoever does could cancel every attempt.
CLOSED = ("/v1/sys/generate-root",)
JOB = "vault-setup"
# Every pod counts as ready that answers, sealed or not: the release must not wait for what comes after it.
HEALTH = "/v1/sys/health?standbyok=true&sealedcode=200&uninitcode=200"
CHECK_PATH = "/v1/sys/health?standbyok=true"

# Vault reads its certificate again, and opens its audit log anew, only when it is told to; and it must not be restarted
# for either, since it comes back sealed. A full audit volume would stop it from answering at all.
_CARE = """\
cd /vault/audit
seen=$(sha256sum < /vault/tls/tls.crt)
while sleep 60; do
  now=$(sha256sum < /vault/tls/tls.crt)
  tell=
  [ "$now" = "$seen" ] || tell=yes
  if [ -f audit.log ] && [ "$(stat -c %s audit.log)" -gt 209715200 ]; then
    for n in 9 8 7 6 5 4 3 2 1; do
      if [ -f audit.log.$n ]; then mv audit.log.$n audit.log.$((n + 1)); fi
    done
    mv audit.log audit.log.1
    tell=yes
  fi
  if [ -n "$tell" ] && kill -HUP $(pidof vault); then seen=$now; fi
done
"""


def replicas(inputs: ToolInputs) -> int:
    """One, or three where the cluster has several masters and workers for them: no two of them share one.

    Raises ConfigurationError for an even number, and for more than there are workers.
    """
    override = inputs.overrides.get(NAME)
    if override is None or override.replicas is None:
        return 3 if inputs.replicas > 1 and inputs.workers >= 3 else 1
    if override.replicas > inputs.workers:
        problem = Problem(
            key("tools", NAME, "replicas"),
            f"{override.replicas} replicas of Vault need as many workers, and there are {inputs.workers}",
            "write a smaller odd number, or add workers",
        )
        raise ConfigurationError([problem], "tools")
    if override.replicas % 2 == 0:
        problem = Problem(
            key("tools", NAME, "replicas"),
            f"{override.replicas} replicas of Vault bear no more failures than {override.replicas - 1}",
            f"write {override.replicas - 1} or {override.replicas + 1}",
        )
        raise ConfigurationError([problem], "tools")
    return override.replicas


def addresses(inputs: ToolInputs) -> tuple[str, ...]:
    """URL of every replica, from any namespace."""
    return tuple(f"https://vault-{n}.vault-internal.{NAMESPACE}.svc:{PORT}" for n in range(replicas(inputs)))


def server_config(inputs: ToolInputs) -> Values:
    """Vault's own configuration, in JSON's form of it."""
    tls = {"tls_cert_file": f"{TLS}/tls.crt", "tls_key_file": f"{TLS}/tls.key", "tls_min_version": "tls12"}
    raft: Values = {"path": "/vault/data"}
    if replicas(inputs) > 1:  # a single one has nobody to join
        raft["retry_join"] = [
            {"leader_api_addr": f"https://vault-{n}.vault-internal:{PORT}", "leader_ca_cert_file": f"{TLS}/ca.crt"}
            for n in range(replicas(inputs))
        ]
    config: Values = {
        "ui": True,
        # Integrated storage maps its file into memory, which cannot be locked there.
        "disable_mlock": True,
        # Who holds enough shares gets in when every login is broken; the rest of these endpoints asks for a token. It is
        # open inside of the cluster only: CLOSED.
        "enable_unauthenticated_access": ["generate-root"],
        "listener": [
            {"tcp": {"address": f"[::]:{PORT}", "cluster_address": f"[::]:{CLUSTER_PORT}", **tls}},
            # For the monitoring alone, which has no token; the ingress does not lead there.
            {"tcp": {"address": f"[::]:{METRICS_PORT}", "telemetry": {"unauthenticated_metrics_access": True}, **tls}},
        ],
        "storage": {"raft": raft},
        "service_registration": {"kubernetes": {}},
        "telemetry": {"prometheus_retention_time": "24h", "disable_hostname": True},
    }
    seal = inputs.vault.seal
    if inputs.vault.unseal == "auto" and seal is not None:
        config["seal"] = {seal.type: dict(seal.parameters)}
    return config


def _values(inputs: ToolInputs, host: str) -> Values:
    seal = inputs.vault.seal if inputs.vault.unseal == "auto" else None
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    mount = {"name": "tls", "mountPath": TLS, "readOnly": True}
    repository, tag = "docker.io/hashicorp/vault", versions.VAULT.app_version
    storage = {"enabled": True, "storageClass": inputs.storage_class}
    server: Values = {
        "image": {"repository": repository, "tag": tag},
        "resources": resources("100m", "256Mi", "768Mi"),
        "ha": {
            "enabled": True,
            "replicas": replicas(inputs),
            # The pod's name, which the certificate covers; its address is not in there.
            "apiAddr": f"https://$(VAULT_K8S_POD_NAME).vault-internal:{PORT}",
            "raft": {"enabled": True, "setNodeId": True, "config": json.dumps(server_config(inputs), indent=1)},
            # The plan has one for every tool, and a pod under two budgets cannot be evicted at all.
            "disruptionBudget": {"enabled": False},
        },
        "readinessProbe": {"enabled": True, "path": HEALTH},
        "dataStorage": {**storage, "size": storage_of(inputs, NAME, "5Gi")},
        "auditStorage": {**storage, "size": storage_of(inputs, NAME, "5Gi")},
        "extraEnvironmentVars": {"VAULT_CACERT": f"{TLS}/ca.crt"},
        "volumes": [{"name": "tls", "secret": {"secretName": TLS_SECRET, "defaultMode": 0o440}}],
        "volumeMounts": [mount],
        "shareProcessNamespace": True,  # for the next container's signal
        "extraContainers": [
            {
                "name": "certificate-and-audit-log",
                "image": f"{repository}:{tag}",
                "command": ["/bin/sh", "-ec", _CARE],
                "resources": resources("10m", "8Mi", "32Mi"),
                "securityContext": {**restricted, "readOnlyRootFilesystem": True},
                "volumeMounts": [mount, {"name": "audit", "mountPath": "/vault/audit"}],
            }
        ],
        "extraPorts": [{"containerPort": METRICS_PORT, "name": "telemetry"}],
        "statefulSet": {
            "securityContext": {
                "pod": {
                    "runAsNonRoot": True, "runAsUser": 100, "runAsGroup": 1000, "fsGroup": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "container": restricted,
            }
        },
        "service": {
            "standby": {"enabled": False},  # nobody asks for a replica that only passes on
            "active": {
                "annotations": {
                    "traefik.ingress.kubernetes.io/service.serverstransport": f"{NAMESPACE}-{NAME}@kubernetescrd",
                }
            }
        },
        "ingress": {
            "enabled": True,
            "ingressClassName": inputs.ingress_class,
            "hosts": [{"host": host}],
            "tls": [{"hosts": [host]}],  # no secret: Traefik's default certificate covers the name
        },
    }  # fmt: skip
    if seal is not None and seal.environment:
        server["extraSecretEnvironmentVars"] = [
            {"envName": variable, "secretName": SEAL_SECRET, "secretKey": variable} for variable in seal.environment
        ]
    return {"global": {"tlsDisable": False}, "injector": {"enabled": False}, "server": server}


def _job(inputs: ToolInputs, host: str) -> Job:
    config = json.dumps(vault_config.configuration(inputs, host), indent=1)
    environment = {
        "CONFIG": "/opstella/vault.json",
        "RECORD": vault_unsealer.RECORD,
        "VAULT_REPLICAS": " ".join(addresses(inputs)),
        "ACCOUNT_NAME": JOB,
    }
    own_token = {
        "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [JOB], "verbs": ["create"],
    }  # fmt: skip
    keys = {name: ClusterAccountKeys(cluster=name) for name in vault_config.others(inputs)}
    return Job(
        name=JOB,
        image=PYTHON_IMAGE,
        command=("python3", "-B", "/opstella/vault.py"),
        files={**provision_files("client.py", "vault_api.py", "vault.py"), "vault.json": config},
        environment={**environment, **trusting(inputs)},
        secret_files={
            vault_config.AUTHORITY_FILES: AUTHORITY_SECRET,
            vault_config.CLIENT_FILES: CLIENT_SECRET,
            **({vault_config.CLUSTER_FILES: CLUSTERS_SECRET} if keys else {}),
        },
        secrets=(Secret(name=CLUSTERS_SECRET, namespace=NAMESPACE, data=keys),) if keys else (),
        rules=(own_token,),
        needs=(vault_unsealer.NAME,),
        timeout_seconds=1200,
    )


def _seal_flows(inputs: ToolInputs) -> tuple[Flow, ...]:
    """To the key service of an automatic seal: Transit at its address, all others by HTTPS."""
    seal = inputs.vault.seal if inputs.vault.unseal == "auto" else None
    if seal is None:
        return ()
    address = urlsplit(seal.parameters.get("address", ""))
    port = address.port or {"http": 80}.get(address.scheme, 443)
    return (Flow(peer=OUTSIDE, ports=(port,), pods=LABELS, why="the key service of the automatic seal"),)


def release(inputs: ToolInputs) -> Release:
    """Vault behind Traefik, encrypted all the way; its administrators are Keycloak's platform-admins."""
    host = inputs.hosts[DOMAIN_KEY]
    seal = inputs.vault.seal if inputs.vault.unseal == "auto" else None
    secrets = [
        Secret(
            name=AUTHORITY_SECRET,
            namespace=NAMESPACE,
            data={"chain": FromPki(item="intermediate.chain"), "key": FromPki(item="intermediate.key")},
        ),
        vault_issuer.authority(),
    ]
    if seal is not None and seal.environment:
        given = {variable: Given(name=name) for variable, name in seal.environment.items()}
        secrets.append(Secret(name=SEAL_SECRET, namespace=NAMESPACE, data=given))
    return Release.of(
        versions.VAULT,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host),
        needs=(*cloudnative_pg.storage_needs(inputs), cert_manager.NAME, traefik.NAME, vault_unsealer.NAME),
        secrets=tuple(secrets),
        before=(
            *before(inputs),
            *closed(inputs, "vault-emergency-closed", NAMESPACE, host, paths=CLOSED, backend=("vault-active", PORT)),
        ),
        after=after(inputs),
        gitlab=ci.access(NAME, inputs),
        jobs=(
            _job(inputs, host),
            *ci.job(NAME, "vault-ci-variables", inputs),
        ),
        clients=(
            OidcClient(
                client_id=vault_config.CLIENT,
                name="Vault",
                redirect_uris=vault_config.redirect_uris(host),
                roles={group: f"policy {group}" for group in vault_config.GROUPS},
                secret=CLIENT_SECRET,
                secret_key=vault_config.CLIENT_KEY,
                web_origins=(f"https://{host}",),
                pkce=True,
                asked_at_start=True,  # its set-up reads the realm
            ),
        ),
        flows=(
            Flow(peer=ITSELF, ports=(PORT, CLUSTER_PORT), why="its pods replicate, and its Jobs set it up"),
            Flow(peer=KUBERNETES_API, ports=(6443,), pods=LABELS, why="labels of its pods, and reviews of tokens"),
            Flow(peer=PUBLIC, ports=(443,), pods=LABELS, why="Keycloak, by the name that browsers use"),
            Flow(peer=cert_manager.NAME, ports=(PORT,), inbound=True, pods=LABELS, why="signs certificates"),
            *_seal_flows(inputs),
        ),
        ports_for_ingress=(PORT,),
        ports_for_metrics=(METRICS_PORT,),
        workloads=(
            Workload(
                kind="StatefulSet", name="vault", namespace=NAMESPACE, replicas=replicas(inputs), cpu="110m",
                memory="264Mi", selector=LABELS, apart=True,
            ),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        timeout_seconds=900,
        path=CHECK_PATH,
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
