"""What a tool is: data. Components turn it into namespaces, secrets, Helm releases and custom resources.

No value of a secret stands here: a secret is declared by its keys and by where each value comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from config.services import Alerts, ArgoCd, GitLabRunner, Identity, ObjectStore, OpstellaApp, Vault
from plan import proxies
from plan.tools.needs import Cache, Database, Flow, GitLabAccess, Job, OidcClient, StorageAccess
from plan.tools.sources import Bcrypt as Bcrypt
from plan.tools.sources import CaBundle as CaBundle
from plan.tools.sources import Clear as Clear
from plan.tools.sources import ClusterAccountKeys as ClusterAccountKeys
from plan.tools.sources import ClusterAuthority as ClusterAuthority
from plan.tools.sources import Composed as Composed
from plan.tools.sources import ConfigMap as ConfigMap
from plan.tools.sources import EachCa as EachCa
from plan.tools.sources import FromPki as FromPki
from plan.tools.sources import Generated as Generated
from plan.tools.sources import Given as Given
from plan.tools.sources import Htpasswd as Htpasswd
from plan.tools.sources import Password as Password
from plan.tools.sources import Secret as Secret
from plan.tools.sources import Source as Source
from plan.version import Chart

Values = dict[str, Any]
PodSecurity = Literal["privileged", "baseline", "restricted"]

# The bundle of CA certificates that the stack trusts: one ConfigMap of this name in each namespace that needs it.
CA_BUNDLE_KEY = "ca.crt"
CA_BUNDLE = "opstella-ca-bundle"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One Kubernetes object that no chart brings, of any kind.

    `body` is the whole object, apiVersion to spec. `needs` are releases that must be deployed before it. `wait_for`
    is a condition as the annotation `pulumi.com/waitFor` takes it, or None where applying it is enough. One that is
    `kept` stays in the cluster when it leaves the plan.
    """

    name: str
    body: Values
    needs: tuple[str, ...]
    namespace: str | None = None
    wait_for: str | None = None
    timeout_seconds: int = 300
    kept: bool = False


@dataclass(frozen=True, kw_only=True)
class Login:
    """How a person first gets in: `password` names the Password."""

    url: str
    username: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload that must be available once the release is deployed.

    `cpu` and `memory` are what one of its pods requests (Kubernetes quantities, all containers together); a DaemonSet
    has one a worker, `replicas` aside. `selector` is the labels of its pods; given, and with several replicas, a
    PodDisruptionBudget is made for it. `autoscale` is the greatest number of replicas, at 70 % CPU.
    """

    kind: Literal["Deployment", "DaemonSet", "StatefulSet"]
    name: str
    namespace: str
    replicas: int = 1
    cpu: str = "0"
    memory: str = "0"
    selector: Mapping[str, str] = field(default_factory=dict)
    autoscale: int | None = None
    apart: bool = False
    """Whether no two of its pods run on one node, by the chart or by `common.apart`."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A Helm release and what belongs to it.

    Order of creation: its namespaces, the CA bundle if `ca_bundle` names one, `secrets` and `config_maps`, `before`,
    those of `jobs` that come before, the release itself (after every release in `needs`), its other `jobs`, `after`.
    What its pods mount is made before it, wherever the tool has put it: plan/tools/order.py.

    A needed release counts as there when its own `after` is.

    `name` is the tool, the Helm release, and the key in the settings. `values` holds no secret: charts take them from
    `secrets` by name. `host` is the name under which users reach it, `domain_key` the service in settings.domains.
    """

    name: str
    namespace: str
    chart: str
    version: str
    repository: str | None
    """URL of the Helm repository; None for a chart of this project, where `chart` is its folder."""
    values: Values
    last_value_wins: bool = False
    """Whether its values set a variable that the chart sets, too, in the same list: then only the last one is deployed."""
    needs: tuple[str, ...] = ()
    pod_security: PodSecurity = "restricted"
    further_namespaces: Mapping[str, PodSecurity] = field(default_factory=lambda: MappingProxyType({}))
    """Namespaces of its own beside `namespace`, each with its level and the CA bundle."""
    further_flows: Mapping[str, tuple[Flow, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By further namespace, what its pods open, to peers by address. They take no connection."""
    secrets: tuple[Secret, ...] = ()
    config_maps: tuple[ConfigMap, ...] = ()
    passwords: tuple[Password, ...] = ()
    before: tuple[Manifest, ...] = ()
    after: tuple[Manifest, ...] = ()
    crds: tuple[str, ...] = ()
    """Custom resource definitions that its chart brings, of which `after` and what needs this release have objects."""
    workloads: tuple[Workload, ...] = ()
    ca_bundle: str | None = None
    domain_key: str | None = None
    host: str | None = None
    login: Login | None = None
    people: tuple[Login, ...] = ()
    """First logins of people, whose passwords have to be changed then."""
    timeout_seconds: int = 600
    databases: tuple[Database, ...] = ()
    caches: tuple[Cache, ...] = ()
    storage: tuple[StorageAccess, ...] = ()
    clients: tuple[OidcClient, ...] = ()
    gitlab: tuple[GitLabAccess, ...] = ()
    flows: tuple[Flow, ...] = ()
    ports_for_ingress: tuple[int, ...] = ()
    """Ports of its pods that the ingress may reach."""
    ports_for_metrics: tuple[int, ...] = ()
    """Ports of its pods that the monitoring may reach."""
    jobs: tuple[Job, ...] = ()
    api_services: tuple[str, ...] = ()
    """APIServices by which it serves a part of the cluster's own API."""
    path: str = "/"
    """What a check asks under `https://<host>`, without being logged in."""
    other_hosts: tuple[str, ...] = ()
    """Further names under which users reach it."""
    missing: tuple[str, ...] = ()
    """What the user still has to give, a sentence each; shown in the outputs."""

    @classmethod
    def of(cls, chart: Chart, **fields: Any) -> Release:
        """A release of `chart`, a row of plan/versions.py; `fields` are the other fields of this class."""
        return cls(chart=chart.name, version=chart.version, repository=chart.repository, **fields)


