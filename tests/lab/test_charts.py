"""The stand-in charts: packaging, and, with a real helm, what they take, refuse and render."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.charts.doubled_facts import doubled
from lab.charts.facts import facts_of
from lab.charts.key_lists import allows, key_list, schema
from lab.charts.package import definition_places, files, package
from plan import images, versions
from plan.tools.catalogue import catalogue
from plan.tools.inputs import tool_inputs
from plan.tools.model import CA_BUNDLE, Release
from tests.support import charts
from tests.support.api_server import artifact
from tests.support.charts import WORKLOADS, Refused, found, helm, pods, render
from tests.support.platform import every_tool, plan_of

PLAN = plan_of("standalone", every_tool())
RELEASES = {release.name: release for release in PLAN.releases["standalone"]}
WITH_DEFINITIONS = {
    chart: folder for chart, folder in definition_places().items() if chart in {c.name for c in versions.CHARTS}
}


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return charts.small_definitions(tmp_path_factory.mktemp("definitions"))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return charts.repository(tmp_path_factory.mktemp("charts"))


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


@pytest.mark.toolchain
@pytest.mark.parametrize("name", RELEASES)
class TestCatalogue:
    def test_the_workloads_are_those_the_plan_waits_for(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        rendered = {
            (o["kind"], o["metadata"]["name"], o["metadata"]["namespace"])
            for o in render(repository, release)
            if o["kind"] in WORKLOADS
        }
        assert rendered == {(w.kind, w.name, w.namespace) for w in release.workloads}

    def test_pods_ask_for_what_the_plan_counts(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        rendered = {
            (o["kind"], o["metadata"]["name"]): o for o in render(repository, release) if o["kind"] in WORKLOADS
        }
        for workload in release.workloads:
            own = rendered[workload.kind, workload.name]
            template = own["spec"]["template"]
            asked = {
                what: sum(quantity(c["resources"]["requests"].get(what, "0")) for c in template["spec"]["containers"])
                for what in ("cpu", "memory")
            }
            wanted = {"cpu": quantity(workload.cpu), "memory": quantity(workload.memory)}
            assert asked == pytest.approx(wanted), workload.name
            if workload.kind != "DaemonSet":
                assert own["spec"].get("replicas", 1) == workload.replicas, workload.name
            assert workload.selector.items() <= template["metadata"]["labels"].items(), workload.name

    def test_what_a_pod_refers_to_is_there(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        objects = render(repository, release)
        assert missing(release, objects) == []
        for pod in pods(objects):
            assert all(container["resources"]["requests"] for container in pod["containers"])

    def test_the_double_is_no_kinder_than_the_real_chart(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        chart = next((c for c in versions.CHARTS if release.repository and c.name == release.chart), None)
        if chart is None:
            return  # the project's own: no double
        real, rendered = doubled(chart), facts_of(render(repository, release))
        for workload, wanted in real["pods"].items():
            if workload.partition("/")[0] not in WORKLOADS:
                continue
            pod = rendered["pods"][workload]
            for container, ports in wanted["containers"].items():
                assert pod["containers"][container]["ports"] == {p["name"]: p["containerPort"] for p in ports}, container
            assert set(pod.get("init", {})) == set(wanted["init"]), workload
            assert {f"{r['kind']}/{r['name']}" for r in wanted["references"]} <= set(pod.get("references", ())), workload
        assert rendered.get("budgets", {}) == real["budgets"] and "policies" not in rendered

    def test_a_misspelt_key_is_refused_by_name(self, name: str, repository: Path) -> None:
        with pytest.raises(Refused, match="notAKey"):
            render(repository, RELEASES[name], {"notAKey": {"x": 1}})

    def test_services_select_the_pods(self, name: str, repository: Path) -> None:
        release = RELEASES[name]
        objects = render(repository, release)
        labels = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] in WORKLOADS]
        for service in found(objects, "Service").values():
            selector = service["spec"].get("selector", {}).items()
            if service["metadata"].get("namespace", release.namespace) == release.namespace:
                assert any(selector <= own.items() for own in labels), service["metadata"]["name"]

    def test_ingresses_lead_to_a_service_under_the_hosts_of_the_plan(
        self, name: str, everything: dict[str, list[dict[str, Any]]]
    ) -> None:
        home = RELEASES[name].namespace
        # Of oauth2-proxy, they lead to services of other releases, in their namespaces.
        services = {
            (service["metadata"].get("namespace", release.namespace), service["metadata"]["name"]): service
            for release in RELEASES.values()
            for service in everything[release.name]
            if service["kind"] == "Service"
        }
        for ingress in (o for o in everything[name] if o["kind"] == "Ingress"):
            assert ingress["spec"]["ingressClassName"] == "traefik"
            own = {rule["host"] for rule in ingress["spec"]["rules"]}
            assert own <= hosts_of_the_plan()
            # No Secret of its own: the ingress' default certificate covers every name.
            assert {host for entry in ingress["spec"].get("tls", ()) for host in entry["hosts"]} in (own, set())
            assert not [entry for entry in ingress["spec"].get("tls", ()) if entry.get("secretName")]
            for rule in ingress["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    service = services[ingress["metadata"].get("namespace", home), backend["name"]]
                    wanted = backend["port"]
                    ports = service["spec"]["ports"]
                    assert any(
                        p.get("name") == wanted.get("name", p) or p["port"] == wanted.get("number") for p in ports
                    )


def missing(release: Release, objects: list[dict[str, Any]]) -> list[str]:
    """What pods of `objects` refer to and nobody makes before they are ready."""
    secrets = {secret.name: set(secret.data) for secret in release.secrets}
    secrets |= {n: {*o.get("data", {}), *o.get("stringData", {})} for n, o in found(objects, "Secret").items()}
    # What comes after the release is made only when its pods are ready.
    own = [m.body for m in release.before]
    maps = {*found(objects, "ConfigMap"), *found(own, "ConfigMap"), release.ca_bundle}
    maps |= {config_map.name for config_map in release.config_maps}
    accounts = {*found(objects, "ServiceAccount"), *found(own, "ServiceAccount"), "default"}
    # Others make these: the operator of databases, cert-manager, and Jobs that come before the release.
    others = {f"{database.name}-ca" for database in release.databases}
    others |= {certificate["spec"]["secretName"] for certificate in found([*objects, *own], "Certificate").values()}
    others |= {name for job in release.jobs if job.before for rule in job.rules for name in rule.get("resourceNames", ())}
    lacking = []
    for pod in pods(objects):
        account = pod.get("serviceAccountName", "default")
        lacking += [f"ServiceAccount/{account}"] if account not in accounts else []
        for kind, reference in required(pod):
            name = reference.get("name") or reference["secretName"]
            keys = {*([reference["key"]] if "key" in reference else []), *(item["key"] for item in reference.get("items", ()))}
            if kind == "ConfigMap":
                there = name in maps
            else:
                there = name in others or (name in secrets and keys <= secrets[name])
            lacking += [] if there else [f"{kind}/{name}: {sorted(keys)}"]
    return lacking


def required(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and source of each ConfigMap and Secret that the kubelet does not start the pod without."""
    words = {"configMap": "ConfigMap", "configMapRef": "ConfigMap", "configMapKeyRef": "ConfigMap",
             "secret": "Secret", "secretRef": "Secret", "secretKeyRef": "Secret"}  # fmt: skip
    places = list(pod.get("volumes", []))
    places += [source for volume in places for source in volume.get("projected", {}).get("sources", [])]
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        places += container.get("envFrom", []) + [variable.get("valueFrom", {}) for variable in container.get("env", [])]
    for place in places:
        yield from ((words[word], source) for word, source in place.items() if word in words and not source.get("optional"))


