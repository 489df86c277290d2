"""Harbor: the registry, and the mirror of the public ones; images in MinIO, the rest in PostgreSQL and Valkey.

The chart would write Valkey's password into ConfigMaps, by each address of it. So it is told no password, and every
component gets its address from a Secret, by an environment variable that comes before the ConfigMap's. Trivy's three the
chart sets as variables itself, from a Secret of its own without the password, so `last_value_wins`.
"""

from __future__ import annotations

from plan import versions
from plan.tools import (
    cert_manager,
    ci,
    cloudnative_pg,
    harbor_job,
    harbor_secrets,
    kube_prometheus_stack,
    traefik,
    valkey,
)
from plan.tools.common import (
    beside_bundle,
    merge,
    replicas_of,
    resources,
    spread,
    without_cpu_limit,
)
from plan.tools.harbor_secrets import (
    ADDRESSES,
    ADMIN_SECRET,
    CA_SECRET,
    CACHE,
    INTERNAL_SECRET,
    NAME,
    NAMESPACE,
    REGISTRY_SECRET,
    REGISTRY_USER,
    TOKEN_SECRET,
)
from plan.tools.minio_buckets import ENDPOINT as STORE
from plan.tools.model import (
    Login,
    Release,
    Tool,
    ToolInputs,
    Values,
    Workload,
)
from plan.tools.needs import ITSELF, OUTSIDE, Bucket, Database, Flow, OidcClient, StorageAccess

DOMAIN_KEY = NAME
# The chart mounts the CA bundle into what connects to it, and nothing else.
DATABASE = Database(name="harbor-db", database="registry", owner="harbor", platform_certificate=True)
BUNDLE = "/harbor_cust_cert/custom-ca.crt"  # where the chart mounts it
BUCKET = "harbor-registry"
STORE_SECRET = "harbor-store"
METRICS = 8001
NO_SCANS = (
    "Harbor scans no images: in an air gap it has no databases of vulnerabilities; copy trivy-db and trivy-java-db into a "
    "registry within reach and name their folder in opstella:media.trivyDatabases"
)
# Component: cpu and memory that its pods ask for (all containers), memory limit, most pods.
_SIZES = {
    "core": ("100m", "192Mi", "512Mi", 5),
    "jobservice": ("50m", "128Mi", "384Mi", None),
    "registry": ("70m", "160Mi", "512Mi", 5),
    "portal": ("10m", "32Mi", "64Mi", None),
    "exporter": ("10m", "32Mi", "128Mi", None),
    "trivy": ("100m", "256Mi", "1Gi", 4),
}
_CACHE_VARIABLES = {  # component: variable to key of ADDRESSES
    "core": {"_REDIS_URL_CORE": "core", "_REDIS_URL_REG": "registry"},
    "jobservice": {"JOB_SERVICE_POOL_REDIS_URL": "jobservice", "_REDIS_URL_CORE": "core"},
    "exporter": {"HARBOR_REDIS_URL": "jobservice"},
    "trivy": {
        name: "trivy" for name in ("SCANNER_REDIS_URL", "SCANNER_STORE_REDIS_URL", "SCANNER_JOB_QUEUE_REDIS_URL")
    },
}
# Its driver (pgx) knows no setting of Harbor's for this, and reads libpq's variable.
_QUERIES = ("core", "jobservice", "exporter")


def labels(component: str) -> dict[str, str]:
    """Of the pods of one component."""
    return {"app": NAME, "release": NAME, "component": component}


