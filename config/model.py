"""`Settings`: everything a stack can be told, with the reference's figures as defaults.

Sizes are whole CPU cores and GB (2**30 bytes); times are seconds unless a name says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from config.clusters import Bastion, Cluster, GitLab
from config.key_types import HostKey, PemCertificate, PemKey, SecretText
from config.network_rules import Egress, NetworkRule
from config.projects import Project
from config.service_types import (
    ArchiveDigest,
    BucketName,
    ImageDigest,
    ImageReference,
    S3Endpoint,
    S3Folder,
    SecretName,
)
from config.services import Alerts, ArgoCd, GitLabRunner, Identity, ObjectStore, OpstellaApp, Vault
from config.types import (
    PLAIN,
    Address,
    ChartVersion,
    Cron,
    DnsLabel,
    DnsName,
    FileName,
    Flag,
    Frozen,
    Gigabytes,
    HostName,
    ImageFolder,
    NameServers,
    Network,
    NetworkProfile,
    Port,
    Rke2Version,
    Sha256,
    UserName,
    matching,
    whole,
)
from config.url_types import MirrorUrl, ProxyUrl, Unproxied, Url


class Machines(Frozen):
    """Where machines come from, and how strictly they are held to the plan."""

    source: Literal["existing"] = "existing"
    """`existing`: they run already and are reached over SSH."""
    size_check: Literal["warning", "error"] = "error"
    """What a machine smaller than planned is."""
    first_address: Annotated[int, whole(2, 200)] = 11
    """The first host number of a subnet from which addresses are allocated."""
    wait_seconds: Annotated[int, whole(10, 3600)] = 300
    """How long a machine may take to answer SSH."""
    rename: Flag = True
    """Whether a machine gets its planned name. A full name that begins with it stays in any case; with `false` every
    machine keeps the name that it has."""


class Ssh(Frozen):
    """How machines are reached."""

    user: UserName = "ops"
    """A user who may run any command by `sudo` without a password."""
    sudo: Flag = True
    """`false` where `user` is root already."""
    private_key: PemKey
    port: Port = 22
    host_keys: dict[DnsLabel, HostKey] = {}
    """Host name to public host key; a host not listed is recorded on first contact and held to that."""


class Tls(Frozen):
    """Where the certificate of `*.domain` comes from."""

    source: Literal["internal", "provided"] = "internal"
    certificate: PemCertificate | None = None
    chain: PemCertificate | None = None
    private_key: PemKey | None = None


class Intermediate(Frozen):
    """An intermediate CA that the user had signed by an offline root."""

    certificate: PemCertificate
    private_key: PemKey
    chain: PemCertificate
    """The certificates above it, up to and with the root."""


class Pki(Frozen):
    """The internal certificate authority."""

    organization: Annotated[str, Field(min_length=1, max_length=64), PLAIN] = "Opstella"
    root_years: Annotated[int, whole(1, 30)] = 15
    intermediate_years: Annotated[int, whole(1, 30)] = 10
    leaf_days: Annotated[int, whole(7, 397)] = 365
    """Lifetime of the leaves that this program signs itself (GitLab's); in-cluster leaves live 720 h."""
    intermediate: Intermediate | None = None


class Media(Frozen):
    """Where software is installed from."""

    source: Literal["online", "airgap"] = "online"
    artifacts: Url | None = None
    """Air-gap: the folder (URL) that holds the installation media under their real file names."""
    sha256: dict[FileName, Sha256] = {}
    """File name to SHA-256: in an air gap of each artifact; online, where wanted, of the scripts that are downloaded and
    run, `install.sh` (RKE2) and `script.deb.sh` or `script.rpm.sh` (GitLab)."""
    chart_repository: MirrorUrl | None = None
    """A Helm repository that holds every chart; by default each chart's own."""
    chart_digests: dict[str, ArchiveDigest] = {}
    """Tool to the digest of its chart's archive, as `./opstella charts` prints it: another archive is not installed."""
    registry_mirror: MirrorUrl | None = None
    """A registry that every image is pulled through."""
    registry_mirror_ca: PemCertificate | None = None
    allow_http: Flag = False
    """Whether `chart_repository` and `registry_mirror` may be `http://`: whoever is on the way can then exchange what runs."""
    image_digests: dict[ImageReference, ImageDigest] = {}
    """Image, as `./opstella images` lists it, to its digest: behind every reference that the stack itself writes, in the
    values of charts that take one, and in that list, by which a mirror is filled."""
    trivy_databases: ImageFolder | None = None
    """The folder of a registry that holds copies of Trivy's databases, `trivy-db` and `trivy-java-db`; by default the
    public ones, and in an air gap none: then Harbor scans nothing."""


class Time(Frozen):
    """Time servers, and how far a clock may be off them."""

    servers: tuple[HostName, ...] = ("0.pool.ntp.org", "1.pool.ntp.org", "2.pool.ntp.org")
    max_skew_seconds: Annotated[int, whole(1, 300)] = 30


class Dns(Frozen):
    """Name servers written to the hosts and given to pods, without a search domain; empty leaves what hosts have."""

    servers: NameServers = ()


class Networking(Frozen):
    """Whom the machines let in, and how the clusters' networks meet."""

    profile: NetworkProfile = "opstella"
    """The document whose firewall tables the machines open (docs/network.md)."""
    strict: Flag = True
    """Whether a row that is wider than need be is narrowed, and one that nothing uses left closed; `false` opens the
    profile's tables as they are written."""
    rules: tuple[NetworkRule, ...] = ()
    """What the machines let in beyond it."""
    egress: Egress = Egress()
    """What the machines may open themselves."""
    neighbours: tuple[Network, ...] = ()
    """Networks in the machines' subnets: what is there and not a machine of the stack, pods reach like anything outside."""
    mesh: Flag = False
    """Whether pod networks are routed between clusters, by whatever joins them: then they are disjoint."""


class Proxy(Frozen):
    """HTTP proxy for everything the hosts fetch."""

    http: ProxyUrl | None = None
    https: ProxyUrl | None = None
    no_proxy: tuple[Unproxied, ...] = ()


class EtcdS3(Frozen):
    """An object store outside of the platform that takes a copy of each snapshot.

    Inside would be a circle: whoever needs the snapshot has no cluster, and so no object store of the platform's.
    """

    endpoint: S3Endpoint
    bucket: BucketName
    folder: S3Folder = ""
    region: Annotated[str, matching(r"[a-z0-9-]+", "a region", "use a-z, 0-9 and '-', such as us-east-1")] = "us-east-1"
    access_key: SecretName
    """Name of a secret of opstella:secrets, as `secret_key`'s."""
    secret_key: SecretName


class EtcdSnapshots(Frozen):
    """Scheduled etcd snapshots on every master."""

    cron: Cron = "0 */6 * * *"
    retention: Annotated[int, whole(1, 1000)] = 5
    s3: EtcdS3 | None = None


class Kubernetes(Frozen):
    """RKE2."""

    version: Rke2Version | None = None
    """`None` takes the version in plan/versions.py."""
    cni: Literal["calico", "cilium"] = "calico"
    """The network plugin of every cluster. It cannot be changed on a cluster that exists."""
    encrypt_pods: Flag = False
    """Whether the network plugin encrypts what pods of different nodes say to each other, by WireGuard."""
    cis_profile: Flag = False
    registry_mirror: Literal["harbor", "none"] = "harbor"
    """Whether nodes ask the platform's Harbor for images first; they fall back to the images' own registries."""
    workers_at_once: Annotated[int, whole(1, 100)] = 10
    """How many workers of a cluster join, or restart for an upgrade, side by side."""
    metrics_server: Literal["rke2", "catalogue", "none"] = "rke2"
    """Who serves the resource metrics: RKE2's packaged metrics-server, the catalogue's, or nobody. Without them there
    are no autoscalers."""
    etcd_snapshots: EtcdSnapshots = EtcdSnapshots()
    projects: dict[DnsLabel, Project] = {}
    """Namespaces for people, by name."""


class Firewall(Frozen):
    """The hosts' own packet filter."""

    enabled: Flag = True
    operator_networks: tuple[Network, ...] = ()
    """From where the bastion may be reached by SSH, and the API at the load balancer; empty means anywhere."""
    ssh_per_minute: Annotated[int, whole(60, 100000)] | None = None
    """New SSH connections that a machine takes from one address in a minute, half of it at once. `None`: as many as the
    program itself needs (plan/access.py)."""
    rollback_seconds: Annotated[int, whole(20, 600)] = 300
    """A new ruleset is undone after this time unless a new SSH connection confirms it. The engine carries out a bounded
    number of steps at a time: of a large fleet's first deployment, the confirmation of one machine stands in a queue
    behind the preparation of all others."""


class Tool(Frozen):
    """One tool of the catalogue."""

    enabled: Flag = True
    clusters: tuple[DnsLabel, ...] | None = None
    """Where it lives; `None`: as in the reference (config/reference.py), as far as there are such clusters."""
    version: ChartVersion | None = None
    replicas: Annotated[int, whole(1, 50)] | None = None
    """Pods of what serves users; `None`: one, or two in a cluster of several masters."""
    storage: Gigabytes | None = None
    """Size of each volume that the tool keeps its data on; `None`: the tool's own default."""
    timeout_seconds: Annotated[int, whole(30, 7200)] | None = None
    """For all its pods to become ready; `None`: the tool's own default."""
    values: dict[str, Any] = {}


class Settings(Frozen):
    """A whole stack."""

    architecture: Literal["standalone", "multicluster", "custom"]
    domain: DnsName
    ssh: Ssh
    machines: Machines = Machines()
    bastion: Bastion = Bastion()
    gitlab: GitLab = GitLab()
    clusters: dict[DnsLabel, Cluster]
    domains: dict[str, DnsLabel]
    tls: Tls = Tls()
    pki: Pki = Pki()
    media: Media = Media()
    time: Time = Time()
    dns: Dns = Dns()
    network: Networking = Networking()
    proxy: Proxy = Proxy()
    extra_ca_certificates: tuple[PemCertificate, ...] = ()
    kubernetes: Kubernetes = Kubernetes()
    firewall: Firewall = Firewall()
    tools: dict[str, Tool] = {}
    identity: Identity = Identity()
    object_store: ObjectStore = ObjectStore()
    vault: Vault = Vault()
    alerts: Alerts = Alerts()
    argocd: ArgoCd = ArgoCd()
    gitlab_runner: GitLabRunner = GitLabRunner()
    opstella: OpstellaApp = OpstellaApp()
    not_secret: tuple[str, ...] = ()
    """Paths of plain values that look like secrets and are none, as a message names them, without `opstella:`."""
    secrets: dict[DnsLabel, SecretText] = {}
    """Secrets that other settings name; encrypted, by `pulumi config set --secret --path opstella:secrets.NAME`."""

    @property
    def enabled_clusters(self) -> dict[str, Cluster]:
        """The clusters that are there, in the settings' order: the first one's subnet holds bastion and GitLab."""
        return {name: cluster for name, cluster in self.clusters.items() if cluster.enabled}

    def virtual_addresses(self, owner: str) -> dict[str, Address]:
        """Cluster to its virtual address, of all clusters that the load balancer of `owner` serves."""
        return {
            name: cluster.load_balancer.virtual_address
            for name, cluster in self.enabled_clusters.items()
            if (cluster.load_balancer.shared_with or name) == owner and cluster.load_balancer.virtual_address
        }
