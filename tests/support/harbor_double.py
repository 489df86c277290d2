"""A double of Harbor's API, as far as provision/harbor.py uses it.

Strict: an unknown path, query, header of a name, body field or type is answered with 400 and kept in `complaints`; names
and types are those of the real API description (harbor_api.json). It keeps what Harbor keeps: it never shows
`oidc_client_secret`, refuses another way of logging in once it has users, takes a registry only if that answers, made or
changed, never changes a registry's type, hands on only registries of the types that core's environment permits, and
keeps a registry that a project hands on; a robot's secret is shown when it is made, and never again.

It does not prove: that Harbor takes these values and not only these names, that a login works, that an image comes
through the mirror, Harbor's rights and sessions, its pages beyond 100 entries.
"""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

API: dict[str, Any] = json.loads(Path(__file__).with_name("harbor_api.json").read_text())
BASE = "/api/v2.0"
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
WITHOUT_BODY = ("DELETE /registries/{id}", "DELETE /robots/{robot_id}")  # of the changing ones
SINCE = "2026-11-01T00:00:00.000Z"
_TYPES = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}


# Fixed in core's ConfigMap by the chart (harbor-helm v1.19.1, templates/core/core-cm.yaml); src/server/v2.0/handler/project.go
# of Harbor v2.15.1 holds each project to it.
PERMITTED = (
    "docker-hub", "harbor", "azure-acr", "ali-acr", "aws-ecr", "google-gcr", "docker-registry", "github-ghcr",
    "jfrog-artifactory",
)  # fmt: skip