def _component(inputs: ToolInputs, name: str, replicas: int) -> Values:
    cpu, memory, limit, _ = _SIZES[name]
    variables = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": ADDRESSES, "key": key}}}
        for variable, key in _CACHE_VARIABLES.get(name, {}).items()
    ]
    if name in _QUERIES:
        variables.append({"name": "PGSSLROOTCERT", "value": BUNDLE})
    values: Values = {"replicas": replicas, "affinity": spread(labels(name)), "automountServiceAccountToken": False}
    if name == "registry":
        password = {"secretKeyRef": {"name": CACHE.secret, "key": CACHE.keys[0]}}
        parts: Values = {
            "registry": {
                "resources": resources("50m", "96Mi", limit),
                "extraEnvVars": [{"name": CACHE.keys[0], "valueFrom": password}],
            },
            "controller": {"resources": resources("20m", "64Mi", "128Mi")},
        }
        return values | parts
    values |= {"resources": resources(cpu, memory, limit)}
    return values | ({"extraEnvVars": variables} if variables else {})


def _values(inputs: ToolInputs, host: str) -> Values:
    replicas, authorities = replicas_of(inputs, NAME), beside_bundle(CA_SECRET, inputs)
    values: Values = {
        "fullnameOverride": NAME,
        "externalURL": f"https://{host}",
        "expose": {
            "type": "ingress",
            "tls": {"enabled": True, "certSource": "none"},  # Traefik's default certificate covers the name
            "ingress": {"hosts": {"core": host}, "className": inputs.ingress_class},
        },
        "caSecretName": authorities,  # what the portal offers for download; without it the chart's volume is incomplete
        "caBundleSecretName": authorities,
        "existingSecretAdminPassword": ADMIN_SECRET,
        "existingSecretSecretKey": INTERNAL_SECRET,
        "ipFamily": {"ipv6": {"enabled": False}},
        "persistence": {
            "persistentVolumeClaim": {"trivy": {"storageClass": inputs.storage_class, "size": "5Gi"}},
            "imageChartStorage": {
                "type": "s3",
                "disableredirect": True,  # the store's name inside of the cluster says nothing to who pulls
                "s3": {
                    "region": "us-east-1",
                    "bucket": BUCKET,
                    "regionendpoint": f"http://{STORE}",
                    "secure": False,
                    "v4auth": True,
                    "existingSecret": STORE_SECRET,
                },
            },
        },
        "database": {
            "type": "external",
            "external": {
                "host": cloudnative_pg.host(DATABASE, NAMESPACE),
                "port": "5432",
                "username": DATABASE.owner,
                "coreDatabase": DATABASE.database,
                "existingSecret": f"{DATABASE.name}-owner",
                "sslmode": "verify-full",
            },
            "maxIdleConns": 10,
            "maxOpenConns": 40,  # a pod; the default would take all that PostgreSQL has
        },
        "redis": {"type": "external", "external": {"addr": valkey.ADDRESS, "username": CACHE.user}},
        # Its containers' ports have no names that the agents would know.
        "metrics": {"enabled": True, "serviceMonitor": {"enabled": kube_prometheus_stack.NAME in inputs.present}},
        **{name: _component(inputs, name, 1 if name in ("exporter", "trivy") else replicas) for name in _SIZES},
    }
    fixed = {
        "core": {"existingSecret": INTERNAL_SECRET, "existingXsrfSecret": INTERNAL_SECRET, "secretName": TOKEN_SECRET},
        # Logs of jobs in the database: files would need a volume that several pods write.
        "jobservice": {"existingSecret": INTERNAL_SECRET, "jobLoggers": ["database"]},
        "registry": {
            "existingSecret": INTERNAL_SECRET,
            "credentials": {"username": REGISTRY_USER, "existingSecret": REGISTRY_SECRET},
        },
        "trivy": _trivy(inputs),
    }
    if out := inputs.proxy:
        # Of the parts that leave the cluster. The chart adds the parts' own names to what is not fetched through it.
        values["proxy"] = {
            "httpProxy": out.http,
            "httpsProxy": out.https,
            "noProxy": f"127.0.0.1,localhost,.local,.internal,{out.no_proxy}",
            "components": ["core", "jobservice", "trivy"],
        }
    return merge(values, fixed)


