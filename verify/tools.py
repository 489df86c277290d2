"""The checks of the tools in a cluster: one line a tool, then what their pods ask for beside what the plan counts."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from plan.tools.model import Manifest, Release
from verify.kubernetes import Api, number_of, unavailable
from verify.runner import Check, CheckFailed
from verify.stack import Stack

# What a server says when nobody is logged in; 404 is the ingress that knows no such name, 5xx a tool that is down.
_ANSWERS = frozenset((*range(200, 300), *range(301, 309), 401, 403))


def tool_checks(stack: Stack, cluster: dict[str, Any], api: Api) -> Iterator[Check]:
    """A check for each tool of `cluster`, and one for all of them together."""
    releases = stack.releases[cluster["name"]]
    for release in releases:
        yield Check(f"{cluster['name']}: {release.name}", lambda release=release: _tool(stack, cluster, api, release))
    yield Check(f"{cluster['name']}: resources", lambda: _resources(api, releases, set(cluster["workers"])))


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
    done = _jobs(api, release, faults)
    note(done, "Job done", "Jobs done")
    note(_policies(api, release, faults), "network policy", "network policies")
    for kind, word in (("PodDisruptionBudget", "disruption budget"), ("HorizontalPodAutoscaler", "autoscaler")):
        note(sum(m.body["kind"] == kind for m in manifests), word)
    urls = [_url(stack, cluster, host, release.path, faults) for host in (release.host, *release.other_hosts) if host]
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


def _policies(api: Api, release: Release, faults: list[str]) -> int:
    """The number of network policies in the tool's namespace; one must hold for all pods, both ways, and let not all in or out."""
    policies = api.get(f"/apis/networking.k8s.io/v1/namespaces/{release.namespace}/networkpolicies")["items"]
    specs = [policy["spec"] for policy in policies]
    closed = [
        spec for spec in specs
        if not spec.get("podSelector") and {"Ingress", "Egress"} <= set(spec.get("policyTypes", ()))
        and all(spec.get("ingress", ())) and all(spec.get("egress", ()))  # an empty rule allows everything
    ]  # fmt: skip
    if not closed:
        faults.append(f"namespace {release.namespace} has no policy that denies by default")
    return len(policies)


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


def _resources(api: Api, releases: tuple[Release, ...], workers: set[str]) -> str:
    """A table: what the pods of each tool ask for on the workers, and what the plan counts. Raises CheckFailed."""
    pods = [
        p for p in api.get("/api/v1/pods")["items"]
        if p["spec"].get("nodeName") in workers and p.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]  # fmt: skip
    nodes = [n for n in api.get("/api/v1/nodes")["items"] if n["metadata"]["name"] in workers]
    room = tuple(sum(number_of(n["status"]["allocatable"][what]) for n in nodes) for what in ("cpu", "memory"))
    measured: dict[str, tuple[float, float]] = {}
    for pod in pods:
        asked = requests(pod)
        before = measured.get(pod["metadata"]["namespace"], (0.0, 0.0))
        measured[pod["metadata"]["namespace"]] = (before[0] + asked[0], before[1] + asked[1])
    namespaces = dict.fromkeys(r.namespace for r in releases)
    rows = [("namespace", "CPU", "memory", "share of the memory")]
    for namespace in namespaces:
        rows.append(_row(namespace, measured.pop(namespace, (0.0, 0.0)), room))
    rows.append(_row("others", (sum(m[0] for m in measured.values()), sum(m[1] for m in measured.values())), room))
    total = tuple(sum(requests(pod)[i] for pod in pods) for i in (0, 1))
    rows.append(_row("together", (total[0], total[1]), room))
    rows.append(("workers have", f"{room[0]:.2f}", f"{room[1] / 2**30:.2f} Gi", ""))
    table = "\n".join(f"      {a:<24} {b:>8} {c:>12} {d:>8}".rstrip() for a, b, c, d in rows)
    over = [what for what, have, asked in (("CPU", room[0], total[0]), ("memory", room[1], total[1])) if asked > have]
    if over:
        raise CheckFailed(f"the pods ask for more {' and '.join(over)} than the workers have\n{table}")
    return f"{len(pods)} pods ask for {total[0]:.2f} CPU and {total[1] / 2**30:.2f} Gi of {room[0]:.0f} and {room[1] / 2**30:.0f}\n{table}"


def _row(name: str, asked: tuple[float, float], room: tuple[float, ...]) -> tuple[str, str, str, str]:
    return name, f"{asked[0]:.2f}", f"{asked[1] / 2**30:.2f} Gi", f"{100 * asked[1] / room[1]:.0f} %" if room[1] else ""


def requests(pod: dict[str, Any]) -> tuple[float, float]:
    """Cores and bytes that a pod asks for: its containers together, or one container that runs before them if that is more."""
    spec = pod["spec"]

    def of(container: dict[str, Any], what: str) -> float:
        return number_of(container.get("resources", {}).get("requests", {}).get(what, "0"))

    beside = [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    before = [c for c in spec.get("initContainers", []) if c not in beside]

    def need(what: str) -> float:
        return max(sum(of(c, what) for c in (*spec["containers"], *beside)), *(of(c, what) for c in before), 0.0)

    return need("cpu"), need("memory")
