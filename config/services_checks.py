"""Cross-field checks of the tools' settings: secrets and who names them, Vault's shares, logins, repositories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from config.circular import check_seal, check_snapshots
from config.errors import REMOVE, Problem, key
from config.model import Settings
from config.pem import ENCRYPTED
from config.placement import PLACES_READ
from config.plain_secrets import check_plain

Check = tuple[tuple[str, ...], Callable[[Settings], Iterator[Problem]]]


def uses(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every setting that names a secret of opstella:secrets, and the name."""
    alerts, app, seal = settings.alerts, settings.opstella, settings.vault.seal
    if alerts.webhook:
        yield key("alerts.webhook"), alerts.webhook
    if alerts.mail and alerts.mail.password:
        yield key("alerts.mail.password"), alerts.mail.password
    for name, repository in settings.argocd.repositories.items():
        if repository.password:
            yield key("argocd.repositories", name, "password"), repository.password
    for variable, secret in (seal.environment if seal else {}).items():
        yield key("vault.seal.environment", variable), secret
    for name, part in (("ui", app.ui), ("core", app.core), ("clearSession", app.clear_session)):
        for variable, secret in part.secret_environment.items():
            yield key("opstella", name, "secretEnvironment", variable), secret
    if app.pull_secret:
        yield key("opstella.pullSecret"), app.pull_secret
    if s3 := settings.kubernetes.etcd_snapshots.s3:
        yield key("kubernetes.etcdSnapshots.s3.accessKey"), s3.access_key
        yield key("kubernetes.etcdSnapshots.s3.secretKey"), s3.secret_key


def unused(settings: Settings) -> list[str]:
    """The secrets that no setting names."""
    used = {name for _, name in uses(settings)}
    return [name for name in settings.secrets if name not in used]


def _named(settings: Settings) -> Iterator[Problem]:
    for where, name in uses(settings):
        if name not in settings.secrets:
            there = ", ".join(settings.secrets) or "none"
            yield Problem(
                where,
                f"it names the secret '{name}', and {key('secrets', name)} is missing (there: {there})",
                f"pulumi config set --secret --path opstella:secrets.{name} (it reads standard input), or correct the name",
            )


def _texts(settings: Settings) -> Iterator[Problem]:
    """Secrets whose form is known; no message repeats their text."""

    def text(name: str | None) -> str | None:
        found = settings.secrets[name].get_secret_value() if name in settings.secrets else None
        return None if found == ENCRYPTED.strip() else found

    webhook = text(settings.alerts.webhook)
    if webhook is not None and not _web(webhook):
        yield Problem(
            key("secrets", settings.alerts.webhook),
            f"{key('alerts.webhook')} needs a URL, and this is none",
            "encrypt the webhook's whole URL: https://…",
        )
    login = text(settings.opstella.pull_secret)
    if login is not None and not _docker_configuration(login):
        yield Problem(
            key("secrets", settings.opstella.pull_secret),
            f"{key('opstella.pullSecret')} needs a Docker configuration (JSON with auths), and this is none",
            'encrypt a text such as {"auths": {"registry.example.com": {"auth": "…"}}}, as docker login writes it',
        )


