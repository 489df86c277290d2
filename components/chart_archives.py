"""Archives of pinned charts: fetched by this program, compared with opstella:media.chartDigests, and kept in a folder.

Helm compares no digest of a chart (it reads the one of an index for nothing). So the provider gets a pinned chart as a
file whose name says its digest and which holds nothing else: what was compared is what is installed, and another archive
is another path. Charts without a digest are none of this module's business.

Repositories are asked as Helm asks them: the environment's proxies (`https_proxy`, `no_proxy`) and certificate
authorities (the system's, or `SSL_CERT_FILE`) count.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import yaml

from config.errors import ConfigurationError, Fault, Problem
from plan.chart_sources import ChartSource

FOLDER = ".charts"
"""Relative to the project's folder, where the engine runs the program and its providers: the state must not depend on
where that is. It may be deleted at any time."""
_LIMIT = 100 * 2**20  # bytes; Helm takes no larger chart
_SECONDS = 60
_AT_ONCE = 8
# Every scalar is text: a version such as 1.10 is not a number.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_REACH = (
    "check that this machine reaches it: the proxy (https_proxy, no_proxy) and the certificate authorities (the system's, or "
    "SSL_CERT_FILE) are those of this shell. Or name a repository that it reaches: opstella:media.chartRepository"
)


def digest_of(archive: bytes) -> str:
    """`sha256:…` of `archive`."""
    return f"sha256:{hashlib.sha256(archive).hexdigest()}"


def archives(sources: Sequence[ChartSource], folder: Path = Path(FOLDER)) -> dict[str, str]:
    """Tool to the path of its archive, for each of `sources` that is pinned. The archive has the pinned digest: it was in
    `folder`, or is fetched.

    Raises ConfigurationError, with a problem for each archive that cannot be had or is another one.
    """
    pinned = [source for source in sources if source.digest]
    problems: list[Problem] = []
    for source, found in download([source for source in pinned if not _held(source, folder)]).items():
        try:
            if isinstance(found, Fault):
                raise found
            _compare(source, found)
            _keep(found, folder / source.file)
        except Fault as fault:
            problems.append(Problem(source.setting, fault.what, fault.fix))
    if problems:
        raise ConfigurationError(problems, "charts")
    return {source.tool: str(folder / source.file) for source in pinned}


def download(sources: Sequence[ChartSource]) -> dict[ChartSource, bytes | Fault]:
    """What the repositories give now for each of `sources`: the archive, or why there is none."""
    if not sources:
        return {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # Queued first, so that they never wait for an archive that waits for them.
        indexes = {url: pool.submit(_index, url) for url in dict.fromkeys(source.repository for source in sources)}
        return dict(
            zip(sources, pool.map(lambda source: _archive(source, indexes[source.repository]), sources), strict=True)
        )


def _held(source: ChartSource, folder: Path) -> bool:
    try:
        return digest_of((folder / source.file).read_bytes()) == source.digest
    except OSError:
        return False


def _compare(source: ChartSource, archive: bytes) -> None:
    if (found := digest_of(archive)) != source.digest:
        raise Fault(
            f"the archive of the chart {source.chart} {source.version} at {source.repository} is not the pinned one: wanted "
            f"{source.digest}, found {found}. Nothing of it was installed",
            "if you changed the version or the repository, the digest is still that of the former archive: read the new "
            "archive, and write the digest that `./opstella charts` prints. If you changed neither, the repository has "
            "exchanged a published version: ask its owner why before you write another digest",
        )


def _keep(archive: bytes, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(archive)
                file.flush()
                os.replace(file.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise Fault(
            f"{path} cannot be written: {error.strerror}", f"let this user write to {path.parent.absolute()}"
        ) from None


def _index(repository: str) -> Mapping[str, Any]:
    """The entries of the index of `repository`, by chart. Raises Fault."""
    url = urljoin(f"{repository.rstrip('/')}/", "index.yaml")
    text = _get(url)
    try:
        entries = yaml.load(text, Loader=_LOADER)["entries"]  # noqa: S506 - all of it becomes text, lists and maps
        if not isinstance(entries, dict):
            raise TypeError
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise Fault(
            f"{url} is not the index of a Helm repository",
            "check the URL: opstella:media.chartRepository, or the proxy before it",
        ) from None
    return entries


def _archive(source: ChartSource, index: Future[Mapping[str, Any]]) -> bytes | Fault:
    """The archive of `source`, which is that of the index and says that it is of this chart and version."""
    try:
        entry = _entry(source, index.result())
        url = urljoin(f"{source.repository.rstrip('/')}/", entry["urls"][0])
        archive = _get(url, secure=source.repository.startswith("https:"))
        listed = entry.get("digest", "").removeprefix("sha256:").lower()
        if listed and digest_of(archive) != f"sha256:{listed}":
            raise Fault(
                f"{url} has the digest {digest_of(archive)}, and the index of {source.repository} says sha256:{listed}",
                "try again; if it stays so, the repository is broken or was tampered with: tell its owner, and install nothing from it",
            )
        name, version = _described(archive, url)
        if name != source.chart or version.removeprefix("v") != source.version.removeprefix("v"):
            raise Fault(
                f"{url} is the chart {name} {version}, and not {source.chart} {source.version}",
                "the index of the repository is wrong: tell its owner",
            )
    except Fault as fault:
        return fault
    return archive


def _entry(source: ChartSource, index: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the index says of exactly this version, as written or, as Helm has it, without the `v` before it."""
    entries = [one for one in index.get(source.chart) or () if isinstance(one, dict) and one.get("urls")]
    for strip in ("", "v"):
        for entry in entries:
            if str(entry.get("version")).removeprefix(strip) == source.version.removeprefix(strip):
                return entry
    raise Fault(
        f"{source.repository} has no chart {source.chart} of version {source.version}",
        f"choose a version that it has (opstella:tools.{source.tool}.version), or copy that archive there",
    )


