"""What Vault is to hold, as data: engines, login methods, roles, policies, groups. provision/vault.py makes it so.

The stack's intermediate itself is imported into the engine `pki`, rather than a further CA made below it: the root and
the intermediate limit the path, so that no certificate of a CA below the intermediate would verify.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from plan.tools.common import CA_FILE, issuer
from plan.tools.model import ToolInputs, Values

KV, PKI, PKI_ROLE, OIDC, KUBERNETES = "kv", "pki", "opstella", "oidc", "kubernetes"
CLIENT = "vault"
AUDIENCE = "vault"  # of the tokens that Vault's own Job and unsealer log in with
PROVISIONER, UNSEALER, ISSUER = "opstella-provisioner", "opstella-unsealer", "vault-issuer"
ADMINS, DEVELOPERS, VIEWERS = "platform-admins", "developers", "viewers"
GROUPS = (ADMINS, DEVELOPERS, VIEWERS)
FINGERPRINTS = f"{KV}/data/opstella/provisioning"
LEAF_SECONDS = 30 * 24 * 3600
SESSION_SECONDS = 8 * 3600
MINUTES = 60

# Folders of the Secrets that the Job is given: /opstella/secrets/<name>.
AUTHORITY_FILES, CLIENT_FILES, CLIENT_KEY = "authority", "client", "clientSecret"
CLUSTER_FILES = "clusters"
AUDIT_FILE = "/vault/audit/audit.log"

READ, LIST = ("read",), ("list", "read")
WRITE = ("create", "delete", "list", "patch", "read", "update")
MANAGE = ("create", "read", "update")


def policy(paths: Mapping[str, Iterable[str]]) -> str:
    """A policy as JSON, which Vault takes as well as HCL."""
    return json.dumps({"path": {path: {"capabilities": sorted(can)} for path, can in sorted(paths.items())}}, indent=1)


def target(inputs: ToolInputs) -> str:
    """The endpoint that gives out new shares: an automatic seal has recovery keys instead of unseal keys."""
    return "rekey-recovery-key" if inputs.vault.unseal == "auto" else "rekey"


def others(inputs: ToolInputs) -> tuple[str, ...]:
    """The clusters whose pods log in from outside of Vault's own."""
    return tuple(name for name in inputs.clusters if name != inputs.cluster)


def method(cluster: str) -> str:
    """Where the pods of another cluster log in.

    Not Vault's Kubernetes method: that asks the cluster's API about each token, which takes a lasting credential with
    the right to review tokens, or pods whose tokens the API itself takes. This one verifies the signature by the
    cluster's keys, which are given to it: RKE2's API server tells them to nobody without a login
    (`anonymous-auth=false`). So no cluster gives Vault any right, none has to be up for a login, and what a token's
    short life does not end, a deleted account does not end either.
    """
    return f"{KUBERNETES}-{cluster}"


