"""`GitLabServer`: GitLab Omnibus on its own machine, with the access tokens by which tools use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from components.host import Host
from components.passwords import generated
from config.model import Settings
from plan import gitlab, media, proxies

_TOKENS = Path(__file__).resolve().parent.parent / "scripts" / "gitlab-tokens.rb"


@dataclass(frozen=True, kw_only=True)
class GitLabServerArgs:
    """`certificate` is a PEM chain for `domain`, leaf first; `trusted_ca` (PEM) is what GitLab trusts outbound."""

    host: Host
    settings: Settings
    domain: str
    certificate: pulumi.Input[str]
    private_key: pulumi.Input[str]
    trusted_ca: pulumi.Input[str]
    issuer: str | None = None
    """URL of the realm by which people log in; with the client's secret."""
    client_secret: pulumi.Input[str] | None = None
    object_storage: str | None = None
    """URL of the object store; with the secret key of its user gitlab."""
    storage_secret: pulumi.Input[str] | None = None
    tokens: Sequence[gitlab.AccessToken] = ()
    """With `token_values`, in the same order, and `tokens_until`, the ISO date at which they expire."""
    token_values: Sequence[pulumi.Input[str]] = ()
    tokens_until: str = ""
    administrators_from: Sequence[str] = ()
    """The networks from which others than the user git log in by SSH; without any, sshd is left alone."""
    prometheus_open: bool = False
    """Whether GitLab's own Prometheus answers other machines."""


class GitLabServer(pulumi.ComponentResource):
    """GitLab. Outputs: `url`, `root_password` (secret; what the first installation set, GitLab keeps only its hash).

    `serving` is what whoever uses GitLab waits for.
    """

    root_password: pulumi.Output[str]

    def __init__(self, name: str, args: GitLabServerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:scm:GitLabServer", name, None, opts)
        settings = args.settings
        password = generated(f"{name}-root-password", 32, parent=self)
        packages = media.gitlab_offered(settings) if settings.media.source == "airgap" else {}
        version = media.gitlab_version(settings)
        self.installed: pulumi.Resource = args.host.run(
            "gitlab",
            {
                "gitlab_rb": _configuration(args, version),
                "version": version,
                "edition": settings.gitlab.edition,
                "source": settings.media.source,
                **_package("", packages.get("debian"), settings),
                **_package("_rpm", packages.get("rhel"), settings),
                "host": args.domain,
                "certificate": args.certificate,
                "private_key": args.private_key,
                "trusted_ca": args.trusted_ca,
                "root_password": password.result,
                "administrators_from": list(args.administrators_from),
            },
            name=f"{name}-omnibus",
            parent=self,
            seconds=3600,
            secret=True,
        )
        self.serving: tuple[pulumi.Resource, ...] = (self.installed, *self._tokens(name, args))
        self.url = f"https://{args.domain}"
        self.root_password = password.result
        self.register_outputs({"url": self.url, "root_password": self.root_password})

    def _tokens(self, name: str, args: GitLabServerArgs) -> tuple[pulumi.Resource, ...]:
        """The access tokens made, if anything uses one."""
        if not args.tokens:
            return ()
        tokens, host, until = tuple(args.tokens), args.domain, args.tokens_until
        wanted = pulumi.Output.all(*args.token_values).apply(
            lambda values: gitlab.wanted_tokens(tokens, values, host, until)
        )
        made = args.host.run(
            "gitlab-tokens",
            {"program": _TOKENS.read_text(encoding="utf-8"), "wanted": wanted},
            name=f"{name}-tokens",
            parent=self,
            seconds=900,
            secret=True,
            after=(self.installed,),
        )
        return (made,)


def _package(suffix: str, name: str | None, settings: Settings) -> dict[str, str]:
    """Where the machine fetches the package, and its sum; empty where there is none."""
    # Online, a script adds GitLab's own repository of packages.
    script = f"script{suffix.replace('_', '.') or '.deb'}.sh"
    return {
        f"package_url{suffix}": f"{settings.media.artifacts}/{name}" if name else "",
        f"package_sha256{suffix}": settings.media.sha256[name] if name else settings.media.sha256.get(script, ""),
    }


def _configuration(args: GitLabServerArgs, version: str) -> pulumi.Input[str]:
    proxy = proxies.of_gitlab(args.settings)
    if args.issuer is None and args.object_storage is None:
        return gitlab.gitlab_rb(args.domain, version, prometheus_open=args.prometheus_open, proxy=proxy)

    def text(secrets: tuple[str, str]) -> str:
        login = gitlab.SignIn(issuer=args.issuer, secret=secrets[0]) if args.issuer else None
        store = gitlab.ObjectStorage(endpoint=args.object_storage, secret=secrets[1]) if args.object_storage else None
        return gitlab.gitlab_rb(
            args.domain, version, login, store, prometheus_open=args.prometheus_open, proxy=proxy
        )

    return pulumi.Output.secret(pulumi.Output.all(args.client_secret or "", args.storage_secret or "")).apply(text)
