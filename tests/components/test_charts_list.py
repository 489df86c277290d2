"""`opstella charts`: the block that pins every chart of a stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import charts_list
from components.chart_archives import archives, digest_of
from config.load import from_stack_file
from plan import versions
from plan.plan import build
from tests.support.chart_repository import Repository, packed
from tests.support.platform import ssh_key


@pytest.fixture
def repository() -> Any:
    with Repository(
        {(chart.name, chart.version): packed(chart.name, chart.version) for chart in versions.CHARTS}
    ) as one:
        yield one


def stack(folder: Path, repository: Repository, **media: Any) -> Path:
    file = folder / "Pulumi.mine.yaml"
    (folder / "key").write_text(ssh_key())
    config = {
        "opstella:architecture": "standalone",
        "opstella:domain": "devops.example.com",
        "opstella:ssh": {"privateKey": f"file:{folder / 'key'}"},
        "opstella:media": {"chartRepository": repository.url, "allowHttp": True, **media},
    }
    file.write_text(yaml.safe_dump({"config": config}))
    return file


def said(capsys: pytest.CaptureFixture[str], file: Path, *more: str, status: int = 0) -> tuple[str, str]:
    assert charts_list.main(["--config-file", str(file), *more]) == status
    found = capsys.readouterr()
    return found.out, found.err


def test_pasted_the_block_pins_every_chart(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, errors = said(capsys, stack(tmp_path, repository))
    assert errors == ""
    assert (
        f"      harbor: {digest_of(packed('harbor', versions.HARBOR.version))}  # harbor {versions.HARBOR.version}, {repository.url}\n"
        in text
    )
    digests = yaml.safe_load(f"config:\n{text}")["config"]["opstella:media"]["chartDigests"]
    plan = build(from_stack_file(stack(tmp_path, repository, chartDigests=digests)), "opstella/mine")
    assert (
        plan.charts
        and all(source.digest for source in plan.charts)
        and not [w for w in plan.warnings if "chartDigests" in w]
    )
    assert {release.name for release in plan.releases["standalone"] if release.repository} == set(digests)
    assert set(archives(plan.charts, tmp_path / "charts")) == set(digests)
    again, errors = said(capsys, stack(tmp_path, repository, chartDigests=digests))
    assert (again, errors) == (text, "")


def test_as_json(repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pinned = digest_of(packed("keycloakx", versions.KEYCLOAK.version))
    text, _ = said(capsys, stack(tmp_path, repository, chartDigests={"keycloak": pinned}), "--json")
    (keycloak,) = (one for one in json.loads(text) if one["tool"] == "keycloak")
    assert keycloak == {
        "tool": "keycloak", "chart": "keycloakx", "version": versions.KEYCLOAK.version, "repository": repository.url,
        "digest": pinned, "pinned": pinned,
    }  # fmt: skip


def test_an_exchanged_archive_is_told(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = digest_of(repository.charts["harbor", versions.HARBOR.version])
    repository.charts["harbor", versions.HARBOR.version] = packed("harbor", versions.HARBOR.version, {"new": "x"})
    new = digest_of(repository.charts["harbor", versions.HARBOR.version])
    text, errors = said(capsys, stack(tmp_path, repository, chartDigests={"harbor": old}), status=1)
    assert f"is pinned to {old}, and the repository gives {new}" in errors and f"harbor: {new}" in text


def test_what_cannot_be_had_is_left_out_and_told(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del repository.charts["harbor", versions.HARBOR.version]
    text, errors = said(capsys, stack(tmp_path, repository), status=1)
    assert "harbor:" not in text and "loki:" in text
    assert errors.startswith(f"error: harbor (chart harbor {versions.HARBOR.version} of {repository.url}): ")
    assert "    fix: choose a version that it has (opstella:tools.harbor.version)" in errors
    assert charts_list.main(["--config-file", str(tmp_path / "none.yaml")]) == 1
