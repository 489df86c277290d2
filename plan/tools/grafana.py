"""Grafana: dashboards over logs, metrics and traces, with a login by Keycloak. All it keeps is in its database."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from plan import versions
from plan.tools import cloudnative_pg, readers, telemetry, traefik
from plan.tools.common import CA_FILE, CA_FOLDER, issuer, merge, replicas_of, resources, spread
from plan.tools.grafana_sources import data_sources
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
from plan.tools.needs import ITSELF, PUBLIC, Database, Flow, OidcClient

NAME = NAMESPACE = "grafana"
DOMAIN_KEY = "grafana"
PORT, GOSSIP = 3000, 9094
ADMIN_SECRET, CLIENT_SECRET, READERS_SECRET = "grafana-admin", "grafana-oidc", "grafana-readers"
ADMIN_PASSWORD, ENCRYPTION_KEY = "grafana-admin", "grafana-encryption-key"
DATABASE, DATABASE_USER = "grafana-db", "grafana"
CPU, MEMORY = "100m", "256Mi"
LABELS = {"app.kubernetes.io/name": "grafana", "app.kubernetes.io/instance": NAME}
ROLES = {"platform-admins": "GrafanaAdmin", "developers": "Editor", "viewers": "Viewer"}

DASHBOARDS = "grafana-dashboards"
FOLDER = "/var/lib/grafana/dashboards/opstella"
_FILES = Path(__file__).parent / "dashboards"


def dashboards() -> dict[str, str]:
    """File name to text of every dashboard."""
    return {file.name: file.read_text() for file in sorted(_FILES.glob("*.json"))}


def role_path() -> str:
    """JMESPath from the token's groups to a role; the first that fits, the most powerful first."""
    return " || ".join(f"contains(groups[*], '{group}') && '{role}'" for group, role in ROLES.items())


def _login(inputs: ToolInputs, host: str) -> Values:
    realm = issuer(inputs)
    after = quote(f"https://{host}/login", safe="")
    login: Values = {
        "enabled": True,
        "name": "Keycloak",
        "client_id": NAME,
        "scopes": "openid profile email",
        "auth_url": f"{realm}/protocol/openid-connect/auth",
        "token_url": f"{realm}/protocol/openid-connect/token",
        "api_url": f"{realm}/protocol/openid-connect/userinfo",
        "signout_redirect_url": f"{realm}/protocol/openid-connect/logout?post_logout_redirect_uri={after}",
        "use_pkce": True,
        "allow_sign_up": True,
        "login_attribute_path": "preferred_username",
        "email_attribute_path": "email",
        "name_attribute_path": "name",
        "groups_attribute_path": "groups",
        "role_attribute_path": role_path(),
        "role_attribute_strict": True,  # who is in none of the groups does not get in
        "allow_assign_grafana_admin": True,
    }
    return login | ({"tls_client_ca": CA_FILE} if inputs.ca_bundle else {})


def _together(replicas: int) -> Values:
    """How several pods share out the alert rules that people make in Grafana: by gossip, each alert is sent once."""
    if replicas == 1:
        return {}
    address = f"${{POD_IP}}:{GOSSIP}"  # the chart sets it
    peers = {"ha_peers": f"{NAME}-headless:{GOSSIP}", "ha_listen_address": address, "ha_advertise_address": address}
    return {"unified_alerting": peers}


def _configuration(inputs: ToolInputs, host: str, replicas: int) -> Values:
    """grafana.ini, without what is secret: Grafana reads that from its environment."""
    return {
        "server": {"domain": host, "root_url": f"https://{host}/"},
        "database": {
            "type": "postgres",
            "host": f"{DATABASE}-rw:5432",
            "name": "grafana",
            "user": DATABASE_USER,
            "ssl_mode": "verify-full",
            "ca_cert_path": cloudnative_pg.authority(DATABASE)[2],
        },
        "auth": {"disable_login_form": False},
        "auth.generic_oauth": _login(inputs, host),
        "security": {"cookie_secure": True, "strict_transport_security": True},
        "users": {"default_theme": "system"},
        "analytics": {"reporting_enabled": False, "check_for_updates": False, "check_for_plugin_updates": False},
        "news": {"news_feed_enabled": False},
        "plugins": {"preinstall_disabled": True},  # they would be fetched when it starts
        "dashboards": {"default_home_dashboard_path": f"{FOLDER}/cluster.json"},
        **_together(replicas),
    }


def _from_secret(secret: str, key: str) -> Values:
    return {"secretKeyRef": {"name": secret, "key": key}}


