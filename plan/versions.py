"""Every version this project installs, in one place.

A row says what was chosen, when, and where it was read; `end_of_life` is a date where the vendor names one,
`support` the vendor's rule where it names only that. Renewing a row: read the new chart's keys with
`lab/charts/read_keys.py`, run the tests, then change the date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, kw_only=True)
class Version:
    """One piece of software: `version` as its installer takes it, `released` by its tag (None
    where that was not read), `source` where it was read."""

    name: str
    version: str
    released: date | None
    chosen: date
    source: str
    support: str
    end_of_life: date | None = None


@dataclass(frozen=True, kw_only=True)
class Chart(Version):
    """A Helm chart; `name` is the chart's name in `repository`, `app_version` the software it carries."""

    repository: str
    app_version: str


CHOSEN = date(2026, 11, 20)

RKE2 = Version(
    name="rke2",
    version="v1.36.3+rke2r1",
    released=date(2026, 8, 1),
    chosen=CHOSEN,
    source="https://github.com/rancher/rke2/releases/tag/v1.36.3%2Brke2r1",
    support="as long as Kubernetes 1.36: 14 months from its first release",
)
GITLAB = Version(
    name="gitlab",
    version="19.3.0",
    released=date(2026, 8, 20),
    chosen=CHOSEN,
    source="tag 19.3.0+ce.0 of https://gitlab.com/gitlab-org/omnibus-gitlab",
    support="bug fixes until 19.4, security fixes until 19.6; one minor version a month",
)
POSTGRESQL = Version(
    name="postgresql",
    version="18.4-system-trixie",
    released=None,
    chosen=CHOSEN,
    source="default image of the CloudNativePG operator 1.30.0 (pkg/versions)",
    support="PostgreSQL 18: five years from September 2025",
    end_of_life=date(2030, 11, 14),
)

TRAEFIK = Chart(
    name="traefik",
    version="41.3.0",
    app_version="v3.7.11",
    released=date(2026, 8, 21),
    chosen=CHOSEN,
    repository="https://traefik.github.io/charts",
    source="https://github.com/traefik/traefik-helm-chart, tag v41.3.0",
    support="the newest minor version of Traefik 3",
)
CSI_DRIVER_NFS = Chart(
    name="csi-driver-nfs",
    version="4.13.4",
    app_version="v4.13.4",
    released=date(2026, 8, 15),
    chosen=CHOSEN,
    repository="https://raw.githubusercontent.com/kubernetes-csi/csi-driver-nfs/master/charts",
    source="https://github.com/kubernetes-csi/csi-driver-nfs, charts/v4.13.4",
    support="not stated",
)
CERT_MANAGER = Chart(
    name="cert-manager",
    version="v1.21.1",
    app_version="v1.21.1",
    released=date(2026, 7, 29),
    chosen=CHOSEN,
    repository="https://charts.jetstack.io",
    source="https://github.com/cert-manager/cert-manager, tag v1.21.1",
    support="until the second minor version after it",
)
CLOUDNATIVE_PG = Chart(
    name="cloudnative-pg",
    version="0.29.0",
    app_version="1.30.0",
    released=date(2026, 6, 29),
    chosen=CHOSEN,
    repository="https://cloudnative-pg.github.io/charts",
    source="https://github.com/cloudnative-pg/charts, tag cloudnative-pg-v0.29.0",
    support="until three months after the next minor version",
)
KEYCLOAK = Chart(
    name="keycloakx",
    version="7.1.11",
    app_version="26.5.6",
    released=date(2026, 4, 21),
    chosen=CHOSEN,
    repository="https://codecentric.github.io/helm-charts",
    source="https://github.com/codecentric/helm-charts, tag keycloakx-7.1.11",
    support="the newest minor version of Keycloak",
)
ARGO_CD = Chart(
    name="argo-cd",
    version="10.1.1",
    app_version="v3.4.4",
    released=date(2026, 7, 2),
    chosen=CHOSEN,
    repository="https://argoproj.github.io/argo-helm",
    source="https://github.com/argoproj/argo-helm, tag argo-cd-10.1.1",
    support="the three newest minor versions of Argo CD",
)

CHARTS: tuple[Chart, ...] = (TRAEFIK, CSI_DRIVER_NFS, CERT_MANAGER, CLOUDNATIVE_PG, KEYCLOAK, ARGO_CD)
ALL: tuple[Version, ...] = (RKE2, GITLAB, POSTGRESQL, *CHARTS)