class HarborDouble:
    """Its state; `changes` are the requests that changed something, as `METHOD /path`."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.settings: dict[str, Any] = {name: None for name in API["definitions"]["Configurations"]}
        self.settings |= {"auth_mode": "db_auth", "primary_auth_mode": False, "self_registration": True}
        self.fixed: set[str] = set()
        self.users: list[str] = []
        self.registries: list[dict[str, Any]] = []
        self.projects: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.members: list[dict[str, Any]] = []
        self.robots: list[dict[str, Any]] = []
        self.made = 0
        """Secrets of robots."""
        self.permitted: tuple[str, ...] = PERMITTED
        """Types of registries that a project may hand on."""
        self.away: set[str] = set()
        """URLs of registries that do not answer."""
        self.starting = 0
        """Requests that are still answered with 503."""
        self.stop_after: int | None = None
        """Changes after which every request is answered with 500, as if Harbor had died; None for never."""
        self.changes: list[str] = []
        self.complaints: list[str] = []
        self.add_project("library", None)

    def add_project(self, name: str, registry: int | None, public: str = "true", repositories: int = 0) -> None:
        self.projects.append(
            {
                "project_id": len(self.projects) + 1, "name": name, "registry_id": registry, "creation_time": SINCE,
                "owner_name": "admin", "repo_count": repositories, "metadata": {"public": public},
            }
        )  # fmt: skip

    # ---- one request

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any]:
        if self.starting:
            self.starting -= 1
            return 503, None
        if target == "/service/token?service=harbor-registry":
            logins = [_basic(robot["name"], robot["secret"]) for robot in self.robots if not robot["disable"]]
            return (200, {"token": "x"}) if headers.get("Authorization") in logins else (401, None)
        if headers.get("Authorization") != _basic("admin", self.password):
            return 401, _error("UNAUTHORIZED", "unauthorized")
        if self.stop_after is not None and len(self.changes) >= self.stop_after:
            return 500, _error("UNKNOWN", "gone")
        split = urlsplit(target)
        path = split.path.removeprefix(BASE)
        if path == split.path:
            return self._complain(f"{method} {target} is not below {BASE}")
        parts = path.strip("/").split("/")
        route = self._route(parts)
        query = dict(parse_qsl(split.query))
        known = API["queries"].get(f"{method} {route}")
        if method in ("GET", "HEAD") and (known is None or not set(query) <= set(known)):
            return self._complain(f"{method} {path} with {sorted(query)}")
        if "{project_name_or_id}" in route and headers.get("X-Is-Resource-Name") != "true":
            return self._complain(f"{method} {path} takes the name for a number without X-Is-Resource-Name")
        data = json.loads(body) if body else None
        if method in CHANGING and f"{method} {route}" not in WITHOUT_BODY:
            wanted = API["bodies"].get(f"{method} {route}")
            if wanted is None or headers.get("Content-Type") != "application/json":
                return self._complain(f"{method} {path} as {headers.get('Content-Type')}")
            wrong = list(_wrong(data, wanted, path))
            if wrong:
                return self._complain("; ".join(wrong))
        status, result = self._do(f"{method} {route}", parts, query, data)
        if method in CHANGING and status < 300:
            self.changes.append(f"{method} {path}")
        return status, result

    def _complain(self, text: str) -> tuple[int, Any]:
        self.complaints.append(text)
        return 400, _error("BAD_REQUEST", text)

    @staticmethod
    def _route(parts: list[str]) -> str:
        numbered = {"registries": "{id}", "labels": "{label_id}", "projects": "{project_name_or_id}", "robots": "{robot_id}"}
        if len(parts) > 1:
            parts = [parts[0], numbered.get(parts[0], parts[1]), *parts[2:]]
        return "/" + "/".join(parts)

    def _do(self, what: str, parts: list[str], query: dict[str, str], data: Any) -> tuple[int, Any]:
        match what:
            case "GET /ping":
                return 200, "Pong"
            case "GET /configurations":
                shown = {k: v for k, v in self.settings.items() if k != "oidc_client_secret"}
                return 200, {
                    k: {"value": v, "editable": k not in self.fixed} for k, v in shown.items() if v is not None
                }
            case "PUT /configurations":
                if data.get("auth_mode", self.settings["auth_mode"]) != self.settings["auth_mode"] and self.users:
                    text = "the auth mode cannot be modified as new users have been inserted into database"
                    return 400, _error("BAD_REQUEST", text)
                self.settings |= data
                return 200, None
            case "GET /registries":
                return 200, self._page(self.registries, query)
            case "POST /registries" if any(r["name"] == data["name"] for r in self.registries):
                return 409, _error("CONFLICT", f"registry {data['name']} already exists")
            case "POST /registries":
                if data["url"] in self.away:
                    return 400, _error("BAD_REQUEST", "the registry is unhealthy")
                number = 1 + max((r["id"] for r in self.registries), default=0)
                self.registries.append({**data, "id": number, "creation_time": SINCE})
                return 201, None
            case "PUT /registries/{id}":
                if data.get("url") in self.away:
                    return 400, _error("BAD_REQUEST", "the registry is unhealthy")
                self._numbered(self.registries, "id", parts[1]).update(data)
                return 200, None
            case "DELETE /registries/{id}" if any(p["registry_id"] == int(parts[1]) for p in self.projects):
                text = f"the registry {parts[1]} is referenced by proxy cache project, cannot delete it"
                return 412, _error("PRECONDITION", text)
            case "DELETE /registries/{id}":
                self.registries.remove(self._numbered(self.registries, "id", parts[1]))
                return 200, None
            case "HEAD /projects":
                return (200 if self._project(query["project_name"]) else 404), None
            case "POST /projects" if self._project(data["project_name"]):
                return 409, _error("CONFLICT", "The project named already exists")
            case "POST /projects" if data.get("registry_id") and (refused := self._unfit(data["registry_id"])):
                return refused
            case "POST /projects":
                self.add_project(data["project_name"], data.get("registry_id"), data["metadata"]["public"])
                return 201, None
            case "GET /projects/{project_name_or_id}":
                project = self._project(parts[1])
                return (200, project) if project else (404, _error("NOT_FOUND", parts[1]))
            case "PUT /projects/{project_name_or_id}":
                self._project(parts[1])["metadata"].update(data["metadata"])  # type: ignore[index]
                return 200, None
            case "GET /labels":
                return 200, [label for label in self.labels if query.get("name", label["name"]) in label["name"]]
            case "POST /labels":
                self.labels.append({**data, "id": len(self.labels) + 1})
                return 201, None
            case "PUT /labels/{label_id}":
                self._numbered(self.labels, "id", parts[1]).update(data)
                return 200, None
            case "GET /projects/{project_name_or_id}/members":
                return 200, [m for m in self.members if query.get("entityname", "") in m["entity_name"]]
            case "POST /projects/{project_name_or_id}/members":
                group = data["member_group"]["group_name"]
                self.members.append({"entity_name": group, "entity_type": "g", "role_id": data["role_id"]})
                return 201, None
            case "GET /robots":
                project = self._project("library")["project_id"]  # type: ignore[index]
                if query["q"] != f"Level=project,ProjectID={project}":
                    return self._complain(f"GET /robots of {query['q']}")
                return 200, [{**robot, "secret": ""} for robot in self.robots]
            case "POST /robots":
                wrong = list(_wrong_permissions(data["permissions"]))
                if wrong or data["level"] != "project" or "+" in data["name"] or "secret" in data:
                    return self._complain(f"POST /robots: {data} {wrong}")
                name = f"robot$library+{data['name']}"
                now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
                robot = {**data, "id": len(self.robots) + 1, "name": name, "creation_time": now}
                self.robots.append(robot | {"secret": self._secret()})
                return 201, {key: self.robots[-1][key] for key in ("id", "name", "secret", "creation_time")}
            case "PUT /robots/{robot_id}":
                robot = self._numbered(self.robots, "id", parts[1])
                wrong = list(_wrong_permissions(data["permissions"]))
                if wrong or (data["name"], data["level"]) != (robot["name"], robot["level"]):
                    return self._complain(f"PUT /robots: {data} {wrong}")
                robot.update(data)
                return 200, None
            case "DELETE /robots/{robot_id}":
                self.robots.remove(self._numbered(self.robots, "id", parts[1]))
                return 200, None
            case "PATCH /robots/{robot_id}":
                self._numbered(self.robots, "id", parts[1])["secret"] = data["secret"] or self._secret()
                return 200, {"secret": "" if data["secret"] else self.robots[int(parts[1]) - 1]["secret"]}
        return self._complain(f"the double knows no {what}")

    def _unfit(self, number: int) -> tuple[int, Any] | None:
        """Why no project may hand on the registry of this number."""
        registry = next((r for r in self.registries if r["id"] == number), None)
        if registry is None:
            return 404, _error("NOT_FOUND", f"registry {number} not found")
        if registry["type"] not in self.permitted:
            return 400, _error("BAD_REQUEST", f"unsupported registry type {registry['type']}")
        return None

    def _secret(self) -> str:
        self.made += 1
        return f"robotSecret{self.made:021d}"

    @staticmethod
    def _page(entries: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
        size, page = int(query.get("page_size", "10")), int(query.get("page", "1"))
        return entries[(page - 1) * size : page * size]

    @staticmethod
    def _numbered(entries: list[dict[str, Any]], key: str, number: str) -> dict[str, Any]:
        return next(entry for entry in entries if entry[key] == int(number))

    def _project(self, name: str) -> dict[str, Any] | None:
        return next((project for project in self.projects if project["name"] == name), None)


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def _wrong_permissions(permissions: list[dict[str, Any]]):
    """What of a robot's permissions the real API does not know; a robot of a project has those of one project."""
    if [(scope["kind"], scope["namespace"]) for scope in permissions] != [("project", "library")]:
        yield "one project"
    for scope in permissions:
        yield from _wrong(scope, "RobotPermission", "permissions")
        for access in scope["access"]:
            yield from _wrong(access, "Access", "access")


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


def _wrong(data: Any, definition: str, where: str):
    """What of `data` the real API does not know."""
    for name, value in data.items():
        kind = API["definitions"][definition].get(name)
        if kind is None:
            yield f"{where}: {definition} has no {name}"
        elif kind in API["definitions"]:
            yield from _wrong(value, kind, f"{where}.{name}")
        elif not isinstance(value, _TYPES[kind]) or kind == "integer" and isinstance(value, bool):
            yield f"{where}: {definition}.{name} is no {kind}: {value!r}"


class _Handler(BaseHTTPRequestHandler):
    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, result = self.server.double.answer(self.command, self.path, self.headers, body)  # type: ignore[attr-defined]
        text = b"" if result is None or self.command == "HEAD" else json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: the test says what it saw."""


class Serving:
    """The double on a free port of loopback, as a context manager; `url` is its address."""

    def __init__(self, double: HarborDouble) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.double = double  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Serving:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
