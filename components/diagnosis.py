"""What a failed release, Job or database leaves as evidence, told where the failure is told.

Helm takes a failed installation back, and with it the pods that would say why. So their namespace is watched while
the engine waits, and what was last wrong there is kept: which workload, why, its last events and log lines. Nothing of
it is shown unless the operation fails, and no value of a Secret of the namespace ever is.
"""

from __future__ import annotations

import asyncio
import base64
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pulumi

from components.cluster_api import Request, requests

LINES = 20  # of events, and of each log
INTERVAL_SECONDS = 15
_SHORTEST_SECRET = 6  # what is shorter would blank half of the text, and is no secret of this program
# Keys of Secrets whose values may be read by anybody, and would blank the evidence: they name pods and people.
_NO_SECRETS = {
    "username", "user", "rootuser", "accesskey", "accesskeyid", "clientid", "database", "host", "port", "cacrt", "tlscrt",
}  # fmt: skip
_KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}


@dataclass
class Evidence:
    """What was last seen to be wrong in a namespace; texts are free of secrets."""

    workloads: list[str] = field(default_factory=list)
    pods: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [*self.workloads, *(f"pod {name}: {why}" for name, why in self.pods.items())]
        if self.events:
            parts += ["last events:", *(f"  {event}" for event in self.events)]
        for name, text in self.logs.items():
            parts += [f"last lines of {name}:", *(f"  {line}" for line in text.splitlines()[-LINES:])]
        return "\n".join(parts)


class Watch:
    """Looks at a namespace until stopped, in a thread of its own. What fails here fails nothing."""

    def __init__(self, request: Request, namespace: str, seconds: float = INTERVAL_SECONDS) -> None:
        self._request, self._namespace, self._seconds = request, namespace, seconds
        self._evidence = Evidence()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{namespace}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                look(self._request, self._namespace, self._evidence)
            except RuntimeError:
                continue  # the API server will answer again, or the operation says that it does not

    def stop(self) -> None:
        self._over.set()

    def conclude(self) -> Evidence:
        """All evidence, with what can be seen now."""
        self.stop()
        self._thread.join(timeout=60)
        try:
            look(self._request, self._namespace, self._evidence)
        except RuntimeError as error:
            self._evidence.events.append(str(error))
        return self._evidence


class Diagnosis:
    """Hooks that watch what is made or changed in one cluster; `name` is unique in the stack."""

    def __init__(self, name: str, kubeconfig: pulumi.Input[str]) -> None:
        self._kubeconfig: pulumi.Output[str] = pulumi.Output.from_input(kubeconfig)
        self._watches: dict[str, Watch] = {}
        quiet = pulumi.ResourceHookOptions(ignore_errors=True)
        self.start = pulumi.ResourceHook(f"{name}-start", self._start, quiet)
        self.stop = pulumi.ResourceHook(f"{name}-stop", self._stop, quiet)
        self.tell = pulumi.ErrorHook(f"{name}-tell", self._tell)

    def binding(self, first: pulumi.ResourceHookBinding | None = None) -> pulumi.ResourceHookBinding:
        """The hooks of a resource, after those of `first`."""
        return pulumi.ResourceHookBinding(
            before_create=[*((first and first.before_create) or ()), self.start],
            before_update=[*((first and first.before_update) or ()), self.start],
            after_create=[self.stop],
            after_update=[self.stop],
            on_error=[self.tell],
        )

    async def _start(self, args: pulumi.ResourceHookArgs) -> None:
        known = await self._kubeconfig.future()
        namespace = _namespace(args.new_inputs)
        if known and namespace:
            self._watches[args.urn] = Watch(requests(known), namespace)

    async def _stop(self, args: pulumi.ResourceHookArgs) -> None:
        if watch := self._watches.pop(args.urn, None):
            watch.stop()

    async def _tell(self, args: pulumi.ErrorHookArgs) -> bool:
        if watch := self._watches.pop(args.urn, None):
            found = str(await asyncio.to_thread(watch.conclude))
            if found:
                pulumi.log.error(f"{args.name} failed; in namespace {_namespace(args.new_inputs)}:\n{found}")
        return False  # not to be tried again


def _namespace(inputs: Mapping[str, Any] | None) -> str | None:
    """Of a Helm release, or of any object."""
    metadata = (inputs or {}).get("metadata")
    found = metadata.get("namespace") if isinstance(metadata, Mapping) else (inputs or {}).get("namespace")
    return found if isinstance(found, str) else None


