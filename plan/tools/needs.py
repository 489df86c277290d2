"""What tools need of one another, as data: connections, databases, caches, buckets, logins, provisioning.

plan/tools/wiring.py provides each of them by one mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from plan.tools.sources import Secret, Source

KUBERNETES_API = "kubernetes-api"  # the API server: on the masters' addresses, port 6443
# Any address that is neither a pod's nor a Service's; of what a pod opens, none of the machines' subnets or of a cloud's
# metadata either: machines are reached by flows of their own.
OUTSIDE = "outside"
PUBLIC = "public"  # the platform's own public names, as users reach them: its load balancers, and GitLab
ITSELF = "itself"  # the tool's own namespace
NODES = "nodes"  # the cluster's machines: kubelets, node exporters
DNS = "dns"  # the cluster's own name service

GITLAB = "gitlab"
EXTERNAL = (GITLAB,)
"""What `needs` may name though no release of a cluster is it: GitLab on its machine, with its access tokens."""


def elsewhere(cluster: str, release: str) -> str:
    """What `needs` call a release of another cluster. Few do: what merely talks to it tries again until it answers."""
    return f"{cluster}/{release}"


def is_elsewhere(need: str) -> bool:
    return "/" in need


MONITORS = ("alloy",)  # the releases that read metrics, of whatever has `ports_for_metrics`


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A TCP connection (or `protocol`) that pods of a tool open, or, with `inbound`, that is opened to them.

    `peer` is a release's name (its namespace), or one of the words above. Ports are the target pods' own, not the
    services'. `pods` narrows this tool's side by labels, `peer_pods` the other's; empty means all of the namespace. A
    flow to another release opens both sides. DNS, and the ingress to a tool with `ports_for_ingress`, need no flow.
    `why` is a short phrase for those who read policies and tables: `data source: logs`.
    """

    peer: str
    ports: tuple[int, ...]
    why: str
    inbound: bool = False
    protocol: Literal["TCP", "UDP"] = "TCP"
    pods: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    peer_pods: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def through_proxy(ports: tuple[int, ...]) -> tuple[Flow, ...]:
    """The connection to the proxy, where there is one that answers at `ports`."""
    return (Flow(peer=OUTSIDE, ports=ports, why="the proxy of the settings"),) if ports else ()


@dataclass(frozen=True, kw_only=True)
class Database:
    """A PostgreSQL database of the tool's own: the CloudNativePG cluster `name` in the tool's namespace.

    The primary answers at `<name>-rw:5432`. The Secret `<name>-owner` (basic-auth: `username`, `password`) holds
    `owner`'s password, the generated Password `<name>`. `statements` run once in the new database. It is backed up to
    the object store where there is one.

    Whoever connects verifies it: by the Secret `<name>-ca`, which CloudNativePG makes (`cloudnative_pg.authority`), or,
    with `platform_certificate`, by the platform's CA bundle and the name `cloudnative_pg.host`, for what can mount no
    other authority.
    """

    name: str
    database: str
    owner: str
    storage: str = "5Gi"
    cpu: str = "100m"
    memory: str = "256Mi"
    memory_limit: str = "512Mi"
    statements: tuple[str, ...] = ()
    platform_certificate: bool = False


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A user of Valkey, who sees only keys that begin with `prefix` (empty: all), of the `databases` (empty: all).

    Name databases of its own (of 0 to 15), unless every key has the prefix: users of one database are not kept apart.

    The Secret `secret` of the tool's namespace holds the generated Password `valkey-<user>` under each of `keys`; None
    where no Secret is wanted.
    """

    user: str
    secret: str | None
    keys: tuple[str, ...] = ("password",)
    prefix: str = ""
    databases: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket of the object store. Objects are deleted after `expire_days`, if given."""

    name: str
    versioning: bool = False
    expire_days: int | None = None


