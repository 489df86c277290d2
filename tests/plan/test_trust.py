"""What trusts the platform's authorities: all of them, beside the public ones, and from the run that adds one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.load import from_values
from config.pem import ENCRYPTED
from plan.pki import bundle_name
from plan.plan import Plan, build
from plan.tools.model import CA_BUNDLE, CaBundle, Release
from plan.tools.sources import EachCa
from tests.config import material
from tests.support.platform import every_tool


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return material.make(tmp_path_factory.mktemp("material"))


def planned(**sections: Any) -> Plan:
    ssh = {"privateKey": ENCRYPTED}
    values = {"architecture": "standalone", "domain": material.DOMAIN, "ssh": ssh, **every_tool(), **sections}
    return build(from_values(values, "test"), "opstella/test")


def releases(plan: Plan) -> dict[str, Release]:
    return {release.name: release for of_cluster in plan.releases.values() for release in of_cluster}


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def test_nothing_given_is_the_plain_name() -> None:
    assert bundle_name(planned().settings) == CA_BUNDLE


def test_another_authority_makes_new_pods_of_whatever_reads_the_bundle(made: dict[str, str]) -> None:
    before, after = releases(planned()), releases(planned(extraCaCertificates=[f"file:{made['root']}"]))
    reads = {name for name, release in before.items() if CA_BUNDLE in " ".join(texts(release.values))}
    assert {"keycloak", "grafana", "argo-cd", "defectdojo", "kube-prometheus-stack"} <= reads
    for name in reads:
        assert not [text for text in texts(after[name].values) if text == CA_BUNDLE], name
        assert after[name].ca_bundle != CA_BUNDLE and (after[name].ca_bundle or "").startswith(CA_BUNDLE), name
    mounted = 0
    for name, release in before.items():
        for secret in release.secrets if name != "velero" else ():
            # Those that no pod mounts are read whenever they are needed; so is Velero's, by its caCertRef.
            if any(isinstance(s, CaBundle | EachCa) for s in secret.data.values()) and secret.name in list(texts(release.values)):
                mounted += 1
                assert secret.name not in list(texts(after[name].values)), secret.name
                assert secret.name not in {s.name for s in after[name].secrets}, secret.name
    assert mounted == 4  # MinIO's, Harbor's, SonarQube's, the runner's


@pytest.mark.parametrize("chain", ["chain", None])
def test_the_issuers_of_a_provided_certificate_change_it_too(chain: str | None, made: dict[str, str]) -> None:
    tls = {"source": "provided", "privateKey": f"file:{made['leaf_key']}"}
    tls |= (
        {"certificate": f"file:{made['leaf']}", "chain": f"file:{made['chain']}"} if chain
        else {"certificate": f"file:{made['fullchain_root']}"}
    )  # fmt: skip
    assert bundle_name(planned(tls=tls).settings) not in (CA_BUNDLE, bundle_name(planned().settings))


def test_sonarqube_gets_each_certificate_in_a_file_of_its_own() -> None:
    release = releases(planned())["sonarqube"]
    secret = next(s for s in release.secrets if any(isinstance(source, EachCa) for source in s.data.values()))
    assert release.values["caCerts"] == {"enabled": True, "secret": secret.name}


def test_defectdojo_trusts_the_public_authorities_too() -> None:
    values = releases(planned())["defectdojo"].values
    file = values["extraConfigs"]["REQUESTS_CA_BUNDLE"]
    assert "certificates" not in values["django"]["uwsgi"]  # it would set that variable to the platform's alone
    pods = (
        (values["django"], values["django"]["uwsgi"]),
        (values["celery"]["worker"], values["celery"]["worker"]),
        (values["celery"]["beat"], values["celery"]["beat"]),
    )
    for pod, container in pods:
        [init] = pod["extraInitContainers"]
        assert init["command"][-1] == f"cat /etc/ssl/certs/ca-certificates.crt /etc/opstella/ca/ca.crt >{file}"
        writes = {mount["mountPath"]: mount["name"] for mount in init["volumeMounts"]}
        reads = {mount["mountPath"]: mount["name"] for mount in container["extraVolumeMounts"]}
        folder = str(Path(file).parent)
        assert reads == {folder: writes[folder], "/etc/opstella/database": "database-ca"}
        assert {writes[folder], writes["/etc/opstella/ca"], "database-ca"} == {volume["name"] for volume in pod["extraVolumes"]}
        assert {"name": writes[folder], "emptyDir": {}} in pod["extraVolumes"]


def test_alertmanager_adds_the_platforms_authorities_to_the_public_ones() -> None:
    release = releases(planned(secrets={"hook": "https://hooks.example.com"}, alerts={"webhook": "hook"}))["kube-prometheus-stack"]
    spec = release.values["alertmanager"]["alertmanagerSpec"]
    [container] = spec["containers"]
    assert container == {"name": "alertmanager", "env": [{"name": "SSL_CERT_DIR", "value": "/etc/ssl/certs:/etc/opstella/ca"}]}
    assert {"name": "opstella-ca", "mountPath": "/etc/opstella/ca", "readOnly": True} in spec["volumeMounts"]
    assert {"name": "opstella-ca", "configMap": {"name": release.ca_bundle}} in spec["volumes"]
    assert "ca_file" not in json.dumps(release.values)  # it would replace the public ones