def configuration(inputs: ToolInputs, host: str) -> Values:
    """The Job's CONFIG (its reader is provision/vault.py). No secret stands in it."""
    vault = inputs.vault
    handed = bool(vault.pgp_keys)
    # One share that the unsealer alone uses, until the custodians have proven theirs; its number differs from theirs,
    # so that Vault's own answer tells which are in force.
    temporary = (2, 2) if (vault.shares, vault.threshold) == (1, 1) else (1, 1)
    shares, threshold = temporary if handed else (vault.shares, vault.threshold)
    items = list(_items(inputs, host))
    config: Values = {
        "automatic": vault.unseal == "auto",
        "handover": handed,
        "temporary": {"shares": shares, "threshold": threshold},
        "login": {"role": PROVISIONER, "audience": AUDIENCE},
        # On each replica's volume, and in the logs of its pod, so that it is wherever those are kept.
        "audit": {
            "file": {"type": "file", "options": {"file_path": AUDIT_FILE}},
            "stdout": {"type": "file", "options": {"file_path": "stdout"}},
        },
        "fingerprints": FINGERPRINTS,
        "engines": {
            KV: {"type": "kv", "description": "secrets of people and applications", "options": {"version": "2"}},
            PKI: {
                "type": "pki",
                "description": f"certificates below {inputs.domain}, signed by the stack's intermediate",
                "config": {"max_lease_ttl": LEAF_SECONDS},
            },
        },
        "methods": {
            KUBERNETES: {"type": "kubernetes", "description": "pods, by their ServiceAccounts"},
            **{
                method(name): {"type": "jwt", "description": f"pods of the cluster {name}, by their ServiceAccounts"}
                for name in others(inputs)
            },
            OIDC: {
                "type": "oidc",
                "description": "people, by Keycloak",
                "config": {"listing_visibility": "unauth"},  # the login page offers it
            },
        },
        "authority": {
            "mount": PKI,
            "chain": [AUTHORITY_FILES, "chain"],
            "key": [AUTHORITY_FILES, "key"],
        },
        "items": items,
        "groups": {"via": OIDC, "policies": {group: [group] for group in GROUPS}},
    }
    config["policies"] = {**_policies(inputs), PROVISIONER: policy(_managed(config))}
    return config


def _items(inputs: ToolInputs, host: str) -> Iterator[Values]:
    yield {"path": f"{KV}/config", "data": {"max_versions": 10}}
    yield {
        "path": f"{PKI}/config/urls",
        "data": {
            "issuing_certificates": [f"https://{host}/v1/{PKI}/ca"],
            "crl_distribution_points": [f"https://{host}/v1/{PKI}/crl"],
        },
    }
    yield {
        "path": f"{PKI}/roles/{PKI_ROLE}",
        "data": {
            "allowed_domains": [inputs.domain],
            "allow_bare_domains": True,
            "allow_subdomains": True,
            "allow_wildcard_certificates": True,
            "allow_any_name": False,
            "allow_localhost": False,
            "allow_ip_sans": False,
            "enforce_hostnames": True,
            "require_cn": False,
            "key_type": "any",  # who asks brings the key
            "client_flag": False,
            "server_flag": True,
            "max_ttl": LEAF_SECONDS,
        },
    }
    yield {"path": f"auth/{KUBERNETES}/config", "data": {"kubernetes_host": "https://kubernetes.default.svc"}}
    accounts = ((PROVISIONER, "vault-setup", "vault"), (UNSEALER, "vault-unsealer", "vault-unseal"))
    for role, account, namespace in accounts:
        yield _role(role, account, namespace, AUDIENCE, 15 * MINUTES)
    # The audience that cert-manager asks for, on behalf of a ClusterIssuer of this name.
    yield _role(ISSUER, ISSUER, "cert-manager", f"vault://{ISSUER}", 5 * MINUTES)
    for name in others(inputs):
        yield {
            "path": f"auth/{method(name)}/config",
            "data": {},
            "keys": {"jwt_validation_pubkeys": [CLUSTER_FILES, name]},
        }
        yield _role_elsewhere(name, ISSUER, ISSUER, "cert-manager", f"vault://{ISSUER}", 5 * MINUTES)
    login: Values = {
        "path": f"auth/{OIDC}/config",
        "data": {"oidc_discovery_url": issuer(inputs), "oidc_client_id": CLIENT, "default_role": "default"},
        "secrets": {"oidc_client_secret": [CLIENT_FILES, CLIENT_KEY]},
    }
    yield {**login, "files": {"oidc_discovery_ca_pem": CA_FILE}} if inputs.ca_bundle else login
    yield {
        "path": f"auth/{OIDC}/role/default",
        "data": {
            "role_type": "oidc",
            "user_claim": "preferred_username",
            "groups_claim": "groups",
            "bound_audiences": [CLIENT],
            "oidc_scopes": ["openid", "profile", "email"],
            "allowed_redirect_uris": list(redirect_uris(host)),
            "token_policies": ["default"],  # all else comes with the groups
            "token_ttl": SESSION_SECONDS,
            "token_max_ttl": SESSION_SECONDS,
        },
    }


