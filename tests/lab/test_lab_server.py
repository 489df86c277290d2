"""The lab's HTTP server: ranges, HEAD, and no way out of its folders."""

from __future__ import annotations

import http.client
import importlib.util
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab_server", ROOT / "lab/services/server.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server = _load()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "one/a").write_bytes(b"0123456789")
    (tmp_path / "one/empty").touch()
    (tmp_path / "two/a").write_bytes(b"second")
    (tmp_path / "two/sub/a+b c").write_bytes(b"named")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "one/link").symlink_to(tmp_path / "secret")
    return tmp_path


@pytest.fixture
def client(tree: Path) -> Iterator[http.client.HTTPConnection]:
    class Handler(server.Handler):
        folders = {"artifacts": [str(tree / "one"), str(tree / "two")]}

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", listening.server_address[1], timeout=5)
    yield connection
    connection.close()
    listening.shutdown()
    listening.server_close()


def ask(client: http.client.HTTPConnection, method: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    client.request(method, path, headers=headers)
    answer = client.getresponse()
    return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}


def test_whole_files_the_first_folder_first(client: http.client.HTTPConnection) -> None:
    assert ask(client, "GET", "/artifacts/a")[:2] == (200, b"0123456789")
    assert ask(client, "GET", "/artifacts/sub/a%2Bb%20c?x=1")[:2] == (200, b"named")
    assert ask(client, "GET", "/artifacts/empty")[:2] == (200, b"")


def test_head_has_the_length_and_no_body(client: http.client.HTTPConnection) -> None:
    status, body, headers = ask(client, "HEAD", "/artifacts/a")
    assert (status, body, headers["content-length"], headers["accept-ranges"]) == (200, b"", "10", "bytes")


@pytest.mark.parametrize(
    ("wanted", "body", "told"),
    [("bytes=2-4", b"234", "bytes 2-4/10"), ("bytes=7-", b"789", "bytes 7-9/10"), ("bytes=-2", b"89", "bytes 8-9/10"),
     ("bytes=8-99", b"89", "bytes 8-9/10")],
)  # fmt: skip
def test_ranges(client: http.client.HTTPConnection, wanted: str, body: bytes, told: str) -> None:
    status, got, headers = ask(client, "GET", "/artifacts/a", Range=wanted)
    assert (status, got, headers["content-range"]) == (206, body, told)


def test_a_range_behind_the_end_is_416(client: http.client.HTTPConnection) -> None:
    status, _, headers = ask(client, "GET", "/artifacts/a", Range="bytes=10-")
    assert (status, headers["content-range"]) == (416, "bytes */10")


def test_a_broken_or_manifold_range_gives_the_whole_file(client: http.client.HTTPConnection) -> None:
    for wanted in ("bytes=5-2", "bytes=a-b", "bytes=0-1,3-4", "lines=1-2", "bytes=-"):
        assert ask(client, "GET", "/artifacts/a", Range=wanted)[:2] == (200, b"0123456789"), wanted


@pytest.mark.parametrize(
    "path",
    ["/", "/artifacts", "/artifacts/", "/artifacts/sub", "/nothing/a", "/artifacts/nothing", "/artifacts/../secret",
     "/artifacts/%2e%2e/secret", "/artifacts/..%2fsecret", "/artifacts/link", "/artifacts/sub/../../secret", "/artifacts/a%00"],
)  # fmt: skip
def test_nothing_but_files_of_the_folders(client: http.client.HTTPConnection, path: str) -> None:
    status, body, _ = ask(client, "GET", path)
    assert status == 404 and b"outside" not in body


@given(st.text(alphabet="./%2e2f\\~ab", max_size=40))
def test_no_path_leaves_its_folder(path: str) -> None:
    found = server.locate({"x": [str(ROOT / "lab/services")]}, f"/x/{path}")
    assert found is None or found.startswith(str(ROOT / "lab/services") + "/")


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_lies_inside_the_file(size: int, first: int, last: int) -> None:
    try:
        span = server.byte_range(f"bytes={first}-{last}", size)
    except ValueError:
        assert first >= size
        return
    assert span is None and last < first or span is not None and span[0] == first <= span[1] < size
