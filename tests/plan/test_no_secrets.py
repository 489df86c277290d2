"""Nothing that the catalogue gives to charts, Jobs or ConfigMaps holds a secret in clear, by the rule that users are held to."""

from __future__ import annotations

import pytest

from config.plain_secrets import plain_secrets
from plan.tools.model import Release
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

RELEASES = [
    pytest.param(release, id=f"{cluster}-{release.name}")
    for architecture in ARCHITECTURES
    for cluster, releases in plan_of(architecture, every_tool()).releases.items()
    for release in releases
]
# Keys of charts that hold the name of a Secret, though nothing but the chart's own documentation says so.
NAMES_OF_SECRETS = (".caCerts.secret", ".runners.secret")


@pytest.mark.parametrize("release", RELEASES)
def test_no_secret_stands_in_clear(release: Release) -> None:
    assert [path for path in plain_secrets(release.values) if path not in NAMES_OF_SECRETS] == []
    for manifest in (*release.before, *release.after):
        assert manifest.body["kind"] != "Secret"
        if manifest.body["kind"] == "ConfigMap":
            assert list(plain_secrets(manifest.body["data"])) == [], manifest.name
    for job in release.jobs:
        plain = {name: value for name, value in job.environment.items() if isinstance(value, str)}
        assert list(plain_secrets(plain)) == [], job.name
        assert list(plain_secrets(list(job.command))) == [], job.name
