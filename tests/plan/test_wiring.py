"""What a declared need becomes: objects of the tool, entries at its provider, order, connections; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.services import ObjectStore
from plan.tools import availability, budget, cloudnative_pg, compatibility, externals, waves, wiring
from plan.tools.catalogue import catalogue
from plan.tools.model import Manifest, Override, Release, ToolInputs, Workload
from plan.tools.needs import Bucket, Cache, Database, Flow, Job, OidcClient, StorageAccess
from plan.tools.sources import Clear, Generated, Secret
from plan.tools.wiring import Member, wire

DOMAIN = "devops.example.com"
PROVIDERS = ("cloudnative-pg", "valkey", "minio", "keycloak")


def inputs(cluster: str = "one", **changes: Any) -> ToolInputs:
    given = ToolInputs(
        domain=DOMAIN,
        cluster=cluster,
        hosts={"keycloak": f"idp.{DOMAIN}", "minio": f"minio.{DOMAIN}", "minioApi": f"minio-api.{DOMAIN}"},
        all_hosts={"keycloak": f"idp.{DOMAIN}", "gitlab": f"gitlab.{DOMAIN}"},
        nfs_server="192.168.72.13",
        nfs_path="/srv/nfs",
        gitlab="192.168.72.14",
        masters=("192.168.72.15",),
    )
    return replace(given, **changes)


def release(name: str, **changes: Any) -> Release:
    plain = Release(name=name, namespace=name, chart=name, version="1.0.0", repository="https://x.example.com", values={})
    return replace(plain, **changes)


def providers(*names: str) -> tuple[Release, ...]:
    return tuple(release(name, namespace=f"{name}-space") for name in names or PROVIDERS)


def wired(*tools: Release, given: ToolInputs | None = None, carrying: tuple[Release, ...] | None = None) -> dict[str, Release]:
    used = given or inputs()
    # csi-driver-nfs stands for whatever makes the volumes of databases.
    there = (release("csi-driver-nfs"), *(providers() if carrying is None else carrying))
    return {r.name: r for r in wire({used.cluster: Member(inputs=used, releases=(*there, *tools))})[used.cluster]}


def secret_of(found: Release, name: str) -> Secret:
    return next(s for s in found.secrets if s.name == name)


def kinds(found: Release, kind: str) -> list[dict[str, Any]]:
    return [m.body for m in (*found.before, *found.after) if m.body["kind"] == kind]


def passwords(found: Release) -> set[str]:
    return {p.name for p in found.passwords}


LOGIN = OidcClient(
    client_id="tool", name="Tool", redirect_uris=("https://tool.example.com/cb",), roles={"viewers": "Viewer"},
    secret="tool-oidc", secret_key="secret", extra={"id": Clear(text="tool")}, labels={"part-of": "tool"},
)  # fmt: skip
STORE = StorageAccess(user="tool", buckets=(Bucket(name="tool"),), secret="tool-s3", extra={"region": Clear(text="eu")})
CACHE = Cache(user="tool", secret="tool-cache", keys=("a", "b"), prefix="tool:")
DATABASE = Database(name="tool-db", database="tool", owner="owner", statements=("CREATE EXTENSION x",))


# ---- what each need becomes -------------------------------------------------------------------


def test_a_database() -> None:
    tool = wired(release("tool", databases=(DATABASE,)))["tool"]
    assert set(tool.needs) == {"cloudnative-pg", "csi-driver-nfs"}
    assert "tool-db" in passwords(tool)
    owner = secret_of(tool, "tool-db-owner")
    assert owner.type == "kubernetes.io/basic-auth" and owner.namespace == "tool"
    assert owner.data == {"username": Clear(text="owner"), "password": Generated(password="tool-db")}
    (cluster,) = kinds(tool, "Cluster")
    assert cluster["metadata"] == {"name": "tool-db", "namespace": "tool"}
    initdb = cluster["spec"]["bootstrap"]["initdb"]
    assert initdb["secret"]["name"] == owner.name
    assert (initdb["database"], initdb["owner"]) == ("tool", "owner")
    assert initdb["postInitApplicationSQL"] == ["CREATE EXTENSION x"]


def test_a_database_is_backed_up_where_there_is_an_object_store() -> None:
    tool = wired(release("tool", databases=(DATABASE,)))["tool"]
    (cluster,) = kinds(tool, "Cluster")
    store = cluster["spec"]["backup"]["barmanObjectStore"]
    assert store["destinationPath"] == "s3://database-backups/one/tool"
    assert store["endpointURL"] == "http://minio.minio.svc.cluster.local:9000" and "endpointCA" not in store
    credential = secret_of(tool, store["s3Credentials"]["accessKeyId"]["name"])
    assert credential.data[store["s3Credentials"]["accessKeyId"]["key"]] == Clear(text="database-backups")
    password = credential.data[store["s3Credentials"]["secretAccessKey"]["key"]]
    assert password == Generated(password="s3-database-backups")
    (schedule,) = kinds(tool, "ScheduledBackup")
    assert schedule["spec"]["cluster"] == {"name": "tool-db"} and len(schedule["spec"]["schedule"].split()) == 6
    # The store stands for itself: a database that waited for it could not be the store's own login's.
    assert "minio" not in tool.needs


def test_a_database_without_an_object_store_has_no_backup() -> None:
    tool = wired(release("tool", databases=(DATABASE,)), carrying=providers("cloudnative-pg"))["tool"]
    (cluster,) = kinds(tool, "Cluster")
    assert "backup" not in cluster["spec"] and not kinds(tool, "ScheduledBackup")
    assert not [s for s in tool.secrets if s.name == cloudnative_pg.BACKUP_SECRET]


def test_a_cache() -> None:
    found = wired(release("tool", caches=(CACHE,)))
    tool = found["tool"]
    assert tool.needs == ("valkey",) and "valkey-tool" in passwords(tool)
    assert secret_of(tool, "tool-cache").data == {k: Generated(password="valkey-tool") for k in ("a", "b")}
    assert secret_of(found["valkey"], "valkey-users").data["tool"] == Generated(password="valkey-tool")


def test_a_bucket() -> None:
    found = wired(release("tool", storage=(STORE,)))
    tool = found["tool"]
    assert tool.needs == ("minio",) and "s3-tool" in passwords(tool)
    assert secret_of(tool, "tool-s3").data == {
        "accessKey": Clear(text="tool"), "secretKey": Generated(password="s3-tool"), "region": Clear(text="eu"),
    }  # fmt: skip
    users = secret_of(found["minio"], "minio-users")
    assert users.namespace == "minio-space" and users.data["tool"] == Generated(password="s3-tool")


def test_a_client() -> None:
    found = wired(release("tool", clients=(LOGIN,)))
    tool = found["tool"]
    assert tool.needs == ("keycloak",) and "client-tool" in passwords(tool)
    secret = secret_of(tool, "tool-oidc")
    assert secret.data == {"secret": Generated(password="client-tool"), "id": Clear(text="tool")}
    assert secret.labels == {"part-of": "tool"}
    assert secret_of(found["keycloak"], "keycloak-clients").data["tool"] == Generated(password="client-tool")


def test_a_public_client_has_no_password() -> None:
    found = wired(release("tool", clients=(replace(LOGIN, public=True, secret=None),)))
    assert not found["tool"].secrets and not found["tool"].passwords
    assert "tool" not in secret_of(found["keycloak"], "keycloak-clients").data


def test_what_stands_outside_the_catalogue_is_served_too() -> None:
    found = wired()
    store, login = secret_of(found["minio"], "minio-users").data, secret_of(found["keycloak"], "keycloak-clients").data
    assert set(store) == {"gitlab", "database-backups"} and set(login) == {"gitlab"}
    assert {"s3-gitlab", "s3-database-backups"} <= passwords(found["minio"])
    assert "client-gitlab" in passwords(found["keycloak"])
    buckets = [b.name for access in externals.storage(inputs(), first=True) for b in access.buckets]
    assert len(buckets) == len(set(buckets)) and {"database-backups", "gitlab-lfs"} <= set(buckets)


def test_providers_do_not_need_themselves() -> None:
    found = wired(carrying=(*providers("cloudnative-pg", "valkey", "minio"), release("keycloak", clients=(LOGIN,))))
    assert found["keycloak"].needs == ()
    assert secret_of(found["keycloak"], "keycloak-clients").data["tool"] == Generated(password="client-tool")


def test_a_bucket_to_adopt_that_the_platform_does_not_keep_is_named_with_those_it_does() -> None:
    tool = release("tool", storage=(STORE,))
    (bucket,) = STORE.buckets
    wired(tool, given=inputs(object_store=ObjectStore(adopt=(bucket.name,))))
    with pytest.raises(ConfigurationError, match="no bucket 'loki-chunk'") as caught:
        wired(tool, given=inputs(object_store=ObjectStore(adopt=(bucket.name, "loki-chunk"))))
    (problem,) = caught.value.problems
    assert problem.key == "opstella:objectStore.adopt"
    assert bucket.name in problem.fix and "database-backups" in problem.fix


# ---- several clusters -------------------------------------------------------------------------


def test_a_provider_in_another_cluster() -> None:
    """The client's password stays with its tool; the provider's Secret names the cluster it is to be taken from."""
    first = Member(inputs=inputs("first"), releases=(release("csi-driver-nfs"), *providers()))
    second = Member(
        inputs=inputs("second", hosts={}),
        releases=(
            release("csi-driver-nfs"), *providers("cloudnative-pg"),
            release("tool", clients=(LOGIN,), storage=(STORE,), databases=(DATABASE,)),
        ),
    )  # fmt: skip
    found = wire({"first": first, "second": second})
    tool = next(r for r in found["second"] if r.name == "tool")
    assert set(tool.needs) == {"cloudnative-pg", "csi-driver-nfs"}
    keycloak, minio = (next(r for r in found["first"] if r.name == name) for name in ("keycloak", "minio"))
    assert secret_of(keycloak, "keycloak-clients").data["tool"] == Generated(password="client-tool", cluster="second")
    assert secret_of(minio, "minio-users").data["tool"] == Generated(password="s3-tool", cluster="second")
    (cluster,) = kinds(tool, "Cluster")
    store = cluster["spec"]["backup"]["barmanObjectStore"]
    assert store["endpointURL"] == f"https://minio-api.{DOMAIN}"
    assert store["endpointCA"] == {"name": "database-backups", "key": "ca.crt"}
    password = secret_of(tool, "database-backups").data["SECRET_KEY"]
    assert password == Generated(password="s3-database-backups", cluster="first")


def test_each_cluster_asks_the_nearest_object_store() -> None:
    members = {
        name: Member(inputs=inputs(name), releases=(*providers("minio"), release("tool", storage=(replace(STORE, user=name),))))
        for name in ("first", "second")
    }
    found = wire(members)
    users = {name: set(secret_of(rs[0], "minio-users").data) for name, rs in found.items()}
    assert users["first"] == {"first", "gitlab", "database-backups"}
    assert users["second"] == {"second", "database-backups"}  # GitLab has one object store


# ---- order ------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn) -> list[Release]:
    """Releases in any order, whose needs form no circle."""
    count = draw(st.integers(1, 8))
    made = [
        release(f"r{n}", needs=tuple(f"r{m}" for m in range(n) if draw(st.booleans()))) for n in range(count)
    ]
    return draw(st.permutations(made))


@given(graphs())
@settings(deadline=None)
def test_needs_come_first_whatever_the_order_given(releases: list[Release]) -> None:
    seen: set[str] = set()
    for one in wiring.ordered(releases):
        assert set(one.needs) <= seen
        seen.add(one.name)
    assert seen == {r.name for r in releases}


@given(graphs())
@settings(deadline=None)
def test_waves_are_as_early_as_needs_allow(releases: list[Release]) -> None:
    ordered = wiring.ordered(releases)
    found = waves.waves(ordered)
    at = {name: number for number, wave in enumerate(found) for name in wave}
    assert set(at) == {r.name for r in releases}
    for one in ordered:
        assert at[one.name] == max((at[n] + 1 for n in one.needs), default=0)
    path = waves.critical_path(ordered)
    assert len(path) == len(found)
    needs = {r.name: r.needs for r in ordered}
    assert all(before in needs[after] for before, after in zip(path, path[1:], strict=False))


def test_the_critical_path_is_by_measured_time_where_it_is_known() -> None:
    releases = (release("a"), release("b"), release("c", needs=("a",)), release("d", needs=("c",)))
    assert waves.critical_path(releases) == ("a", "c", "d")
    assert waves.critical_path(releases, {"b": 100.0, "a": 1.0, "c": 1.0, "d": 1.0}) == ("b",)


def test_a_circle_is_named() -> None:
    with pytest.raises(ValueError, match="a needs b; b needs a"):
        wiring.ordered([release("a", needs=("b",)), release("b", needs=("a",))])


def test_what_a_manifest_or_a_job_needs_counts() -> None:
    job = Job(name="j", image="i", command=("c",), files={}, needs=("x",))
    manifest = Manifest(name="m", body={"kind": "K"}, needs=("y",))
    assert wiring.needs_of(release("tool", jobs=(job,), before=(manifest,), needs=("z", "tool"))) == ("z", "y", "x")


# ---- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "provider"),
    [
        (release("tool", databases=(DATABASE,)), "cloudnative-pg"),
        (release("tool", caches=(CACHE,)), "valkey"),
        (release("tool", storage=(STORE,)), "minio"),
        (release("tool", clients=(LOGIN,)), "keycloak"),
        (release("tool", jobs=(Job(name="j", image="i", command=(), files={}, needs=("vault",)),)), "vault"),
    ],
)  # fmt: skip
def test_a_need_whose_provider_is_left_out(tool: Release, provider: str) -> None:
    left = providers(*(p for p in PROVIDERS if p != provider))
    with pytest.raises(ConfigurationError) as caught:
        wired(tool, carrying=left)
    (problem,) = caught.value.problems
    assert problem.what == f"tool needs {provider}, which is left out"
    assert problem.key == f"opstella:tools.{provider}.enabled" and "opstella:tools.tool.enabled" in problem.fix


def test_two_of_one_name_at_a_provider() -> None:
    one, other = release("one", clients=(LOGIN,)), release("other", clients=(LOGIN,))
    with pytest.raises(ConfigurationError, match="two ask keycloak for the name 'tool'"):
        wired(one, other)


@pytest.mark.parametrize(
    ("tool", "version", "refused"),
    [
        ("keycloak", "5.0.0", True), ("keycloak", "6.0.0", False), ("keycloak", "7.1.11", False),
        ("defectdojo", "1.9.29", False), ("defectdojo", "1.9.30", True), ("defectdojo", "2.0.0", True),
    ],
)  # fmt: skip
def test_versions_known_not_to_work(tool: str, version: str, refused: bool) -> None:
    problems = compatibility.check([release(tool, version=version, clients=(LOGIN,))])
    assert bool(problems) == refused
    for problem in problems:
        assert problem.key == f"opstella:tools.{tool}.version" and version in problem.what


def test_an_image_known_not_to_work() -> None:
    found = compatibility.check([release("keycloak", version="7.1.11", values={"image": {"tag": "25.0.6"}})])
    assert [p.key for p in found] == ["opstella:tools.keycloak.values.image.tag"]
    assert not compatibility.check([release("keycloak", version="7.1.11", values={"image": {"tag": "26.5.6"}})])


def test_defectdojo_3_works_where_it_has_no_login_of_the_realm() -> None:
    assert not compatibility.check([release("defectdojo", version="1.9.44")])


def test_the_catalogue_refuses_an_incompatible_version() -> None:
    given = ToolInputs(
        domain=DOMAIN, hosts={"keycloak": f"idp.{DOMAIN}"}, all_hosts={"keycloak": f"idp.{DOMAIN}"}, nfs_server="n",
        nfs_path="/", tools=("csi-driver-nfs", "cert-manager", "traefik", "cloudnative-pg", "keycloak"),
        overrides={"keycloak": Override(version="2.6.0")},
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"opstella:tools\.keycloak\.version: 2\.6\.0 does not work"):
        catalogue(given)


# ---- availability -----------------------------------------------------------------------------


def workload(**changes: Any) -> Workload:
    given: dict[str, Any] = {"kind": "Deployment", "name": "app", "namespace": "tool", "selector": {"app": "x"}}
    return Workload(**given | changes)


@pytest.mark.parametrize(
    ("changes", "workers", "fewest", "most"),
    [
        ({}, 5, 1, 1), ({"replicas": 3}, 5, 3, 3), ({"kind": "DaemonSet"}, 4, 4, 4),
        ({"autoscale": 5}, 1, 1, 1), ({"autoscale": 5}, 5, 2, 5), ({"autoscale": 5}, 3, 2, 3),
        ({"autoscale": 2, "replicas": 3}, 5, 3, 3),
    ],
)  # fmt: skip
def test_how_many_pods(changes: dict[str, Any], workers: int, fewest: int, most: int) -> None:
    assert availability.pods(workload(**changes), workers) == (fewest, most)


def test_budgets_and_autoscalers() -> None:
    loads = (workload(replicas=2), workload(name="big", autoscale=5), workload(name="single"), workload(kind="DaemonSet"))
    tool = wired(release("tool", workloads=loads), given=inputs(workers=3))["tool"]
    assert [b["metadata"]["name"] for b in kinds(tool, "PodDisruptionBudget")] == ["app", "big"]
    for body in kinds(tool, "PodDisruptionBudget"):
        assert body["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}
    (scaler,) = kinds(tool, "HorizontalPodAutoscaler")
    spec = scaler["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "big"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 3)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert spec["behavior"] == {
        "scaleUp": {"stabilizationWindowSeconds": 60}, "scaleDown": {"stabilizationWindowSeconds": 300},
    }  # fmt: skip


# ---- the budget -------------------------------------------------------------------------------


class Machine:
    def __init__(self, cpu: int, memory_gb: int) -> None:
        self.cpu, self.memory_gb = cpu, memory_gb


@pytest.mark.parametrize(("text", "millicores"), [("250m", 250), ("2", 2000), ("0.5", 500), ("0", 0), ("1.25", 1250)])
def test_cpu_quantities(text: str, millicores: int) -> None:
    assert budget.cpu(text) == millicores


@pytest.mark.parametrize(("text", "mebibytes"), [("256Mi", 256), ("2Gi", 2048), ("1048576", 1), ("1048577", 2), ("512Ki", 1)])
def test_memory_quantities(text: str, mebibytes: int) -> None:
    assert budget.memory(text) == mebibytes


@pytest.mark.parametrize("text", ["", "1.5Gi", "1G", "1GiB", "-1", "1e3", " 1Mi", "1m", "x"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of memory"):
        budget.memory(text)


@pytest.mark.parametrize("text", ["", "1.5m", "1 ", "-1", "1k", "100Mi", ".5"])
def test_what_is_no_cpu_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of CPU"):
        budget.cpu(text)


def test_the_sums() -> None:
    job = Job(name="j", image="i", command=(), files={})
    releases = wired(
        release(
            "tool", databases=(replace(DATABASE, cpu="100m", memory="256Mi"),), jobs=(job,),
            workloads=(
                workload(replicas=2, cpu="250m", memory="1Gi"),
                workload(kind="DaemonSet", name="d", cpu="10m", memory="10Mi"),
            ),
        ),
        given=inputs(database_instances=3), carrying=providers("cloudnative-pg"),
    )  # fmt: skip
    found = budget.budget(list(releases.values()), [Machine(4, 10)] * 5)
    row = next(row for row in found.rows if row.tool == "tool")
    assert row.total == budget.Amount(cpu=2 * 250 + 5 * 10 + 3 * 100, memory=2 * 1024 + 5 * 10 + 3 * 256)
    assert found.jobs == budget.Amount(cpu=20, memory=64)
    assert found.total == row.total + found.jobs
    assert found.capacity == budget.Amount(
        cpu=5 * (4000 - budget.RESERVED_CPU), memory=5 * (10240 - budget.RESERVED_MEMORY)
    )
    assert not budget.check("one", found, 5)
    assert budget.as_data(found)["total"] == {"cpu_millicores": found.total.cpu, "memory_mib": found.total.memory}


def test_what_does_not_fit_is_told_with_the_sums() -> None:
    tools = [release(name, workloads=(workload(cpu="1", memory=f"{gb}Gi"),)) for name, gb in (("small", 1), ("large", 3))]
    found = budget.budget(tools, [Machine(2, 4)])
    (problem,) = budget.check("one", found, 1)
    assert problem.key == "opstella:clusters.one.workers"
    assert "2.00 CPU and 4.0 GB" in problem.what and "its 1 worker has 1.65 CPU and 3.2 GB" in problem.what
    assert problem.what.index("large 1.00 CPU and 3.0 GB") < problem.what.index("small 1.00 CPU and 1.0 GB")
    assert "set count to 3" in problem.fix and "opstella:tools.large.enabled" in problem.fix


def test_a_pod_too_large_for_any_worker() -> None:
    found = budget.budget([release("tool", workloads=(workload(memory="4Gi"),))], [Machine(2, 4)] * 5)
    (problem,) = budget.check("one", found, 5)
    assert "a pod of tool (Deployment app) requests" in problem.what and "no worker has more than" in problem.what


def test_only_a_flow_to_a_known_word_or_release_is_one() -> None:
    """A flow to a tool that is left out opens nothing; it is optional."""
    tool = wired(release("tool", flows=(Flow(peer="harbor", ports=(80,), why="w"),)))["tool"]
    (policy,) = kinds(tool, "NetworkPolicy")
    assert [rule["ports"][0]["port"] for rule in policy["spec"]["egress"]] == [53, 53]
