"""Settings of what the tools do together: logins, object store, Vault, alerts, deployments, Opstella's own services."""

from __future__ import annotations

from typing import Annotated, Literal

from config.service_types import (
    BucketName,
    CallbackPath,
    Email,
    GitUrl,
    GroupPath,
    ImageReference,
    PersonName,
    PgpKey,
    RepositoryFolder,
    Revision,
    RunnerTag,
    SealType,
    SecretName,
    SmartHost,
    UserLogin,
    VariableName,
)
from config.types import PLAIN, DnsLabel, Flag, Frozen, Port, whole


class User(Frozen):
    """A person's account, with a first password that has to be changed at the first login."""

    email: Email | None = None
    """`None`: `<name>@<domain>`."""
    first_name: PersonName = ""
    last_name: PersonName = ""
    groups: tuple[Literal["platform-admins", "developers", "viewers"], ...] = ("viewers",)


class Identity(Frozen):
    """The realm of all tools in Keycloak."""

    realm: DnsLabel = "opstella"
    adopt: Flag = False
    """Take over a realm of this name that exists and was not made by this stack."""
    master_console: Flag = False
    """Whether Keycloak's own administrator, of the realm `master`, can log in at Keycloak's public name."""
    users: dict[UserLogin, User] = {"opstella-admin": User(groups=("platform-admins",))}


class ObjectStore(Frozen):
    """Buckets of the platform's own MinIO."""

    adopt: tuple[BucketName, ...] = ()
    """Buckets that exist, were not made by this stack, and are to be taken over."""


class VaultSeal(Frozen):
    """A seal stanza of Vault's configuration (`transit`, `awskms`, `azurekeyvault`, `gcpckms`, …)."""

    type: SealType
    parameters: dict[str, str] = {}
    environment: dict[VariableName, SecretName] = {}
    """Variable to the name of a secret of opstella:secrets, for the seal's credentials."""


class Vault(Frozen):
    """How Vault is unsealed."""

    unseal: Literal["secret", "pgp", "auto"] = "secret"
    """`secret`: shares in a Kubernetes Secret that one unsealer reads; `pgp`: each share encrypted for a custodian, who
    unseals by hand after a restart; `auto`: by `seal`."""
    shares: Annotated[int, whole(1, 16)] = 5
    threshold: Annotated[int, whole(1, 16)] = 3
    pgp_keys: tuple[PgpKey, ...] = ()
    """Of `pgp` (and of the recovery keys of `auto`): a public key a share, as `gpg --export | base64` prints it."""
    seal: VaultSeal | None = None


class Mail(Frozen):
    """A mail server for alerts."""

    smarthost: SmartHost
    sender: Email
    to: tuple[Email, ...]
    username: Annotated[str, PLAIN] | None = None
    password: SecretName | None = None
    """Name of a secret of opstella:secrets."""


class Alerts(Frozen):
    """Where alerts go; without a receiver they are only shown."""

    webhook: SecretName | None = None
    """Name of a secret of opstella:secrets that holds the URL."""
    mail: Mail | None = None


class GitRepository(Frozen):
    """A repository that Argo CD may read."""

    url: GitUrl
    username: Annotated[str, PLAIN] | None = None
    password: SecretName | None = None
    """Name of a secret of opstella:secrets."""


class Apps(Frozen):
    """The app of apps: a folder of Argo CD Applications."""

    repository: DnsLabel
    """A key of opstella:argocd.repositories."""
    path: RepositoryFolder = "apps"
    revision: Revision = "HEAD"


class ArgoCd(Frozen):
    """What Argo CD deploys."""

    repositories: dict[DnsLabel, GitRepository] = {}
    apps: Apps | None = None


class RunnerJobs(Frozen):
    """The build container of each CI job; it has no CPU limit."""

    image: ImageReference | None = None
    """For jobs that name none; `None`: Debian's."""
    cpu_millicores: Annotated[int, whole(10, 64_000)] = 100
    memory_mb: Annotated[int, whole(32, 1_048_576)] = 256
    memory_limit_mb: Annotated[int, whole(32, 1_048_576)] = 2048


class GitLabRunner(Frozen):
    """The GitLab Runner in the cluster, an instance runner: it takes jobs of every project.

    Other tags make another runner in GitLab in place of the former, whose running jobs fail.
    """

    tags: tuple[RunnerTag, ...] = ()
    untagged: Flag = True
    """Whether it takes jobs without a tag too."""
    concurrent: Annotated[int, whole(1, 200)] = 4
    """Jobs at the same time."""
    push_groups: tuple[GroupPath, ...] = ()
    """Groups of GitLab (full paths) whose pipelines get the login by which they push to Harbor's project `library`. One
    on the top level is made, private and without members, if it is not there."""
    jobs: RunnerJobs = RunnerJobs()


class OpstellaPart(Frozen):
    """One of Opstella's own services; it is licensed, so its image is the user's to name."""

    image: ImageReference | None = None
    """`None`: it is left out, and the outputs say so."""
    port: Port = 8080
    callback_paths: tuple[CallbackPath, ...] = ("/*",)
    """Where Keycloak may send people back to after their login; `/*` is everywhere below the service's own name."""
    environment: dict[VariableName, str] = {}
    """A value may name what the platform gives (plan/tools/opstella.py) as `$(NAME)`."""
    secret_environment: dict[VariableName, SecretName] = {}
    """Variable to the name of a secret of opstella:secrets."""


class OpstellaApp(Frozen):
    """Opstella's own services."""

    ui: OpstellaPart = OpstellaPart()
    core: OpstellaPart = OpstellaPart()
    clear_session: OpstellaPart = OpstellaPart()
    pull_secret: SecretName | None = None
    """Name of a secret of opstella:secrets: a Docker configuration (JSON) with the registry's credentials."""
