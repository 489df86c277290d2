"""What the plan deploys into the clusters, held against a real API server with the tools' real definitions.

The real Helm renders every release of every cluster with the values of the plan; the server checks each object as if it
were created (field by field, admission included), and a pod of each template against the pod security level of its
namespace. Nothing of a chart beyond its double, no webhook, and no controller is seen by this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from plan.plan import Plan
from plan.tools import jobs
from plan.tools.catalogue import NAMES
from plan.tools.model import Release
from tests.support import charts
from tests.support.api_server import Cluster, artifact
from tests.support.charts import Object, render, templates
from tests.support.platform import airgap, every_tool, plan_of

pytestmark = pytest.mark.toolchain

SHAPES = ("standalone", "multicluster", "airgap")
FIRST = ("Namespace", "ServiceAccount", "PriorityClass")
"""What the admission of other objects looks up: really created, the rest is not."""


@cache
def plan(shape: str) -> Plan:
    return plan_of("standalone", airgap() | every_tool()) if shape == "airgap" else plan_of(shape, every_tool())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return charts.repository(tmp_path_factory.mktemp("charts"))


class Server(Cluster):
    """A cluster that says of an object whether it would take it."""

    def path(self, body: Mapping[str, Any], namespace: str) -> str:
        """The collection of an object's kind. Raises AssertionError where the server knows none."""
        known = self.kinds(body["apiVersion"])
        assert body["kind"] in known, f"the server knows no {body['kind']} of {body['apiVersion']}"
        plural, namespaced = known[body["kind"]]
        group = f"/api/{body['apiVersion']}" if "/" not in body["apiVersion"] else f"/apis/{body['apiVersion']}"
        return f"{group}/namespaces/{namespace}/{plural}" if namespaced else f"{group}/{plural}"

    @cache  # noqa: B019  (one server for the whole module)
    def kinds(self, version: str) -> dict[str, tuple[str, bool]]:
        """Kind to its plural and whether it has a namespace, of one API version."""
        found = self.get(f"/api/{version}" if "/" not in version else f"/apis/{version}")
        resources = (found or {"resources": []})["resources"]
        return {r["kind"]: (r["name"], r["namespaced"]) for r in resources if "/" not in r["name"]}

    def fault(self, body: Mapping[str, Any], namespace: str) -> str | None:
        """Why the server would not create this object, strictly read; None when it would."""
        namespace = body["metadata"].get("namespace", namespace)
        query = "fieldManager=test&fieldValidation=Strict&dryRun=All"
        try:
            self.request("POST", f"{self.path(body, namespace)}?{query}", body)
        except AssertionError as error:
            return f"{body['kind']} {namespace}/{body['metadata'].get('name')}: {error}"
        return None

    def make(self, body: Mapping[str, Any], namespace: str) -> None:
        self.apply(self.path(body, body["metadata"].get("namespace", namespace)), dict(body))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cluster = Server(tmp_path_factory.mktemp("server"))
    try:
        cluster.start()
        for file in sorted((artifact("workloads") / "crds").iterdir()):
            cluster.crds(file)
        yield cluster
    finally:
        cluster.stop()


def declared(release: Release) -> list[Object]:
    """What belongs to a release beside its chart: Secrets (with values that only have the right form), Jobs, manifests."""
    secrets = [
        {
            "apiVersion": "v1", "kind": "Secret", "type": secret.type, "stringData": dict.fromkeys((key.format(number=1) for key in secret.data), "{}"),
            "metadata": {"name": secret.name, "namespace": secret.namespace, "labels": dict(secret.labels)},
        }
        for secret in release.secrets
    ]  # fmt: skip
    provisioning = [
        body
        for job in release.jobs
        for body in (*jobs.companions(job, release.namespace), jobs.body(job, release.namespace, release.ca_bundle))
    ]
    return secrets + provisioning + [manifest.body for manifest in (*release.before, *release.after)]


