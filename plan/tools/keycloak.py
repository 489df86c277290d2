"""Keycloak: the stack's identity provider, on a CloudNativePG database, and the Job that provides the tools' realm."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from plan import versions
from plan.limits import LOGIN_BURST, LOGIN_RATE
from plan.tools import cloudnative_pg, traefik
from plan.tools.common import (
    CA_FOLDER,
    PYTHON_IMAGE,
    ca_volume,
    provision_files,
    replicas_of,
    resources,
    service,
)
from plan.tools.ingress import closed, ingress, manifest, middleware
from plan.tools.model import (
    Clear,
    Generated,
    Login,
    Manifest,
    Password,
    Release,
    Secret,
    Tool,
    ToolInputs,
    Values,
    Workload,
)
from plan.tools.needs import ITSELF, Database, Flow, Job, OidcClient
from plan.tools.realm import realm

NAME = NAMESPACE = "keycloak"
DOMAIN_KEY = "keycloak"
DATABASE, DATABASE_SECRET, DATABASE_USER = "keycloak-db", "keycloak-db-owner", "keycloak"
ADMIN_SECRET, ADMIN_USER = "keycloak-admin", "admin"
ADMIN_PASSWORD = "keycloak-admin"
USERS_SECRET = "keycloak-users"
CLIENTS_SECRET = "keycloak-clients"  # a key per client; plan/tools/wiring.py fills it
LABELS = {"app.kubernetes.io/name": "keycloakx", "app.kubernetes.io/instance": NAME}
CPU, MEMORY = "250m", "768Mi"
HTTP, MANAGEMENT, SERVICE = 8080, 9000, 80
MASTER = ("/admin/master", "/admin/realms/master", "/realms/master")
CLUSTER = (7800, 57800)  # Infinispan between the pods, and its failure detection


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
    volume, mount, file = cloudnative_pg.authority(DATABASE)
    volumes, mounts = [volume], [mount]
    environment.append({"name": "KC_DB_URL_PROPERTIES", "value": f"?sslmode=verify-full&sslrootcert={file}"})
    values: Values = {
        "fullnameOverride": NAME,
        "replicas": replicas_of(inputs, NAME),
        "command": ["/opt/keycloak/bin/kc.sh", "start", f"--http-port={HTTP}"],
        "http": {"relativePath": "/", "internalPort": "metrics"},  # a port's name, by which metrics are found
        "serviceAccount": {"automountServiceAccountToken": False},
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
        "resources": resources(CPU, MEMORY, "1536Mi"),
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
        volumes, mounts = [*volumes, volume], [*mounts, mount]
        environment.append({"name": "KC_TRUSTSTORE_PATHS", "value": CA_FOLDER})
    mounted = {"extraVolumes": _text(volumes), "extraVolumeMounts": _text(mounts)}
    return values | mounted | {"extraEnv": _text(environment)}


def _console(inputs: ToolInputs, host: str) -> tuple[Manifest, ...]:
    """The realm of Keycloak's first administrator, closed at the public name. Its Jobs use the service."""
    if inputs.identity.master_console:
        return ()
    return closed(inputs, "keycloak-master-closed", NAMESPACE, host, paths=MASTER, backend=(f"{NAME}-http", 80))


def provisioning(clients: Sequence[OidcClient], inputs: ToolInputs) -> Job:
    """Brings the realm to what `clients` and the settings ask for; their secrets are in the Secret of all clients."""
    return Job(
        name="keycloak-realm",
        image=PYTHON_IMAGE,
        command=("python3", "/opstella/keycloak.py"),
        files={
            **provision_files("client.py", "keycloak_api.py", "keycloak.py"),
            "realm.json": json.dumps(realm(clients, inputs), indent=1, sort_keys=True),
        },
        environment={"KEYCLOAK_URL": f"http://{NAME}-http", "KEYCLOAK_ADMIN": ADMIN_USER},
        secret_files={"admin": ADMIN_SECRET, "clients": CLIENTS_SECRET, "users": USERS_SECRET},
        flows=(Flow(peer=ITSELF, ports=(HTTP,), why="sets the realm up by the administration API"),),
    )


def _limited(inputs: ToolInputs, host: str) -> tuple[Manifest, ...]:
    """The way to Keycloak's log-in forms, of every realm that is open, past a limit for each client's address.

    Keycloak locks an account after some failures in a row, whoever they are of: from one address that takes minutes then,
    and the log has the address. Each worker's Traefik counts for itself, so each has its share.
    """
    name = f"{NAME}-login"
    rate = {
        "average": max(LOGIN_RATE.value // inputs.workers, 6), "period": "1m", "burst": max(LOGIN_BURST.value // inputs.workers, 5),
        "sourceCriterion": {"ipStrategy": {"depth": 0}},  # the connection's own address, which HAProxy's PROXY header says
    }  # fmt: skip
    limit = middleware(name, NAMESPACE, {"rateLimit": rate})
    # A longer path would open what is closed to everybody.
    realms = (inputs.identity.realm, *(("master",) if inputs.identity.master_console else ()))
    paths = [f"/realms/{name}/login-actions" for name in realms]
    way = ingress(
        inputs, name, NAMESPACE, host, paths=paths, backend=(f"{NAME}-http", SERVICE), middlewares=(name,),
    )  # fmt: skip
    return (manifest(f"{NAME}-login-limit", limit), manifest(f"{NAME}-login-ingress", way))


def _user_password(name: str) -> str:
    return f"user-{name}"


def release(inputs: ToolInputs) -> Release:
    """Keycloak behind Traefik, at the root path; its first administrator is `admin`, who is not of the tools' realm."""
    host = inputs.hosts[DOMAIN_KEY]
    replicas = replicas_of(inputs, NAME)
    console = f"https://{host}/admin/" if inputs.identity.master_console else f"{service(f'{NAME}-http', NAMESPACE, 80)}/admin/"
    users = tuple(inputs.identity.users)
    return Release.of(
        versions.KEYCLOAK,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host),
        needs=(traefik.NAME,),
        before=(*_console(inputs, host), *_limited(inputs, host)),
        databases=(Database(name=DATABASE, database="keycloak", owner=DATABASE_USER),),
        secrets=(
            Secret(
                name=ADMIN_SECRET,
                namespace=NAMESPACE,
                data={"username": Clear(text=ADMIN_USER), "password": Generated(password=ADMIN_PASSWORD)},
            ),
            Secret(
                name=USERS_SECRET,
                namespace=NAMESPACE,
                data={name: Generated(password=_user_password(name)) for name in users},
            ),
        ),
        passwords=(Password(name=ADMIN_PASSWORD), *(Password(name=_user_password(name)) for name in users)),
        flows=(Flow(peer=ITSELF, ports=CLUSTER, pods=LABELS, peer_pods=LABELS, why="sessions that its pods share"),),
        ports_for_ingress=(HTTP,),
        ports_for_metrics=(MANAGEMENT,),
        workloads=(
            Workload(
                kind="StatefulSet",
                name=NAME,
                namespace=NAMESPACE,
                replicas=replicas,
                cpu=CPU,
                memory=MEMORY,
                selector=LABELS,
                autoscale=max(replicas, min(5, inputs.workers)) if replicas > 1 else None,
            ),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        path=f"/realms/{inputs.identity.realm}/.well-known/openid-configuration",
        login=Login(url=console, username=ADMIN_USER, password=ADMIN_PASSWORD),
        people=tuple(
            Login(
                url=f"https://{host}/realms/{inputs.identity.realm}/account/",
                username=name,
                password=_user_password(name),
            )
            for name in users
        ),
        timeout_seconds=900,
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
