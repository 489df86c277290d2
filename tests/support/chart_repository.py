"""A Helm repository on loopback: an index and archives, made from a map that a test may change while it runs."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import ssl
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml


def packed(name: str, version: str, files: Mapping[str, str] | None = None) -> bytes:
    """The archive of a chart."""
    about = yaml.safe_dump({"apiVersion": "v2", "name": name, "version": version})
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, text in {
            "charts/inner/Chart.yaml": "name: inner\nversion: 9.9.9\n",
            "Chart.yaml": about,
            **(files or {}),
        }.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Repository:
    """Serves `charts`, archives by name and version, below `url`; `asked` are the paths of the requests so far.

    `entries` replaces parts of what its index says of a chart; `answers` are whole answers to a path: status, body.
    `certificate` and its key, one file, make it speak TLS.
    """

    def __init__(self, charts: Mapping[tuple[str, str], bytes], certificate: Path | None = None) -> None:
        self.charts = dict(charts)
        self.entries: dict[tuple[str, str], dict[str, Any]] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.moved: dict[str, str] = {}
        self.asked: list[str] = []
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.asked.append(self.path)
                if self.path in repository.moved:
                    self.send_response(302)
                    self.send_header("Location", repository.moved[self.path])
                    self.end_headers()
                    return
                status, body = repository.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> tuple[int, bytes]:
        if path in self.answers:
            return self.answers[path]
        if path.endswith("/index.yaml"):
            return 200, yaml.safe_dump({"apiVersion": "v1", "entries": self._index()}).encode()
        found = {f"{name}-{version}.tgz": archive for (name, version), archive in self.charts.items()}
        archive = found.get(path.rpartition("/")[2])
        return (200, archive) if archive is not None else (404, b"not found")

    def _index(self) -> dict[str, list[dict[str, Any]]]:
        entries: dict[str, list[dict[str, Any]]] = {}
        for (name, version), archive in self.charts.items():
            entry = {
                "name": name, "version": version, "created": "2026-01-01T00:00:00Z",
                "urls": [f"{name}-{version}.tgz"], "digest": hashlib.sha256(archive).hexdigest(),
            }  # fmt: skip
            entries.setdefault(name, []).append(entry | self.entries.get((name, version), {}))
        return entries

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
