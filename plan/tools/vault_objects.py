"""What belongs to Vault and no chart brings: its listener's certificate, the ClusterIssuer, the monitor."""

from __future__ import annotations

from plan.tools import cert_manager, traefik, vault_config, vault_issuer
from plan.tools.model import CA_BUNDLE_KEY, Manifest, ToolInputs, Values

NAME = NAMESPACE = "vault"
PORT = 8200
TLS_SECRET = "vault-tls"
LABELS = {"app.kubernetes.io/name": "vault", "app.kubernetes.io/instance": NAME, "component": "server"}


def _certificate(inputs: ToolInputs) -> Manifest:
    services = [f"{name}.{NAMESPACE}.svc" for name in ("vault", "vault-active")]
    pods = ["*.vault-internal", f"*.vault-internal.{NAMESPACE}.svc"]
    return cert_manager.certificate(
        TLS_SECRET,
        NAMESPACE,
        [*services, *pods, "localhost"],
        inputs,
        ipAddresses=["127.0.0.1"],
        privateKey={"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        usages=["digital signature", "server auth", "client auth"],
    )


def _manifest(
    api: str, kind: str, name: str, namespace: str | None, needs: tuple[str, ...], wait_for: str | None = None,
    title: str | None = None, **content: object,
) -> Manifest:  # fmt: skip
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    body: Values = {"apiVersion": api, "kind": kind, "metadata": metadata, **content}
    return Manifest(name=title or name, namespace=namespace, needs=needs, wait_for=wait_for, body=body)


def before(inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The listener's certificate, and how Traefik verifies it."""
    transport = {"serverName": f"vault-active.{NAMESPACE}.svc", "rootCAs": [{"secret": TLS_SECRET}]}
    return (
        _certificate(inputs),
        _manifest("traefik.io/v1alpha1", "ServersTransport", NAME, NAMESPACE, (traefik.NAME,),
                  title="vault-transport", spec=transport),
    )  # fmt: skip


def after(inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The ClusterIssuer beside the CA's own, and the monitor."""
    server = f"https://vault-active.{NAMESPACE}.svc:{PORT}"
    issuer = vault_issuer.manifests(server, vault_config.KUBERNETES, wait_for="condition=Ready")
    return (*issuer, *_monitor(inputs))


def _monitor(inputs: ToolInputs) -> tuple[Manifest, ...]:
    if "kube-prometheus-stack" not in inputs.present or not inputs.ca_bundle:
        return ()
    endpoint = {
        "port": "telemetry",
        "path": "/v1/sys/metrics",
        "params": {"format": ["prometheus"]},
        "scheme": "https",
        # A ConfigMap: who scrapes may read no Secrets.
        "tlsConfig": {
            "serverName": f"vault.{NAMESPACE}.svc",
            "ca": {"configMap": {"name": inputs.ca_bundle, "key": CA_BUNDLE_KEY}},
        },
    }
    spec = {"selector": {"matchLabels": LABELS}, "podMetricsEndpoints": [endpoint]}
    return (
        _manifest("monitoring.coreos.com/v1", "PodMonitor", NAME, NAMESPACE, ("kube-prometheus-stack",),
                  title="vault-monitor", spec=spec),
    )  # fmt: skip
