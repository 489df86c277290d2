"""The stand-in charts: packaging, and, with a real helm, what they take, refuse and render."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.charts.key_lists import allows, key_list, schema
from lab.charts.package import files, package
from plan import versions
from plan.tools.catalogue import catalogue
from plan.tools.common import merge
from plan.tools.model import Release, ToolInputs

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "devops.example.com"
INPUTS = ToolInputs(
    domain=DOMAIN,
    hosts={"keycloak": f"opstella-idp.{DOMAIN}", "argocd": f"argocd.{DOMAIN}"},
    nfs_server="192.168.72.13",
    nfs_path="/srv/nfs",
    load_balancer="192.168.72.12",
)
RELEASES = {release.name: release for release in catalogue(INPUTS)}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _artifact(name: str) -> Path:
    given = dict(p.split("=", 1) for p in os.environ.get("OPSTELLA_TEST_ARTIFACTS", "").split(":") if p)
    if name in given:
        return Path(given[name])
    out = subprocess.run([ROOT / "lab/toolchain/build", name], stdout=subprocess.PIPE, check=True, text=True)
    return Path(out.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small definition a tool; the tools' own come from Go modules, and most of what is tested needs none."""
    folder = tmp_path_factory.mktemp("definitions")
    for tool, group in (
        ("cert-manager", "cert-manager.io"), ("cloudnative-pg", "postgresql.cnpg.io"),
        ("traefik", "traefik.io"), ("argo-cd", "argoproj.io"),
    ):  # fmt: skip
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"things.{group}"},
            "spec": {"group": group, "description": "text with {{ braces }} that no template may touch"},
        }
        (folder / f"{tool}.yaml").write_text("---\n" + yaml.safe_dump(definition))
    return folder


