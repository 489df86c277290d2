"""Every version this project installs, in one place.

A row says what was chosen, when, and where it was read; `end_of_life` is a date where the vendor names one,
`support` the vendor's rule where it names only that; what a user may pin, by release line, is in `plan.lines` and `plan.tool_lines`.
Renewing a row: read the new chart's keys with `lab/charts/read_keys.py`, run the tests, then change the date.
"""

from __future__ import annotations

from datetime import date

from plan.image_versions import (
    DEBIAN_IMAGE as DEBIAN_IMAGE,
)
from plan.image_versions import (
    MC_IMAGE as MC_IMAGE,
)
from plan.image_versions import (
    MINIO_IMAGE as MINIO_IMAGE,
)
from plan.image_versions import (
    NGINX_IMAGE as NGINX_IMAGE,
)
from plan.image_versions import (
    POSTGRESQL as POSTGRESQL,
)
from plan.image_versions import (
    PYTHON_IMAGE as PYTHON_IMAGE,
)
from plan.image_versions import (
    SONARQUBE_BUILD as SONARQUBE_BUILD,
)
from plan.image_versions import (
    VELERO_PLUGIN as VELERO_PLUGIN,
)
from plan.version import Chart as Chart
from plan.version import Version as Version

RKE2 = Version(
    name="rke2",
    version="v1.36.3+rke2r1",
    released=date(2026, 8, 1),
    source="https://github.com/rancher/rke2/releases/tag/v1.36.3%2Brke2r1",
    support="as long as Kubernetes 1.36: 14 months from its first release",
    end_of_life=date(2027, 6, 28),
)
GITLAB = Version(
    name="gitlab",
    version="19.3.0",
    released=date(2026, 8, 20),
    source="tag 19.3.0+ce.0 of https://gitlab.com/gitlab-org/omnibus-gitlab",
    support="bug fixes until 19.4, security fixes until 19.6; one minor version a month",
    end_of_life=date(2026, 11, 19),
)

TRAEFIK = Chart(
    name="traefik",
    version="41.3.0",
    app_version="v3.7.11",
    released=date(2026, 8, 21),
    repository="https://traefik.github.io/charts",
    source="https://github.com/traefik/traefik-helm-chart, tag v41.3.0",
    support="the newest minor version of Traefik 3",
)
CSI_DRIVER_NFS = Chart(
    name="csi-driver-nfs",
    version="4.13.4",
    app_version="v4.13.4",
    released=date(2026, 8, 15),
    repository="https://raw.githubusercontent.com/kubernetes-csi/csi-driver-nfs/master/charts",
    source="https://github.com/kubernetes-csi/csi-driver-nfs, charts/v4.13.4",
    support="not stated",
)
CERT_MANAGER = Chart(
    name="cert-manager",
    version="v1.21.1",
    app_version="v1.21.1",
    released=date(2026, 7, 29),
    repository="https://charts.jetstack.io",
    source="https://github.com/cert-manager/cert-manager, tag v1.21.1",
    support="until the second minor version after it",
)
METRICS_SERVER = Chart(
    name="metrics-server",
    version="3.13.1",
    app_version="0.8.1",
    released=date(2026, 6, 11),
    repository="https://kubernetes-sigs.github.io/metrics-server/",
    source="https://github.com/kubernetes-sigs/metrics-server, charts/metrics-server at commit 214abbab",
    support="the newest version",
)
CLOUDNATIVE_PG = Chart(
    name="cloudnative-pg",
    version="0.29.0",
    app_version="1.30.0",
    released=date(2026, 6, 29),
    repository="https://cloudnative-pg.github.io/charts",
    source="https://github.com/cloudnative-pg/charts, tag cloudnative-pg-v0.29.0",
    support="until three months after the next minor version",
)
KEYCLOAK = Chart(
    name="keycloakx",
    version="7.1.11",
    app_version="26.5.6",
    released=date(2026, 4, 21),
    repository="https://codecentric.github.io/helm-charts",
    source="https://github.com/codecentric/helm-charts, tag keycloakx-7.1.11",
    support="the newest minor version of Keycloak",
    end_of_life=date(2026, 4, 8),
)
ARGO_CD = Chart(
    name="argo-cd",
    version="10.1.1",
    app_version="v3.4.4",
    released=date(2026, 7, 2),
    repository="https://argoproj.github.io/argo-helm",
    source="https://github.com/argoproj/argo-helm, tag argo-cd-10.1.1",
    support="the three newest minor versions of Argo CD",
)