def _trivy(inputs: ToolInputs) -> Values:
    """The scanner, where it can have the databases of what is vulnerable; without them each scan would fail."""
    databases = inputs.trivy_databases
    if databases is None:
        return {"enabled": False}
    bounds = without_cpu_limit(*_SIZES["trivy"][:3])
    values: Values = {"enabled": True, "offlineScan": inputs.airgap, "resources": bounds}
    if databases:
        values["dbRepository"] = [f"{folder}/trivy-db" for folder in databases]
        values["javaDBRepository"] = [f"{folder}/trivy-java-db" for folder in databases]
    return values


def _ways_out(inputs: ToolInputs) -> tuple[int, ...]:
    """Ports of what its pods reach outside of the cluster."""
    ports = {443, *(inputs.proxy.ports if inputs.proxy else ())}
    for folder in inputs.trivy_databases or ():
        _, _, port = folder.partition("/")[0].partition(":")
        ports.add(int(port or 443))
    return tuple(sorted(ports))


def _parts(inputs: ToolInputs) -> tuple[str, ...]:
    """Its components, as far as they are deployed."""
    return tuple(name for name in _SIZES if name != "trivy" or inputs.trivy_databases is not None)


def _workload(inputs: ToolInputs, name: str) -> Workload:
    cpu, memory, _, most = _SIZES[name]
    replicas = 1 if name in ("exporter", "trivy") else replicas_of(inputs, NAME)
    return Workload(
        kind="StatefulSet" if name == "trivy" else "Deployment",
        name=f"{NAME}-{name}",
        namespace=NAMESPACE,
        replicas=replicas,
        cpu=cpu,
        memory=memory,
        selector=labels(name),
        autoscale=most if replicas > 1 or name == "trivy" and replicas_of(inputs, NAME) > 1 else None,
    )


def release(inputs: ToolInputs) -> Release:
    """Harbor behind Traefik. Its administrator is `admin`; everybody else logs in through Keycloak."""
    host = inputs.hosts[DOMAIN_KEY]
    secrets, passwords = harbor_secrets.secrets(inputs)
    monitors = (kube_prometheus_stack.NAME,) if kube_prometheus_stack.NAME in inputs.present else ()
    client = OidcClient(
        client_id=NAME,
        name="Harbor",
        redirect_uris=(f"https://{host}/c/oidc/callback",),
        roles={
            "platform-admins": "Harbor administrator",
            "developers": "developer of the project library",
            "viewers": "guest of the project library",
        },
        secret=harbor_job.CLIENT_SECRET,
        pkce=True,
    )
    return Release.of(
        versions.HARBOR,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host),
        last_value_wins=True,
        needs=(cert_manager.NAME, traefik.NAME, *monitors),
        secrets=secrets,
        passwords=passwords,
        before=harbor_secrets.token_key(),
        workloads=tuple(_workload(inputs, name) for name in _parts(inputs)),
        domain_key=DOMAIN_KEY,
        host=host,
        login=Login(url=f"https://{host}/", username="admin", password="harbor-admin"),
        path="/api/v2.0/ping",
        timeout_seconds=900,
        databases=(DATABASE,),
        caches=(CACHE,),
        storage=(
            StorageAccess(
                user=NAME,
                buckets=(Bucket(name=BUCKET),),
                secret=STORE_SECRET,
                access_key="REGISTRY_STORAGE_S3_ACCESSKEY",
                secret_key="REGISTRY_STORAGE_S3_SECRETKEY",
                near=True,
            ),
        ),
        clients=(client,),
        gitlab=ci.access(NAME, inputs),
        jobs=(harbor_job.provisioning(inputs),),
        flows=(
            Flow(peer=ITSELF, ports=(5000, 8080, METRICS), why="its parts: core, registry, job service, scanner"),
            Flow(peer=OUTSIDE, ports=_ways_out(inputs), why="registries it hands on, Trivy's databases"),
        ),
        ports_for_ingress=(8080,),
        ports_for_metrics=(METRICS,),
        missing=(*harbor_job.missing(inputs), *(() if inputs.trivy_databases is not None else (NO_SCANS,))),
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