@pytest.fixture(scope="session")
def repository(definitions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("charts")
    package(folder, definitions)
    return folder


# --- packaging ---


def test_the_index_names_every_chart_by_its_real_name_and_version(repository: Path) -> None:
    index = yaml.safe_load((repository / "index.yaml").read_text())
    assert set(index["entries"]) == {chart.name for chart in versions.CHARTS}
    for chart in versions.CHARTS:
        (entry,) = index["entries"][chart.name]
        assert (entry["version"], entry["appVersion"]) == (chart.version, chart.app_version)
        assert entry["description"].startswith(f"double of {chart.name}")
        data = (repository / entry["urls"][0]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["digest"]
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            names = archive.getnames()
        assert f"{chart.name}/values.schema.json" in names and all(n.startswith(f"{chart.name}/") for n in names)


def test_the_same_inputs_give_the_same_bytes(repository: Path, definitions: Path, tmp_path: Path) -> None:
    package(tmp_path, definitions)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        f.name: f.read_bytes() for f in repository.iterdir()
    }


@pytest.mark.parametrize("chart", versions.CHARTS, ids=lambda chart: chart.name)
def test_a_double_has_defaults_for_keys_of_the_real_chart_only(chart: versions.Chart, definitions: Path) -> None:
    defaults = yaml.safe_load(files(chart, definitions)[f"{chart.name}/values.yaml"])
    accepted = schema(key_list(chart.name, chart.version))

    def check(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                check(inner, (*path, key))
        else:
            assert allows(accepted, path, value), ".".join(path)

    check(defaults, ())


def test_keys_that_were_never_read_are_asked_for() -> None:
    with pytest.raises(FileNotFoundError, match=r"traefik-0\.0\.1\.txt is missing.*read_keys\.py"):
        key_list("traefik", "0.0.1")


def test_the_schema_closes_maps_opens_open_ones_and_knows_any_key() -> None:
    accepted = schema({"a.b": "boolean", "a.c\\.d": "scalar", "open": "map", "ports.*.port": "integer|null"})
    assert allows(accepted, ("a", "b"), True) and not allows(accepted, ("a", "b"), "true")
    assert allows(accepted, ("a", "c.d"), 1) and not allows(accepted, ("a", "c"), 1)
    assert allows(accepted, ("open", "x", "y"), []) and not allows(accepted, ("x",), 1)
    assert allows(accepted, ("ports", "web", "port"), 1) and not allows(accepted, ("ports", "web", "prot"), 1)


# --- with helm ---


class Refused(Exception):
    """helm said no; the text is what it printed."""


@functools.cache
def _helm() -> Path:
    return _artifact("helm") / "bin" / "helm"


def helm(*arguments: str | Path, values: dict[str, Any] | None = None) -> str:
    """Run helm. Raises Refused with its standard error."""
    done = subprocess.run(
        [_helm(), *arguments, *(["-f", "-"] if values is not None else [])],
        input=json.dumps(values) if values is not None else None,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(repository: Path, release: Release, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The objects of `release`, hooks and definitions included."""
    chart = repository / f"{release.chart}-{release.version}.tgz"
    text = helm(
        "template", release.name, chart, "--namespace", release.namespace, "--kube-version", "1.36.3", "--include-crds",
        values=merge(release.values, values or {}),
    )  # fmt: skip
    return [document for document in yaml.load_all(text, Loader=LOADER) if document]


def found(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for o in objects:
        if o["kind"] in ("Deployment", "DaemonSet", "StatefulSet", "Job"):
            yield o["spec"]["template"]["spec"]


@pytest.mark.toolchain
@pytest.mark.parametrize("name", RELEASES)
class TestCatalogue:
    def test_the_workloads_are_those_the_plan_waits_for(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        objects = render(repository, release)
        rendered = {
            (o["kind"], o["metadata"]["name"], o["metadata"]["namespace"])
            for o in objects
            if o["kind"] in ("Deployment", "DaemonSet", "StatefulSet")
        }
        assert rendered == {(w.kind, w.name, w.namespace) for w in release.workloads}

    def test_what_a_pod_refers_to_is_there(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        objects = render(repository, release)
        secrets = {secret.name: set(secret.data) for secret in release.secrets}
        maps = set(found(objects, "ConfigMap")) | {release.ca_bundle}
        accounts = {*found(objects, "ServiceAccount"), "default"}
        for pod in pods(objects):
            assert pod["serviceAccountName"] in accounts
            volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
            assert {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} <= maps
            for container in pod["containers"]:
                assert container["resources"]["requests"], container["name"]
                if "nfs" not in name:  # whose node plugin gets its folders from the kubelet
                    assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(volumes)
                for variable in container.get("env", []):
                    reference = variable.get("valueFrom", {}).get("secretKeyRef")
                    assert reference is None or reference["key"] in secrets[reference["name"]]

    def test_a_misspelt_key_is_refused_by_name(self, name: str, repository: Path) -> None:
        with pytest.raises(Refused, match="notAKey"):
            render(repository, RELEASES[name], {"notAKey": {"x": 1}})

    def test_services_select_the_pods(self, name: str, repository: Path) -> None:
        objects = render(repository, RELEASES[name])
        labels = [
            o["spec"]["template"]["metadata"]["labels"]
            for o in objects
            if o["kind"] in ("Deployment", "DaemonSet", "StatefulSet")
        ]
        for service in found(objects, "Service").values():
            selector = service["spec"]["selector"].items()
            assert any(selector <= own.items() for own in labels), service["metadata"]["name"]

    def test_ingresses_lead_to_a_service_under_the_host_of_the_plan(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        objects = render(repository, release)
        ingresses = found(objects, "Ingress")
        assert bool(ingresses) == bool(release.host)
        for ingress in ingresses.values():
            assert ingress["spec"]["ingressClassName"] == "traefik"
            (rule,) = ingress["spec"]["rules"]
            assert rule["host"] == release.host and ingress["spec"]["tls"] == [{"hosts": [release.host]}]
            backend = rule["http"]["paths"][0]["backend"]["service"]
            ports = found(objects, "Service")[backend["name"]]["spec"]["ports"]
            assert any(
                p["name"] == backend["port"].get("name") or p["port"] == backend["port"].get("number") for p in ports
            )


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("traefik", {"ports": {"web": {"nodeport": 1}}}, "nodeport"),
        ("traefik", {"deployment": {"replicas": "two"}}, "replicas"),
        ("traefik", {"ports": {"web": {"http": {"redirections": {"entryPoint": {"to": "x"}}}}}}, "Cannot redirect web"),
        ("csi-driver-nfs", {"storageClass": {"server": "x"}}, "server"),
        ("csi-driver-nfs", {"externalSnapshotter": {"enabled": True}}, "has no snapshot controller"),
        ("cert-manager", {"crds": {"enable": True}}, "enable"),
        ("keycloak", {"dbchecker": {"enabled": True}, "database": {"hostname": None}}, "hostname is required"),
        ("argo-cd", {"server": {"ingress": {"host": "x"}}}, "host"),
    ],
)  # fmt: skip
def test_refusals(name: str, values: dict[str, Any], message: str, repository: Path) -> None:
    with pytest.raises(Refused, match=message):
        render(repository, RELEASES[name], values)


@pytest.mark.toolchain
def test_traefik_is_a_node_port_service_and_the_default_class(repository: Path) -> None:
    objects = render(repository, RELEASES["traefik"])
    service = found(objects, "Service")["traefik"]["spec"]
    assert service["type"] == "NodePort"
    assert {p["name"]: p["nodePort"] for p in service["ports"]} == {"web": 30080, "websecure": 30443}
    annotations = found(objects, "IngressClass")["traefik"]["metadata"]["annotations"]
    assert annotations["ingressclass.kubernetes.io/is-default-class"] == "true"
    assert found(objects, "TLSStore")["default"]["spec"] == {"defaultCertificate": {"secretName": "ingress-tls"}}


@pytest.mark.toolchain
def test_the_storage_class_is_the_plans(repository: Path) -> None:
    storage = found(render(repository, RELEASES["csi-driver-nfs"]), "StorageClass")["nfs"]
    assert storage["parameters"] == {"server": "192.168.72.13", "share": "/srv/nfs"}
    assert storage["reclaimPolicy"] == "Retain" and storage["mountOptions"] == ["nfsvers=4.1", "hard"]


@pytest.mark.toolchain
def test_hooks_come_and_go_with_their_values(repository: Path) -> None:
    (check,) = found(render(repository, RELEASES["cert-manager"]), "Job").values()
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "post-install"
    off = {"startupapicheck": {"enabled": False}}
    assert not found(render(repository, RELEASES["cert-manager"], off), "Job")
    assert not found(render(repository, RELEASES["argo-cd"]), "Job")
    (init,) = found(render(repository, RELEASES["argo-cd"], {"redisSecretInit": {"enabled": True}}), "Job").values()
    assert init["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("name", "switch"), [("cert-manager", "enabled"), ("cloudnative-pg", "create"), ("argo-cd", "install")]
)
def test_definitions_come_untouched_and_only_when_asked_for(name: str, switch: str, repository: Path) -> None:
    (definition,) = found(render(repository, RELEASES[name]), "CustomResourceDefinition").values()
    assert definition["spec"]["description"] == "text with {{ braces }} that no template may touch"
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not found(render(repository, RELEASES[name], {"crds": {switch: False}}), "CustomResourceDefinition")


@pytest.mark.toolchain
def test_every_shape_of_the_inputs_renders(repository: Path) -> None:
    inputs = replace(
        INPUTS, replicas=2, database_instances=3, certificate="provided", ca_bundle=None, load_balancer=None,
        image_registry="registry.example.com:5000", trusted_proxies=("10.0.0.0/8",),
    )  # fmt: skip
    for release in catalogue(inputs):
        for pod in pods(render(repository, release)):
            for container in pod["containers"]:
                assert container["image"].startswith("registry.example.com:5000/"), container["image"]


@pytest.mark.toolchain
def test_helm_pulls_from_the_repository_over_http(repository: Path, tmp_path: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(repository))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.closing(server.socket):
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for chart in versions.CHARTS:
            helm("pull", chart.name, "--repo", url, "--version", chart.version, "--destination", tmp_path)
            assert (tmp_path / f"{chart.name}-{chart.version}.tgz").exists()
        with pytest.raises(Refused, match="not found"):
            helm("pull", "traefik", "--repo", url, "--version", "0.0.1", "--destination", tmp_path)
        server.shutdown()


@pytest.mark.toolchain
def test_the_artifact_holds_the_definitions_the_plan_waits_for() -> None:
    repository = _artifact("charts")
    for release in RELEASES.values():
        definitions = found(render(repository, release), "CustomResourceDefinition")
        assert set(release.crds) <= set(definitions)
        for manifest in (*release.before, *release.after):
            group, _, version = manifest.body["apiVersion"].partition("/")
            owner = RELEASES[manifest.needs[0]]
            kinds = {
                d["spec"]["names"]["kind"]: d
                for d in found(render(repository, owner), "CustomResourceDefinition").values()
                if d["spec"]["group"] == group
            }
            served = [v for v in kinds[manifest.body["kind"]]["spec"]["versions"] if v["name"] == version]
            properties = served[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            assert set(manifest.body["spec"]) <= set(properties)
