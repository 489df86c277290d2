"""Opstella's own services: which parts run, what they find in their environment, and what is still to be given."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.errors import ConfigurationError
from config.reference import ARCHITECTURES
from config.services import OpstellaApp, OpstellaPart
from plan.plan import as_data, missing
from plan.tools import opstella
from plan.tools.catalogue import NAMES, catalogue
from plan.tools.model import Given, Override, Release, ToolInputs
from tests.plan.stacks import plan
from tests.support.charts import Refused, found, helm, render
from tests.support.charts import pods as pods_of

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "registry.example.com/opstella/part:1.2.3"
FIELDS = ("ui", "core", "clear_session")
DOMAIN = "devops.example.com"
REFERENCE = {service: f"{label}.{DOMAIN}" for service, label in ARCHITECTURES["standalone"]["domains"].items()}
HOSTS = {"opstella": f"opstella.{DOMAIN}", "opstellaCore": f"core.{DOMAIN}", "opstellaClearSession": f"clear.{DOMAIN}"}
INPUTS = ToolInputs(
    domain=DOMAIN,
    hosts={**REFERENCE, **HOSTS},
    all_hosts={
        **REFERENCE,
        **HOSTS,
        "keycloak": f"idp.{DOMAIN}",
        "argocdDev": f"argocd-dev.{DOMAIN}",
        "kubernetes-api": "api.x",
    },
    nfs_server="192.168.72.13",
    nfs_path="/srv/nfs",
    present=frozenset({"minio"}),
)


def with_parts(*fields: str, **changes: Any) -> ToolInputs:
    parts = {field: OpstellaPart(image=IMAGE) for field in fields}
    return replace(INPUTS, opstella=OpstellaApp(**parts, **changes))


def release(*fields: str, **changes: Any) -> Release:
    return opstella.release(with_parts(*fields, **changes))


def env(of: Release, part: str) -> list[dict[str, Any]]:
    return of.values["parts"][part]["env"]


def test_without_an_image_the_platform_stands_and_says_what_is_missing() -> None:
    stack = plan()
    names = [r.name for r in stack.releases["standalone"]]
    assert "opstella" not in names and {"keycloak", "argo-cd"} <= set(names)
    images = [f"opstella:opstella.{part}.image" for part in ("ui", "core", "clearSession")]
    assert [sentence.split(": ")[0] for sentence in missing(stack)][:3] == images
    assert as_data(stack)["missing"] == missing(stack)
    switched_off = missing(plan(tools={"opstella": {"enabled": False}}))
    assert not [sentence for sentence in switched_off if sentence.startswith("opstella:opstella.")]
    two = missing(plan(opstella={"ui": {"image": IMAGE}}))
    assert [sentence.split(": ")[0] for sentence in two if ".image: " in sentence] == images[1:]


@pytest.mark.parametrize("fields", [c for n in (1, 2, 3) for c in combinations(FIELDS, n)])
def test_a_part_without_an_image_is_left_out(fields: tuple[str, ...]) -> None:
    made = release(*fields)
    parts = [name.replace("_", "-") for name in fields]
    assert list(made.values["parts"]) == parts
    assert [w.name for w in made.workloads] == [f"opstella-{p}" for p in parts]
    assert len(made.missing) == 3 - len(fields)
    hosts = [made.values["parts"][p]["host"] for p in parts]
    assert [made.host, *made.other_hosts] == hosts
    (client,) = made.clients
    assert client.redirect_uris == tuple(f"https://{host}/*" for host in hosts)


def test_people_are_sent_back_only_to_the_paths_that_the_settings_name() -> None:
    stack = plan(opstella={"ui": {"image": IMAGE, "callbackPaths": ["/auth/callback", "/silent"]}})
    (made,) = (r for r in stack.releases["standalone"] if r.name == "opstella")
    (client,) = made.clients
    assert client.redirect_uris == (f"https://{made.host}/auth/callback", f"https://{made.host}/silent")


def test_the_catalogue_carries_it_where_its_names_are() -> None:
    parts = {name: {"image": IMAGE} for name in ("ui", "core", "clearSession")}
    stack = plan("multicluster", opstella=parts)
    carrying = [cluster for cluster, releases in stack.releases.items() if "opstella" in [r.name for r in releases]]
    assert carrying == ["devsecops"]
    off = plan(opstella=parts, tools={"opstella": {"enabled": False}})
    assert "opstella" not in [r.name for r in off.releases["standalone"]]


def test_its_needs_are_declared() -> None:
    made = release(*FIELDS)
    (database,), (access,), (client,) = made.databases, made.storage, made.clients
    assert (database.name, database.owner) == ("opstella-db", "opstella")
    assert [b.name for b in access.buckets] == ["opstella"]
    assert set(client.roles) == {"platform-admins", "developers", "viewers"} and client.secret
    alone = opstella.release(replace(with_parts("ui"), present=frozenset()))
    assert alone.storage == () and not [e for e in env(alone, "ui") if e["name"].startswith("OPSTELLA_S3")]


def test_what_the_platform_gives_is_what_its_page_says() -> None:
    page = (ROOT / "docs/opstella.md").read_text(encoding="utf-8")
    documented = {
        name for row in re.findall(r"^\| (`.*?) \|", page, re.M) for name in re.findall(r"`([A-Z][A-Z0-9_]+)`", row)
    }
    names = set(opstella.given(with_parts("ui")))
    urls = {name for name in names if re.fullmatch(r"OPSTELLA_.*_?URL", name)}
    assert documented >= names - urls | {"OPSTELLA_URL", "OPSTELLA_CORE_URL", "OPSTELLA_CLEAR_SESSION_URL"}
    assert documented <= names | {"OPSTELLA_KEYCLOAK_URL", "OPSTELLA_GITLAB_URL"}
    assert {"OPSTELLA_KEYCLOAK_URL", "OPSTELLA_ARGOCD_DEV_URL"} <= urls and not any("KUBERNETES" in u for u in urls)


def test_variables_stand_before_those_that_name_them() -> None:
    """Kubernetes replaces $(NAME) only by what stands before."""
    part = OpstellaPart(
        image=IMAGE,
        environment={"A": "$(OPSTELLA_DATABASE_PASSWORD)@$(KEY)", "OPSTELLA_DOMAIN": "mine"},
        secret_environment={"KEY": "license"},
    )
    made = opstella.release(replace(INPUTS, opstella=OpstellaApp(core=part)))
    names = [e["name"] for e in env(made, "core")]
    assert len(names) == len(set(names)), "the user's own takes the place of the platform's"
    assert names.index("OPSTELLA_DATABASE_PASSWORD") < names.index("KEY") < names.index("A")
    assert {"name": "OPSTELLA_DOMAIN", "value": "mine"} in env(made, "core")
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "opstella-core-environment", "key": "KEY"}}} in env(
        made, "core"
    )
    (secret,) = made.secrets
    assert (secret.name, secret.data) == ("opstella-core-environment", {"KEY": Given(name="license")})


def test_a_reference_that_nothing_gives_is_refused() -> None:
    part = OpstellaPart(
        image=IMAGE, environment={"A": "$(OPSTELLA_DATABASE)", "B": "$$(TEXT) $(OPSTELLA_DOMAIN)", "C": "$(B)"}
    )
    with pytest.raises(ConfigurationError) as caught:
        opstella.release(replace(INPUTS, opstella=OpstellaApp(clear_session=part)))
    assert [p.key for p in caught.value.problems] == [
        "opstella:opstella.clearSession.environment.A", "opstella:opstella.clearSession.environment.C",
    ]  # fmt: skip
    assert "OPSTELLA_DATABASE_HOST" in caught.value.problems[0].fix


def test_the_login_of_the_images_registry_is_a_secret_of_its_type() -> None:
    made = release("ui", pull_secret="registry")
    (secret,) = made.secrets
    assert secret.type == "kubernetes.io/dockerconfigjson"
    assert secret.data == {".dockerconfigjson": Given(name="registry")}
    assert made.values["pullSecret"] == secret.name
    assert "pullSecret" not in release("ui").values


def test_sizing() -> None:
    inputs = replace(with_parts("ui"), overrides={"opstella": Override(replicas=4, storage=50)})
    made = opstella.release(inputs)
    assert made.values["parts"]["ui"]["replicas"] == made.workloads[0].replicas == 4
    assert made.databases[0].storage == "50Gi"


def test_the_chart_is_the_projects_and_of_the_version_that_is_said() -> None:
    about = yaml.safe_load((ROOT / opstella.CHART / "Chart.yaml").read_text())
    assert (about["name"], about["version"]) == ("opstella", opstella.VERSION)
    assert release("ui").repository is None and "opstella" in NAMES
    mirrored = catalogue(replace(with_parts("ui"), chart_repository="https://charts.example.com"))
    assert {r.repository for r in mirrored if r.name == "opstella"} == {None}


def test_a_changed_chart_is_a_changed_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = release("ui").values["contentDigest"]
    copy = tmp_path / "chart"
    copy.mkdir()
    for file in (ROOT / opstella.CHART).rglob("*"):
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(opstella, "CHART", str(copy))
    (copy / "parts.yaml").write_text("changed")
    assert release("ui").values["contentDigest"] != before


# --- by the real Helm ---


@pytest.mark.toolchain
@pytest.mark.parametrize("fields", [(), ("core",), FIELDS], ids=len)
def test_the_chart_renders_the_parts(fields: tuple[str, ...]) -> None:
    made = opstella.release(with_parts(*FIELDS, pull_secret="registry"))
    parts = {n: p for n, p in made.values["parts"].items() if n.replace("-", "_") in fields}
    made = replace(made, values={**made.values, "parts": parts})
    objects = render(ROOT, made)
    names = {f"opstella-{name}" for name in parts}
    for kind in ("Deployment", "Service", "Ingress"):
        assert set(found(objects, kind)) == names
    assert len(objects) == 3 * len(names) + bool(names)
    for pod in pods_of(objects):
        (container,) = pod["containers"]
        assert pod["imagePullSecrets"] == [{"name": "opstella-pull"}]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert all(container[probe]["tcpSocket"] for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
        mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert mounts == {"tmp": "/tmp", "ca": "/etc/opstella/ca"}
        assert {"name": "SSL_CERT_FILE", "value": "/etc/opstella/ca/ca.crt"} in container["env"]
        assert container["image"] == IMAGE


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": {}}, "part"),
        ({"parts": {"ui": {"image": None}}}, "image"),
        ({"parts": {"ui": {"image": "no-version"}}}, "image"),
        ({"parts": {"ui": {"port": "8080"}}}, "port"),
        ({"parts": {"ui": {"port": 0}}}, "port"),
        ({"parts": {"ui": {"replica": 2}}}, "replica"),
        ({"parts": {"ui": {"resources": {"requests": {"cpus": "1"}}}}}, "cpus"),
        ({"parts": {"ui": {"env": [{"name": "A"}]}}}, "env"),
        ({"parts": {"ui": {"env": [{"name": "A-B", "value": "x"}]}}}, "name"),
        ({"parts": {"UI": {}}}, "UI"),
        ({"pullSecret": {"name": "x"}}, "pullSecret"),
    ],
)
def test_the_chart_refuses_wrong_values(change: dict[str, Any], message: str) -> None:
    made = release("ui")
    render(ROOT, made)
    with pytest.raises(Refused, match=message):
        render(ROOT, made, change)


@pytest.mark.toolchain
def test_the_chart_is_one_that_helm_accepts() -> None:
    assert "0 chart(s) failed" in helm("lint", ROOT / opstella.CHART)
