"""The checks of the tools in a cluster: one line a tool, then what their pods ask for beside what the plan counts."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from plan.quantities import number_of
from plan.tools.model import Manifest, Release
from verify import policies
from verify.kubernetes import Api, unavailable
from verify.runner import Check, CheckFailed
from verify.stack import Stack

# What a server says when nobody is logged in; 404 is the ingress that knows no such name, 5xx a tool that is down.
_ANSWERS = frozenset((*range(200, 300), *range(301, 309), 401, 403))


def tool_checks(stack: Stack, cluster: dict[str, Any], api: Api) -> Iterator[Check]:
    """A check for each tool of `cluster`, and one for all of them together."""
    releases = stack.releases[cluster["name"]]
    for release in releases:
        yield Check(f"{cluster['name']}: {release.name}", lambda release=release: _tool(stack, cluster, api, release))
    planned = stack.plan["sizing"]["tools"][cluster["name"]]["tools"]
    yield Check(f"{cluster['name']}: resources", lambda: _resources(api, releases, planned, set(cluster["workers"])))


def _tool(stack: Stack, cluster: dict[str, Any], api: Api, release: Release) -> str:
    """Everything that belongs to `release`; all faults at once. Raises CheckFailed."""
    faults: list[str] = []
    seen: list[str] = []

    def note(found: int, one: str, many: str | None = None) -> None:
        if found:
            seen.append(f"{found} {one if found == 1 else many or one + 's'}")

    labels = urlencode({"labelSelector": f"owner=helm,name={release.name},status=deployed"})
    if not api.get(f"/api/v1/namespaces/{release.namespace}/secrets?{labels}")["items"]:
        faults.append(f"release {release.namespace}/{release.name} is not deployed")
    for workload in release.workloads:
        path = f"/apis/apps/v1/namespaces/{workload.namespace}/{workload.kind.lower()}s/{workload.name}"
        found = api.find(path)
        fault = unavailable({"kind": workload.kind, **found}) if found else f"{workload.kind} {workload.name} is not there"
        faults += [fault] if fault else []
    note(len(release.workloads), "workload")
    manifests = (*release.before, *release.after)
    for manifest in manifests:
        faults += [fault] if (fault := _manifest(api, manifest)) else []
    note(sum(m.body["kind"] == "Cluster" for m in manifests), "database")
    for name in release.api_services:
        faults += [fault] if (fault := _api_service(api, name)) else []
    note(len(release.api_services), "API service")
    done = _jobs(api, release, faults)
    note(done, "Job done", "Jobs done")
    note(_policies(api, release, stack.releases[cluster["name"]], faults), "network policy", "network policies")
    for kind, word in (("PodDisruptionBudget", "disruption budget"), ("HorizontalPodAutoscaler", "autoscaler")):
        note(sum(m.body["kind"] == kind for m in manifests), word)
    places = [(release.host, release.path), *((host, "/") for host in release.other_hosts)]
    urls = [_url(stack, cluster, host, path, faults) for host, path in places if host]
    if faults:
        raise CheckFailed("; ".join(faults))
    return ", ".join([*urls, *seen]) or "deployed"


def _manifest(api: Api, manifest: Manifest) -> str | None:
    """Why an object of the plan is not there, or not in the condition that the plan waits for; None when it is."""
    body = manifest.body
    name = f"{body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}".replace(" /", " ")
    collection = api.collection(body["apiVersion"], body["kind"], body["metadata"].get("namespace") or manifest.namespace)
    found = api.find(f"{collection}/{body['metadata']['name']}") if collection else None
    if found is None:
        return f"{name} is not there"
    if manifest.wait_for and manifest.wait_for.startswith("condition="):
        wanted = manifest.wait_for.removeprefix("condition=")
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        if conditions.get(wanted, {}).get("status") != "True":
            return f"{name} is not {wanted}: {conditions.get(wanted, {}).get('message') or 'no word of it'}"
    return None


def _api_service(api: Api, name: str) -> str | None:
    """Why the API server reaches nobody behind the APIService `name`; None when somebody answers."""
    found = api.find(f"/apis/apiregistration.k8s.io/v1/apiservices/{name}")
    if found is None:
        return f"APIService {name} is not there"
    available: dict[str, str] = {}
    for condition in found.get("status", {}).get("conditions", []):
        if condition["type"] == "Available":
            available = condition
    if available.get("status") == "True":
        return None
    return f"APIService {name} is not available: {available.get('message') or 'no word of it'}"


def _jobs(api: Api, release: Release, faults: list[str]) -> int:
    """The number of provisioning Jobs that are complete."""
    complete = 0
    for job in release.jobs:
        found = api.find(f"/apis/batch/v1/namespaces/{release.namespace}/jobs/{job.name}") or {}
        ended = {c["type"]: c for c in found.get("status", {}).get("conditions", []) if c["status"] == "True"}
        if "Complete" in ended:
            complete += 1
        else:
            why = f"{ended['Failed'].get('reason')}: {ended['Failed'].get('message')}" if "Failed" in ended else "not ended"
            faults.append(f"Job {release.namespace}/{job.name} is not complete: {why if found else 'not there'}")
    return complete


def _policies(api: Api, release: Release, releases: tuple[Release, ...], faults: list[str]) -> int:
    """The number of network policies in the tool's namespaces. One must hold for all pods of a namespace, both ways, and
    none may open what the plan does not."""
    count = 0
    for namespace in (release.namespace, *release.further_namespaces):
        found = api.get(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")["items"]
        faults += policies.faults(found, policies.planned(releases, namespace), namespace)
        count += len(found)
    return count


def _url(stack: Stack, cluster: dict[str, Any], host: str, path: str, faults: list[str]) -> str:
    """Asks for `path` at the load balancer under `host`, the certificate verified to the platform's root."""
    url = f"https://{host}{path if path != '/' else ''}"
    try:
        status = ask(stack.outputs["ca_bundle"], cluster["load_balancer"], host, path)
    except OSError as error:
        faults.append(f"{url}: {error}")
    else:
        if status not in _ANSWERS:
            faults.append(f"{url} answers {status}")
    return url


