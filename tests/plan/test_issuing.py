"""A user's intermediate is tried with every name that the platform has it issue for, those inside of clusters too."""

from __future__ import annotations

import pytest

from config.errors import ConfigurationError
from config.load import from_values
from config.pem import ENCRYPTED
from config.tls_checks import INNER_NAMES
from plan import pki
from plan.plan import build
from tests.config import material
from tests.plan.stacks import plan


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return material.make(tmp_path_factory.mktemp("material"))


def refusals(made: dict[str, str], certificate: str, *, inner: bool) -> list[str]:
    given = {"certificate": made[certificate], "privateKey": made["intermediate_key"], "chain": made["root"]}
    settings = from_values(
        {
            "architecture": "standalone",
            "domain": material.DOMAIN,
            "ssh": {"privateKey": ENCRYPTED},
            "pki": {"intermediate": {name: f"file:{path}" for name, path in given.items()}},
            "tools": {} if inner else {"vault": {"enabled": False}, "harbor": {"enabled": False}},
            "kubernetes": {} if inner else {"registryMirror": "none"},
        },
        "test",
    )
    try:
        build(settings, "opstella/test")
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_names_inside_of_a_cluster_are_tried_too(made: dict[str, str]) -> None:
    [problem] = refusals(made, "intermediate_within", inner=True)
    assert problem.startswith("opstella:pki.intermediate.certificate: TLS clients would refuse what it issues for ")
    assert "harbor-db-rw.harbor.svc, vault.vault" in problem
    assert "the name constraints of CN=Bound do not permit it" in problem


    assert "or such as permit devops.example.com, svc, vault-internal, localhost (DNS) and GitLab's address" in problem


@pytest.mark.parametrize(
    ("certificate", "inner"), [("intermediate", True), ("intermediate_within", False), ("intermediate_within_all", True)]
)
def test_one_that_may_issue_for_all_names_passes(certificate: str, inner: bool, made: dict[str, str]) -> None:
    assert refusals(made, certificate, inner=inner) == []


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_the_names_to_permit_are_all_that_there_are(architecture: str) -> None:
    found = plan(architecture)
    wanted = (material.DOMAIN, *INNER_NAMES)
    every = {name.removeprefix("*.") for some, _ in pki.issued(found.ca, found.releases.values()) for name in some}
    assert {name for name in every if not any(name == top or name.endswith(f".{top}") for top in wanted)} == set()
    assert {top for top in wanted if not any(name == top or name.endswith(f".{top}") for name in every)} == set()


def test_no_certificate_of_the_plan_is_left_out() -> None:
    found = plan("standalone")
    names = [name for some, _ in pki.issued(found.ca, found.releases.values()) for name in some]
    assert {"gitlab.devops.example.com", "*.devops.example.com", "vault.vault.svc", "harbor-db-rw.harbor.svc"} <= set(names)
