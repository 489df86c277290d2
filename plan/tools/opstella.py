"""Opstella's own services: UI, Core and Clear Session, each from the image that the settings name.

They are licensed, and what variables they read is part of the license: the platform gives every one of them the same
variables under names of its own (`OPSTELLA_…`), and the user maps them in `environment`, where Kubernetes replaces
`$(NAME)`. So no secret stands in the settings, in the chart's values or in the pod's specification.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from config.errors import ConfigurationError, Problem, key
from config.services import OpstellaApp, OpstellaPart
from plan.tools import cert_manager, cloudnative_pg, traefik
from plan.tools.common import CA_FILE, OBJECT_STORE, issuer, merge, replicas_of, resources, storage_of
from plan.tools.model import Given, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, PUBLIC, Bucket, Database, Flow, OidcClient, StorageAccess
from plan.tools.wiring import STORE

NAME = NAMESPACE = "opstella"
CHART = "charts/opstella"  # a folder of this project
VERSION = "1.0.0"
DATABASE, USER, CLIENT = "opstella-db", "opstella", "opstella"
PULL_SECRET, STORE_SECRET, CLIENT_SECRET = "opstella-pull", "opstella-s3", "opstella-oidc"
ROLES = {"platform-admins": "admin", "developers": "user", "viewers": "viewer"}

# Part to its key in the settings, its service, and what one pod asks for: CPU, memory, greatest memory.
PARTS = {
    "ui": ("ui", "opstella", ("50m", "128Mi", "512Mi")),
    "core": ("core", "opstellaCore", ("100m", "256Mi", "1Gi")),
    "clear-session": ("clearSession", "opstellaClearSession", ("20m", "64Mi", "256Mi")),
}


def _parts(app: OpstellaApp) -> dict[str, OpstellaPart]:
    """The parts that have an image, by name."""
    every = {"ui": app.ui, "core": app.core, "clear-session": app.clear_session}
    return {name: part for name, part in every.items() if part.image is not None}


def missing(app: OpstellaApp) -> tuple[str, ...]:
    """A sentence for each part without an image."""
    there = _parts(app)
    return tuple(
        f"{key('opstella', setting, 'image')}: Opstella's service '{service}' is left out until it names the licensed image"
        for name, (setting, service, _) in PARTS.items()
        if name not in there
    )


def given(inputs: ToolInputs) -> dict[str, str | tuple[str, str]]:
    """What each part finds in its environment: name to value, or to Secret and key."""
    plain = {
        f"OPSTELLA_{_upper(service)}_URL".replace("OPSTELLA_OPSTELLA_", "OPSTELLA_"): f"https://{host}"
        for service, host in sorted(inputs.all_hosts.items())
        if service != "kubernetes-api"
    }
    found: dict[str, str | tuple[str, str]] = {
        **plain,
        "OPSTELLA_DOMAIN": inputs.domain,
        "OPSTELLA_OIDC_ISSUER": issuer(inputs),
        "OPSTELLA_OIDC_CLIENT_ID": CLIENT,
        "OPSTELLA_OIDC_CLIENT_SECRET": (CLIENT_SECRET, "clientSecret"),
        "OPSTELLA_DATABASE_HOST": cloudnative_pg.host(_database(inputs), NAMESPACE),
        "OPSTELLA_DATABASE_PORT": "5432",
        "OPSTELLA_DATABASE_NAME": USER,
        "OPSTELLA_DATABASE_USER": USER,
        "OPSTELLA_DATABASE_PASSWORD": (f"{DATABASE}-owner", "password"),
    }
    if STORE in inputs.present:
        found |= {
            "OPSTELLA_S3_ENDPOINT": f"http://{OBJECT_STORE}",
            "OPSTELLA_S3_REGION": "us-east-1",
            "OPSTELLA_S3_BUCKET": USER,
            "OPSTELLA_S3_ACCESS_KEY": (STORE_SECRET, "accessKey"),
            "OPSTELLA_S3_SECRET_KEY": (STORE_SECRET, "secretKey"),
        }
    if inputs.ca_bundle:
        found |= {"SSL_CERT_FILE": CA_FILE, "NODE_EXTRA_CA_CERTS": CA_FILE}
        # By libpq and its like; the others are told by their connection's text.
        found |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": CA_FILE}
    return found


def _database(inputs: ToolInputs) -> Database:
    """Nobody knows how the licensed parts verify it; the one file of authorities that they are given anyway suffices."""
    size = storage_of(inputs, NAME, "10Gi")
    return Database(name=DATABASE, database=USER, owner=USER, storage=size, platform_certificate=True)


def _upper(service: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", service).upper()


def _secret_of(part: str) -> str:
    return f"opstella-{part}-environment"


def _environment(inputs: ToolInputs, name: str, part: OpstellaPart) -> list[Values]:
    """As in a container; what is named as `$(NAME)` has to stand before, so the user's own come last."""

    def from_secret(variable: str, secret: str, key_: str) -> Values:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key_}}}

    own = {*part.environment, *part.secret_environment}
    found: list[Values] = []
    for variable, value in given(inputs).items():
        if variable not in own:
            found.append(
                {"name": variable, "value": value} if isinstance(value, str) else from_secret(variable, *value)
            )
    found += [from_secret(variable, _secret_of(name), variable) for variable in sorted(part.secret_environment)]
    return found + [{"name": variable, "value": value} for variable, value in sorted(part.environment.items())]


