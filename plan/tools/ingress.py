"""What no chart brings of a way in through Traefik: Ingresses, routes, and the Middlewares that requests pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def route(
    name: str,
    namespace: str,
    host: str,
    *,
    entry: str,
    asked: Mapping[str, Sequence[str]],
    backend: tuple[str, int],
    middlewares: Sequence[str] = (),
) -> Values:
    """An IngressRoute, which unlike an Ingress chooses by method, too: at `host`, to `backend`, by each method of `asked`
    what begins with one of its paths. It is at the one entry point `entry`."""
    service = {"name": backend[0], "port": backend[1]}
    passed = {"middlewares": [{"name": middleware} for middleware in middlewares]} if middlewares else {}
    return {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "entryPoints": [entry],
            "routes": [
                {"kind": "Rule", "match": _match(host, method, paths), **passed, "services": [service]}
                for method, paths in asked.items()
            ],
        },
    }


def _match(host: str, method: str, paths: Sequence[str]) -> str:
    below = " || ".join(f"PathPrefix(`{path}`)" for path in paths)
    # Traefik resolves `..`, but not behind an encoded slash, which what answers may decode.
    return rf"Host(`{host}`) && Method(`{method}`) && !PathRegexp(`\.\.`) && ({below})"


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
