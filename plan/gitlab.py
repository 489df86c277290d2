"""GitLab Omnibus: the text of gitlab.rb, and the access tokens by which the platform's tools use GitLab.

Certificate and key lie at Omnibus' default paths (/etc/gitlab/ssl/<host>.crt and .key), so no key names them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any

from plan.contract.rule import Rule, need
from plan.limits import GITLAB_BODY, GITLAB_READ
from plan.tools.externals import GITLAB_BUCKETS
from plan.tools.model import Release
from plan.tools.needs import GitLabPurpose

HTTP, HTTPS, SSH, PROMETHEUS = 80, 443, 22, 9090  # the reference's firewall table
FLOWS = (
    need("GitLab", "any", "gitlab", (HTTP, HTTPS), "GitLab web", "people, tools and jobs use GitLab"),
    need("GitLab", "any", "gitlab", (SSH,), "Git over SSH", "people push by SSH"),
)
# What GitLab itself uses of the platform, by the platform's public names.
LOGIN = need("GitLab", "gitlab", "haproxy", (443,), "OIDC", "GitLab asks Keycloak who somebody is")
OBJECTS = need("GitLab", "gitlab", "haproxy", (443,), "S3", "GitLab keeps artifacts and uploads in the object store")

Ruby = str | int | bool | list[Any] | dict[str, Any]
# GitLab's word for a kind of object, where the bucket is not called as it.
_KINDS = {"mr-diffs": "external_diffs"}


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """The realm by which people log in: GitLab is its client `gitlab`."""

    issuer: str
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ObjectStorage:
    """The platform's object store; `endpoint` is its URL as the machine reaches it, `secret` the user gitlab's."""

    endpoint: str
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user of GitLab to whom tokens of the platform belong; nobody logs in as it."""

    username: str
    name: str
    administrator: bool


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """Who a tool is in GitLab, and what its token may do there."""

    account: Account
    scopes: tuple[str, ...]


AUTOMATION = Account(username="opstella-automation", name="Opstella automation", administrator=True)
READER = Account(username="opstella-reader", name="Opstella reader", administrator=False)
PURPOSES: Mapping[GitLabPurpose, Purpose] = MappingProxyType(
    {
        # Runners and CI variables of the whole instance are an administrator's to make.
        "runners": Purpose(account=AUTOMATION, scopes=("create_runner",)),
        "ci-variables": Purpose(account=AUTOMATION, scopes=("api",)),
        # Sees what everybody who is logged in sees, and the groups that it is made a member of.
        "sonarqube": Purpose(account=READER, scopes=("read_api",)),
    }
)
TOKEN_LENGTH = 20
"""GitLab's own rule for a token whose value is given."""
LIFETIME_DAYS = 365
"""The longest that GitLab allows a token to live."""


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """A personal access token: its value is the Password `password` of `cluster`."""

    name: str
    cluster: str
    password: str
    purpose: Purpose


def password(purpose: GitLabPurpose) -> str:
    """Name of the Password behind a cluster's token for `purpose`."""
    return f"gitlab-{purpose}"


def access_tokens(releases: Mapping[str, Sequence[Release]]) -> tuple[AccessToken, ...]:
    """Every token that the `releases` (by cluster) use: one for each purpose and cluster."""
    return tuple(
        AccessToken(
            name=f"opstella {cluster} {purpose}",
            cluster=cluster,
            password=password(purpose),
            purpose=PURPOSES[purpose],
        )
        for cluster, members in releases.items()
        for purpose in dict.fromkeys(access.purpose for release in members for access in release.gitlab)
    )


def tokens_until(day: date) -> str:
    """When tokens expire that are made, or renewed, on `day` (ISO date): a year after the beginning of its half-year.

    So the date stays the same for half a year, and the first deployment of the next one renews them: at least half a
    year before they expire, whenever in it that is.
    """
    return (date(day.year, 1 if day.month <= 6 else 7, 1) + timedelta(days=LIFETIME_DAYS)).isoformat()


def wanted_tokens(tokens: Sequence[AccessToken], values: Sequence[str], host: str, until: str) -> str:
    """What scripts/gitlab-tokens.rb reads: JSON with the `values` of `tokens`, which expire on the date `until`."""
    accounts = {token.purpose.account.username: token.purpose.account for token in tokens}
    return json.dumps(
        {
            "accounts": [
                {
                    "username": account.username,
                    "name": account.name,
                    # Of the address only this part: what stands before it is random, so that nobody can claim it.
                    "email_domain": f"noreply.{host}",
                    "administrator": account.administrator,
                }
                for account in accounts.values()
            ],
            "tokens": [
                {
                    "name": token.name,
                    "account": token.purpose.account.username,
                    "scopes": list(token.purpose.scopes),
                    "value": value,
                }
                for token, value in zip(tokens, values, strict=True)
            ],
            "expires": until,
        },
        indent=1,
    )


def scraped(rules: Iterable[Rule]) -> bool:
    """Whether some rule of the contract lets anybody in to GitLab's own Prometheus, which asks nobody for a password."""
    return any(rule.target in ("gitlab", "all") and rule.opens("tcp", PROMETHEUS) for rule in rules)


