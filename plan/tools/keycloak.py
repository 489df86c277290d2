"""Keycloak: the stack's identity provider, on a CloudNativePG database."""

from __future__ import annotations

import yaml

from plan import versions
from plan.tools import traefik
from plan.tools.common import CA_FOLDER, ca_volume, image, merge, resources
from plan.tools.model import (
    Clear,
    Generated,
    Login,
    Password,
    Release,
    Secret,
    Tool,
    ToolInputs,
    Values,
    Workload,
)
from plan.tools.needs import Database

NAME = NAMESPACE = "keycloak"
DOMAIN_KEY = "keycloak"
DATABASE, DATABASE_SECRET, DATABASE_USER = "keycloak-db", "keycloak-db-owner", "keycloak"
ADMIN_SECRET, ADMIN_USER = "keycloak-admin", "admin"
ADMIN_PASSWORD = "keycloak-admin"


def _text(data: object) -> str:
    # The chart takes these values as text that it puts into its templates.
    return yaml.safe_dump(data, sort_keys=False)


def _values(inputs: ToolInputs, host: str) -> Values:
    def from_secret(variable: str, key: str) -> Values:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": ADMIN_SECRET, "key": key}}}

    environment = [
        {"name": "KC_HOSTNAME", "value": f"https://{host}"},
        from_secret("KC_BOOTSTRAP_ADMIN_USERNAME", "username"),
        from_secret("KC_BOOTSTRAP_ADMIN_PASSWORD", "password"),
    ]
    values: Values = {
        "fullnameOverride": NAME,
        "replicas": inputs.replicas,
        "command": ["/opt/keycloak/bin/kc.sh", "start", "--http-port=8080"],
        "http": {"relativePath": "/"},
        "proxy": {"enabled": True, "mode": "xforwarded", "http": {"enabled": True}},
        "database": {
            "vendor": "postgres",
            "hostname": f"{DATABASE}-rw",
            "port": 5432,
            "database": "keycloak",
            "username": DATABASE_USER,
            "existingSecret": DATABASE_SECRET,
            "existingSecretKey": "password",
        },
        "ingress": {
            "enabled": True,
            "ingressClassName": inputs.ingress_class,
            "rules": [{"host": host, "paths": [{"path": "/", "pathType": "Prefix"}]}],
            "tls": [{"hosts": [host]}],  # no secret: Traefik's default certificate covers the name
        },
        "resources": resources("250m", "768Mi", "1536Mi"),
        # What the pod security level "restricted" asks for beyond the chart's defaults.
        "podSecurityContext": {"fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "securityContext": {
            "runAsUser": 1000,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        environment.append({"name": "KC_TRUSTSTORE_PATHS", "value": CA_FOLDER})
        values = merge(values, {"extraVolumes": _text([volume]), "extraVolumeMounts": _text([mount])})
    if inputs.image_registry:
        values = merge(values, {"image": {"repository": image(inputs, "quay.io", "keycloak/keycloak")}})
    return merge(values, {"extraEnv": _text(environment)})


def release(inputs: ToolInputs) -> Release:
    """Keycloak behind Traefik, at the root path; its first administrator is `admin`."""
    chart = versions.KEYCLOAK
    host = inputs.hosts[DOMAIN_KEY]
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=chart.name,
        version=chart.version,
        repository=chart.repository,
        values=_values(inputs, host),
        needs=(traefik.NAME,),
        databases=(Database(name=DATABASE, database="keycloak", owner=DATABASE_USER),),
        secrets=(
            Secret(
                name=ADMIN_SECRET,
                namespace=NAMESPACE,
                data={"username": Clear(text=ADMIN_USER), "password": Generated(password=ADMIN_PASSWORD)},
            ),
        ),
        passwords=(Password(name=ADMIN_PASSWORD),),
        workloads=(Workload(kind="StatefulSet", name="keycloak", namespace=NAMESPACE),),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        login=Login(url=f"https://{host}/admin/", username=ADMIN_USER, password=ADMIN_PASSWORD),
        timeout_seconds=900,
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