TRUST_MANAGER = Chart(
    name="trust-manager",
    version="v0.24.0",
    app_version="v0.24.0",
    released=date(2026, 6, 27),
    repository="https://charts.jetstack.io",
    source="https://github.com/cert-manager/trust-manager, tag v0.24.0",
    support="the newest minor version",
)
VALKEY = Chart(
    name="valkey",
    version="0.11.0",
    app_version="9.1.1",
    released=date(2026, 7, 22),
    repository="https://valkey.io/valkey-helm/",
    source="https://github.com/valkey-io/valkey-helm, tag valkey-0.11.0",
    support="not stated",
)
MINIO = Chart(
    name="minio",
    version="5.4.0",
    app_version="RELEASE.2024-12-18T13-15-44Z",
    released=date(2025, 1, 2),
    repository="https://charts.min.io/",
    source="https://github.com/minio/minio, helm/minio",
    support="none: minio/minio is no longer maintained since February 2026",
)
OAUTH2_PROXY = Chart(
    name="oauth2-proxy",
    version="10.7.0",
    app_version="7.15.3",
    released=date(2026, 6, 9),
    repository="https://oauth2-proxy.github.io/manifests",
    source="https://github.com/oauth2-proxy/manifests, tag oauth2-proxy-10.7.0",
    support="the newest version",
)
HEADLAMP = Chart(
    name="headlamp",
    version="0.45.0",
    app_version="0.45.0",
    released=date(2026, 8, 20),
    repository="https://kubernetes-sigs.github.io/headlamp/",
    source="https://github.com/kubernetes-sigs/headlamp, tag headlamp-helm-0.45.0",
    support="the newest version",
)
HARBOR = Chart(
    name="harbor",
    version="1.19.1",
    app_version="2.15.1",
    released=date(2026, 5, 12),
    repository="https://helm.goharbor.io",
    source="https://github.com/goharbor/harbor-helm, tag v1.19.1",
    support="the three newest minor versions of Harbor",
)
VAULT = Chart(
    name="vault",
    version="0.34.1",
    app_version="2.0.4",
    released=date(2026, 8, 13),
    repository="https://helm.releases.hashicorp.com",
    source="https://github.com/hashicorp/vault-helm, tag v0.34.1",
    support="the newest version",
)
VELERO = Chart(
    name="velero",
    version="12.1.0",
    app_version="1.18.1",
    released=date(2026, 6, 18),
    repository="https://vmware-tanzu.github.io/helm-charts",
    source="https://github.com/vmware-tanzu/helm-charts, charts/velero at commit 73466ca9",
    support="the two newest minor versions of Velero",
)
LOKI = Chart(
    name="loki",
    version="18.11.0",
    app_version="3.7.6",
    released=date(2026, 8, 20),
    repository="https://grafana-community.github.io/helm-charts",
    source="https://github.com/grafana-community/helm-charts, tag loki-18.11.0",
    support="the newest minor version of Loki 3",
)
TEMPO = Chart(
    name="tempo",
    version="2.2.4",
    app_version="2.10.8",
    released=date(2026, 8, 13),
    repository="https://grafana-community.github.io/helm-charts",
    source="https://github.com/grafana-community/helm-charts, tag tempo-2.2.4",
    support="the newest minor version of Tempo 2",
)
GRAFANA = Chart(
    name="grafana",
    version="12.11.1",
    app_version="13.2.0",
    released=date(2026, 8, 19),
    repository="https://grafana-community.github.io/helm-charts",
    source="https://github.com/grafana-community/helm-charts, tag grafana-12.11.1",
    support="nine months from its first release",
    end_of_life=date(2027, 5, 18),
)
MIMIR = Chart(
    name="mimir-distributed",
    version="6.2.0",
    app_version="3.2.0",
    released=date(2026, 8, 20),
    repository="https://grafana.github.io/helm-charts",
    source="https://github.com/grafana/mimir, operations/helm/charts/mimir-distributed",
    support="the two newest minor versions of Mimir",
)
ALLOY = Chart(
    name="alloy",
    version="1.11.1",
    app_version="v1.18.1",
    released=date(2026, 8, 6),
    repository="https://grafana.github.io/helm-charts",
    source="https://github.com/grafana/alloy, operations/helm/charts/alloy",
    support="the newest minor version",
)
KUBE_PROMETHEUS_STACK = Chart(
    name="kube-prometheus-stack",
    version="88.5.3",
    app_version="v0.93.1",
    released=date(2026, 8, 21),
    repository="https://prometheus-community.github.io/helm-charts",
    source="https://github.com/prometheus-community/helm-charts, tag kube-prometheus-stack-88.5.3",
    support="the newest version",
)
SONARQUBE = Chart(
    name="sonarqube",
    version="2026.5.0",
    app_version="2026.4.0",
    released=date(2026, 7, 23),
    repository="https://SonarSource.github.io/helm-chart-sonarqube",
    source="https://github.com/SonarSource/helm-chart-sonarqube",
    support="the newest Community Build, one a month",
)
DEFECTDOJO = Chart(
    name="defectdojo",
    version="1.9.29",
    app_version="2.58.4",
    released=date(2026, 5, 26),
    repository="https://raw.githubusercontent.com/DefectDojo/django-DefectDojo/helm-charts",
    source="https://github.com/DefectDojo/django-DefectDojo, tag 2.58.4",
    support="none: the last version 2; version 3 dropped single sign-on from the open-source edition",
)
GITLAB_RUNNER = Chart(
    name="gitlab-runner",
    version="0.92.0",
    app_version="19.3.0",
    released=None,
    repository="https://charts.gitlab.io",
    source="https://gitlab.com/gitlab-org/charts/gitlab-runner: the chart of GitLab's own minor version",
    support="as GitLab: the runner's minor version is not newer than GitLab's",
    end_of_life=date(2026, 11, 19),
)

CHARTS: tuple[Chart, ...] = (
    TRAEFIK, CSI_DRIVER_NFS, CERT_MANAGER, METRICS_SERVER, CLOUDNATIVE_PG, KEYCLOAK, ARGO_CD, MINIO, VALKEY, HARBOR,
    TRUST_MANAGER, VAULT, KUBE_PROMETHEUS_STACK, VELERO, ALLOY, LOKI, MIMIR, TEMPO, GRAFANA, HEADLAMP, OAUTH2_PROXY,
    SONARQUBE, DEFECTDOJO, GITLAB_RUNNER,
)  # fmt: skip
ALL: tuple[Version, ...] = (
    RKE2, GITLAB, POSTGRESQL, PYTHON_IMAGE, MINIO_IMAGE, MC_IMAGE, NGINX_IMAGE, DEBIAN_IMAGE, VELERO_PLUGIN,
    SONARQUBE_BUILD, *CHARTS,
)  # fmt: skip
