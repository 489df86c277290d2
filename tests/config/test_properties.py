"""Laws of the overlay and of the reader, for any settings."""

from __future__ import annotations

import copy
import json
import random
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.load import from_pulumi, from_values, validate
from config.model import Settings
from config.pem import ENCRYPTED
from config.reference import ARCHITECTURES, overlay

CANARY = "canary0f8e1c"

# How fast inputs are made says nothing about the program, only about how busy the machine is.
settings.register_profile("config", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("config")

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
keys = st.sampled_from("abcd")
trees = st.dictionaries(
    keys, st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12), max_size=4
)


@given(trees)
def test_overlaying_nothing_changes_nothing(base: dict[str, Any]) -> None:
    assert overlay(base, {}) == base
    assert overlay({}, base) == base


@given(trees, trees)
def test_overlay_is_idempotent_and_keeps_its_arguments(base: dict[str, Any], changes: dict[str, Any]) -> None:
    before = copy.deepcopy((base, changes))
    once = overlay(base, changes)
    assert overlay(once, changes) == once
    assert (base, changes) == before


@given(trees, trees, trees)
def test_overlay_is_associative_where_shapes_agree(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    left, right = overlay(overlay(a, b), c), overlay(a, overlay(b, c))
    # A mapping laid over a scalar of `b` meets `a`'s mapping on one side only.
    if same_shape(a, b) and same_shape(b, c) and same_shape(a, c):
        assert left == right


def same_shape(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return all(same_shape(a[k], b[k]) for k in a.keys() & b.keys())
    return isinstance(a, dict) == isinstance(b, dict)


@given(trees, trees)
def test_overlay_shares_nothing_with_its_arguments(base: dict[str, Any], changes: dict[str, Any]) -> None:
    before = copy.deepcopy((base, changes))
    merged = overlay(base, changes)
    empty(merged)
    assert (base, changes) == before


def empty(tree: Any) -> None:
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        empty(value)
    if isinstance(tree, dict | list):
        tree.clear()


@st.composite
def written(draw: st.DrawFn) -> dict[str, Any]:
    """What a user may write: valid settings of any architecture."""
    architecture = draw(st.sampled_from(["standalone", "multicluster", "custom"]))
    values: dict[str, Any] = {
        "architecture": architecture,
        "domain": draw(st.sampled_from(["devops.example.com", "a.b", "x-1.internal.example"])),
        "ssh": {
            "privateKey": ENCRYPTED,
            "user": draw(st.sampled_from(["ops", "_svc"])),
            "port": draw(st.integers(1, 65535)),
        },
    }
    names = list(ARCHITECTURES[architecture].get("clusters", {})) or draw(
        st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, unique=True)
    )
    clusters: dict[str, Any] = {}
    for number, name in enumerate(names):
        subnet = IPv4Network((f"10.{number}.0.0", draw(st.integers(16, 22))))
        clusters[name] = {
            "subnet": str(subnet),
            "podSubnet": str(IPv4Network(("100.64.0.0", draw(st.integers(10, 14))))),
            "masters": {"count": draw(st.sampled_from([1, 3, 5])), "memoryGb": draw(st.integers(4, 64))},
            "workers": {
                "count": draw(st.integers(1, 20)),
                "cpu": draw(st.integers(2, 64)),
                "addresses": draw(st.sampled_from([[], [str(subnet[9])]])),
                "labels": draw(st.dictionaries(st.sampled_from(["a", "example.com/b"]), st.sampled_from(["", "x"]))),
                "taints": draw(
                    st.lists(st.fixed_dictionaries({"key": st.just("k"), "effect": st.just("NoExecute")}), max_size=1)
                ),
            },
        }
    values["clusters"] = clusters
    optional = {
        "firewall": st.fixed_dictionaries({"enabled": st.booleans(), "rollbackSeconds": st.integers(20, 600)}),
        "time": st.fixed_dictionaries(
            {"servers": st.lists(st.sampled_from(["10.0.0.1", "ntp.example.com"]), max_size=2)}
        ),
        "tools": st.dictionaries(
            st.sampled_from(["argocd", "traefik"]), st.fixed_dictionaries({"enabled": st.booleans(), "values": trees})
        ),
        "gitlab": st.fixed_dictionaries({"memoryGb": st.integers(4, 99), "edition": st.sampled_from(["ce", "ee"])}),
        "bastion": st.none() | st.just({}),
        "identity": st.fixed_dictionaries(
            {"users": st.just({"jane": {"groups": ["platform-admins"]}}), "adopt": st.booleans()}
        ),
        "objectStore": st.fixed_dictionaries({"adopt": st.lists(st.sampled_from(["loki", "my.bucket"]), unique=True)}),
        "vault": st.integers(2, 16).map(lambda shares: {"shares": shares, "threshold": (shares + 2) // 2}),
        "gitlabRunner": st.fixed_dictionaries(
            {
                "tags": st.lists(st.sampled_from(["docker", "a.b:c-d_e"]), unique=True),
                "concurrent": st.integers(1, 200),
                "jobs": st.integers(32, 2048).map(lambda mb: {"memoryMb": mb}),
            }
        ),
        "opstella": st.fixed_dictionaries(
            {
                "core": st.fixed_dictionaries(
                    {"image": st.sampled_from(["core:1", "r.example:5000/a/b@sha256:" + "ab" * 32])}
                )
            }
        ),
    }
    for name in draw(st.lists(st.sampled_from(sorted(optional)), unique=True)):
        values[name] = draw(optional[name])
    return values


def read(values: dict[str, Any]) -> Settings:
    return from_values(values, "test")


@given(written())
def test_settings_round_trip(values: dict[str, Any]) -> None:
    result = read(values)
    assert validate(result.model_dump(by_alias=True)) == result
    dumped = result.model_dump(by_alias=True, mode="json")
    dumped["ssh"]["privateKey"] = result.ssh.private_key.get_secret_value()
    assert validate(json.loads(json.dumps(dumped))) == result
    # Written out in full, the settings mean the same: no default hides in the reader alone.
    if not dumped["tools"]:
        assert read(dumped) == result


@given(written())
def test_reading_keeps_what_it_reads(values: dict[str, Any]) -> None:
    before = copy.deepcopy(values)
    read(values)
    assert values == before


@given(written(), st.integers())
def test_the_order_of_keys_is_no_matter(values: dict[str, Any], seed: int) -> None:
    assert read(shuffled(values, random.Random(seed))) == read(values)


def shuffled(value: Any, generator: random.Random, path: tuple[str, ...] = ()) -> Any:
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    # The order of clusters has a meaning: bastion and GitLab stand in the first one's subnet.
    if path != ("clusters",):
        generator.shuffle(items)
    return {name: shuffled(inner, generator, (*path, name)) for name, inner in items}


@given(written())
def test_the_engines_form_means_the_same(values: dict[str, Any]) -> None:
    handed_over = {
        f"opstella:{name}": json.dumps(value) if isinstance(value, dict | list) else "" if value is None else value
        for name, value in values.items()
    }
    assert from_pulumi(handed_over, {"opstella:ssh"}, "test") == read(values)


FAULTS: list[tuple[tuple[str, ...], Any, str]] = [
    (("domian",), "x", "opstella:domian"),
    (("bastion", "memory"), 2, "opstella:bastion.memory"),
    (("bastion", "cpu"), "2", "opstella:bastion.cpu"),
    (("clusters", "standalone", "workers", "count"), 0, "opstella:clusters.standalone.workers.count"),
    (("clusters", "standalone", "podSubnet"), "192.168.72.0/22", "opstella:clusters.standalone.podSubnet"),
    (("domains", "jenkins"), "jenkins", "opstella:domains.jenkins"),
    (("clusters", "standalone", "masters", "count"), 2, "opstella:clusters.standalone.masters.count"),
    (("clusters", "standalone", "workers", "cpu"), "4", "opstella:clusters.standalone.workers.cpu"),
    (("clusters", "standalone", "nfs", "path"), "nfs", "opstella:clusters.standalone.nfs.path"),
    (("gitlab", "address"), "10.0.0.1", "opstella:gitlab.address"),
    (("media",), {"source": "airgap", "artifacts": "file:///m"}, "opstella:media.chartRepository"),
    (("kubernetes", "version"), "1.36", "opstella:kubernetes.version"),
    (("pki", "rootYears"), 5, "opstella:pki.intermediateYears"),
    (("time", "servers"), "ntp", "opstella:time.servers"),
    (("vault", "threshold"), 9, "opstella:vault.threshold"),
    (("alerts", "webhook"), "hook", "opstella:alerts.webhook"),
    (("identity", "users"), {"jane": {}}, "opstella:identity.users"),
    (("opstella", "ui", "image"), "ui", "opstella:opstella.ui.image"),
    (("argocd", "apps"), {"repository": "apps"}, "opstella:argocd.apps.repository"),
    (("tools", "grafana", "values", "adminPassword"), "x", "opstella:tools.grafana.values.adminPassword"),
]


@given(st.lists(st.sampled_from(FAULTS), min_size=1, unique_by=lambda fault: fault[0]))
def test_every_problem_is_reported_at_once(faults: list[tuple[tuple[str, ...], Any, str]]) -> None:
    values: dict[str, Any] = {"architecture": "standalone", "domain": "a.b", "ssh": {"privateKey": ENCRYPTED}}
    for path, value, _ in faults:
        place(values, path, value)
    with pytest.raises(ConfigurationError) as caught:
        read(values)
    reported = {problem.key for problem in caught.value.problems}
    assert reported == {expected for _, _, expected in faults}
    assert f"{len(caught.value.problems)} problem" in str(caught.value)


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for name, inner in value.items() for leaf in leaves_of(inner, (*path, name))]
    return [path]


COMPLETE = read({"architecture": "multicluster", "domain": "a.b", "ssh": {"privateKey": ENCRYPTED}}).model_dump(
    by_alias=True, mode="json"
)


@pytest.mark.parametrize("path", leaves_of(COMPLETE), ids=".".join)
def test_one_wrong_value_gives_one_message(path: tuple[str, ...]) -> None:
    """Whatever the value, nothing that follows from its absence is reported beside it."""
    values = copy.deepcopy(COMPLETE)
    values["ssh"]["privateKey"] = ENCRYPTED
    place(values, path, 0.5)
    with pytest.raises(ConfigurationError) as caught:
        read(values)
    assert [problem.key for problem in caught.value.problems] == [f"opstella:{'.'.join(path)}"], str(caught.value)


def place(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


SECRET_TEXTS = st.sampled_from(
    [
        f"-----BEGIN OPENSSH PRIVATE KEY-----\n{CANARY}\n-----END OPENSSH PRIVATE KEY-----\n",
        f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----\n",
        CANARY,
        f"-----BEGIN RSA PRIVATE KEY----- {CANARY}",
    ]
)
SECRET_PATHS = st.sampled_from(
    [
        ("ssh", "privateKey"),
        ("tls", "privateKey"),
        ("pki", "intermediate", "privateKey"),
        ("secrets", "one"),
        ("secrets",),
    ]
)
WRAPPED = st.sampled_from([lambda s: s, lambda s: [s], lambda s: {"key": s}, lambda s: {"secure": s}])


@given(SECRET_TEXTS, SECRET_PATHS, WRAPPED, st.booleans())
def test_a_message_never_repeats_a_secret(text: str, path: tuple[str, ...], wrap: Any, encrypted: bool) -> None:
    values: dict[str, Any] = {
        "architecture": "standalone",
        "domain": "NOT VALID",
        "ssh": {},
        "tls": {"source": "provided"},
    }
    place(values, path, wrap(text))
    handed_over = {f"opstella:{k}": json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()}
    with pytest.raises(ConfigurationError) as caught:
        from_pulumi(handed_over, {f"opstella:{path[0]}"} if encrypted else set(), "test")
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


PLACES = st.sampled_from(
    [
        ("domain",),
        ("architecture",),
        ("clusters",),
        ("clusters", "standalone", "subnet"),
        ("bastion", "address"),
        ("bastion", "publicAddress"),
        ("ssh", "user"),
        ("ssh", "hostKeys", "bastion"),
        ("tls", "certificate"),
        ("gitlab", "version"),
        ("media", "artifacts"),
        ("proxy", "http"),
        ("time", "servers"),
        ("extraCaCertificates",),
        ("firewall", "enabled"),
        ("alerts", "webhook"),
        ("opstella", "ui", "image"),
        ("opstella", "core", "environment", "KEY"),
        ("vault", "pgpKeys"),
        ("argocd", "repositories", "apps", "url"),
        ("identity", "users", "jane", "email"),
        ("tools", "harbor", "values", "core", "cert"),
    ]
)


@given(SECRET_TEXTS.filter(lambda text: "PRIVATE KEY" in text), PLACES)
def test_a_key_in_the_wrong_place_is_not_repeated(text: str, path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"architecture": "standalone", "domain": "a.b", "ssh": {"privateKey": ENCRYPTED}}
    place(values, path, text)
    with pytest.raises(ConfigurationError) as caught:
        read(values)
    assert CANARY not in str(caught.value)


def test_a_secret_is_not_shown_by_its_settings(ssh_key: str) -> None:
    result = read({"architecture": "standalone", "domain": "a.b", "ssh": {"privateKey": ssh_key}})
    assert result.ssh.private_key.get_secret_value() == ssh_key
    for line in ssh_key.splitlines()[1:-1]:
        assert line not in repr(result) + str(result) + result.model_dump_json()


nested = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
)
names_of_settings = st.sampled_from(sorted(field.alias or name for name, field in Settings.model_fields.items()))


@example({"[key]": []})
@example({"ssh": {"[key]": 1}, "tools": {"[key]": 1}})
@given(st.dictionaries(st.text(max_size=12) | names_of_settings, nested, max_size=6))
@settings(max_examples=300)
def test_anything_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        assert isinstance(read(values), Settings)
    except ConfigurationError as error:
        assert error.problems
        assert all(problem.what and problem.fix and problem.key.startswith("opstella:") for problem in error.problems)
