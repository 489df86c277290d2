"""The example of a tool in the documents works as it stands: it is wired, and nothing of it is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from plan import versions
from plan.tools import catalogue
from plan.tools.model import Release, Tool
from tests.plan.test_tools import INPUTS

PAGE = Path(__file__).resolve().parents[2] / "docs/tools-howto.md"
WIKI = versions.Chart(
    name="wiki", version="1.0.0", released=None, chosen=date(2026, 1, 1), source="none", support="none",
    repository="https://charts.example.com", app_version="1",
)  # fmt: skip


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> dict[str, Release]:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert code is not None
    monkeypatch.setattr(versions, "WIKI", WIKI, raising=False)
    module: dict[str, Any] = {"__name__": "wiki"}
    exec(compile(code[1], str(PAGE), "exec"), module)
    tool = module["TOOL"]
    assert isinstance(tool, Tool)
    monkeypatch.setattr(catalogue, "TOOLS", (*catalogue.TOOLS, tool))
    monkeypatch.setattr(catalogue, "NAMES", (*catalogue.NAMES, tool.name))
    host = {"wiki": "wiki.devops.example.com"}
    inputs = replace(INPUTS, hosts={**INPUTS.hosts, **host}, all_hosts={**INPUTS.all_hosts, **host})
    return {release.name: release for release in catalogue.catalogue(inputs)}


def test_the_example_gets_what_the_page_says(wired: dict[str, Release]) -> None:
    wiki = wired["wiki"]
    assert {"wiki-db-owner", "wiki-cache", "wiki-s3", "wiki-oidc"} <= {secret.name for secret in wiki.secrets}
    assert {"wiki-db", "valkey-wiki", "s3-wiki", "client-wiki"} <= {password.name for password in wiki.passwords}
    kinds = {manifest.body["kind"] for manifest in wiki.before}
    assert {"Cluster", "NetworkPolicy"} <= kinds
    assert {"traefik", "cloudnative-pg", "valkey", "minio", "keycloak"} <= set(wiki.needs)


def test_its_secrets_are_those_that_its_values_name(wired: dict[str, Release]) -> None:
    wiki = wired["wiki"]
    named = {
        inner["existingSecret"]
        for inner in wiki.values.values()
        if isinstance(inner, dict) and "existingSecret" in inner
    }
    assert named <= {secret.name for secret in wiki.secrets} and len(named) == 4


def test_every_field_in_the_table_is_one_of_a_release() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| field of `Release` |")[2].partition("\n\n")[0]
    named = {name for row in re.findall(r"^\| ([^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 10 and named <= set(Release.__dataclass_fields__)
