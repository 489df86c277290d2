"""DefectDojo 2: findings of all scanners in one place. Version 3 has no single sign-on in its open-source edition.

Its login by OpenID Connect knows nothing of groups: whoever comes for the first time joins the group `viewers` there.
The people that the settings name are made beforehand, with the rights of their groups; an administrator raises others.
"""

from __future__ import annotations

import json

from plan import versions
from plan.limits import SCAN_FILE
from plan.tools import ci, csi_driver_nfs, defectdojo_login, defectdojo_trust, sonarqube, traefik
from plan.tools.common import (
    PYTHON_IMAGE,
    issuer,
    keeping,
    merge,
    provision_files,
    replicas_of,
    service,
    spread,
    storage_of,
    trusting,
)  # fmt: skip
from plan.tools.common import without_cpu_limit as resources
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
from plan.tools.needs import ITSELF, OUTSIDE, PUBLIC, Cache, Database, Flow, Job, OidcClient

NAME = NAMESPACE = DOMAIN_KEY = "defectdojo"
PORT = 8080
DATABASE = Database(name="defectdojo-db", database="defectdojo", owner="defectdojo")
QUEUE = 6  # the logical database of Valkey that is this tool's
CACHE = Cache(user=NAME, secret="defectdojo-cache", databases=(QUEUE,))
SECRET, EXTRA_SECRET = NAME, f"{NAME}-extrasecrets"  # both names are fixed in the chart
CI_SECRET, CI_USER = "defectdojo-ci", "opstella-ci"
TOKENS_SECRET = "defectdojo-tokens"
"""What the Job makes: the token (`ci`) by which pipelines hand in reports."""
ADMIN_PASSWORD = "defectdojo-admin"
ROLES = {"platform-admins": "Owner", "developers": "Writer", "viewers": "Reader"}
# Component: cpu, memory, limit of memory.
_SIZES = {
    "django": ("100m", "512Mi", "1Gi"),
    "nginx": ("10m", "32Mi", "128Mi"),
    "celery-worker": ("50m", "256Mi", "768Mi"),
    "celery-beat": ("20m", "160Mi", "384Mi"),
}


def labels(component: str) -> dict[str, str]:
    """Of the pods of `django`, `celery-worker` or `celery-beat`."""
    first, _, second = component.partition("-")
    below = {"defectdojo.org/subcomponent": second} if second else {}
    return {
        "defectdojo.org/component": first,
        **below,
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/instance": NAME,
    }


