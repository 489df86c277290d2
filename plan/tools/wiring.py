"""What tools declare to need becomes what provides it: databases, cache users, bucket credentials, the realm's clients.

Each need becomes objects of the tool that declares it (passwords, Secrets, a database cluster), entries at its provider
(MinIO, Keycloak, Valkey: in the same cluster, or in another one of the platform) and an order. The result is data: the
same releases, longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from config.errors import ConfigurationError, Problem, key
from plan import gitlab
from plan.tools import availability, cloudnative_pg, externals, keycloak, minio_buckets, valkey
from plan.tools.absent import far_store, left_out, missing_needs, nameless_gitlab
from plan.tools.common import OBJECT_STORE, merge
from plan.tools.model import Release, ToolInputs
from plan.tools.needs import (
    GITLAB,
    PUBLIC,
    Cache,
    Flow,
    GitLabAccess,
    OidcClient,
    StorageAccess,
    elsewhere,
)
from plan.tools.order import mounts_first
from plan.tools.order import needs_of as needs_of
from plan.tools.order import ordered as ordered
from plan.tools.policies import policies as network_policies
from plan.tools.sources import Clear, Generated, Password, Secret, Source

DATABASES, CACHE, STORE, LOGIN = cloudnative_pg.NAME, valkey.NAME, minio_buckets.NAME, keycloak.NAME
# A Secret of each provider, with the password of everybody it serves: key is the user, or the client's id.
SECRETS = {CACHE: valkey.USERS_SECRET, STORE: minio_buckets.USERS_SECRET, LOGIN: keycloak.CLIENTS_SECRET}

ASKED = {
    CACHE: "its keys in the cache",
    STORE: "its buckets in the object store",
    LOGIN: "logins: the realm's keys and tokens",
    GITLAB: "the API of GitLab",
}
"""Why a tool speaks to a provider."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A cluster of the platform: what its tools depend on, and their releases as the tools declare them."""

    inputs: ToolInputs
    releases: tuple[Release, ...]

    def carries(self, tool: str) -> bool:
        return any(release.name == tool for release in self.releases)


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one provider gives to whom. Its password belongs to `cluster`; `external` needs stand in no catalogue."""

    what: Cache | StorageAccess | OidcClient
    cluster: str
    external: bool = False


def wire(members: Mapping[str, Member]) -> dict[str, tuple[Release, ...]]:
    """The releases of every cluster with all that their needs imply, each after what it needs.

    Raises ConfigurationError: a provider that somebody needs is left out, two declare the same user or client, or pods
    mount what waits for them.
    """
    problems: list[Problem] = []
    served: dict[tuple[str, str], list[Served]] = {}
    wired = {
        cluster: [_declared(member, release, members, served, problems) for release in member.releases]
        for cluster, member in members.items()
    }
    for cluster in members:
        for where, asked in _external(cluster, members).items():
            served.setdefault(where, []).extend(asked)
    for (_, provider), asked in served.items():
        problems += _twice(provider, asked)
    stored = [one.what for (_, provider), asked in served.items() if provider == STORE for one in asked]
    problems += minio_buckets.strange([m.inputs for m in members.values()], stored)
    for cluster, releases in wired.items():
        inputs = members[cluster].inputs
        releases[:] = _shared(releases)
        releases[:] = [_provider(r, cluster, inputs, served.get((cluster, r.name), ())) for r in releases]
        # A Job trusts the stack's authorities, also where its tool does not ask for them.
        releases[:] = [replace(r, ca_bundle=r.ca_bundle or inputs.ca_bundle) if r.jobs else r for r in releases]
        problems += missing_needs(releases, inputs)
        releases[:] = mounts_first(releases, problems)
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)), "tools")
    return {cluster: _guarded(members[cluster].inputs, ordered(releases)) for cluster, releases in wired.items()}


def _guarded(inputs: ToolInputs, releases: tuple[Release, ...]) -> tuple[Release, ...]:
    """`releases` with their network policies, which stand before anything runs, and what keeps them available."""
    policies = network_policies(inputs, releases)
    return tuple(
        replace(r, before=(*policies[r.name], *r.before), after=(*r.after, *availability.manifests(r, inputs.workers)))
        for r in releases
    )


def needs_gitlab(release: Release) -> bool:
    """Whether anything of `release` uses GitLab on its machine, or waits for it."""
    return bool(release.gitlab) or GITLAB in (*release.needs, *(n for job in release.jobs for n in job.needs))


def place(tool: str, cluster: str, members: Mapping[str, Member]) -> str | None:
    """The cluster whose `tool` serves `cluster`: its own, else the first that carries it."""
    return next((c for c in (cluster, *members) if c in members and members[c].carries(tool)), None)


def password_of(need: Cache | StorageAccess | OidcClient | GitLabAccess) -> str | None:
    """Name of the Password behind `need`; a public client has none."""
    if isinstance(need, GitLabAccess):
        return gitlab.password(need.purpose)
    if isinstance(need, OidcClient):
        return None if need.public else f"client-{need.client_id}"
    return f"valkey-{need.user}" if isinstance(need, Cache) else f"s3-{need.user}"


def user_of(need: Cache | StorageAccess | OidcClient) -> str:
    """Whom its provider knows it as."""
    return need.client_id if isinstance(need, OidcClient) else need.user


def _secret_of(need: Cache | StorageAccess | OidcClient | GitLabAccess, namespace: str) -> Secret | None:
    """The Secret by which the tool itself knows what it was given, if it wants one."""
    if need.secret is None:
        return None
    name = password_of(need)
    password = Generated(password=name) if name else None
    data: dict[str, Source] = {}
    if isinstance(need, GitLabAccess) and password:
        data = {need.secret_key: password}
    elif isinstance(need, Cache):
        data = {k: password for k in need.keys if password}
    elif isinstance(need, StorageAccess) and password:
        data = {need.access_key: Clear(text=need.user), need.secret_key: password, **need.extra}
    elif isinstance(need, OidcClient):
        data = {**({need.secret_key: password} if password else {}), **need.extra}
    labels = need.labels if isinstance(need, OidcClient) else {}
    return Secret(name=need.secret, namespace=namespace, data=data, labels=labels)


def _declared(
    member: Member,
    release: Release,
    members: Mapping[str, Member],
    served: dict[tuple[str, str], list[Served]],
    problems: list[Problem],
) -> Release:
    """`release` with its own side of everything it declares; what it asks of providers is added to `served`."""
    cluster = member.inputs.cluster
    needs: list[str] = []
    secrets = [cloudnative_pg.owner_secret(d, release.namespace) for d in release.databases]
    passwords = [Password(name=d.name) for d in release.databases]
    archive = _archive(member, members, release.namespace) if release.databases else None
    if archive:
        secrets.append(cloudnative_pg.backup_secret(archive, externals.DATABASE_BACKUPS, release.namespace))
    databases = [cloudnative_pg.cluster(member.inputs, d, release.namespace, archive) for d in release.databases]
    for database in release.databases:
        if database.platform_certificate:
            databases.append(cloudnative_pg.certificate(database, release.namespace, member.inputs))
            secrets.append(cloudnative_pg.authorities(database, release.namespace, member.inputs))
    flows = [flow for d in release.databases for flow in cloudnative_pg.flows(d, archive)]
    for provider, wanted in ((CACHE, release.caches), (STORE, release.storage), (LOGIN, release.clients)):
        where = place(provider, cluster, members)
        if where is not None and provider == CACHE and where != cluster:
            where = None  # it answers inside its own cluster only
        if wanted and where is None and not _elsewhere(provider, member.inputs, members):
            problems.append(left_out(release.name, provider, member.inputs))
        if where not in (None, cluster) and any(isinstance(n, StorageAccess) and n.near for n in wanted):
            problems.append(far_store(release.name, str(where), member.inputs))
        if wanted and where == cluster and provider != release.name:
            needs.append(provider)
        # In another cluster, only where it would end in failure: clusters come up side by side.
        if where not in (None, cluster) and any(isinstance(w, OidcClient) and w.asked_at_start for w in wanted):
            needs.append(elsewhere(where, provider))
        if wanted:
            flows.append(_flow(provider, here=where == cluster))
        for need in wanted:
            if name := password_of(need):
                passwords.append(Password(name=name))
            if secret := _secret_of(need, release.namespace):
                secrets.append(secret)
            if where is not None:
                served.setdefault((where, provider), []).append(Served(what=need, cluster=cluster))
    if needs_gitlab(release):
        if GITLAB not in member.inputs.all_hosts:
            problems.append(nameless_gitlab(release.name))
        flows.append(_flow(GITLAB, here=False))
    for access in release.gitlab:
        passwords.append(Password(name=gitlab.password(access.purpose), length=gitlab.TOKEN_LENGTH))
        secrets.append(_secret_of(access, release.namespace))
    return replace(
        release,
        needs=tuple(dict.fromkeys((*release.needs, *(n for m in databases for n in m.needs), *needs))),
        secrets=(*release.secrets, *secrets),
        passwords=(*release.passwords, *passwords),
        before=(*databases, *release.before),
        after=(*release.after, *(cloudnative_pg.schedule(d, release.namespace) for d in release.databases if archive)),
        flows=(*release.flows, *flows),
    )


def _shared(releases: Sequence[Release]) -> Iterator[Release]:
    """`releases`; GitLab's token for a purpose is one Password, which the first of those that use it declares."""
    known: set[str] = set()
    for release in releases:
        tokens = {gitlab.password(access.purpose) for access in release.gitlab}
        yield replace(release, passwords=tuple(p for p in release.passwords if p.name not in tokens & known))
        known |= tokens


