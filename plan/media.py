"""Installation media: which files an air-gapped stack must hold, and what each kind of host must reach."""

from __future__ import annotations

from config.checks import key
from config.errors import Problem
from config.model import Settings
from plan import versions
from plan.topology import Host

RKE2_INSTALLER = "https://get.rke2.io"
GITLAB_PACKAGES = "https://packages.gitlab.com"


def rke2_artifacts(cni: str) -> tuple[str, ...]:
    """File names of an air-gapped tarball install, as the RKE2 release page has them."""
    return (
        "install.sh",
        "rke2.linux-amd64.tar.gz",
        "sha256sum-amd64.txt",
        "rke2-images-core.linux-amd64.tar.zst",
        f"rke2-images-{cni}.linux-amd64.tar.zst",
    )


def rke2_version(settings: Settings) -> str:
    return settings.kubernetes.version or versions.RKE2.version


def gitlab_version(settings: Settings) -> str:
    return settings.gitlab.version or versions.GITLAB.version


def gitlab_package(settings: Settings) -> str:
    """File name of the Omnibus package for Debian and Ubuntu."""
    edition = settings.gitlab.edition
    return f"gitlab-{edition}_{gitlab_version(settings)}-{edition}.0_amd64.deb"


def required_artifacts(settings: Settings) -> tuple[str, ...]:
    """Every file that `media.artifacts` must hold."""
    return (*rke2_artifacts(settings.kubernetes.cni), gitlab_package(settings))


def harbor_first(settings: Settings) -> bool:
    """Whether nodes are to ask the platform's own Harbor for images first; a registry of the user's comes before it."""
    return settings.kubernetes.registry_mirror == "harbor" and settings.media.registry_mirror is None


def check(settings: Settings) -> list[Problem]:
    """A SHA-256 sum must be known for every artifact, before a machine is touched."""
    if settings.media.source != "airgap":
        return []
    missing = [name for name in required_artifacts(settings) if name not in settings.media.sha256]
    return [
        Problem(
            key("media.sha256"),
            f"there is no SHA-256 sum for {name}, which this stack installs from {settings.media.artifacts}",
            f"pulumi config set --path 'opstella:media.sha256[\"{name}\"]' $(sha256sum {name} | cut -d' ' -f1)",
        )
        for name in missing
    ]


def reachable(host: Host, settings: Settings) -> tuple[str, ...]:
    """URLs that must answer on `host` before anything is installed there."""
    if host.role in ("master", "worker"):
        online, files = RKE2_INSTALLER, rke2_artifacts(settings.kubernetes.cni)[:1]
    elif host.role == "gitlab":
        online, files = GITLAB_PACKAGES, (gitlab_package(settings),)
    else:
        return ()
    if settings.media.source == "online":
        return (online,)
    return tuple(f"{settings.media.artifacts}/{name}" for name in files)