def hosts_of_the_plan() -> set[str]:
    return {host for release in RELEASES.values() for host in (release.host, *release.other_hosts) if host}


@pytest.fixture(scope="session")
def everything(repository: Path) -> dict[str, list[dict[str, Any]]]:
    """What every release makes, by its name."""
    return {
        name: render(repository, release) + [m.body for m in (*release.before, *release.after)]
        for name, release in RELEASES.items()
    }


@pytest.mark.toolchain
def test_every_host_of_the_plan_has_an_ingress(everything: dict[str, list[dict[str, Any]]]) -> None:
    ingresses = [o for objects in everything.values() for o in objects if o["kind"] == "Ingress"]
    assert {rule["host"] for ingress in ingresses for rule in ingress["spec"]["rules"]} == hosts_of_the_plan()


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("traefik", {"ports": {"web": {"nodeport": 1}}}, "nodeport"),
        ("traefik", {"deployment": {"replicas": "two"}}, "replicas"),
        ("traefik", {"service": {"additionalServices": {"none": {}}}}, "Cannot create Service traefik-none without ports"),
        ("traefik", {"ports": {"web": {"http": {"redirections": {"entryPoint": {"to": "x"}}}}}}, "Cannot redirect web"),
        ("csi-driver-nfs", {"storageClass": {"server": "x"}}, "server"),
        ("csi-driver-nfs", {"externalSnapshotter": {"enabled": True}}, "has no snapshot controller"),
        ("cert-manager", {"crds": {"enable": True}}, "enable"),
        ("keycloak", {"dbchecker": {"enabled": True}, "database": {"hostname": None}}, "hostname is required"),
        ("argo-cd", {"server": {"ingress": {"host": "x"}}}, "host"),
        ("minio", {"oidc": {"existingSecret": "x"}}, "existingSecret"),
        ("valkey", {"auth": {"aclUsers": None}}, "no authentication method"),
        ("valkey", {"auth": {"aclUsers": {"harbor": {"permissions": ""}}}}, "must have a 'permissions' field"),
        ("harbor", {"caSecretName": ""}, "caSecretName is empty"),
        ("harbor", {"core": {"existingSecret": ""}}, "a secret is left to the real chart"),
        ("harbor", {"redis": {"external": {"password": "x"}}}, "ends in ConfigMaps"),
        ("sonarqube", {"edition": "developer"}, "exclude each other"),
        ("sonarqube", {"community": {"enabled": False}}, "choose an edition"),
        ("sonarqube", {"monitoringPasscodeSecretKey": ""}, "no passcode"),
        ("defectdojo", {"extraConfigs": {"DD_CELERY_BROKER_USER": "x"}}, "would stand twice"),
        ("defectdojo", {"postgresql": {"enabled": True}}, "has no sub-charts"),
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
    inside = {name: s["spec"] for name, s in found(objects, "Service").items() if name != "traefik"}
    assert set(inside) == {f"traefik-read-{source}" for source in ("loki", "tempo", "mimir", "alertmanager")}
    for spec in inside.values():
        assert spec["type"] == "ClusterIP"
        assert spec["ports"] == [{"name": "readers", "port": 8090, "targetPort": "readers", "protocol": "TCP"}]
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
def test_the_double_of_argo_cd_opens_its_server_unless_it_is_told_not_to(repository: Path) -> None:
    opened = render(repository, RELEASES["argo-cd"], {"global": {"networkPolicy": {"create": True}}})
    assert found(opened, "NetworkPolicy")["argocd-server"]["spec"]["ingress"] == [{}]


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
@pytest.mark.parametrize("chart", sorted(WITH_DEFINITIONS))
def test_a_chart_brings_its_definitions(chart: str, repository: Path) -> None:
    release = next(r for r in RELEASES.values() if r.chart == chart)
    assert list(found(render(repository, release), "CustomResourceDefinition")) == [f"things.{chart}.test"]