def _archive(member: Member, members: Mapping[str, Member], namespace: str) -> cloudnative_pg.Archive | None:
    """Where the databases of a namespace are backed up to, if the platform has an object store."""
    cluster = member.inputs.cluster
    where = place(STORE, cluster, members)
    if where is None:
        return None
    path = f"s3://{externals.DATABASE_BACKUPS}/{cluster}/{namespace}"
    if where == cluster:
        return cloudnative_pg.Archive(endpoint=f"http://{OBJECT_STORE}", path=path)
    host = members[where].inputs.hosts["minioApi"]
    return cloudnative_pg.Archive(endpoint=f"https://{host}", path=path, foreign=where)


def _flow(provider: str, *, here: bool) -> Flow:
    """To a provider. Keycloak is spoken to by its public name also where it is near: that is the tokens' issuer."""
    ports = {CACHE: 6379, STORE: 9000}
    why = ASKED[provider]
    if here and provider in ports:
        return Flow(peer=provider, ports=(ports[provider],), why=why)
    return Flow(peer=PUBLIC, ports=(443,), why=why)


def _elsewhere(provider: str, inputs: ToolInputs, members: Mapping[str, Member]) -> bool:
    """Whether another cluster, whose releases are not at hand, serves `provider`."""
    absent = set(inputs.clusters) - set(members)
    if any(cluster in absent for service, cluster in inputs.places.items() if service.startswith(provider)):
        return True
    return not inputs.places and provider not in inputs.hosts and any(s.startswith(provider) for s in inputs.all_hosts)