def of(name: str) -> list[tuple[str, Release]]:
    """Where a tool stands: shape and cluster, and its release there."""
    return [
        (f"{shape}/{cluster}", release)
        for shape in SHAPES
        for cluster, releases in plan(shape).releases.items()
        for release in releases
        if release.name == name
    ]


def namespace(release: Release) -> Object:
    level = {"pod-security.kubernetes.io/enforce": release.pod_security}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": release.namespace, "labels": level}}


def pod(place: str, template: Object, owner: Object | None) -> Object:
    """The pod that a controller would make; `owner` is the StatefulSet with whose volumes it gets."""
    claims = [c["metadata"]["name"] for c in (owner or {}).get("spec", {}).get("volumeClaimTemplates", [])]
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    kept = {key: template["metadata"][key] for key in ("labels", "annotations") if key in template.get("metadata", {})}
    spec = {**template["spec"], "volumes": [*template["spec"].get("volumes", []), *volumes]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": place.rpartition("/")[2], **kept}, "spec": spec}


@pytest.mark.parametrize("name", NAMES)
def test_a_server_takes_all_that_belongs_to_a_tool(name: str, server: Server, repository: Path) -> None:
    faults = []
    for where, release in of(name):
        objects = [o for o in render(repository, release) if o["kind"] != "CustomResourceDefinition"] + declared(release)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        server.make(namespace(release), release.namespace)
        for body in (account, *(o for o in objects if o["kind"] in FIRST)):
            server.make(body, release.namespace)
        for body in objects:
            if body["kind"] not in FIRST:
                faults.append(server.fault(body, release.namespace))
        owners = {f"{o['kind']}/{o['metadata']['name']}": o for o in objects}
        for place, template in templates(objects):
            home = owners[place]["metadata"].get("namespace", release.namespace)
            fault = server.fault(pod(place, template, owners[place]), home)
            faults.append(fault and f"pod of {place}: {fault}")
        faults = [f if f is None or f.startswith("[") else f"[{where}] {f}" for f in faults]
    assert [f for f in faults if f] == []


def test_what_the_mechanisms_make_is_among_it() -> None:
    kinds = {body["kind"] for name in NAMES for _, release in of(name) for body in declared(release)}
    assert {
        "Certificate", "Cluster", "ClusterIssuer", "ConfigMap", "Job", "NetworkPolicy", "PodDisruptionBudget", "ScheduledBackup",
        "Secret", "ServiceAccount",
    } <= kinds  # fmt: skip


def test_namespaces_that_tools_share_have_one_level() -> None:
    for shape in SHAPES:
        for releases in plan(shape).releases.values():
            levels: dict[str, set[str]] = {}
            for release in releases:
                levels.setdefault(release.namespace, set()).add(release.pod_security)
            assert {n: found for n, found in levels.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"replica": 1}}, "unknown field"),
        ({"spec": {"template": {"spec": {"hostNetwork": True}}}}, "violates PodSecurity"),
        ({"spec": {"template": {"spec": {"serviceAccountName": "nobody"}}}}, "serviceaccount .*nobody.* not found"),
    ],
)
def test_a_fault_is_noticed(change: Object, message: str, server: Server) -> None:
    """The judge itself: each kind of fault that the test above exists for."""
    server.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "judged", "labels": {
        "pod-security.kubernetes.io/enforce": "restricted"}}}, "judged")  # fmt: skip
    server.make({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, "judged")
    container = {
        "name": "c", "image": "i",
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
                            "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    labels = {"app": "x"}
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "judged"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    }  # fmt: skip

    def faults(judged: Object) -> list[str | None]:
        return [server.fault(judged, "judged")] + [
            server.fault(pod(place, template, None), "judged") for place, template in templates([judged])
        ]

    assert faults(body) == [None, None]
    spec = {**body["spec"], **change["spec"]}
    if "template" in change["spec"]:
        own = {**body["spec"]["template"]["spec"], **change["spec"]["template"]["spec"]}
        spec["template"] = {**body["spec"]["template"], "spec": own}
    text = "\n".join(f for f in faults({**body, "spec": spec}) if f)
    assert re.search(message, text), text