@dataclass(frozen=True, kw_only=True)
class Override:
    """What a user changes of one tool; `values` are merged deep over the tool's own (a list replaces a list)."""

    enabled: bool = True
    placed: bool = False
    """Whether the user said which clusters carry it."""
    version: str | None = None
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    replicas: int | None = None
    storage: int | None = None
    """GB of each of its volumes."""
    timeout_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class WayOut:
    """A proxy to the web, by URL of each scheme, and what is not fetched through it (as NO_PROXY has it)."""

    http: str
    https: str
    no_proxy: str
    ports: tuple[int, ...]
    """Of the proxies, for the network policies."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a program that goes through it."""
        return proxies.variables(self.http, self.https, self.no_proxy)


@dataclass(frozen=True, kw_only=True)
class ToolInputs:
    """What the tools of one cluster depend on.

    `hosts`: service key (`keycloak`, `argocd`, …) to full name, those this cluster serves. `tools`: the tools this
    cluster carries, None for all. `replicas`: of what serves users and can have several. `certificate`: who signs the
    certificate of `*.domain`: cert-manager with the stack's intermediate, or the user provided it.
    `chart_repository`: URL of one Helm repository that holds every chart.
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
    load_balancers: tuple[str, ...] = ()
    """Addresses of the load balancers of all clusters: where the platform's public names lead to."""
    ingress_balancers: tuple[str, ...] = ()
    """Addresses of the load balancers' machines before this cluster's ingress, whose PROXY headers it believes."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose X-Forwarded-* headers are believed; HAProxy forwards plain TCP and sets none."""
    chart_repository: str | None = None
    metrics_server: Literal["rke2", "catalogue", "none"] = "rke2"
    """Who serves the cluster's resource metrics."""
    nodes_mirror: bool = False
    """Whether the platform's nodes ask its Harbor for images first."""
    ca_bundle: str | None = CA_BUNDLE
    """Name of the ConfigMap with the CA bundle. It follows what the settings add to it, so that a certificate that is
    added later makes new pods: programs read what they trust at their start."""
    trivy_databases: tuple[str, ...] | None = ()
    """Folders of registries with Trivy's databases; empty for the public ones, None where there are none to be had."""
    airgap: bool = False
    """Whether nothing on the web is within reach."""
    proxy: WayOut | None = None
    """The proxy that pods reach the web through, if there is one."""
    cluster: str = "standalone"
    clusters: tuple[str, ...] = ("standalone",)
    """Every cluster of the platform, this one among them: each is a tenant of the logs, metrics and traces."""
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Service key to the cluster that serves it, of the whole platform."""
    apis: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Cluster to the URL of its Kubernetes API, of the whole platform."""
    all_hosts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Service key to full name, of the whole platform: the VM's GitLab, and what other clusters serve."""
    present: frozenset[str] = frozenset()
    """The tools that this cluster carries; set by the catalogue. For what is wired only if the other side is there."""
    workers: int = 5
    masters: tuple[str, ...] = ()
    """Addresses of the cluster's masters: where the API server's own connections come from."""
    machines: tuple[str, ...] = ()
    """Addresses of all nodes of the cluster."""
    gitlab: str | None = None
    """Address of GitLab's machine."""
    machine_networks: tuple[str, ...] = ()
    """The subnets of all machines of the platform, without what opstella:network.neighbours names there: no pod reaches
    them as something outside."""
    pod_network: str = "172.16.72.0/22"
    service_network: str = "172.16.76.0/22"
    identity: Identity = Identity()
    object_store: ObjectStore = ObjectStore()
    vault: Vault = Vault()
    alerts: Alerts = Alerts()
    argocd: ArgoCd = ArgoCd()
    gitlab_runner: GitLabRunner = GitLabRunner()
    opstella: OpstellaApp = OpstellaApp()
    overrides: Mapping[str, Override] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool of the catalogue: its name, how its release follows from the inputs, and the service whose name it needs.

    `wanted` says whether these inputs give it anything to do; without that it is left out, as if it were switched off.
    """

    name: str
    release: Callable[[ToolInputs], Release]
    domain_key: str | None = None
    wanted: Callable[[ToolInputs], bool] = lambda inputs: True