def _web(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(c.isspace() for c in text)


def _docker_configuration(text: str) -> bool:
    try:
        document = json.loads(text)
    except ValueError:
        return False
    auths = document.get("auths") if isinstance(document, dict) else None
    return isinstance(auths, dict) and bool(auths)


def _vault(settings: Settings) -> Iterator[Problem]:
    vault = settings.vault
    shares, threshold, keys = vault.shares, vault.threshold, len(vault.pgp_keys)
    if threshold > shares:
        yield Problem(
            key("vault.threshold"),
            f"{threshold} shares are to unseal, and there are {shares}: opstella:vault.shares",
            f"write {shares} or less",
            {("vault", "threshold"): shares},
        )
    elif threshold == 1 and shares > 1:
        yield Problem(
            key("vault.threshold"),
            f"one share would unseal alone, so that {shares} (opstella:vault.shares) protect nothing; Vault refuses it",
            "write 2 or more, or shares: 1",
            {("vault", "threshold"): 2},
        )
    if vault.unseal == "secret" and keys:
        yield Problem(
            key("vault.pgpKeys"),
            "keys are given, but opstella:vault.unseal is secret, which uses none",
            "set vault.unseal to pgp, or remove them",
        )
    elif keys != shares and (vault.unseal == "pgp" or keys):
        yield Problem(
            key("vault.pgpKeys"),
            f"{keys} {'key' if keys == 1 else 'keys'} for {shares} shares: opstella:vault.shares",
            "give one public key for each share, or as many shares as there are keys",
        )
    if vault.unseal == "auto" and vault.seal is None:
        yield Problem(
            key("vault.seal"),
            "opstella:vault.unseal is auto, but no seal is described",
            "describe it (type, parameters), or set vault.unseal to secret or pgp",
        )
    if vault.unseal != "auto" and vault.seal is not None:
        yield Problem(
            key("vault.seal"),
            f"a seal is described, but opstella:vault.unseal is {vault.unseal}",
            "set vault.unseal to auto, or remove the seal",
        )


def _gitlab_runner(settings: Settings) -> Iterator[Problem]:
    runner = settings.gitlab_runner
    if not runner.untagged and not runner.tags:
        yield Problem(
            key("gitlabRunner.untagged"),
            "the runner takes no job without a tag, and opstella:gitlabRunner.tags names none",
            "name a tag, or set untagged to true",
        )
    if runner.jobs.memory_limit_mb < runner.jobs.memory_mb:
        yield Problem(
            key("gitlabRunner.jobs.memoryLimitMb"),
            f"a job asks for {runner.jobs.memory_mb} MB and may have {runner.jobs.memory_limit_mb}",
            f"write {runner.jobs.memory_mb} or more, or less in opstella:gitlabRunner.jobs.memoryMb",
            {("gitlabRunner", "jobs", "memoryLimitMb"): runner.jobs.memory_mb},
        )


# Accounts that tools have of their own, and that this stack makes in them.
_TAKEN_LOGINS = ("admin", "opstella-automation", "opstella-ci", "opstella-reader", "opstella-root", "root")


def _identity(settings: Settings) -> Iterator[Problem]:
    users = settings.identity.users
    if settings.identity.realm.startswith("master"):
        yield Problem(
            key("identity.realm"),
            "the realm master is that of Keycloak's own administrator, and closed at the public name with all whose name"
            " begins so",
            "write another name, such as opstella",
        )
    for name in users:
        if name in _TAKEN_LOGINS:
            yield Problem(
                key("identity.users", name),
                f"{name} is the name of an account that tools have of their own",
                f"give the user another name; taken are {', '.join(_TAKEN_LOGINS)}",
            )
    if not any("platform-admins" in user.groups for user in users.values()):
        there = ", ".join(f"{name} ({', '.join(user.groups) or 'no group'})" for name, user in users.items())
        yield Problem(
            key("identity.users"),
            f"no user is in platform-admins, so no user could administer the tools; there are: {there or 'no user'}",
            "add platform-admins to the groups of one user",
        )
    mails: dict[str, str] = {}
    for name, user in users.items():
        mail = (user.email or f"{name}@{settings.domain}").lower()
        if mail in mails:
            yield Problem(
                key("identity.users", name, "email"),
                f"{mail} is the address of {mails[mail]} too, and the realm takes each once",
                "give each user an address of their own",
            )
        mails.setdefault(mail, name)


def _mail(settings: Settings) -> Iterator[Problem]:
    mail = settings.alerts.mail
    if mail is not None:
        yield from _both(key("alerts.mail"), mail.username, mail.password)
        if not mail.to:
            yield Problem(
                key("alerts.mail.to"), "the list is empty: no one would get the mail", "name one address or more"
            )


def _repositories(settings: Settings) -> Iterator[Problem]:
    for name, repository in settings.argocd.repositories.items():
        yield from _both(key("argocd.repositories", name), repository.username, repository.password)


def _both(where: str, username: str | None, password: str | None) -> Iterator[Problem]:
    """A user name and a password come together."""
    if (username is None) != (password is None):
        given, missing = ("username", "password") if password is None else ("password", "username")
        yield Problem(
            f"{where}.{missing}",
            f"it is missing, and {where}.{given} is given",
            "give both, or none where no login is wanted",
        )


def _apps(settings: Settings) -> Iterator[Problem]:
    apps, repositories = settings.argocd.apps, settings.argocd.repositories
    if apps is not None and apps.repository not in repositories:
        yield Problem(
            key("argocd.apps.repository"),
            f"there is no repository '{apps.repository}' in opstella:argocd.repositories (there: "
            f"{', '.join(repositories) or 'none'})",
            f"describe opstella:argocd.repositories.{apps.repository}, or name another",
        )


def _twice(settings: Settings) -> Iterator[Problem]:
    app = settings.opstella
    for name, part in (("ui", app.ui), ("core", app.core), ("clearSession", app.clear_session)):
        for variable in part.environment:
            if variable in part.secret_environment:
                yield Problem(
                    key("opstella", name, "environment", variable),
                    f"{key('opstella', name, 'secretEnvironment', variable)} gives the same variable",
                    "remove it here, or there",
                    {("opstella", name, "environment", variable): REMOVE},
                )


def _metrics(settings: Settings) -> Iterator[Problem]:
    tool = settings.tools.get("metrics-server")
    if settings.kubernetes.metrics_server == "catalogue" and tool is not None and not tool.enabled:
        yield Problem(
            key("kubernetes.metricsServer"),
            f"the catalogue's metrics-server is to serve metrics, but {key('tools.metrics-server.enabled')} is false",
            "write none to go without metrics, rke2 for RKE2's own, or enable the tool",
        )


_ENVIRONMENTS = ("opstella.*.environment.**", "opstella.*.secretEnvironment.**")
_NAMES = (
    "alerts.webhook", "alerts.mail.password", "argocd.repositories.*.password", "vault.seal.environment.**",
    "opstella.*.secretEnvironment.**", "opstella.pullSecret", "kubernetes.etcdSnapshots.s3.**",
)  # fmt: skip

CHECKS: tuple[Check, ...] = (
    (("secrets.**", *_NAMES), _named),
    (("secrets.**", "alerts.webhook", "opstella.pullSecret"), _texts),
    (("vault.**",), _vault),
    (("gitlabRunner.**",), _gitlab_runner),
    (("identity.**", "domain"), _identity),
    (("alerts.mail.**",), _mail),
    (("argocd.repositories.*.*",), _repositories),
    (("argocd.**",), _apps),
    (_ENVIRONMENTS, _twice),
    (("kubernetes.etcdSnapshots.s3.**", *PLACES_READ, "domains.**", "domain", "clusters.**"), check_snapshots),
    (("vault.seal.**", *PLACES_READ, "domains.**", "domain"), check_seal),
    (("kubernetes.metricsServer", "tools.metrics-server.enabled"), _metrics),
    (("tools.*.values.**", *_ENVIRONMENTS, "vault.seal.**", "notSecret.**"), check_plain),
)