def _external(cluster: str, members: Mapping[str, Member]) -> dict[tuple[str, str], list[Served]]:
    """What stands outside the catalogue asks of this cluster's providers."""
    inputs = members[cluster].inputs
    first = {provider: place(provider, "", members) == cluster for provider in (STORE, LOGIN)}
    asked = {STORE: externals.storage(inputs, first=first[STORE]), LOGIN: externals.clients(inputs) if first[LOGIN] else ()}
    return {
        (cluster, provider): [Served(what=need, cluster=cluster, external=True) for need in needs]
        for provider, needs in asked.items()
        if members[cluster].carries(provider)
    }


def _provider(release: Release, cluster: str, inputs: ToolInputs, needs: Sequence[Served]) -> Release:
    """`release` with the entries of everybody it serves, if it is a provider."""
    if release.name not in SECRETS:
        return release
    named = [(served, name) for served in needs if (name := password_of(served.what))]
    users = Secret(
        name=SECRETS[release.name],
        namespace=release.namespace,
        data={
            user_of(served.what): Generated(password=name, cluster=None if served.cluster == cluster else served.cluster)
            for served, name in named
        },
    )
    changed = replace(
        release,
        secrets=(*release.secrets, users),
        passwords=(*release.passwords, *(Password(name=name) for served, name in named if served.external)),
    )
    whats = [served.what for served in needs]
    if release.name == CACHE:
        return replace(changed, values=merge(valkey.acl(whats), release.values))
    provisioning = minio_buckets.provisioning if release.name == STORE else keycloak.provisioning
    return replace(changed, jobs=(provisioning(whats, inputs), *release.jobs))


def _twice(provider: str, needs: Sequence[Served]) -> Iterator[Problem]:
    """A problem for each name that `provider` would have to know two parties by."""
    names = [user_of(served.what) for served in needs]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield Problem(
            key("tools", provider), f"two ask {provider} for the name '{name}'", "leave one of the tools that do out"
        )