def redirect_uris(host: str) -> tuple[str, ...]:
    """Of the web interface, and of `vault login -method=oidc`, which listens on the user's own machine."""
    return (f"https://{host}/ui/vault/auth/{OIDC}/oidc/callback", "http://localhost:8250/oidc/callback")


def _role(name: str, account: str, namespace: str, audience: str, seconds: int) -> Values:
    return {
        "path": f"auth/{KUBERNETES}/role/{name}",
        "data": {
            "bound_service_account_names": [account],
            "bound_service_account_namespaces": [namespace],
            "audience": audience,
            "token_policies": [name],
            "token_ttl": seconds,
            "token_max_ttl": seconds,
            "token_no_default_policy": False,  # it may revoke itself
        },
    }


def _role_elsewhere(cluster: str, name: str, account: str, namespace: str, audience: str, seconds: int) -> Values:
    """The same role, of another cluster's method."""
    return {
        "path": f"auth/{method(cluster)}/role/{name}",
        "data": {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": f"system:serviceaccount:{namespace}:{account}",
            "bound_audiences": [audience],
            "token_policies": [name],
            "token_ttl": seconds,
            "token_max_ttl": seconds,
        },
    }


def _policies(inputs: ToolInputs) -> dict[str, str]:
    rekey = f"sys/{target(inputs)}"
    return {
        ADMINS: policy({"*": (*WRITE, "sudo")}),
        DEVELOPERS: policy(
            {
                f"{KV}/data/developers/*": WRITE,
                f"{KV}/metadata/developers/*": WRITE,
                f"{KV}/delete/developers/*": ("update",),
                f"{KV}/undelete/developers/*": ("update",),
                f"{KV}/destroy/developers/*": ("update",),
                f"{KV}/data/shared/*": READ,
                f"{KV}/metadata/*": LIST,
            }
        ),
        # Names of secrets, and those meant for everybody.
        VIEWERS: policy({f"{KV}/data/shared/*": READ, f"{KV}/metadata/*": LIST}),
        ISSUER: policy({f"{PKI}/sign/{PKI_ROLE}": ("create", "update")}),
        UNSEALER: policy(
            {
                f"{rekey}/init": (*MANAGE, "delete", "sudo"),
                f"{rekey}/update": ("create", "update", "sudo"),
                f"{rekey}/verify": ("read", "sudo"),
            }
        ),
    }


def _managed(config: Values) -> dict[str, tuple[str, ...]]:
    """What the later runs of the Job may touch: what stands in `config`, and nothing else."""
    paths: dict[str, tuple[str, ...]] = {
        "sys/audit": (*READ, "sudo"),
        "sys/auth": READ,
        "sys/mounts": READ,
        "identity/group-alias": MANAGE,
        "identity/group-alias/id/*": MANAGE,
        FINGERPRINTS: MANAGE,
        f"{PKI}/issuers": LIST,
        f"{PKI}/issuers/import/bundle": MANAGE,
        f"{PKI}/issuer/*": READ,
        f"{PKI}/config/issuers": MANAGE,
    }
    paths |= {f"sys/audit/{device}": (*MANAGE, "sudo") for device in config["audit"]}
    paths |= {f"sys/policies/acl/{name}": MANAGE for name in (*GROUPS, ISSUER, PROVISIONER, UNSEALER)}
    for kind, mounts in (("mounts", config["engines"]), ("auth", config["methods"])):
        for path in mounts:
            paths |= {f"sys/{kind}/{path}": (*MANAGE, "sudo"), f"sys/{kind}/{path}/tune": (*MANAGE, "sudo")}
    paths |= {f"identity/group/name/{group}": MANAGE for group in GROUPS}
    paths |= {item["path"]: MANAGE for item in config["items"]}
    return paths