@pytest.mark.toolchain
def test_every_shape_of_the_inputs_renders(repository: Path) -> None:
    cluster = PLAN.topology.clusters[0]
    inputs = replace(
        tool_inputs(PLAN.settings, PLAN.topology, cluster),
        replicas=2, database_instances=3, certificate="provided", ca_bundle=f"{CA_BUNDLE}-0123abcd", load_balancer=None,
        trusted_proxies=("10.0.0.0/8",),
    )  # fmt: skip
    for release in catalogue(inputs):
        objects = render(repository, release)
        rendered = {(o["kind"], o["metadata"]["name"]): o["spec"].get("replicas", 1) for o in objects if o["kind"] in WORKLOADS}
        assert rendered == {(w.kind, w.name): 1 if w.kind == "DaemonSet" else w.replicas for w in release.workloads}, release.name
        assert missing(release, objects) == [], release.name
        # None that the list for an air gap lacks.
        listed = images.of_release(release)
        for pod in pods(objects):
            for container in (*pod["containers"], *pod.get("initContainers", [])):
                assert images.complete(container["image"]) in listed, release.name


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
def test_the_artifact_holds_the_definitions_the_plan_names() -> None:
    packed = artifact("charts")
    for release in RELEASES.values():
        if release.crds:
            assert set(release.crds) <= set(found(render(packed, release), "CustomResourceDefinition")), release.name


# --- plain functions ---

_UNITS = {"m": 0.001, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: cores, or bytes."""
    number = str(text).rstrip("mkKMGi")
    return round(float(number) * _UNITS[str(text)[len(number) :]], 6)