def _values(inputs: ToolInputs, host: str, replicas: int) -> Values:
    provider = {
        "name": "opstella",
        "orgId": 1,
        "folder": "Opstella",
        "type": "file",
        "disableDeletion": True,
        "allowUiUpdates": False,
        "options": {"path": FOLDER},
    }
    volume, mount, _ = cloudnative_pg.authority(DATABASE)
    values: Values = {
        "replicas": replicas,
        "extraSecretMounts": [mount | volume["secret"]],
        "admin": {"existingSecret": ADMIN_SECRET},
        "envValueFrom": {
            "GF_DATABASE_PASSWORD": _from_secret(f"{DATABASE}-owner", "password"),
            "GF_AUTH_GENERIC_OAUTH_CLIENT_SECRET": _from_secret(CLIENT_SECRET, "clientSecret"),
            "GF_SECURITY_SECRET_KEY": _from_secret(ADMIN_SECRET, "encryption-key"),
        },
        "grafana.ini": _configuration(inputs, host, replicas),
        "headlessService": replicas > 1,
        "datasources": {"datasources.yaml": {"apiVersion": 1, "prune": True, "datasources": data_sources(inputs)}},
        "dashboardProviders": {"dashboardproviders.yaml": {"apiVersion": 1, "providers": [provider]}},
        "dashboardsConfigMaps": {"opstella": DASHBOARDS},
        "ingress": {
            "enabled": True,
            "ingressClassName": inputs.ingress_class,
            "hosts": [host],
            "tls": [{"hosts": [host]}],  # no secret: Traefik's default certificate covers the name
        },
        "persistence": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"automountServiceAccountToken": False},
        "automountServiceAccountToken": False,
        "testFramework": {"enabled": False},
        "affinity": spread(LABELS),
        "resources": resources(CPU, MEMORY, "768Mi"),
    }
    if far := readers.keys(inputs):
        variables = {name: _from_secret(READERS_SECRET, name) for name in far}
        # Their certificates are verified by the CA bundle, beside the system's own.
        values = merge(
            values, {"envValueFrom": variables, "env": {"SSL_CERT_DIR": f"/etc/ssl/certs:{CA_FOLDER}"}}
        )
    if inputs.ca_bundle:
        mount = {"name": "opstella-ca", "configMap": inputs.ca_bundle, "mountPath": CA_FOLDER, "readOnly": True}
        values = merge(values, {"extraConfigmapMounts": [mount]})
    return values


def _flows(inputs: ToolInputs, replicas: int) -> tuple[Flow, ...]:
    # Not to the stores: what it sends them is what people have it send.
    near = Flow(peer=traefik.NAME, ports=(traefik.READERS_PORT,), why="data sources, by the paths that only read")
    gossip = (
        Flow(peer=ITSELF, ports=(GOSSIP,), pods=LABELS, peer_pods=LABELS, why="which of its pods sends an alert"),
        Flow(
            peer=ITSELF, ports=(GOSSIP,), protocol="UDP", pods=LABELS, peer_pods=LABELS,
            why="which of its pods sends an alert: gossip is by both protocols",
        ),
    )  # fmt: skip
    return (
        *((near,) if telemetry.beside_grafana(inputs) else ()),
        *(gossip if replicas > 1 else ()),
        *((Flow(peer=PUBLIC, ports=(443,), why="data sources of other clusters"),) if readers.keys(inputs) else ()),
    )


def release(inputs: ToolInputs) -> Release:
    """Grafana behind Traefik; its first administrator is `admin`, for when Keycloak is out of reach."""
    host = inputs.hosts[DOMAIN_KEY]
    replicas = replicas_of(inputs, NAME)
    config_map: Values = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": DASHBOARDS, "namespace": NAMESPACE},
        "data": dashboards(),
    }
    admin = {
        "admin-user": Clear(text="admin"),
        "admin-password": Generated(password=ADMIN_PASSWORD),
        "encryption-key": Generated(password=ENCRYPTION_KEY),
    }
    far = readers.keys(inputs)
    return Release.of(
        versions.GRAFANA,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host, replicas),
        needs=(traefik.NAME,),
        databases=(Database(name=DATABASE, database="grafana", owner=DATABASE_USER),),
        clients=(
            OidcClient(
                client_id=NAME,
                name="Grafana",
                redirect_uris=(f"https://{host}/login/generic_oauth",),
                post_logout_redirect_uris=(f"https://{host}/login",),
                web_origins=(f"https://{host}",),
                roles=ROLES,
                secret=CLIENT_SECRET,
                pkce=True,
            ),
        ),
        secrets=(
            Secret(name=ADMIN_SECRET, namespace=NAMESPACE, data=admin),
            *((Secret(name=READERS_SECRET, namespace=NAMESPACE, data=far),) if far else ()),
        ),
        passwords=(Password(name=ADMIN_PASSWORD), Password(name=ENCRYPTION_KEY)),
        before=(Manifest(name=DASHBOARDS, namespace=NAMESPACE, needs=(), body=config_map),),
        flows=_flows(inputs, replicas),
        ports_for_ingress=(PORT,),
        workloads=(
            Workload(
                kind="Deployment", name="grafana", namespace=NAMESPACE, replicas=replicas, cpu=CPU, memory=MEMORY,
                selector=LABELS,
            ),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        login=Login(url=f"https://{host}/login", username="admin", password=ADMIN_PASSWORD),
        path="/login",
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
