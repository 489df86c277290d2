"""Traefik: the ingress on the workers' NodePorts, with the certificate of `*.domain` as its default."""

from __future__ import annotations

from collections.abc import Sequence

from plan import versions
from plan.haproxy import INGRESS_HTTP, INGRESS_HTTPS
from plan.limits import KEEP_ALIVE, REQUEST, RESPONSE
from plan.tools import cert_manager, telemetry
from plan.tools.common import merge, resources, workers_only
from plan.tools.model import FromPki, Manifest, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, OUTSIDE, Flow

NAME = NAMESPACE = "traefik"
TLS_SECRET = "ingress-tls"
SECURE = "websecure"  # the entry point of the public names
READERS, READERS_PORT = "readers", 8090
"""The entry point by which Grafana reads, and its port: inside of the cluster, in plain HTTP."""

_TRANSPORT: Values = {
    "transport": {
        "respondingTimeouts": {
            "readTimeout": f"{REQUEST.value}s", "writeTimeout": f"{RESPONSE.value}s", "idleTimeout": f"{KEEP_ALIVE.value}s",
        }
    }
}  # fmt: skip


def reader(source: telemetry.DataSource) -> str:
    """The Service of the entry point for readers by which Grafana asks for `source`: its name chooses the route."""
    return f"{NAME}-{_reading(source)}"


def _reading(source: telemetry.DataSource) -> str:
    return f"read-{source}"  # the chart puts its own name before it


def _readers(sources: Sequence[telemetry.DataSource]) -> Values:
    """The entry point for readers, and a Service for each of `sources`."""
    names = [_reading(source) for source in sources]
    port: Values = {
        "port": READERS_PORT,
        "exposedPort": READERS_PORT,
        "protocol": "TCP",
        "expose": {"default": False, **dict.fromkeys(names, True)},
        # One dashboard asks dozens of times, and always as Grafana.
        "observability": {"accessLogs": False},
        **_TRANSPORT,
    }
    services = {name: {"spec": {"type": "ClusterIP"}} for name in names}
    return {"ports": {READERS: port}, "service": {"additionalServices": services}}


def _values(inputs: ToolInputs) -> Values:
    entry: Values = {
        # What names no entry point, as an Ingress, is at these two, and not at those of metrics and readers.
        "asDefault": True,
        "forwardedHeaders": {"trustedIPs": list(inputs.trusted_proxies), "insecure": False},
        **_TRANSPORT,
    }
    if inputs.ingress_balancers:
        # A connection of theirs without the header is taken too, as one of the load balancer's own.
        entry["proxyProtocol"] = {"trustedIPs": list(inputs.ingress_balancers), "insecure": False}
    values: Values = {
        "deployment": {"kind": "DaemonSet"},
        "affinity": workers_only(),
        "ingressClass": {"enabled": True, "isDefaultClass": True, "name": inputs.ingress_class},
        "providers": {
            "kubernetesCRD": {"enabled": True, "allowCrossNamespace": False},
            "kubernetesIngress": {"enabled": True, "publishedService": {"enabled": False}},
        },
        "ports": {
            "web": {
                "nodePort": INGRESS_HTTP,
                "http": {"redirections": {"entryPoint": {"to": SECURE, "scheme": "https", "permanent": True}}},
                **entry,
            },
            SECURE: {"nodePort": INGRESS_HTTPS, "http": {"tls": {"enabled": True}}, **entry},
        },
        # Local: a worker without Traefik refuses, so that the load balancer's health check tells the truth, and a
        # connection keeps the load balancer's address, by which its PROXY header is trusted.
        "service": {"spec": {"type": "NodePort", "externalTrafficPolicy": "Local"}},
        "tlsStore": {"default": {"defaultCertificate": {"secretName": TLS_SECRET}}},
        "accessLog": {"enabled": True},
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "resources": resources("100m", "128Mi", "512Mi"),
    }
    if inputs.load_balancer:
        endpoint = {"providers": {"kubernetesIngress": {"ingressEndpoint": {"ip": inputs.load_balancer}}}}
        values = merge(values, endpoint)
    if near := telemetry.beside_grafana(inputs):
        values = merge(values, _readers(near))
    return values


def _certificate(inputs: ToolInputs) -> Manifest:
    key = {"algorithm": "RSA", "size": 2048, "rotationPolicy": "Always"}
    return cert_manager.certificate(TLS_SECRET, NAMESPACE, [inputs.domain, f"*.{inputs.domain}"], inputs, privateKey=key)


def release(inputs: ToolInputs) -> Release:
    """One pod a worker. The default certificate is cert-manager's or the user's, in the Secret `ingress-tls`."""
    issued = inputs.certificate == "cert-manager"
    provided = Secret(
        name=TLS_SECRET,
        namespace=NAMESPACE,
        type="kubernetes.io/tls",
        data={"tls.crt": FromPki(item="wildcard.chain"), "tls.key": FromPki(item="wildcard.key")},
    )
    return Release.of(
        versions.TRAEFIK,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(cert_manager.NAME,) if issued else (),
        secrets=() if issued else (provided,),
        before=(_certificate(inputs),) if issued else (),
        crds=(
            "ingressroutes.traefik.io",
            "middlewares.traefik.io",
            "serverstransports.traefik.io",
            "tlsstores.traefik.io",
        ),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="watches ingresses, routes and certificates"),
            Flow(peer=OUTSIDE, ports=(8000, 8443), inbound=True, why="the load balancer, by the workers' NodePorts"),
        ),
        ports_for_metrics=(9100,),
        workloads=(Workload(kind="DaemonSet", name="traefik", namespace=NAMESPACE, cpu="100m", memory="128Mi"),),
    )


TOOL = Tool(name=NAME, release=release)