@dataclass(frozen=True, kw_only=True)
class StorageAccess:
    """A credential of the object store that reads and writes in `buckets`, below `prefix`, and nowhere else.

    Access key is `user`, secret key the generated Password `s3-<user>`; the Secret `secret` of the tool's namespace
    holds them under `access_key` and `secret_key`. `extra` are further keys of that Secret. None for `secret` where no
    Secret is wanted (GitLab, on its VM, takes them from the plan).
    """

    user: str
    buckets: tuple[Bucket, ...]
    secret: str | None
    prefix: str = ""
    """What the names of all its objects begin with, where a bucket is shared: `<cluster>/`."""
    access_key: str = "accessKey"
    secret_key: str = "secretKey"
    extra: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}))
    near: bool = False
    """Whether the tool speaks to the object store of its own cluster only, inside of it."""


@dataclass(frozen=True, kw_only=True)
class OidcClient:
    """A client of the realm `opstella`.

    `roles` maps each group that may log in to what it is in the tool: the tool's own word (`Admin`,
    `role:readonly`), put into the tool's configuration by its release and into the SSO matrix. The generated Password
    `client-<client_id>` is its secret, in the Secret `secret` of the tool's namespace: under the key `secret_key`,
    beside `extra`. A public client (`public`) has none and must use PKCE. `protocol` saml is for what knows no OIDC.
    The token's claim `groups` holds the names of the groups, without a leading slash.
    """

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    roles: Mapping[str, str]
    secret: str | None = None
    secret_key: str = "clientSecret"
    extra: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Of the Secret."""
    web_origins: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    public: bool = False
    pkce: bool = False
    protocol: Literal["openid-connect", "saml"] = "openid-connect"
    asked_at_start: bool = False
    """Whether the tool asks for the realm while it starts or is set up, and gives up without it."""
    audiences: tuple[str, ...] = ()
    """Further audiences of its access tokens, beside its own id."""
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Client attributes in Keycloak's own words."""


GitLabPurpose = Literal["runners", "ci-variables", "sonarqube"]


@dataclass(frozen=True, kw_only=True)
class GitLabAccess:
    """A personal access token of GitLab; what each purpose may do there stands in plan/gitlab.py.

    The Secret `secret` of the tool's namespace holds it under `secret_key`: the generated Password `gitlab-<purpose>`.
    What uses it waits for GitLab by naming GITLAB in its `needs`.
    """

    purpose: GitLabPurpose
    secret: str
    secret_key: str = "token"


@dataclass(frozen=True, kw_only=True)
class FromSecret:
    """An environment variable out of a Secret of the same namespace."""

    secret: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """A provisioning Job: idempotent, and run again whenever what it is given changes.

    It runs after the release, or with `before` in front of it: for what its pods cannot start without.

    `files` (name to content, no secrets) appear under /opstella, the CA bundle under /etc/opstella/ca, and the Secrets
    of `secret_files` (name to Secret) under /opstella/secrets/<name>/, one file a key. `rules` are RBAC rules of its
    own ServiceAccount, which has no token without them. `needs` are further releases, or GITLAB, that must stand
    before. Runs as an unprivileged user on a read-only root file system with an empty /tmp.
    """

    name: str
    image: str
    command: tuple[str, ...]
    files: Mapping[str, str]
    environment: Mapping[str, str | FromSecret] = field(default_factory=lambda: MappingProxyType({}))
    secret_files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[Mapping[str, Any], ...] = ()
    cluster_rules: tuple[Mapping[str, Any], ...] = ()
    flows: tuple[Flow, ...] = ()
    """Of the Job's pods, beyond those of its tool; their label is `opstella.io/job: <name>`."""
    needs: tuple[str, ...] = ()
    before: bool = False
    secrets: tuple[Secret, ...] = ()
    """Made for it alone. What they wait for, another cluster for one, holds back the Job and not the release."""
    until: bool = False
    """Whether its variable UNTIL is the day (ISO date) at which what it makes is to expire: the one at which GitLab's tokens
    do. It is a day twice a year, so the Job runs again in every half-year in which the stack is brought up to date."""
    timeout_seconds: int = 600
