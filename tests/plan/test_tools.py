"""The tool catalogue: order, overrides, names, and that nothing secret or unknown to the charts stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.reference import ARCHITECTURES
from config.services import OpstellaApp, OpstellaPart
from lab.charts.key_lists import Schema, allows, key_list, schema
from plan import haproxy, versions
from plan.tools import catalogue as module
from plan.tools.catalogue import NAMES, catalogue
from plan.tools.common import merge
from plan.tools.model import Bcrypt, FromPki, Generated, Manifest, Override, Release, ToolInputs

DOMAIN = "devops.example.com"
HOSTS = {service: f"{label}.{DOMAIN}" for service, label in ARCHITECTURES["standalone"]["domains"].items()}
PART = OpstellaPart(image="registry.example.com/opstella/part:1.0.0")
INPUTS = ToolInputs(
    domain=DOMAIN,
    hosts={service: host for service, host in HOSTS.items() if service != "gitlab"},
    all_hosts=HOSTS,
    nfs_server="192.168.72.13",
    nfs_path="/srv/nfs",
    opstella=OpstellaApp(ui=PART, core=PART, clear_session=PART),
    metrics_server="catalogue",
)

any_inputs = st.builds(
    lambda **changes: replace(INPUTS, **changes),
    replicas=st.integers(1, 5),
    database_instances=st.sampled_from((1, 3)),
    certificate=st.sampled_from(("cert-manager", "provided")),
    ingress_class=st.sampled_from(("traefik", "internal")),
    storage_class=st.sampled_from(("nfs", "ceph")),
    load_balancer=st.sampled_from((None, "192.168.72.12")),
    trusted_proxies=st.sampled_from(((), ("10.0.0.0/8",))),
    chart_repository=st.sampled_from((None, "https://charts.example.com")),
    ca_bundle=st.sampled_from((None, "opstella-ca-bundle")),
    tools=st.one_of(st.none(), st.just(("csi-driver-nfs", "cert-manager", "traefik"))),
)


# Other work on the machine must not fail a test by its time.
examples = settings(deadline=None)


@cache
def values_schema(chart: str, version: str) -> Schema:
    return schema(key_list(chart, version))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path of a nested map to what is no map, or an empty one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def by_name(inputs: ToolInputs = INPUTS) -> dict[str, Release]:
    return {release.name: release for release in catalogue(inputs)}


def of_kind(release: Release, kind: str) -> list[Manifest]:
    return [m for m in (*release.before, *release.after) if m.body["kind"] == kind]


@given(any_inputs)
@examples
def test_the_real_charts_have_every_key(inputs: ToolInputs) -> None:
    for release in (r for r in catalogue(inputs) if r.repository):  # Helm holds a chart of the project to its schema
        accepted = values_schema(release.chart, release.version)
        for path, value in leaves(release.values):
            assert allows(accepted, path, value), f"{release.name}: {'.'.join(path)} is no key of {release.chart}"


@pytest.mark.parametrize(
    ("chart", "path", "value"),
    [
        ("traefik", ("deployment", "knd"), "DaemonSet"),
        ("traefik", ("ports", "web", "nodeport"), 30080),
        ("argo-cd", ("server", "ingress", "host"), "x"),
        ("csi-driver-nfs", ("storageClass", "server"), "x"),
        ("keycloakx", ("ingress", "enabled"), {"x": True}),
        ("cert-manager", ("crds", "enabled"), "yes"),
    ],
)
def test_a_misspelt_key_or_wrong_type_is_noticed(chart: str, path: tuple[str, ...], value: Any) -> None:
    version = next(c.version for c in versions.CHARTS if c.name == chart)
    assert not allows(values_schema(chart, version), path, value)


@given(any_inputs)
@examples
def test_needs_come_first(inputs: ToolInputs) -> None:
    seen: set[str] = set()
    for release in catalogue(inputs):
        assert set(release.needs) <= seen
        for manifest in release.before:
            assert set(manifest.needs) <= set(release.needs)
        seen.add(release.name)
        for manifest in release.after:
            assert set(manifest.needs) <= seen


@given(any_inputs)
@examples
def test_the_same_inputs_give_the_same_releases(inputs: ToolInputs) -> None:
    assert catalogue(inputs) == catalogue(replace(inputs))


@given(any_inputs)
@examples
def test_no_value_holds_a_secret(inputs: ToolInputs) -> None:
    variable = re.compile(r"\$\{[A-Z0-9_]+\}")  # the program puts it in, out of its environment
    reference = re.compile(r"extraSecretMounts|.*_url|.*[eE]xisting.*|.*[sS]ecretName|.*(Password|Secret|Token|password|secret)Key")
    for release in catalogue(inputs):
        # A value may name a Secret that the release declares, or a key in it; or one that its Job makes.
        named = {s.name for s in release.secrets} | {key for s in release.secrets for key in s.data}
        named |= {name for job in release.jobs for rule in job.rules for name in rule.get("resourceNames", ())}
        for path, value in leaves(release.values):
            if re.search("password|secret|token|credential", path[-1], re.IGNORECASE) and not isinstance(value, bool):
                text = str(value).replace("{{ .Release.Name }}", release.name)
                fine = value in ("", None, [], {}) or text in named or variable.fullmatch(str(value))
                assert fine or reference.fullmatch(path[-1]), f"{release.name}: {'.'.join(path)} = {value!r}"
        for manifest in (*release.before, *release.after):
            assert manifest.body["kind"] != "Secret"


@given(any_inputs)
@examples
def test_every_source_of_a_secret_is_declared(inputs: ToolInputs) -> None:
    releases = catalogue(inputs)
    passwords = [p.name for release in releases for p in release.passwords]
    assert len(passwords) == len(set(passwords))
    own = set(passwords)
    for release in releases:
        for secret in release.secrets:
            for source in secret.data.values():
                if isinstance(source, Generated | Bcrypt):
                    # A provider's Secret holds those of everybody it serves.
                    assert source.password in passwords
                if isinstance(source, FromPki) and source.item.startswith("wildcard."):
                    assert inputs.certificate == "provided"
        assert release.login is None or release.login.password in own


@given(any_inputs)
@examples
def test_names_are_unique(inputs: ToolInputs) -> None:
    releases = catalogue(inputs)
    for names in (
        [r.name for r in releases],
        [r.namespace for r in releases if r.name != "trust-manager"],  # reads its sources in cert-manager's own
        [r.host for r in releases if r.host],
        [(s.namespace, s.name) for r in releases for s in r.secrets],
        [(w.kind, w.namespace, w.name) for r in releases for w in r.workloads],
    ):
        assert len(names) == len(set(names))
    for release in releases:
        assert (release.host is None) == (release.domain_key is None)
        assert release.host is None or release.host.endswith(f".{DOMAIN}")


def test_traefik_listens_where_the_load_balancer_sends() -> None:
    ports = by_name()["traefik"].values["ports"]
    assert (ports["web"]["nodePort"], ports["websecure"]["nodePort"]) == (haproxy.INGRESS_HTTP, haproxy.INGRESS_HTTPS)


def test_the_default_certificate_covers_the_domain() -> None:
    (certificate,) = of_kind(by_name()["traefik"], "Certificate")
    assert certificate.body["spec"]["dnsNames"] == [DOMAIN, f"*.{DOMAIN}"]
    assert certificate.body["spec"]["duration"] == "720h"
    assert (
        certificate.body["spec"]["secretName"]
        == (by_name()["traefik"].values["tlsStore"]["default"]["defaultCertificate"]["secretName"])
    )
    issuer = certificate.body["spec"]["issuerRef"]["name"]
    assert issuer == by_name()["cert-manager"].after[0].name


def test_a_provided_certificate_takes_the_place_of_the_issued_one() -> None:
    traefik = by_name(replace(INPUTS, certificate="provided"))["traefik"]
    assert not of_kind(traefik, "Certificate") and traefik.needs == ()
    (secret,) = traefik.secrets
    assert secret.type == "kubernetes.io/tls" and secret.name == "ingress-tls"


def test_keycloak_and_its_database_agree() -> None:
    release = by_name()["keycloak"]
    (cluster,) = of_kind(release, "Cluster")
    spec, database = cluster.body["spec"], release.values["database"]
    initdb = spec["bootstrap"]["initdb"]
    assert database["hostname"] == f"{cluster.name}-rw"
    assert (database["database"], database["username"]) == (initdb["database"], initdb["owner"])
    assert database["existingSecret"] == initdb["secret"]["name"]
    secret = next(s for s in release.secrets if s.name == database["existingSecret"])
    assert secret.type == "kubernetes.io/basic-auth" and set(secret.data) == {"username", "password"}
    assert spec["enablePDB"] is False


def test_the_nfs_controller_stays_where_the_share_is_exported_to() -> None:
    values = by_name()["csi-driver-nfs"].values
    (term,) = values["controller"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"][0] == {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}


def test_one_repository_can_hold_all_charts() -> None:
    releases = catalogue(replace(INPUTS, chart_repository="https://charts.example.com"))
    assert {r.repository for r in releases if not r.chart.startswith("charts/")} == {"https://charts.example.com"}


def test_overrides() -> None:
    override = Override(version="1.2.3", timeout_seconds=45, values={"deployment": {"replicas": 7}, "logs": {"level": "DEBUG"}})
    release = by_name(replace(INPUTS, overrides={"traefik": override}))["traefik"]
    assert release.version == "1.2.3" and release.timeout_seconds == 45
    assert release.values["deployment"] == {"kind": "DaemonSet", "replicas": 7}
    assert release.values["logs"] == {"level": "DEBUG"}
    assert by_name()["traefik"].version == versions.TRAEFIK.version


def test_an_unknown_tool_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"opstella:tools\.traefk: there is no tool 'traefk'") as caught:
        catalogue(replace(INPUTS, overrides={"traefk": Override()}))
    assert "did you mean traefik?" in str(caught.value)


def test_a_tool_whose_needs_are_left_out_is_named_with_them() -> None:
    overrides = {"cloudnative-pg": Override(enabled=False), "traefik": Override(enabled=False)}
    with pytest.raises(ConfigurationError) as caught:
        catalogue(replace(INPUTS, overrides=overrides))
    assert {p.what for p in caught.value.problems} >= {
        "keycloak needs cloudnative-pg, which is left out",
        "keycloak needs traefik, which is left out",
        "argo-cd needs traefik, which is left out",
    }


def test_a_provider_that_nobody_uses_stays_where_the_user_placed_it() -> None:
    off = {name: Override(enabled=False) for name in NAMES if name not in ("csi-driver-nfs", "cert-manager")}
    assert {r.name for r in catalogue(replace(INPUTS, overrides=off))} == {"csi-driver-nfs", "cert-manager"}
    placed = replace(INPUTS, overrides={**off, "cloudnative-pg": Override(placed=True)})
    assert {r.name for r in catalogue(placed)} == {"csi-driver-nfs", "cert-manager", "cloudnative-pg"}


def test_a_tool_without_a_name_is_a_problem_of_the_domains() -> None:
    with pytest.raises(ConfigurationError, match=r"opstella:domains\.keycloak: keycloak needs a name"):
        catalogue(replace(INPUTS, hosts={s: h for s, h in INPUTS.hosts.items() if s != "keycloak"}))


@pytest.mark.parametrize("name", NAMES)
def test_each_tool_can_be_left_out_with_what_needs_it(name: str) -> None:
    out = {name}
    every = catalogue(INPUTS)
    for release in every:  # needs come first, so one pass finds all
        if out & set(release.needs):
            out.add(release.name)
    # A provider that nobody uses any more goes with its last user, unless the user placed it.
    caching = {release.name for release in every if release.caches and release.name != "valkey"}
    out |= set() if caching - out else {"valkey"}
    out |= set() if {release.name for release in every if release.databases} - out else {"cloudnative-pg"}
    left = catalogue(replace(INPUTS, overrides={n: Override(enabled=False) for n in out}))
    assert {r.name for r in left} == set(NAMES) - out


_maps = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(_maps, _maps)
@settings(max_examples=200, deadline=None)
def test_merge_takes_every_leaf_of_the_upper_and_keeps_the_rest(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = deepcopy((base, over))
    merged = merge(base, over)
    assert (base, over) == before
    for path, value in leaves(over):
        node: Any = merged
        for key in path:
            node = node[key]
        assert node == value or (value == {} and isinstance(node, dict))
    assert merge(merged, over) == merged
    assert merge(base, {}) == base and merge({}, over) == over
    for key in set(base) - set(over):
        assert merged[key] == base[key]


# No later line of these could be read when the rows were chosen; every run warns of them (plan.lines).
ENDED = {"gitlab", "gitlab-runner", "keycloakx"}


def test_every_version_says_where_it_comes_from() -> None:
    assert len({v.name for v in versions.ALL}) == len(versions.ALL)
    for version in versions.ALL:
        assert version.source and version.support
        assert version.released is None or version.released <= version.chosen
        ended = version.end_of_life is not None and version.end_of_life <= version.chosen
        assert ended == (version.name in ENDED), version.name
    foreign = [release for release in catalogue(INPUTS) if release.repository]
    assert {release.chart for release in foreign} == {chart.name for chart in versions.CHARTS}
    for release in foreign:
        chart = next(c for c in versions.CHARTS if c.name == release.chart)
        assert (release.version, release.repository) == (chart.version, chart.repository)


def test_the_tools_are_listed_in_an_order_that_works() -> None:
    assert NAMES == tuple(tool.name for tool in module.TOOLS)
    assert [release.name for release in catalogue(INPUTS)] == list(NAMES)
