"""SonarQube (Community Build): code quality. People log in through Keycloak by SAML: it knows no OpenID Connect.

Everything that lasts is in PostgreSQL. The search index is rebuilt from there, so it lies on the node's own disk:
Elasticsearch does not work reliably on NFS.
"""

from __future__ import annotations

import json

from plan import versions
from plan.tools import ci, cloudnative_pg, traefik
from plan.tools.common import (
    PYTHON_IMAGE,
    beside_bundle,
    issuer,
    keeping,
    merge,
    provision_files,
    resources,
    service,
    trusting,
)
from plan.tools.ingress import ingress, manifest
from plan.tools.model import (
    EachCa,
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
from plan.tools.needs import (
    GITLAB,
    ITSELF,
    OUTSIDE,
    PUBLIC,
    Database,
    Flow,
    GitLabAccess,
    Job,
    OidcClient,
)

NAME = NAMESPACE = DOMAIN_KEY = "sonarqube"
PORT = 9000
DATABASE = Database(name="sonarqube-db", database="sonarqube", owner="sonarqube")
ADMIN_SECRET = ADMIN_PASSWORD = "sonarqube-admin"
MONITORING_SECRET = MONITORING_PASSCODE = "sonarqube-monitoring"
TOKENS_SECRET = "sonarqube-tokens"
"""What the Job makes: tokens by which CI (`ci`) and DefectDojo (`defectdojo`) get at SonarQube."""
GITLAB_SECRET = "sonarqube-gitlab"
"""The token by which SonarQube reads GitLab."""
CA_SECRET = "sonarqube-ca"
"""What SonarQube trusts beside Java's own authorities, a certificate a key."""
GITLAB_KEY = "opstella"  # by which SonarQube knows the platform's GitLab; it keeps no description of it
QUALITY_GATE = "Sonar way"
"""What new projects are measured by: on new code no issue, 80 % covered, at most 3 % duplicated, all hotspots reviewed.

SonarQube's own gate: nobody can loosen it, and it stays right when SonarQube renames what it measures.
"""
LABELS = {"app": NAME, "release": NAME}
CPU, MEMORY, MEMORY_LIMIT = "250m", "2Gi", "3Gi"
# Group to SonarQube's own permissions; nobody else has any but to browse what is public (ALSO).
PERMISSIONS = {
    "platform-admins": ("admin", "gateadmin", "profileadmin", "provisioning", "scan"),
    "developers": ("provisioning", "scan"),
    "viewers": (),
}
# What differs from a new SonarQube for its own groups: everybody who logs in is in sonar-users. Its first administrator had
# the right to analyse from there, without which no token for analyses is made.
ALSO = {"give": {"sonar-administrators": ("scan",)}, "take": {"sonar-users": ("provisioning", "scan")}}


def _values(inputs: ToolInputs) -> Values:
    volume, mount, authority = cloudnative_pg.authority(DATABASE.name)
    verified = f"sslmode=verify-full&sslrootcert={authority}"
    values: Values = {
        "fullnameOverride": NAME,
        "community": {"enabled": True, "buildNumber": versions.SONARQUBE_BUILD.version},
        "monitoringPasscodeSecretName": MONITORING_SECRET,
        "monitoringPasscodeSecretKey": "passcode",
        "jdbcOverwrite": {
            "enabled": True,
            "jdbcUrl": f"jdbc:postgresql://{DATABASE.name}-rw:5432/{DATABASE.database}?{verified}",
            "jdbcUsername": DATABASE.owner,
            "jdbcSecretName": f"{DATABASE.name}-owner",
            "jdbcSecretPasswordKey": "password",
        },
        "extraVolumes": [volume],
        "extraVolumeMounts": [mount],
        "initSysctl": {"enabled": False},  # the nodes have vm.max_map_count from their own settings
        "initFs": {"enabled": False},  # would run as root
        "persistence": {"enabled": False},
        "startupProbe": {"failureThreshold": 60},
        "ingress": {"enabled": False},  # made after the Job, which changes the password that every new SonarQube has
        # The chart's own limits would be merged in: half a terabyte of disk, and of CPU.
        "resources": {
            "requests": {"cpu": CPU, "memory": MEMORY, "ephemeral-storage": "1Gi"},
            "limits": {"cpu": None, "memory": MEMORY_LIMIT, "ephemeral-storage": "20Gi"},
        },
        "initContainers": {"resources": resources("50m", "128Mi", "512Mi")},
        "tests": {"enabled": False},
    }
    if inputs.ca_bundle:
        # The whole Secret, a file for each key: keytool, which imports them, takes the first certificate of a file.
        values = merge(values, {"caCerts": {"enabled": True, "secret": beside_bundle(CA_SECRET, inputs)}})
    return values


def _configuration(inputs: ToolInputs, host: str) -> Values:
    """What provision/sonarqube.py brings SonarQube to."""
    realm = issuer(inputs)
    found: Values = {
        "settings": {
            "sonar.core.serverBaseURL": f"https://{host}",
            "sonar.forceAuthentication": "true",
            "sonar.auth.saml.applicationId": NAME,
            "sonar.auth.saml.providerName": "Keycloak",
            "sonar.auth.saml.providerId": realm,
            "sonar.auth.saml.loginUrl": f"{realm}/protocol/saml",
            "sonar.auth.saml.user.login": "login",
            "sonar.auth.saml.user.name": "name",
            "sonar.auth.saml.user.email": "email",
            "sonar.auth.saml.group.name": "groups",
            "sonar.auth.saml.enabled": "true",
        },
        "descriptor": f"{realm}/protocol/saml/descriptor",
        "groups": {group: list(permissions) for group, permissions in PERMISSIONS.items()},
        "also": {verb: {group: list(several) for group, several in of.items()} for verb, of in ALSO.items()},
        "gate": QUALITY_GATE,
        "tokens": {"namespace": NAMESPACE, "secret": TOKENS_SECRET},
    }
    if ci.there(inputs):
        found["gitlab"] = {"key": GITLAB_KEY, "url": f"https://{inputs.all_hosts[GITLAB]}/api/v4"}
    return found


def _gitlab(inputs: ToolInputs) -> tuple[GitLabAccess, ...]:
    own = GitLabAccess(purpose="sonarqube", secret=GITLAB_SECRET)
    return (own, *ci.access(NAME, inputs)) if ci.there(inputs) else ()


def _provisioning(inputs: ToolInputs, host: str) -> Job:
    job = Job(
        name="sonarqube-settings",
        image=PYTHON_IMAGE,
        command=("python3", "/opstella/sonarqube.py"),
        files={
            **provision_files(*ci.FILES, "vault_api.py", "sonarqube.py"),
            "sonarqube.json": json.dumps(_configuration(inputs, host), indent=1),
        },
        environment={
            "SONARQUBE_URL": service(NAME, NAMESPACE, PORT),
            **trusting(inputs),
        },
        secret_files={"admin": ADMIN_SECRET, **({"gitlab": GITLAB_SECRET} if ci.there(inputs) else {})},
        rules=keeping(TOKENS_SECRET),
        flows=(
            Flow(peer=ITSELF, ports=(PORT,), why="sets SonarQube up by its API"),
            Flow(peer=PUBLIC, ports=(443,), why="Keycloak's certificate for SAML"),
        ),
        needs=(GITLAB,) if ci.there(inputs) else (),
        timeout_seconds=900,
    )
    return ci.publishing(NAME, job, inputs)


def release(inputs: ToolInputs) -> Release:
    """One server behind Traefik. Its first administrator is `admin`, whose password the Job changes."""
    host = inputs.hosts[DOMAIN_KEY]
    client = OidcClient(
        client_id=NAME,
        name="SonarQube",
        redirect_uris=(f"https://{host}/oauth2/callback/saml",),
        roles={
            "platform-admins": "administrator",
            "developers": "create and analyse projects",
            "viewers": "browse",
        },
        protocol="saml",
    )
    return Release.of(
        versions.SONARQUBE,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(traefik.NAME,),
        databases=(DATABASE,),
        clients=(client,),
        gitlab=_gitlab(inputs),
        jobs=(_provisioning(inputs, host),),
        after=(manifest(f"{NAME}-public", ingress(inputs, "public", NAMESPACE, host, paths=("/",), backend=(NAME, PORT))),),
        secrets=(
            Secret(name=ADMIN_SECRET, namespace=NAMESPACE, data={"password": Generated(password=ADMIN_PASSWORD)}),
            Secret(
                name=MONITORING_SECRET, namespace=NAMESPACE, data={"passcode": Generated(password=MONITORING_PASSCODE)}
            ),
            *ci.secrets(NAME, NAMESPACE, inputs),
            *(
                (Secret(name=beside_bundle(CA_SECRET, inputs), namespace=NAMESPACE, data={"ca-{number}.crt": EachCa()}),)
                if inputs.ca_bundle
                else ()
            ),
        ),
        # SonarQube wants letters of both cases, a digit and a special character in it.
        passwords=(Password(name=ADMIN_PASSWORD, length=64, special=True), Password(name=MONITORING_PASSCODE)),
        flows=(
            Flow(peer=OUTSIDE, ports=(443,), why="plugins, updates, and repositories that people import"),
            Flow(peer=PUBLIC, ports=(443,), why="GitLab, whose merge requests it decorates"),
        ),
        ports_for_ingress=(PORT,),
        workloads=(
            Workload(kind="StatefulSet", name=NAME, namespace=NAMESPACE, cpu=CPU, memory=MEMORY, selector=LABELS),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        path="/api/system/status",
        login=Login(url=f"https://{host}/", username="admin", password=ADMIN_PASSWORD),
        timeout_seconds=1200,
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