def gitlab_rb(
    host: str,
    version: str,
    sign_in: SignIn | None = None,
    object_storage: ObjectStorage | None = None,
    *,
    prometheus_open: bool = False,
    proxy: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """gitlab.rb for the service name `host` and an Omnibus `version` such as 19.3.1; a secret where one is given.

    `prometheus_open`: GitLab's Prometheus answers on every address, where the packet filter judges who comes; else only on
    the machine itself. `proxy` (plan/proxies.py) is what GitLab goes through to what lies outside: imports, webhooks.
    """
    # Omnibus 19.2 moved the bundled nginx' settings below gitlab_rails; the old keys are deprecated there.
    major, minor = map(int, version.split(".")[:2])
    nginx = "gitlab_rails['nginx']" if (major, minor) >= (19, 2) else "nginx"
    return render(
        {
            "external_url": f"https://{host}",
            "letsencrypt['enable']": False,
            f"{nginx}['redirect_http_to_https']": True,
            f"{nginx}['client_max_body_size']": f"{GITLAB_BODY.value}m",
            f"{nginx}['proxy_read_timeout']": GITLAB_READ.value,
            "gitlab_rails['gitlab_shell_ssh_port']": SSH,
            "gitlab_rails['time_zone']": "UTC",
            # The password comes by the environment at the first install and is kept by the stack, not by the host.
            "gitlab_rails['store_initial_root_password']": False,
            "gitlab_rails['display_initial_root_password']": False,
            # Of a new GitLab; it is open to everybody otherwise, from its first moment on.
            "gitlab_rails['gitlab_signup_enabled']": False,
            "prometheus['listen_address']": f"{'0.0.0.0' if prometheus_open else 'localhost'}:{PROMETHEUS}",
            **_proxy(proxy),
            **(_sign_in(host, sign_in) if sign_in else {}),
            **(_object_storage(object_storage) if object_storage else {}),
        }
    )


def _proxy(proxy: Mapping[str, str]) -> dict[str, Ruby]:
    """Its parts that connect to somebody else (docs.gitlab.com, Omnibus, environment variables)."""
    if not proxy:
        return {}
    named = {name.lower(): value for name, value in proxy.items()}
    return {f"{part}['env']": dict(named) for part in ("gitaly", "gitlab_rails", "gitlab_workhorse")}


def _sign_in(host: str, sign_in: SignIn) -> dict[str, Ruby]:
    """GitLab asks the issuer only when somebody logs in, so it comes up before Keycloak does.

    Accounts are made at the first login, and are ordinary ones: who is an administrator by group is GitLab's own
    decision in its paid editions only.
    """
    client = {
        "identifier": "gitlab",
        "secret": sign_in.secret,
        "redirect_uri": f"https://{host}/users/auth/openid_connect/callback",
    }
    provider = {
        "name": "openid_connect",
        "label": "Keycloak",
        "args": {
            "name": "openid_connect",
            "scope": ["openid", "profile", "email"],
            "response_type": "code",
            "issuer": sign_in.issuer,
            "discovery": True,
            "client_auth_method": "query",
            "uid_field": "preferred_username",
            "pkce": True,
            "client_options": client,
        },
    }
    return {
        "gitlab_rails['omniauth_enabled']": True,
        "gitlab_rails['omniauth_allow_single_sign_on']": ["openid_connect"],
        "gitlab_rails['omniauth_block_auto_created_users']": False,
        # An account belongs to whoever logged in to it first, and never to whoever has its e-mail address.
        "gitlab_rails['omniauth_auto_link_user']": False,
        "gitlab_rails['omniauth_sync_profile_from_provider']": ["openid_connect"],
        "gitlab_rails['omniauth_sync_profile_attributes']": ["name", "email"],
        "gitlab_rails['omniauth_providers']": [provider],
    }


def _object_storage(store: ObjectStorage) -> dict[str, Ruby]:
    """One connection for all kinds of objects, a bucket each; backups have a form of their own."""
    connection: dict[str, Ruby] = {
        "provider": "AWS",
        "region": "us-east-1",  # MinIO's own default
        "aws_access_key_id": "gitlab",
        "aws_secret_access_key": store.secret,
        "endpoint": store.endpoint,
        "path_style": True,
    }
    kinds = [name for name in GITLAB_BUCKETS if name not in ("backups", "registry")]
    buckets = {
        f"gitlab_rails['object_store']['objects']['{_KINDS.get(name, name.replace('-', '_'))}']['bucket']": f"gitlab-{name}"
        for name in kinds
    }
    return {
        "gitlab_rails['object_store']['enabled']": True,
        # Browsers need not reach the object store.
        "gitlab_rails['object_store']['proxy_download']": True,
        "gitlab_rails['object_store']['connection']": connection,
        **buckets,
        "gitlab_rails['backup_upload_connection']": connection,
        "gitlab_rails['backup_upload_remote_directory']": "gitlab-backups",
    }


def render(settings: Mapping[str, Ruby]) -> str:
    """Assignments of Ruby literals; external_url is a method call, as Omnibus has it."""
    return "".join(
        f"{name} {_literal(value)}\n" if name == "external_url" else f"{name} = {_literal(value)}\n"
        for name, value in settings.items()
    )


def _literal(value: Ruby) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_literal(name)} => {_literal(inner)}" for name, inner in value.items()) + " }"
    # Single quotes interpolate nothing; only the quote and the backslash need an escape.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