def look(request: Request, namespace: str, evidence: Evidence) -> None:
    """Adds to `evidence` what is wrong in `namespace` now; what was seen of pods that are gone stays.

    Raises RuntimeError when the API server does not answer.
    """
    core = f"/api/v1/namespaces/{namespace}"
    secrets = _secret_texts(request("GET", f"{core}/secrets"))
    pods = _items(request("GET", f"{core}/pods"))
    troubled = [pod for pod in pods if _trouble(pod)]
    if troubled:
        # Those that Helm has taken back already stay as they were seen.
        evidence.workloads = [_blank(t, secrets) for t in _unavailable(request, namespace)] or evidence.workloads
        evidence.pods = {pod["metadata"]["name"]: _blank(_trouble(pod), secrets) for pod in troubled}
        evidence.logs = {}
    for pod in troubled:
        name = pod["metadata"]["name"]
        for status in pod.get("status", {}).get("containerStatuses", []):
            if status.get("ready") and pod["status"].get("phase") == "Running":
                continue
            crashed = bool(status.get("restartCount")) and "waiting" in status.get("state", {})
            asked = f"container={quote(status['name'])}&tailLines={LINES}" + ("&previous=true" if crashed else "")
            try:
                text = request("GET", f"{core}/pods/{quote(name)}/log?{asked}")
            except RuntimeError:
                continue  # a container that never started has none
            if isinstance(text, str) and text.strip():
                evidence.logs[f"{name}/{status['name']}"] = _blank(text, secrets)
    events = sorted(_items(request("GET", f"{core}/events")), key=_moment)
    evidence.events = [_blank(_event(event), secrets) for event in events[-LINES:]]


def _items(answer: Any) -> list[dict[str, Any]]:
    return list(answer.get("items") or []) if isinstance(answer, dict) else []


def _trouble(pod: Mapping[str, Any]) -> str:
    """What keeps a pod from being ready; nothing for one that is, or has done its work."""
    status = pod.get("status", {})
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    if status.get("phase") == "Succeeded" or conditions.get("Ready", {}).get("status") == "True":
        return ""
    reasons = [status.get("phase", "Pending")]
    if conditions.get("PodScheduled", {}).get("status") == "False":
        reasons.append(str(conditions["PodScheduled"].get("message", "not scheduled")))
    for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
        reasons += list(_container(container))
    return "; ".join(reasons)


def _container(status: Mapping[str, Any]) -> Iterator[str]:
    restarts = f", restarted {status['restartCount']} times" if status.get("restartCount") else ""
    state = status.get("state", {})
    waiting, ended = state.get("waiting"), state.get("terminated")
    last = status.get("lastState", {}).get("terminated")
    if waiting:
        message = f": {waiting['message']}" if waiting.get("message") else ""
        yield f"{status['name']} waits, {waiting.get('reason', 'no reason given')}{message}{restarts}"
    elif ended and ended.get("exitCode"):
        yield f"{status['name']} ended with {ended['exitCode']} ({ended.get('reason', 'Error')}){restarts}"
    elif not status.get("ready") and not ended:
        yield f"{status['name']} is not ready{restarts}"
    if last and not ended:
        yield f"{status['name']} ended before with {last.get('exitCode')} ({last.get('reason', 'Error')})"


def _unavailable(request: Request, namespace: str) -> Iterator[str]:
    for path, kind in _KINDS.items():
        for item in _items(request("GET", f"/apis/apps/v1/namespaces/{namespace}/{path}")):
            status, spec = item.get("status", {}), item.get("spec", {})
            wanted = status.get("desiredNumberScheduled", 0) if kind == "DaemonSet" else spec.get("replicas", 1)
            ready = status.get("numberReady" if kind == "DaemonSet" else "readyReplicas", 0)
            if ready < wanted:
                yield f"{kind} {namespace}/{item['metadata']['name']}: {ready} of {wanted} pods are ready"


def _moment(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _event(event: Mapping[str, Any]) -> str:
    of = event.get("involvedObject", {})
    return f"{event.get('type')} {event.get('reason')} {of.get('kind')}/{of.get('name')}: {event.get('message')}"


def _secret_texts(answer: Any) -> list[str]:
    """Every value of every Secret, and each of its lines; longest first, so that none is left in part."""
    texts: set[str] = set()
    for secret in _items(answer):
        if secret.get("type") == "helm.sh/release.v1":
            continue  # the chart, rendered and packed: it holds no secret, and nobody prints it
        for key, value in (secret.get("data") or {}).items():
            if re.sub(r"[^a-z]", "", key.lower()) in _NO_SECRETS:
                continue
            whole = base64.b64decode(value).decode(errors="replace")
            texts |= {part.strip() for part in (whole, *whole.splitlines()) if len(part.strip()) >= _SHORTEST_SECRET}
    return sorted(texts, key=len, reverse=True)


def _blank(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "(secret)")
    return text
