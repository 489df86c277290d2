"""Pinned charts: fetched from a real repository on loopback, compared, kept; and everything else refused."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.chart_archives import archives, digest_of, download
from config.errors import ConfigurationError, Fault
from plan.chart_sources import ChartSource
from tests.support.certificates import loopback_certificate
from tests.support.chart_repository import Repository, packed

HARBOR, LOKI = ("harbor", "1.19.1"), ("loki", "18.11.0")
CHARTS = {HARBOR: packed(*HARBOR), LOKI: packed(*LOKI)}
OTHER = f"sha256:{0:064x}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository() -> Any:
    with Repository(CHARTS) as one:
        yield one


def source(repository: Repository, of: tuple[str, str] = HARBOR, /, **changes: Any) -> ChartSource:
    """One that is pinned to what the repository has."""
    made = ChartSource(tool=of[0], chart=of[0], version=of[1], repository=repository.url, digest=digest_of(CHARTS[of]))
    return replace(made, **changes)


def refused(folder: Path, *sources: ChartSource) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        archives(sources, folder)
    assert not folder.exists() or not [*folder.iterdir()], "what was refused is not kept"
    return [str(problem) for problem in error.value.problems]


def test_a_pinned_archive_is_kept_and_the_repository_is_not_asked_again(repository: Repository, tmp_path: Path) -> None:
    both = [source(repository), source(repository, LOKI)]
    paths = archives(both, tmp_path)
    assert {tool: Path(path).read_bytes() for tool, path in paths.items()} == {
        "harbor": CHARTS[HARBOR],
        "loki": CHARTS[LOKI],
    }
    assert Path(paths["harbor"]).name == f"harbor-1.19.1-{digest_of(CHARTS[HARBOR]).replace(':', '-')}.tgz"
    assert repository.asked.count("/index.yaml") == 1 and len(repository.asked) == 3
    repository.charts.clear()
    assert archives(both, tmp_path) == paths
    assert len(repository.asked) == 3
    assert len([*tmp_path.iterdir()]) == 2


def test_the_path_is_relative_to_the_projects_folder(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (path,) = archives([source(repository)]).values()
    assert path.startswith(".charts/harbor-") and (tmp_path / path).is_file()


def test_without_a_digest_nothing_is_asked_and_nothing_is_made(repository: Repository, tmp_path: Path) -> None:
    assert archives([source(repository, digest=None)], tmp_path / "none") == {}
    assert repository.asked == [] and not (tmp_path / "none").exists()


def test_a_kept_archive_that_has_changed_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    (path,) = archives([source(repository)], tmp_path).values()
    Path(path).write_bytes(b"something else")
    archives([source(repository)], tmp_path)
    assert Path(path).read_bytes() == CHARTS[HARBOR]


def test_another_archive_is_refused_with_all_that_one_needs_to_know(repository: Repository, tmp_path: Path) -> None:
    told = refused(tmp_path / "c", source(repository, digest=OTHER), source(repository, LOKI, digest=OTHER))
    assert len(told) == 2, "all on one page"
    assert told[0].startswith("opstella:media.chartDigests.harbor: ")
    for part in (
        "harbor 1.19.1",
        repository.url,
        f"wanted {OTHER}",
        f"found {digest_of(CHARTS[HARBOR])}",
        "`./opstella charts`",
    ):
        assert part in told[0]


def test_one_that_is_right_is_not_installed_beside_one_that_is_wrong(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        archives([source(repository), source(repository, LOKI, digest=OTHER)], tmp_path)
    assert [problem.key for problem in error.value.problems] == ["opstella:media.chartDigests.loki"]


def test_the_digest_of_the_former_version_is_refused_though_its_archive_is_at_hand(
    repository: Repository, tmp_path: Path
) -> None:
    archives([source(repository)], tmp_path)
    repository.charts["harbor", "1.20.0"] = packed("harbor", "1.20.0")
    with pytest.raises(ConfigurationError) as error:
        archives([source(repository, version="1.20.0")], tmp_path)
    (problem,) = error.value.problems
    assert (
        f"found {digest_of(packed('harbor', '1.20.0'))}" in problem.what and "if you changed the version" in problem.fix
    )


@pytest.mark.parametrize("version", ["v0.24.0", "0.24.0"])
def test_a_version_is_found_with_and_without_its_v(version: str, tmp_path: Path) -> None:
    with Repository({("trust-manager", "v0.24.0"): packed("trust-manager", "v0.24.0")}) as repository:
        wanted = ChartSource(
            tool="trust-manager", chart="trust-manager", version=version, repository=f"{repository.url}/a/"
        )
        assert isinstance(download([wanted])[wanted], bytes)
        assert repository.asked == ["/a/index.yaml", "/a/trust-manager-v0.24.0.tgz"]


def test_an_index_may_name_another_place(repository: Repository, tmp_path: Path) -> None:
    with Repository(CHARTS) as elsewhere:
        repository.entries[HARBOR] = {"urls": [f"{elsewhere.url}/deep/harbor-1.19.1.tgz"]}
        archives([source(repository)], tmp_path)
        assert elsewhere.asked == ["/deep/harbor-1.19.1.tgz"]


def fault(repository: Repository, /, **changes: Any) -> str:
    wanted = source(repository, **changes)
    found = download([wanted])[wanted]
    assert isinstance(found, Fault) and found.fix
    return found.what


def test_a_repository_that_does_not_have_it(repository: Repository) -> None:
    assert "has no chart harbor of version 2.0.0" in fault(repository, version="2.0.0")
    assert "has no chart other" in fault(repository, chart="other")
    repository.entries[HARBOR] = {"urls": []}
    assert "has no chart harbor" in fault(repository)


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"a: b", b"entries: []", b"{", b"\xff\xfe\x00", b""])
def test_what_is_no_index(repository: Repository, body: bytes) -> None:
    repository.answers["/index.yaml"] = (200, body)
    assert f"{repository.url}/index.yaml is not the index of a Helm repository" in fault(repository)


NO_ARCHIVES = {
    "page": b"<html>Sign in</html>",
    "nothing": b"",
    "no-tar": gzip.compress(b"no tar", mtime=0),
    "cut-off": CHARTS[HARBOR][:40],
    "empty": gzip.compress(b"\0" * 1024, mtime=0),
}


@pytest.mark.parametrize("body", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive(repository: Repository, body: bytes) -> None:
    repository.entries[HARBOR] = {"digest": ""}
    repository.charts[HARBOR] = body
    assert "harbor-1.19.1.tgz is not the archive of a chart" in fault(repository)


def test_what_the_index_says_of_an_archive_must_be_so(repository: Repository) -> None:
    repository.entries[HARBOR] = {"digest": f"{0:064x}"}
    assert "says sha256:0000" in fault(repository) and digest_of(CHARTS[HARBOR]) in fault(repository)
    repository.entries[HARBOR] = {"digest": digest_of(CHARTS[HARBOR])}  # some have it with its kind
    assert source(repository).digest == digest_of(download([source(repository)])[source(repository)])  # type: ignore[arg-type]
    repository.entries[HARBOR] = {"digest": ""}
    repository.charts[HARBOR] = packed("harbor", "1.19.0")
    assert "is the chart harbor 1.19.0, and not harbor 1.19.1" in fault(repository)
    repository.charts[HARBOR] = packed("other", "1.19.1")
    assert "is the chart other 1.19.1" in fault(repository)


def test_who_does_not_answer_is_named(repository: Repository) -> None:
    repository.answers["/harbor-1.19.1.tgz"] = (403, b"")
    assert f"{repository.url}/harbor-1.19.1.tgz answers 403 Forbidden" in fault(repository)
    assert "cannot be fetched: " in fault(repository, repository="http://127.0.0.1:1")
    assert "cannot be fetched: " in fault(repository, repository="http://no-such-name.invalid")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/a.tgz", "oci://127.0.0.1/harbor:1.19.1", "data:,x"]
)
def test_only_the_web_is_asked(repository: Repository, url: str) -> None:
    repository.entries[HARBOR] = {"urls": [url]}
    assert f"{url} is not a URL of http or https" in fault(repository)


def test_the_environments_proxy_is_used(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", repository.url)
    wanted = source(repository, repository="http://charts.example.invalid/x")
    assert download([wanted])[wanted] == CHARTS[HARBOR]
    assert repository.asked == [
        "http://charts.example.invalid/x/index.yaml",
        "http://charts.example.invalid/x/harbor-1.19.1.tgz",
    ]
    monkeypatch.setenv("no_proxy", ".example.invalid")
    assert "cannot be fetched" in fault(repository, repository="http://charts.example.invalid/x")


def test_tls_is_verified_by_the_environments_authorities_and_not_left(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = loopback_certificate(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with Repository(CHARTS, both) as secure:
        assert "certificate verify failed" in fault(secure)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert download([source(secure)])[source(secure)] == CHARTS[HARBOR]
        secure.moved["/harbor-1.19.1.tgz"] = f"{repository.url}/harbor-1.19.1.tgz"
        assert "without encryption" in fault(secure)
        secure.entries[HARBOR] = {"urls": [f"{repository.url}/harbor-1.19.1.tgz"]}
        assert "is not a URL of https, as its repository is" in fault(secure)


def test_a_folder_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigurationError) as error:
        archives([source(repository)], tmp_path / "taken" / "charts")
    assert "cannot be written: Not a directory" in str(error.value)
