"""The lab's HTTP server: read-only files for installation media, charts and Debian packages.

    server.py --address A --port P --folder NAME=PATH [--folder …]

`/NAME/some/file` is looked up in each folder of that name, in the order given. GET and HEAD, single
byte ranges (curl resumes downloads), no listing, no path that leaves its folder, not even by a link.
Python's standard library only.
"""

from __future__ import annotations

import argparse
import email.utils
import mimetypes
import os
import re
import shutil
import socket
import sys
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def locate(folders: dict[str, list[str]], url_path: str) -> str | None:
    """File behind the path of a URL, or None when there is none or it may not be served."""
    path = urllib.parse.unquote(url_path.split("?", 1)[0].split("#", 1)[0])
    if "\0" in path or not path.startswith("/"):
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if len(parts) < 2 or ".." in parts:
        return None
    for folder in folders.get(parts[0], ()):
        base = os.path.realpath(folder)
        file = os.path.realpath(os.path.join(base, *parts[1:]))
        if file.startswith(base + os.sep) and os.path.isfile(file):
            return file
    return None


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a `Range` header, None when it asks for the whole file.

    Raises `ValueError` when no byte of the range exists (416). More than one range: the whole file.
    """
    match = re.fullmatch(r"\s*bytes\s*=\s*(\d*)-(\d*)\s*", header)
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        if int(last) == 0 or size == 0:
            raise ValueError("empty range")
        return max(0, size - int(last)), size - 1
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise ValueError("range begins behind the end")
    return int(first), min(int(last), size - 1) if last else size - 1


class Handler(BaseHTTPRequestHandler):
    """One request; `folders` is set by `main`."""

    protocol_version = "HTTP/1.1"
    server_version = "opstella-lab"
    folders: dict[str, list[str]] = {}
    timeout = 60

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        file = locate(self.folders, self.path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"nothing at {self.path}")
            return
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            size, span = status.st_size, None
            if "Range" in self.headers:
                try:
                    span = byte_range(self.headers["Range"], size)
                except ValueError:
                    self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            first, last = span if span else (0, size - 1)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
            if span:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True))
            self.send_header("Content-Type", mimetypes.guess_type(file)[0] or "application/octet-stream")
            self.end_headers()
            if not body:
                return
            stream.seek(first)
            left = last - first + 1
            if not span:
                shutil.copyfileobj(stream, self.wfile, 1 << 20)
                return
            while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
                self.wfile.write(chunk)
                left -= len(chunk)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, socket.timeout)):
            super().handle_error(request, client_address)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="serves the lab's files, read-only")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", action="append", default=[], metavar="NAME=PATH")
    options = parser.parse_args(arguments)
    for item in options.folder:
        name, _, path = item.partition("=")
        Handler.folders.setdefault(name, []).append(path)
    Server((options.address, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
