"""Who connects to a database verifies it: by which authority, under which name, and that the file of it is mounted."""

from __future__ import annotations

import re

import pytest

from plan.tools import chart_facts, cloudnative_pg, order
from plan.tools.sources import CaBundle
from tests.plan.stacks import plan
from tests.support.platform import ARCHITECTURES, every_tool, plan_of


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tool_with_a_database_verifies_it_by_a_name_that_its_certificate_has(architecture: str) -> None:
    """CloudNativePG's own certificates have the names `NAME-rw`, `NAME-rw.NAMESPACE` and `NAME-rw.NAMESPACE.svc`."""
    seen = set()
    for releases in plan_of(architecture, every_tool()).releases.values():
        for release in (r for r in releases if r.databases):
            (database,) = release.databases
            whole = "\n".join(order._texts(release.values))
            assert "verify-full" in whole and not re.search(
                r"sslmode=(?!verify-full)|^(require|prefer|allow|disable)$", whole, re.M
            )
            if database.platform_certificate:
                (certificate,) = [m.body["spec"] for m in release.before if m.name == f"{database.name}-tls"]
                (name,) = certificate["dnsNames"]
                assert certificate["issuerRef"]["kind"] == "ClusterIssuer" and not re.search(
                    rf"{database.name}-rw$", whole, re.M
                )
            else:
                name = f"{database.name}-rw"
                assert cloudnative_pg.AUTHORITY_FOLDER in whole and f"{database.name}-ca" in whole
            assert re.search(rf"(^|/|\b){re.escape(name)}(:5432|$)", whole, re.M)
            seen.add(release.name)
    assert seen == {"keycloak", "grafana", "harbor", "sonarqube", "defectdojo", "opstella"}


def test_what_can_mount_no_authority_has_a_database_with_the_platforms_certificate() -> None:
    (release,) = [r for r in plan().releases["standalone"] if r.name == "harbor"]
    (cluster,) = [m.body["spec"] for m in release.before if m.body["kind"] == "Cluster"]
    (certificate,) = [m for m in release.before if m.name == "harbor-db-tls"]
    spec = certificate.body["spec"]
    assert certificate.needs == ("cert-manager",) and spec["dnsNames"] == ["harbor-db-rw.harbor.svc"]
    assert spec["secretName"] == cluster["certificates"]["serverTLSSecret"] == "harbor-db-tls"
    assert "server auth" in spec["usages"]
    (authorities,) = [s for s in release.secrets if s.name == cluster["certificates"]["serverCASecret"]]
    assert authorities.data == {"ca.crt": CaBundle()}
    # Instances read both again when they change.
    assert dict(authorities.labels) == spec["secretTemplate"]["labels"] == {"cnpg.io/reload": ""}
    for part in ("core", "jobservice", "exporter"):
        assert {"name": "PGSSLROOTCERT", "value": "/harbor_cust_cert/custom-ca.crt"} in release.values[part][
            "extraEnvVars"
        ]
        pod = chart_facts.renderings("harbor", release.version)[0]["pods"][f"Deployment/harbor-{part}"]
        assert "/harbor_cust_cert/custom-ca.crt" in pod["containers"][part]["mounts"]


def test_every_container_of_defectdojo_that_is_told_to_verify_has_the_authority() -> None:
    """The variables stand in the ConfigMap that all of them read; where the file is not, libpq refuses to connect."""
    (release,) = [r for r in plan().releases["standalone"] if r.name == "defectdojo"]
    variables = release.values["extraConfigs"]
    assert (variables["PGSSLMODE"], variables["PGSSLROOTCERT"]) == ("verify-full", "/etc/opstella/database/ca.crt")
    for name, pod in chart_facts.renderings("defectdojo", release.version)[0]["pods"].items():
        for container, facts in {**pod["containers"], **pod["init"]}.items():
            if "defectdojo-django" in facts["image"]:
                mounts = facts["mounts"]
                assert "Secret/defectdojo-db-ca" in (mounts.get("/etc/opstella/database"), mounts.get(variables["PGSSLROOTCERT"])), (
                    name, container,
                )  # fmt: skip


def test_sonarqube_verifies_its_database_by_its_drivers_own_parameters() -> None:
    (release,) = [r for r in plan().releases["standalone"] if r.name == "sonarqube"]
    url = release.values["jdbcOverwrite"]["jdbcUrl"]
    assert (
        url
        == "jdbc:postgresql://sonarqube-db-rw:5432/sonarqube?sslmode=verify-full&sslrootcert=/etc/opstella/database/ca.crt"
    )
    pod = chart_facts.renderings("sonarqube", release.version)[0]["pods"]["StatefulSet/sonarqube"]
    assert pod["containers"]["sonarqube"]["mounts"]["/etc/opstella/database"] == "Secret/sonarqube-db-ca"
