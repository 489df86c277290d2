"""Versions of the images that no chart chooses: rows of `plan.versions`, which says what a row holds."""

from __future__ import annotations

from datetime import date

from plan.version import Version

POSTGRESQL = Version(
    name="postgresql",
    version="18.4-system-trixie",
    released=None,
    source="default image of the CloudNativePG operator 1.30.0 (pkg/versions)",
    support="PostgreSQL 18: five years from September 2025",
    end_of_life=date(2030, 11, 14),
)

PYTHON_IMAGE = Version(
    name="docker.io/library/python",
    version="3.13.14-slim-trixie",
    released=date(2026, 6, 10),
    source="https://github.com/docker-library/python, 3.13/slim-trixie",
    support="Python 3.13: five years from October 2024",
    end_of_life=date(2029, 10, 31),
)

MINIO_IMAGE = Version(
    name="quay.io/minio/minio",
    version="RELEASE.2025-04-22T22-12-26Z",
    released=date(2025, 4, 22),
    source="https://github.com/minio/minio/releases; the next release took the login by OpenID out of the console",
    support="none: newer releases carry fixes, but no images since October 2025 and no single sign-on",
)
MC_IMAGE = Version(
    name="quay.io/minio/mc",
    version="RELEASE.2025-04-16T18-13-26Z",
    released=date(2025, 4, 16),
    source="https://github.com/minio/mc/releases: the client of that MinIO",
    support="none",
)

NGINX_IMAGE = Version(
    name="docker.io/nginxinc/nginx-unprivileged",
    version="1.29.8-alpine",
    released=None,
    source="https://github.com/nginx/docker-nginx-unprivileged; the chart of Mimir names the moving 1.29-alpine",
    support="none: the mainline of nginx, one minor version at a time",
)
DEBIAN_IMAGE = Version(
    name="docker.io/library/debian",
    version="trixie-20260803-slim",
    released=date(2026, 8, 3),
    source="https://github.com/debuerreotype/docker-debian-artifacts",
    support="Debian 13: three years from August 2025, five with LTS",
    end_of_life=date(2028, 8, 9),
)

VELERO_PLUGIN = Version(
    name="docker.io/velero/velero-plugin-for-aws",
    version="v1.14.2",
    released=None,
    source="https://github.com/vmware-tanzu/velero-plugin-for-aws: v1.14 goes with Velero 1.18",
    support="as long as Velero 1.18",
)
SONARQUBE_BUILD = Version(
    name="docker.io/library/sonarqube",
    version="26.7.0.124771",
    released=None,
    source="values.yaml of the chart sonarqube 2026.5.0 (community.buildNumber)",
    support="the newest Community Build, one a month",
)
