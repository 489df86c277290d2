"""Object store, cache and registry: what their charts are told, and what their users may do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.services import ObjectStore
from plan import versions
from plan.tools import harbor, minio, minio_buckets, valkey
from plan.tools.catalogue import catalogue
from plan.tools.model import Bcrypt, Composed, Generated, Release, ToolInputs
from plan.tools.needs import Bucket, Cache, StorageAccess
from tests.plan.stacks import plan

DOMAIN = "devops.example.com"
HOSTS = {name: f"{name.lower()}.{DOMAIN}" for name in ("minio", "minioApi", "harbor", "keycloak")}
INPUTS = ToolInputs(
    domain=DOMAIN, hosts=HOSTS, all_hosts=HOSTS, nfs_server="192.0.2.1", nfs_path="/srv/nfs",
    tools=("csi-driver-nfs", "cert-manager", "traefik", "cloudnative-pg", "keycloak", "minio", "valkey", "harbor"),
)  # fmt: skip


def wired() -> dict[str, Release]:
    return {release.name: release for release in catalogue(INPUTS)}


def references(value: Any, key: str = "") -> Iterator[str]:
    """Names of Secrets that values point to."""
    if isinstance(value, dict):
        for inner, below in value.items():
            if inner == "secretKeyRef":
                yield below["name"]
            elif re.search(r"existing(\w*)Secret(?!\w*Key$)\w*$|ExistingSecret$|[a-z]SecretName$", inner) and below:
                if not inner.endswith("Key") and isinstance(below, str):
                    yield below
            else:
                yield from references(below, inner)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from references(below, key)


@pytest.mark.parametrize(
    ("tool", "least"),
    [
        ("minio", {"minio-root", "minio-oidc"}),
        ("valkey", {"valkey-users"}),
        (
            "harbor",
            {
                "harbor-admin", "harbor-internal", "harbor-registry-credentials", "harbor-cache", "harbor-cache-addresses",
                "harbor-store", "harbor-db-owner",
            },
        ),
    ],
)  # fmt: skip
def test_every_secret_that_a_chart_is_told_of_is_declared(tool: str, least: set[str]) -> None:
    release = wired()[tool]
    told = set(references(release.values))
    assert least <= told
    made_by_cert_manager = {"harbor-token"}
    assert told - made_by_cert_manager <= {secret.name for secret in release.secrets}


# --- MinIO


def test_minio_runs_the_release_whose_console_knows_single_sign_on() -> None:
    values = minio.release(INPUTS).values
    assert values["image"] == {"repository": "quay.io/minio/minio", "tag": "RELEASE.2025-04-22T22-12-26Z"}
    assert versions.MC_IMAGE.version == "RELEASE.2025-04-16T18-13-26Z"
    oidc = values["oidc"]
    assert oidc["configUrl"] == f"https://keycloak.{DOMAIN}/realms/opstella/.well-known/openid-configuration"
    assert (oidc["claimName"], oidc["redirectUri"]) == ("groups", f"https://minio.{DOMAIN}/oauth_callback")
    (client,) = minio.release(INPUTS).clients
    assert client.redirect_uris == (oidc["redirectUri"],) and client.secret == oidc["existingClientSecretName"]


def test_minio_has_no_users_or_buckets_of_the_charts_and_never_two_servers_on_a_volume() -> None:
    values = minio.release(INPUTS).values
    assert [values[key] for key in ("users", "buckets", "policies", "svcaccts")] == [[], [], [], []]
    assert values["deploymentUpdate"]["type"] == "Recreate" and values["mode"] == "standalone"


def test_the_metrics_of_minio_are_closed_to_the_outside_only_where_its_api_is_open() -> None:
    (middleware, ingress) = minio.release(INPUTS).before
    assert middleware.body["spec"] == {"ipAllowList": {"sourceRange": ["127.0.0.1/32"]}}
    paths = [p["path"] for p in ingress.body["spec"]["rules"][0]["http"]["paths"]]
    assert "/minio/v2/metrics" in paths
    without = {name: host for name, host in HOSTS.items() if name != "minioApi"}
    release = minio.release(replace(INPUTS, hosts=without))
    assert release.before == () and release.other_hosts == () and "ingress" not in release.values


def test_two_stores_of_a_platform_are_two_clients_of_the_realm() -> None:
    several = replace(INPUTS, cluster="observability", clusters=("devsecops", "observability"))
    assert minio.client_id(INPUTS) == "minio" and minio.client_id(several) == "minio-observability"


def access(user: str, *buckets: Bucket) -> StorageAccess:
    return StorageAccess(user=user, buckets=buckets, secret=None)


def test_a_credential_is_for_its_buckets_only() -> None:
    policy = json.loads(minio_buckets.access_policy(access("loki", Bucket(name="chunks"), Bucket(name="ruler"))))
    assert {s["Effect"] for s in policy["Statement"]} == {"Allow"}
    places = {place for s in policy["Statement"] for place in s["Resource"]}
    assert places == {f"arn:aws:s3:::{name}" for name in ("chunks", "ruler", "chunks/*", "ruler/*")}
    actions = {action for s in policy["Statement"] for action in s["Action"]}
    assert not any("*" in action or "Policy" in action or "CreateBucket" in action for action in actions)


def test_only_administrators_reach_what_the_platform_keeps() -> None:
    policies = {group: json.loads(text) for group, text in minio_buckets.group_policies(("backups",)).items()}
    assert set(policies) == {"platform-admins", "developers", "viewers"}
    for group in ("developers", "viewers"):
        (closed,) = (s for s in policies[group]["Statement"] if s["Effect"] == "Deny")
        names = [f"arn:aws:s3:::{name}" for bucket in ("backups", minio_buckets.KEPT) for name in (bucket, f"{bucket}/*")]
        assert closed["Action"] == ["s3:*"] and closed["Resource"] == names
    assert "s3:PutObject" not in str(policies["viewers"]) and "admin:*" not in str(policies["developers"])


def test_the_job_is_told_of_every_bucket_and_user_and_whose_they_are() -> None:
    wanted = (
        access("velero", Bucket(name="velero", versioning=True, expire_days=30)),
        access("loki", Bucket(name="chunks")),
    )
    job = minio_buckets.provisioning(wanted, replace(INPUTS, object_store=ObjectStore(adopt=("chunks",))))
    assert job.files["wanted.txt"].splitlines() == [
        f"owner standalone.{DOMAIN}",
        "bucket chunks - - adopt",
        "bucket velero versioned 30 -",
        "policy developers", "policy platform-admins", "policy viewers",
        "user loki", "user velero",
    ]  # fmt: skip
    assert json.loads(job.files["expiry.velero.json"])["Rules"][0]["Expiration"] == {"Days": 30}
    assert {"policy.opstella.access.loki.json", "policy.viewers.json", "minio.sh"} <= set(job.files)
    assert job.secret_files == {"root": "minio-root", "users": "minio-users"}
    for text in job.files.values():
        assert "rootPassword" not in text or "$(secret root/rootPassword)" in text


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (
            (access("one", Bucket(name="b")), access("two", Bucket(name="b", versioning=True))),
            "bucket b is declared in two ways",
        ),
        ((access("x" * 21, Bucket(name="b")),), "names of 3 to 20 characters"),
    ],
)
def test_what_the_store_cannot_keep_is_refused(wanted: tuple[StorageAccess, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        minio_buckets.provisioning(wanted, INPUTS)


def test_every_user_of_the_platform_has_a_name_that_the_store_takes() -> None:
    (job,) = (job for job in wired()["minio"].jobs if job.name == "minio-provisioning")
    users = [line.split()[1] for line in job.files["wanted.txt"].splitlines() if line.startswith("user ")]
    assert {"harbor", "database-backups"} <= set(users)
    secret = next(s for s in wired()["minio"].secrets if s.name == minio_buckets.USERS_SECRET)
    assert set(users) == set(secret.data)


# --- Valkey


def test_a_user_of_valkey_reaches_its_own_databases_and_keys_and_no_command_over_others() -> None:
    rules = valkey.permissions(Cache(user="harbor", secret="s", databases=(0, 5), prefix="h:")).split()
    assert {"resetkeys", "resetchannels", "~h:*", "resetdbs", "db=0,5", "-@admin", "-@dangerous"} <= set(rules)
    assert rules.index("resetdbs") < rules.index("db=0,5") and rules.index("+@all") < rules.index("-@dangerous")


def test_who_logs_in_without_a_name_sees_no_key() -> None:
    rules = valkey.permissions(Cache(user="default", secret="s")).split()
    assert rules[:3] == ["resetkeys", "resetchannels", "-@all"] and not any(rule.startswith("~") for rule in rules)


def test_the_chart_gets_every_user_with_the_key_of_its_password() -> None:
    release = wired()["valkey"]
    users = release.values["auth"]["aclUsers"]
    assert {"default", "harbor"} <= set(users)  # the chart refuses to do without the first
    secret = next(s for s in release.secrets if s.name == release.values["auth"]["usersExistingSecret"])
    assert {user["passwordKey"] for user in users.values()} == set(secret.data)
    assert release.values["deploymentStrategy"] == "Recreate" and "noeviction" in release.values["valkeyConfig"]


def test_two_users_never_share_a_logical_database() -> None:
    with pytest.raises(ValueError, match="database 1 of Valkey is wanted by a and by b"):
        valkey.acl([Cache(user="a", secret="s", databases=(0, 1)), Cache(user="b", secret="s", databases=(1,))])


# --- Harbor


def test_harbors_chart_is_told_no_password_of_valkey_but_its_components_are() -> None:
    release = wired()["harbor"]
    external = release.values["redis"]["external"]
    assert set(external) == {"addr", "username"}  # the chart puts a password, or what a Secret holds, into ConfigMaps
    addresses = next(s for s in release.secrets if s.name == "harbor-cache-addresses")
    for source in addresses.data.values():
        assert isinstance(source, Composed) and source.template.startswith("redis://harbor:{valkey-harbor}@")
        assert source.template.format(**{"valkey-harbor": "x"}).startswith(
            "redis://harbor:x@valkey.valkey.svc.cluster.local:6379/"
        )
    told = {
        part: {variable["name"] for variable in release.values[part]["extraEnvVars"]}
        for part in ("core", "jobservice", "exporter", "trivy")
    }
    assert told["core"] - {"PGSSLROOTCERT"} == {"_REDIS_URL_CORE", "_REDIS_URL_REG"} and "SCANNER_REDIS_URL" in told["trivy"]
    assert release.values["registry"]["registry"]["extraEnvVars"][0]["name"] == "REGISTRY_REDIS_PASSWORD"


def test_nothing_of_harbor_is_made_up_anew_at_every_run() -> None:
    release = harbor.release(INPUTS)
    internal = next(s for s in release.secrets if s.name == "harbor-internal")
    assert set(internal.data) == {"secretKey", "secret", "CSRF_KEY", "JOBSERVICE_SECRET", "REGISTRY_HTTP_SECRET"}
    lengths = {password.name: password.length for password in release.passwords}
    key, token = internal.data["secretKey"], internal.data["CSRF_KEY"]
    assert isinstance(key, Generated) and lengths[key.password] == 16  # AES-128: exactly that long
    assert isinstance(token, Generated) and lengths[token.password] == 32
    credentials = next(s for s in release.secrets if s.name == "harbor-registry-credentials").data
    assert credentials["REGISTRY_HTPASSWD"] == Bcrypt(password="harbor-registry-user", prefix="harbor_registry_user:")
    certificate = next(m.body for m in release.before if m.body["kind"] == "Certificate")
    assert certificate["spec"]["privateKey"]["rotationPolicy"] == "Never"
    assert release.values["core"]["secretName"] == certificate["spec"]["secretName"]


def test_images_lie_in_the_object_store_and_are_never_fetched_from_it_directly() -> None:
    release = harbor.release(INPUTS)
    storage = release.values["persistence"]["imageChartStorage"]
    assert (
        storage["disableredirect"] is True
        and storage["s3"]["regionendpoint"] == "http://minio.minio.svc.cluster.local:9000"
    )
    (kept,) = release.storage
    assert storage["s3"]["bucket"] == kept.buckets[0].name and storage["s3"]["existingSecret"] == kept.secret
    assert (kept.access_key, kept.secret_key) == ("REGISTRY_STORAGE_S3_ACCESSKEY", "REGISTRY_STORAGE_S3_SECRETKEY")


@pytest.mark.parametrize("replicas", [1, 2])
def test_harbor_grows_where_it_has_several_pods(replicas: int) -> None:
    release = harbor.release(replace(INPUTS, replicas=replicas))
    grows = {workload.name: workload.autoscale for workload in release.workloads if workload.autoscale}
    assert grows == ({"harbor-core": 5, "harbor-registry": 5, "harbor-trivy": 4} if replicas > 1 else {})


def test_the_tests_run_the_releases_that_the_product_deploys() -> None:
    room = Path(__file__).parents[2] / "lab/objectstore"
    for name, row in (("minio", versions.MINIO_IMAGE), ("mc", versions.MC_IMAGE)):
        release = re.search(r"^release=(\S+)$", (room / f"recipe-{name}").read_text(), re.MULTILINE)
        module = re.search(rf"github.com/minio/{name} v0\.0\.0-(\d{{14}})-", (room / name / "go.mod").read_text())
        assert release and f"RELEASE.{release[1]}" == row.version
        assert module and module[1] == re.sub(r"\D", "", release[1])


@pytest.mark.parametrize("tool", ["keycloak", "grafana"])
def test_a_tool_verifies_its_database_by_the_authority_that_cloudnativepg_made(tool: str) -> None:
    """Its certificate only: the key of that authority lies in the same Secret."""
    (release,) = [r for r in plan().releases["standalone"] if r.name == tool]
    values = release.values
    if tool == "keycloak":
        volumes, mounts = (yaml.safe_load(values[key]) for key in ("extraVolumes", "extraVolumeMounts"))
        (secret,) = [v["secret"] for v in volumes if v["name"] == "database-ca"]
        (mount,) = [m for m in mounts if m["name"] == "database-ca"]
        environment = {e["name"]: e.get("value") for e in yaml.safe_load(values["extraEnv"])}
        assert environment["KC_DB_URL_PROPERTIES"] == "?sslmode=verify-full&sslrootcert=/etc/opstella/database/ca.crt"
    else:
        (mount,) = values["extraSecretMounts"]
        secret = {key: mount[key] for key in ("secretName", "items")}
        database = values["grafana.ini"]["database"]
        assert (database["ssl_mode"], database["ca_cert_path"]) == ("verify-full", "/etc/opstella/database/ca.crt")
    assert secret == {"secretName": f"{tool}-db-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert mount["mountPath"] == "/etc/opstella/database" and mount["readOnly"]
