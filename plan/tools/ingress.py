"""What no chart brings of a way in through Traefik: an Ingress, and the Middlewares that its requests pass."""

from __future__ import annotations

from collections.abc import Sequence

from plan.tools import traefik
from plan.tools.model import Manifest, ToolInputs, Values

MIDDLEWARES = "traefik.ingress.kubernetes.io/router.middlewares"
"""The annotation of an Ingress that names them."""


def middleware(name: str, namespace: str, spec: Values) -> Values:
    """A Middleware, which Ingresses of its own namespace may name."""
    return {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def passing(namespace: str, *middlewares: str) -> Values:
    """The annotations of an Ingress whose requests pass these of `namespace`, in this order."""
    return {MIDDLEWARES: ",".join(f"{namespace}-{name}@kubernetescrd" for name in middlewares)}


def rule(host: str, paths: Sequence[str], backend: tuple[str, int]) -> Values:
    """A rule of an Ingress: `paths` of `host` to `backend`, a service of its namespace and the port."""
    service = {"service": {"name": backend[0], "port": {"number": backend[1]}}}
    return {
        "host": host,
        "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": service} for path in paths]},
    }


def ingress(
    inputs: ToolInputs,
    name: str,
    namespace: str,
    host: str,
    *,
    paths: Sequence[str],
    backend: tuple[str, int],
    middlewares: Sequence[str] = (),
) -> Values:
    """An Ingress of one rule, whose requests pass `middlewares` of its namespace."""
    annotations = {"annotations": passing(namespace, *middlewares)} if middlewares else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": namespace, **annotations},
        "spec": {
            "ingressClassName": inputs.ingress_class,
            "rules": [rule(host, paths, backend)],
            "tls": [{"hosts": [host]}],  # no secret: Traefik's default certificate covers the name
        },
    }


def closed(
    inputs: ToolInputs, name: str, namespace: str, host: str, *, paths: Sequence[str], backend: tuple[str, int]
) -> tuple[Manifest, ...]:
    """`paths` of `host`, and what begins with them, answer 403 to everybody: longer paths go before the tool's own."""
    nobody = middleware(name, namespace, {"ipAllowList": {"sourceRange": ["127.0.0.1/32"]}})
    way = ingress(inputs, name, namespace, host, paths=paths, backend=backend, middlewares=(name,))
    return (manifest(name, nobody), manifest(f"{name}-ingress", way))


def manifest(name: str, body: Values) -> Manifest:
    """`body`, which the ingress watches, in its own namespace."""
    return Manifest(name=name, namespace=body["metadata"]["namespace"], needs=(traefik.NAME,), body=body)