def _values(inputs: ToolInputs, host: str) -> Values:
    realm = issuer(inputs)
    values: Values = {
        "host": host,
        "siteUrl": f"https://{host}",
        "alternativeHosts": [f"{NAME}-django.{NAMESPACE}.svc.cluster.local"],
        "imagePullPolicy": "IfNotPresent",
        "disableHooks": True,
        "securityContext": {
            # What the pod security level "restricted" asks for beyond the chart's defaults.
            "containerSecurityContext": {
                "runAsNonRoot": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
        "postgresql": {
            "enabled": False,
            "auth": {
                "username": DATABASE.owner,
                "database": DATABASE.database,
                "existingSecret": f"{DATABASE.name}-owner",
                "secretKeys": {"userPasswordKey": "password"},
            },
        },
        "postgresServer": f"{DATABASE.name}-rw",
        "valkey": {
            "enabled": False,
            "auth": {"existingSecret": CACHE.secret, "existingSecretPasswordKey": CACHE.keys[0]},
        },
        "redisServer": "valkey.valkey.svc.cluster.local",
        "extraConfigs": {
            "DD_SECURE_PROXY_SSL_HEADER": "True",  # Traefik ends TLS
            "DD_SCAN_FILE_MAX_SIZE": str(SCAN_FILE.value),
            "DD_SOCIAL_AUTH_REDIRECT_IS_HTTPS": "True",
            "DD_SOCIAL_AUTH_OIDC_AUTH_ENABLED": "True",
            "DD_SOCIAL_AUTH_OIDC_OIDC_ENDPOINT": realm,
            "DD_SOCIAL_AUTH_OIDC_KEY": NAME,
            "DD_SOCIAL_AUTH_OIDC_USERNAME_KEY": "preferred_username",
            "DD_SOCIAL_AUTH_OIDC_JWT_ALGORITHMS": "RS256",
            "DD_SOCIAL_AUTH_OIDC_LOGIN_BUTTON_TEXT": "Login with Keycloak",
        },
        **defectdojo_login.values(inputs.identity.users),
        "initializer": {"keepSeconds": 0, "resources": resources("50m", "256Mi", "1Gi")},
        "dbMigrationChecker": {"resources": resources("20m", "128Mi", "512Mi")},
        "celery": {
            "worker": {"resources": resources(*_SIZES["celery-worker"])},
            "beat": {"resources": resources(*_SIZES["celery-beat"])},
        },
        "django": {
            "replicas": replicas_of(inputs, NAME),
            "affinity": spread(labels("django")),
            "uwsgi": {"appSettings": {"processes": 2, "threads": 4}, "resources": resources(*_SIZES["django"])},
            "nginx": {"resources": resources(*_SIZES["nginx"])},
            "ingress": {
                "enabled": True,
                "ingressClassName": inputs.ingress_class,
                "activateTLS": True,
                "secretName": "",  # Traefik's default certificate covers the name
            },
            "mediaPersistentVolume": {
                "type": "pvc",
                "persistentVolumeClaim": {
                    "create": True,
                    "size": storage_of(inputs, NAME, "5Gi"),
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": inputs.storage_class,
                },
            },
        },
    }
    return merge(values, defectdojo_trust.values(inputs.ca_bundle, DATABASE.name))


def _configuration(inputs: ToolInputs) -> Values:
    """What provision/defectdojo.py brings DefectDojo to."""
    found: Values = {
        "groups": ROLES,
        "default_group": "viewers",
        "people": {
            name: {
                "email": user.email or f"{name}@{inputs.domain}",
                "first_name": user.first_name,
                "last_name": user.last_name,
                "groups": sorted(user.groups),
            }
            for name, user in sorted(inputs.identity.users.items())
        },
        "ci": CI_USER,
        "product_type": ci.PRODUCT_TYPE,
        "tokens": {"namespace": NAMESPACE, "secret": TOKENS_SECRET},
    }
    if sonarqube.NAME in inputs.present:
        found["sonarqube"] = {
            "url": f"{service(sonarqube.NAME, sonarqube.NAMESPACE, sonarqube.PORT)}/api",
            "namespace": sonarqube.NAMESPACE,
            "secret": sonarqube.TOKENS_SECRET,
        }
    return found


def _provisioning(inputs: ToolInputs) -> Job:
    beside = sonarqube.NAME in inputs.present
    reading = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [sonarqube.TOKENS_SECRET]}
    job = Job(
        name="defectdojo-settings",
        image=PYTHON_IMAGE,
        command=("python3", "/opstella/defectdojo.py"),
        files={
            **provision_files(*ci.FILES, "vault_api.py", "defectdojo.py"),
            "defectdojo.json": json.dumps(_configuration(inputs), indent=1),
        },
        environment={
            "DEFECTDOJO_URL": service(f"{NAME}-django", NAMESPACE, 80),
            **trusting(inputs),
        },
        secret_files={"admin": SECRET, "ci": CI_SECRET},
        rules=keeping(TOKENS_SECRET),
        # SonarQube's Secret lies in another namespace, where a Role of this one does not reach.
        cluster_rules=(reading,) if beside else (),
        flows=(Flow(peer=ITSELF, ports=(PORT,), why="sets DefectDojo up by its API"),),
        needs=(sonarqube.NAME,) if beside else (),
        timeout_seconds=900,
    )
    return ci.publishing(NAME, job, inputs)


def release(inputs: ToolInputs) -> Release:
    """DefectDojo behind Traefik: the web application, one worker and the clock of its queue."""
    host = inputs.hosts[DOMAIN_KEY]
    client = OidcClient(
        client_id=NAME,
        name="DefectDojo",
        redirect_uris=(f"https://{host}/complete/oidc/",),
        roles={
            "platform-admins": "superuser, if the settings name them; else raised by one",
            "developers": "Writer, if the settings name them; else Reader",
            "viewers": "Reader",
        },
        secret=EXTRA_SECRET,
        secret_key="DD_SOCIAL_AUTH_OIDC_SECRET",
        pkce=True,
        # The chart writes an empty user and no database into its ConfigMap, which is read before this Secret.
        extra={
            "DD_CELERY_BROKER_USER": Clear(text=CACHE.user),
            "DD_CELERY_BROKER_PATH": Clear(text=f"/{QUEUE}"),
        },
    )
    keys = {"DD_SECRET_KEY": 64, "DD_CREDENTIAL_AES_256_KEY": 64, "METRICS_HTTP_AUTH_PASSWORD": 32}
    internal = {key: f"defectdojo-{key.lower().replace('_', '-')}" for key in keys}
    beside = (
        (Flow(peer=sonarqube.NAME, ports=(sonarqube.PORT,), why="imports what SonarQube found"),)
        if sonarqube.NAME in inputs.present
        else ()
    )
    return Release.of(
        versions.DEFECTDOJO,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host),
        needs=(traefik.NAME, csi_driver_nfs.NAME),
        databases=(DATABASE,),
        caches=(CACHE,),
        clients=(client,),
        gitlab=ci.access(NAME, inputs),
        jobs=(_provisioning(inputs),),
        secrets=(
            Secret(
                name=SECRET,
                namespace=NAMESPACE,
                data={
                    "DD_ADMIN_PASSWORD": Generated(password=ADMIN_PASSWORD),
                    **{key: Generated(password=name) for key, name in internal.items()},
                },
            ),
            Secret(name=CI_SECRET, namespace=NAMESPACE, data={"password": Generated(password=CI_SECRET)}),
            *ci.secrets(NAME, NAMESPACE, inputs),
        ),
        passwords=(
            # DefectDojo wants letters of both cases, a digit and a special character, and at most 48 of them.
            Password(name=ADMIN_PASSWORD, length=40, special=True),
            Password(name=CI_SECRET, length=40, special=True),
            *(Password(name=internal[key], length=length) for key, length in keys.items()),
        ),
        flows=(
            Flow(peer=OUTSIDE, ports=(443,), why="trackers, scanners and webhooks that people connect"),
            Flow(peer=PUBLIC, ports=(443,), why="GitLab as a tracker, and what else of the platform people connect"),
            *beside,
        ),
        ports_for_ingress=(PORT,),
        workloads=tuple(
            Workload(
                kind="Deployment",
                name=f"{NAME}-{name}",
                namespace=NAMESPACE,
                replicas=replicas_of(inputs, NAME) if name == "django" else 1,
                cpu="110m" if name == "django" else _SIZES[name][0],  # with nginx
                memory="544Mi" if name == "django" else _SIZES[name][1],
                selector=labels(name),
            )
            for name in ("django", "celery-worker", "celery-beat")
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        path="/login",
        login=Login(url=f"https://{host}/login?force_login_form", username="admin", password=ADMIN_PASSWORD),
        timeout_seconds=1200,
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