def ask(authorities: str, address: str, host: str, path: str, *, port: int = 443, seconds: float = 10) -> int:
    """The status of `GET https://host/path` asked at `address`. Raises OSError: no answer, or a wrong certificate."""
    context = ssl.create_default_context(cadata=authorities)
    with socket.create_connection((address, port), timeout=seconds) as plain:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            connection = http.client.HTTPSConnection(host, context=context, timeout=seconds)
            connection.sock = secure
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            except http.client.HTTPException as error:
                raise OSError(f"not HTTP: {error or type(error).__name__}") from None


def _resources(api: Api, releases: tuple[Release, ...], planned: Mapping[str, Mapping[str, int]], workers: set[str]) -> str:
    """A table: what the pods of each tool ask for, and what the plan counts for it. Raises CheckFailed.

    `planned` is millicores and MiB, by tool, DaemonSets counted on workers only; so they are here. More than planned is
    marked: it may be the user's own values.
    """
    pods = [
        p for p in api.get("/api/v1/pods")["items"]
        if p.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        and (p["spec"].get("nodeName") in workers or not _of_every_node(p))
    ]  # fmt: skip
    nodes = [n for n in api.get("/api/v1/nodes")["items"] if n["metadata"]["name"] in workers]
    room = sum((Amount.of(node["status"]["allocatable"]) for node in nodes), Amount())
    measured: dict[str, Amount] = {}
    for pod in pods:
        namespace = pod["metadata"]["namespace"]
        measured[namespace] = measured.get(namespace, Amount()) + requests(pod)
    counted: dict[str, Amount] = {}
    for release in releases:
        own = planned[release.name]
        amount = Amount(own["cpu_millicores"] / 1000, own["memory_mib"] * 2.0**20)
        counted[release.namespace] = counted.get(release.namespace, Amount()) + amount
    total = sum(measured.values(), Amount())
    lines = [f"{'namespace':<24} {'CPU':>7} {'planned':>9} {'memory':>11} {'planned':>11}"]
    for namespace, amount in counted.items():
        lines.append(_row(namespace, measured.pop(namespace, Amount()), amount))
    lines.append(_row("others", sum(measured.values(), Amount()), None))
    lines.append(_row("together", total, sum(counted.values(), Amount())))
    lines.append(_row("workers have", room, None))
    table = "\n".join(f"      {line}" for line in lines)
    if not total.fits(room):
        raise CheckFailed(f"the pods ask for more than the workers have\n{table}")
    return f"{len(pods)} pods ask for {total.share(room)} of the workers\n{table}"


@dataclass(frozen=True)
class Amount:
    """Cores and bytes."""

    cpu: float = 0.0
    memory: float = 0.0

    @classmethod
    def of(cls, quantities: Mapping[str, str]) -> Amount:
        return cls(number_of(quantities.get("cpu", "0")), number_of(quantities.get("memory", "0")))

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpu + other.cpu, self.memory + other.memory)

    def fits(self, room: Amount) -> bool:
        # Sums of fractions: a thousandth of a core is nothing.
        return self.cpu <= room.cpu + 1e-3 and self.memory <= room.memory

    def share(self, room: Amount) -> str:
        parts = [100 * mine / all_ if all_ else 0 for mine, all_ in ((self.cpu, room.cpu), (self.memory, room.memory))]
        return f"{parts[0]:.0f} % of the CPU and {parts[1]:.0f} % of the memory"


def _row(name: str, amount: Amount, planned: Amount | None) -> str:
    beside = (f"{planned.cpu:.2f}", f"{planned.memory / 2**30:.2f} Gi") if planned else ("", "")
    mark = "  more than planned" if planned and not amount.fits(planned) else ""
    return f"{name:<24} {amount.cpu:>7.2f} {beside[0]:>9} {amount.memory / 2**30:>8.2f} Gi {beside[1]:>11}{mark}".rstrip()


def _of_every_node(pod: dict[str, Any]) -> bool:
    """Whether the pod is a node's own: of a DaemonSet, or of the node itself."""
    return any(owner["kind"] in ("DaemonSet", "Node") for owner in pod["metadata"].get("ownerReferences", ()))


def requests(pod: dict[str, Any]) -> Amount:
    """What a pod asks for: its containers together, or one container that runs before them if that is more."""
    spec = pod["spec"]

    def of(container: dict[str, Any]) -> Amount:
        return Amount.of(container.get("resources", {}).get("requests", {}))

    beside = [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    before = [of(c) for c in spec.get("initContainers", []) if c not in beside]
    at_once = sum((of(c) for c in (*spec["containers"], *beside)), Amount())
    return Amount(max(at_once.cpu, *(a.cpu for a in before), 0.0), max(at_once.memory, *(a.memory for a in before), 0.0))