def _unknown(inputs: ToolInputs) -> Iterator[Problem]:
    """References that Kubernetes would leave as they are."""
    there = given(inputs)
    for name, part in _parts(inputs.opstella).items():
        known = {*there, *part.secret_environment} - {*part.environment}
        for variable, value in part.environment.items():
            for reference in re.findall(r"(?<!\$)\$\(([^)]*)\)", value):
                if reference not in known:
                    yield Problem(
                        key("opstella", PARTS[name][0], "environment", variable),
                        f"it refers to $({reference}), which nothing gives it",
                        f"name one of {', '.join(sorted(known))}; $$({reference}) stands for the text itself",
                    )


def _digest() -> str:
    """Of the chart's files: a changed template has to be a changed release."""
    folder = Path(__file__).resolve().parents[2] / CHART
    content = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        content.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def _values(inputs: ToolInputs) -> Values:
    app = inputs.opstella
    return {
        "parts": {
            name: {
                "image": part.image or "",
                "port": part.port,
                "host": inputs.hosts[PARTS[name][1]],
                "replicas": replicas_of(inputs, NAME),
                "resources": resources(*PARTS[name][2]),
                "env": _environment(inputs, name, part),
            }
            for name, part in _parts(app).items()
        },
        "ingressClass": inputs.ingress_class,
        "contentDigest": _digest(),
    }


def _secrets(app: OpstellaApp) -> Iterator[Secret]:
    for name, part in _parts(app).items():
        if part.secret_environment:
            data = {variable: Given(name=secret) for variable, secret in sorted(part.secret_environment.items())}
            yield Secret(name=_secret_of(name), namespace=NAMESPACE, data=data)
    if app.pull_secret:
        data = {".dockerconfigjson": Given(name=app.pull_secret)}
        yield Secret(name=PULL_SECRET, namespace=NAMESPACE, type="kubernetes.io/dockerconfigjson", data=data)


def release(inputs: ToolInputs) -> Release:
    """The parts that have an image. Raises ConfigurationError: a variable refers to nothing, or has no name."""
    app = inputs.opstella
    parts = _parts(app)
    nameless = [service for name in parts if (service := PARTS[name][1]) not in inputs.hosts]
    problems = [
        Problem(
            key("domains", service), f"{NAME} needs a name, and the service {service} has none here", "name the service"
        )
        for service in nameless
    ]
    problems += _unknown(inputs)
    if problems:
        raise ConfigurationError(problems, "tools")
    values = _values(inputs)
    if app.pull_secret:
        values = merge(values, {"pullSecret": PULL_SECRET})
    if inputs.ca_bundle:
        values = merge(values, {"caBundle": inputs.ca_bundle})
    services = [PARTS[name][1] for name in parts]
    urls = tuple(f"https://{inputs.hosts[service]}" for service in services)
    ports = tuple(sorted({part.port for part in parts.values()}))
    access = StorageAccess(user=USER, buckets=(Bucket(name=USER),), secret=STORE_SECRET)
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=CHART,
        version=VERSION,
        repository=None,
        values=values,
        needs=(traefik.NAME, cert_manager.NAME),
        secrets=tuple(_secrets(app)),
        databases=(_database(inputs),),
        storage=(access,) if STORE in inputs.present else (),
        clients=(
            OidcClient(
                client_id=CLIENT,
                name="Opstella",
                redirect_uris=tuple(
                    f"https://{inputs.hosts[PARTS[name][1]]}{path}" for name, part in parts.items() for path in part.callback_paths
                ),
                post_logout_redirect_uris=tuple(f"{url}/*" for url in urls),
                web_origins=urls,
                roles=ROLES,
                secret=CLIENT_SECRET,
            ),
        ),
        flows=(
            Flow(peer=ITSELF, ports=ports, why="its parts among themselves"),
            Flow(peer=PUBLIC, ports=(443,), why="the tools it drives, by their public names"),
        ),
        ports_for_ingress=ports,
        workloads=tuple(
            Workload(
                kind="Deployment",
                name=f"opstella-{name}",
                namespace=NAMESPACE,
                replicas=replicas_of(inputs, NAME),
                cpu=PARTS[name][2][0],
                memory=PARTS[name][2][1],
                selector={"app.kubernetes.io/name": "opstella", "app.kubernetes.io/component": name},
            )
            for name in parts
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=services[0],
        host=inputs.hosts[services[0]],
        other_hosts=tuple(inputs.hosts[service] for service in services[1:]),
        missing=missing(app),
    )


def wanted(inputs: ToolInputs) -> bool:
    """Whether there is anything to run; without any image only `missing` says that it could."""
    return bool(_parts(inputs.opstella))


TOOL = Tool(name=NAME, release=release, domain_key="opstella", wanted=wanted)