def _described(archive: bytes, url: str) -> tuple[str, str]:
    """Name and version, as the archive's own Chart.yaml has them."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member) if PurePosixPath(member.name).parts[1:] == ("Chart.yaml",) else None
                if content:
                    about = yaml.load(content.read(2**20), Loader=_LOADER)  # noqa: S506 - as above
                    return about["name"], about["version"]
    except (tarfile.TarError, OSError, EOFError, zlib.error, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        pass
    raise Fault(f"{url} is not the archive of a chart", "check what the repository has there: an error page, perhaps")


def _get(url: str, *, secure: bool = False) -> bytes:
    """What `url` answers; with `secure`, by TLS all the way. Raises Fault."""
    secure = secure or url.startswith("https:")
    if urlsplit(url).scheme not in (("https",) if secure else ("http", "https")):
        raise Fault(f"{url} is not a URL of http{'s' if secure else ' or https'}, as its repository is", _REACH)
    asked = urllib.request.Request(url, headers={"User-Agent": "opstella", "Accept": "*/*"})
    try:
        # One of its own each time: the global one keeps the proxies that it saw first.
        with urllib.request.build_opener().open(asked, timeout=_SECONDS) as answer:
            final, data = answer.url, answer.read(_LIMIT + 1)
    except urllib.error.HTTPError as error:
        raise Fault(f"{url} answers {error.code} {error.reason}", _REACH) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Fault(
            f"{url} cannot be fetched: {getattr(error, 'reason', None) or error or type(error).__name__}", _REACH
        ) from None
    if secure and not final.startswith("https:"):
        raise Fault(
            f"{url} leads on to {final}, without encryption",
            "name a repository that stays with https: opstella:media.chartRepository",
        )
    if len(data) > _LIMIT:
        raise Fault(
            f"{url} has more than {_LIMIT // 2**20} MB, which is no chart", "check what the repository has there"
        )
    return data
