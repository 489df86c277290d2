"""What a tool is: data. Components turn it into namespaces, secrets, Helm releases and custom resources.

No value of a secret stands here: a secret is declared by its keys and by where each value comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Values = dict[str, Any]
PodSecurity = Literal["privileged", "baseline", "restricted"]
PkiItem = Literal[
    "intermediate.chain",  # PEM: the intermediate, then what stands above it, up to and with the root
    "intermediate.key",
    "wildcard.chain",  # PEM: the user's certificate of *.domain, then its chain
    "wildcard.key",
]

# The bundle of CA certificates that the stack trusts: one ConfigMap of this name in each namespace that needs it.
CA_BUNDLE_KEY = "ca.crt"


@dataclass(frozen=True, kw_only=True)
class Password:
    """A generated password; `name` is unique in the stack of one cluster. Letters and digits only, unless `special`."""

    name: str
    length: int = 32
    special: bool = False


@dataclass(frozen=True, kw_only=True)
class Clear:
    """A value that is no secret, in a secret because the reader looks there."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The value of the Password `password`."""

    password: str


@dataclass(frozen=True, kw_only=True)
class Bcrypt:
    """The bcrypt hash of the Password `password`; must stay the same from run to run."""

    password: str


@dataclass(frozen=True, kw_only=True)
class FromPki:
    """A certificate or key of the stack's PKI."""

    item: PkiItem


Source = Clear | Generated | Bcrypt | FromPki


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A Kubernetes Secret that stands before the release does; `data` maps each key to its value's source."""

    name: str
    namespace: str
    data: Mapping[str, Source]
    type: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One custom resource.

    `body` is the whole object, apiVersion to spec. `needs` are releases that must be deployed before it. `wait_for`
    is a condition as the annotation `pulumi.com/waitFor` takes it, or None where applying it is enough.
    """

    name: str
    body: Values
    needs: tuple[str, ...]
    namespace: str | None = None
    wait_for: str | None = None
    timeout_seconds: int = 300


@dataclass(frozen=True, kw_only=True)
class Login:
    """How a person first gets in: `password` names the Password."""

    url: str
    username: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload that must be available once the release is deployed; for the checks from outside."""

    kind: Literal["Deployment", "DaemonSet", "StatefulSet"]
    name: str
    namespace: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """A Helm release and what belongs to it.

    Order of creation: namespace, the CA bundle if `ca_bundle` names one, `secrets`, `before`, the release itself
    (after every release in `needs`), `after`.

    A needed release counts as there when its own `after` is.

    `name` is the tool, the Helm release, and the key in the settings. `values` holds no secret: charts take them from
    `secrets` by name. `host` is the name under which users reach it, `domain_key` the service in settings.domains.
    """

    name: str
    namespace: str
    chart: str
    version: str
    repository: str
    values: Values
    needs: tuple[str, ...] = ()
    pod_security: PodSecurity = "restricted"
    secrets: tuple[Secret, ...] = ()
    passwords: tuple[Password, ...] = ()
    before: tuple[Manifest, ...] = ()
    after: tuple[Manifest, ...] = ()
    crds: tuple[str, ...] = ()
    """Custom resource definitions that must be Established before `after` and before what needs this release."""
    workloads: tuple[Workload, ...] = ()
    ca_bundle: str | None = None
    domain_key: str | None = None
    host: str | None = None
    login: Login | None = None
    timeout_seconds: int = 600


@dataclass(frozen=True, kw_only=True)
class Override:
    """What a user changes of one tool; `values` are merged deep over the tool's own (a list replaces a list)."""

    enabled: bool = True
    version: str | None = None
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class ToolInputs:
    """What the tools of one cluster depend on.

    `hosts`: service key (`keycloak`, `argocd`, …) to full name, those this cluster serves. `tools`: the tools this
    cluster carries, None for all. `replicas`: of what serves users and can have several. `certificate`: who signs the
    certificate of `*.domain`: cert-manager with the stack's intermediate, or the user provided it.
    `image_registry`: `host[:port][/path]` to pull the charts' images from instead of their own registries; not needed
    where the nodes' containerd has a mirror. `chart_repository`: URL of one Helm repository that holds every chart.
    """

    domain: str
    hosts: Mapping[str, str]
    nfs_server: str
    nfs_path: str
    tools: tuple[str, ...] | None = None
    ingress_class: str = "traefik"
    certificate: Literal["cert-manager", "provided"] = "cert-manager"
    cluster_issuer: str = "opstella-ca"
    replicas: int = 1
    database_instances: int = 1
    storage_class: str = "nfs"
    load_balancer: str | None = None
    """Address that Ingresses report as theirs."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-* headers are believed; HAProxy forwards plain TCP and sets none."""
    image_registry: str | None = None
    chart_repository: str | None = None
    ca_bundle: str | None = "opstella-ca-bundle"
    overrides: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool of the catalogue: its name, how its release follows from the inputs, and the service whose name it needs."""

    name: str
    release: Callable[[ToolInputs], Release]
    domain_key: str | None = None
