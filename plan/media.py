"""Installation media: which files an air-gapped stack must hold, and what each kind of host must reach."""

from __future__ import annotations

from urllib.parse import urlsplit

from config.checks import key
from config.errors import Problem
from config.model import Settings
from plan import endpoints, versions
from plan.contract.rule import Rule, Source, need
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


def gitlab_packages(settings: Settings) -> dict[str, str]:
    """File name of the Omnibus package by family of systems: `debian` (with Ubuntu) and `rhel`."""
    edition, version = settings.gitlab.edition, gitlab_version(settings)
    return {
        "debian": f"gitlab-{edition}_{version}-{edition}.0_amd64.deb",
        "rhel": f"gitlab-{edition}-{version}-{edition}.0.el9.x86_64.rpm",
    }


def gitlab_offered(settings: Settings) -> dict[str, str]:
    """Those of `gitlab_packages` that an air-gapped stack has a sum of; the one for Debian where it has none."""
    packages = gitlab_packages(settings)
    offered = {family: name for family, name in packages.items() if name in settings.media.sha256}
    return offered or {"debian": packages["debian"]}


def required_artifacts(settings: Settings) -> tuple[str, ...]:
    """Every file that `media.artifacts` must hold: GitLab's for the system of its machine, which the settings choose by
    the sums that they have."""
    return (*rke2_artifacts(settings.kubernetes.cni), *gitlab_offered(settings).values())


def harbor_first(settings: Settings) -> bool:
    """Whether nodes are to ask the platform's own Harbor for images first. A registry of the user's comes before it, and
    in an air gap there is nowhere that it could have them from: Harbor refuses an upstream that does not answer."""
    wanted = settings.kubernetes.registry_mirror == "harbor" and settings.media.registry_mirror is None
    return wanted and settings.media.source == "online"


def trivy_databases(settings: Settings) -> tuple[str, ...] | None:
    """Folders of registries with Trivy's databases; empty for the public ones, None where there are none to be had."""
    if settings.media.trivy_databases:
        return (settings.media.trivy_databases,)
    return () if settings.media.source == "online" else None


def proxies(settings: Settings) -> tuple[str, ...]:
    """URLs of the proxies that lead out, each once."""
    return tuple(dict.fromkeys(url for url in (settings.proxy.http, settings.proxy.https) if url))


def check(settings: Settings) -> list[Problem]:
    """A SHA-256 sum must be known for every artifact, before a machine is touched."""
    if settings.media.source != "airgap":
        return []
    missing = [name for name in required_artifacts(settings) if name not in settings.media.sha256]
    rpm = gitlab_packages(settings)["rhel"]
    return [
        Problem(
            key("media.sha256"),
            f"there is no SHA-256 sum for {name}, which this stack installs from {settings.media.artifacts}"
            + (f" (or {rpm}, if GitLab's machine is of the RHEL family)" if name.endswith(".deb") else ""),
            f"pulumi config set --path 'opstella:media.sha256[\"{name}\"]' $(sha256sum {name} | cut -d' ' -f1)",
        )
        for name in missing
    ]


def reachable(host: Host, settings: Settings) -> tuple[str, ...]:
    """URLs that must answer on `host` before anything is installed there."""
    if host.role in ("master", "worker"):
        online, files = RKE2_INSTALLER, rke2_artifacts(settings.kubernetes.cni)[:1]
    elif host.role == "gitlab":
        online, files = GITLAB_PACKAGES, tuple(gitlab_offered(settings).values())
    else:
        return ()
    if settings.media.source == "online":
        return (online,)
    return tuple(f"{settings.media.artifacts}/{name}" for name in files)


def families(host: Host, settings: Settings) -> tuple[str, ...]:
    """The families of systems that `host` may have, as far as the installation media decide it; empty for any."""
    if host.role != "gitlab" or settings.media.source == "online":
        return ()
    return tuple(gitlab_offered(settings))


def flows(settings: Settings) -> tuple[Rule, ...]:
    """What machines fetch: through the proxy where there is one, else from wherever the web has it."""
    out = proxies(settings)
    found = [_to(url, "all", "proxy", "software is fetched through the proxy") for url in out]
    if settings.media.artifacts and urlsplit(settings.media.artifacts).scheme in ("http", "https"):
        for source in ("node", "gitlab"):
            found.append(_to(settings.media.artifacts, source, "media", "installation media"))  # type: ignore[arg-type]
    if settings.media.registry_mirror:
        found.append(_to(settings.media.registry_mirror, "node", "registry", "containerd pulls images from the mirror"))
    if settings.media.trivy_databases:
        url = f"https://{settings.media.trivy_databases}"
        found.append(_to(url, "node", "registry", "Harbor's scanner fetches its databases"))
    if settings.media.source == "online" and not out:
        found.append(need("media", "all", "outside", (80, 443), "software", "packages, installers and images on the web"))
    if settings.kubernetes.etcd_snapshots.s3:
        url = f"https://{settings.kubernetes.etcd_snapshots.s3.endpoint}"
        found.append(_to(url, "master", "S3", "snapshots of etcd are copied to an object store outside"))
    return tuple(found)


def _to(url: str, source: Source, purpose: str, why: str) -> Rule:
    networks, port = endpoints.of_url(url)
    return need("media", source, "outside", (port,), purpose, why, networks=networks)
