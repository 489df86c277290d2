"""Doubles of SonarQube's and DefectDojo's APIs, and of Secrets in the Kubernetes API, as far as the provisioning uses them.

Strict: an unknown request, parameter or field is answered with 400 and kept in `complaints`. Names are those of the real
services (SonarQube Community Build 26, DefectDojo 2.58). They do not prove that the services take the values, nor that a
login works.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, Any]
DESCRIPTOR = """<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="x"><md:IDPSSODescriptor>
<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:X509Data>
<ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
</md:IDPSSODescriptor></md:EntityDescriptor>"""


class Double:
    """One service. `routes`: `METHOD /path` to the names it takes and what answers; `{}` in a path is a number."""

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.complaints: list[str] = []
        self.routes: dict[str, tuple[set[str], Callable[..., Answer]]] = {}

    def allowed(self, path: str, headers: Mapping[str, str]) -> bool:
        raise NotImplementedError

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        split = urlsplit(target)
        parts = split.path.split("/")
        numbers = [int(part) for part in parts if part.isdigit()]
        route = f"{method} {'/'.join('{}' if part.isdigit() else part for part in parts)}"
        if route not in self.routes:
            return self.complain(f"{method} {split.path}: no such request")
        if not self.allowed(split.path, headers):
            return 401, {"detail": "no"}
        names, answer = self.routes[route]
        data = dict(parse_qsl(split.query, keep_blank_values=True))
        if body and headers.get("Content-Type") == "application/json":
            data |= json.loads(body)
        elif body:
            data |= dict(parse_qsl(body.decode(), keep_blank_values=True))
        if unknown := set(data) - names:
            return self.complain(f"{route}: {sorted(unknown)}")
        found = answer(*numbers, data, headers)
        if method != "GET" and found[0] < 400 and "token-auth" not in route:
            self.changes.append(route)
        return found

    def complain(self, text: str) -> Answer:
        self.complaints.append(text)
        return 400, {"errors": [{"msg": text}]}


class SonarQube(Double):
    """A SonarQube whose administrator still has the password of every new one."""

    def __init__(self) -> None:
        super().__init__()
        self.password, self.status = "admin", "UP"
        self.values: dict[str, str] = {}
        self.groups = [{"name": "sonar-administrators", "description": "System administrators"}]
        self.permissions: dict[str, set[str]] = {"sonar-administrators": {"admin"}}
        self.tokens: dict[str, str] = {}
        self.gitlabs: dict[str, dict[str, str]] = {}
        self.gates = ["Sonar way"]
        self.gate = "Sonar way"
        self.made = 0
        self.routes = {
            "GET /api/system/status": (set(), lambda d, h: (200, {"status": self.status})),
            "GET /api/authentication/validate": (set(), lambda d, h: (200, {"valid": self.knows(h)})),
            "POST /api/users/change_password": ({"login", "previousPassword", "password"}, self.change_password),
            "GET /api/settings/values": ({"keys"}, self.settings),
            "POST /api/settings/set": ({"key", "value"}, self.set),
            "GET /api/v2/authorizations/groups": ({"pageSize"}, lambda d, h: (200, {"groups": self.groups})),
            "POST /api/v2/authorizations/groups": ({"name", "description"}, self.group),
            "GET /api/permissions/groups": ({"ps"}, self.permitted),
            "POST /api/permissions/add_group": ({"groupName", "permission"}, self.give),
            "POST /api/permissions/remove_group": ({"groupName", "permission"}, self.take),
            "GET /api/alm_settings/list_definitions": (set(), self.platforms),
            "POST /api/alm_settings/create_gitlab": ({"key", "url", "personalAccessToken"}, self.create_gitlab),
            "POST /api/alm_settings/update_gitlab": ({"key", "newKey", "url", "personalAccessToken"}, self.update_gitlab),
            "GET /api/qualitygates/list": (set(), self.all_gates),
            "POST /api/qualitygates/set_as_default": ({"name"}, self.set_gate),
            "GET /api/user_tokens/search": ({"login"}, lambda d, h: (200, {"userTokens": [{"name": n} for n in self.tokens]})),
            "POST /api/user_tokens/generate": ({"login", "name", "type"}, self.token),
            "POST /api/user_tokens/revoke": ({"login", "name"}, lambda d, h: (204, self.tokens.pop(d["name"]) and None)),
        }  # fmt: skip

    def knows(self, headers: Mapping[str, str]) -> bool:
        login = base64.b64encode(f"admin:{self.password}".encode()).decode()
        given = headers.get("Authorization", "")
        return given == f"Basic {login}" or given.removeprefix("Bearer ") in self.tokens.values()

    def allowed(self, path: str, headers: Mapping[str, str]) -> bool:
        return path in ("/api/system/status", "/api/authentication/validate") or self.knows(headers)

    def change_password(self, data: dict[str, str], _: Any) -> Answer:
        kinds = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
        strong = len(data["password"]) >= 12 and all(any(map(kind, data["password"])) for kind in kinds)
        if data["login"] != "admin" or data["previousPassword"] != self.password or not strong:
            return 400, {"errors": [{"msg": "Password must be strong"}]}
        self.password = data["password"]
        return 204, None

    def settings(self, data: dict[str, str], _: Any) -> Answer:
        asked = [key for key in data["keys"].split(",") if key in self.values]
        secured = [key for key in asked if key.endswith(".secured")]
        shown = [{"key": key, "value": self.values[key], "inherited": False} for key in asked if key not in secured]
        return 200, {"settings": shown, "setSecuredSettings": secured}

    def set(self, data: dict[str, str], _: Any) -> Answer:
        if data["key"] == "sonar.auth.saml.enabled" and "sonar.auth.saml.certificate.secured" not in self.values:
            return 400, {"errors": [{"msg": "SAML without a certificate"}]}
        self.values[data["key"]] = data["value"]
        return 204, None

    def group(self, data: dict[str, str], _: Any) -> Answer:
        self.groups.append(data)
        return 201, data

    def permitted(self, *_: Any) -> Answer:
        return 200, {"groups": [{"name": n, "permissions": sorted(p)} for n, p in self.permissions.items()]}

    def give(self, data: dict[str, str], _: Any) -> Answer:
        if data["groupName"] not in {group["name"] for group in self.groups}:
            return 404, {"errors": [{"msg": "no group"}]}
        self.permissions.setdefault(data["groupName"], set()).add(data["permission"])
        return 204, None

    def take(self, data: dict[str, str], _: Any) -> Answer:
        self.permissions[data["groupName"]].remove(data["permission"])
        return 204, None

    def platforms(self, *_: Any) -> Answer:
        of_gitlab = [{"key": key, "url": one["url"]} for key, one in self.gitlabs.items()]
        return 200, {"github": [], "azure": [], "bitbucket": [], "bitbucketcloud": [], "gitlab": of_gitlab}

    def create_gitlab(self, data: dict[str, str], _: Any) -> Answer:
        if self.gitlabs:  # more than one of a kind is a matter of the paid editions
            return 400, {"errors": [{"msg": "A GITLAB setting is already defined"}]}
        self.gitlabs[data["key"]] = {"url": data["url"], "token": data["personalAccessToken"]}
        return 204, None

    def update_gitlab(self, data: dict[str, str], _: Any) -> Answer:
        if data["key"] not in self.gitlabs:
            return 404, {"errors": [{"msg": f"DevOps Platform setting with key '{data['key']}' cannot be found"}]}
        now = self.gitlabs.pop(data["key"])
        token = data.get("personalAccessToken")
        if data["url"] != now["url"] and not token:
            return 400, {"errors": [{"msg": "Please provide the Personal Access Token to update the URL."}]}
        self.gitlabs[data.get("newKey") or data["key"]] = {"url": data["url"], "token": token or now["token"]}
        return 204, None

    def all_gates(self, *_: Any) -> Answer:
        gates = [{"name": name, "isDefault": name == self.gate, "isBuiltIn": name == "Sonar way"} for name in self.gates]
        return 200, {"qualitygates": gates, "actions": {"create": True}}

    def set_gate(self, data: dict[str, str], _: Any) -> Answer:
        if data["name"] not in self.gates:
            return 404, {"errors": [{"msg": "no gate"}]}
        self.gate = data["name"]
        return 204, None

    def token(self, data: dict[str, str], _: Any) -> Answer:
        if data["name"] in self.tokens or data["type"] not in ("USER_TOKEN", "GLOBAL_ANALYSIS_TOKEN"):
            return 400, {"errors": [{"msg": "token"}]}
        self.made += 1
        self.tokens[data["name"]] = f"sqtoken{self.made:033d}"
        return 200, {"token": self.tokens[data["name"]]}


class DefectDojo(Double):
    """A DefectDojo after its initializer: roles, the administrator, and one page of settings."""

    FIELDS = {
        "dojo_groups": {"name", "description"},
        "global_roles": {"user", "group", "role"},
        "dojo_group_members": {"group", "user", "role"},
        "users": {"username", "password", "email", "first_name", "last_name", "is_active", "is_superuser"},
        "product_types": {"name", "description"},
        "product_type_members": {"product_type", "user", "role"},
        "tool_types": {"name", "description"},
        "tool_configurations": {"name", "description", "url", "tool_type", "authentication_type", "api_key"},
    }
    # Filter to the field that it is of.
    FILTERS = {
        "dojo_groups": {"name": "name"},
        "users": {"username": "username"},
        "global_roles": {"user": "user"},
        "product_types": {"name": "name"},
        "product_type_members": {"product_type_id": "product_type", "user_id": "user"},
        "tool_types": {"name": "name"},
        "tool_configurations": {"name": "name"},
    }
    HIDDEN = {"password", "api_key"}

    def __init__(self, password: str) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in self.FIELDS}
        self.tables["roles"] = [
            {"id": number + 1, "name": name}
            for number, name in enumerate(("API_Importer", "Writer", "Maintainer", "Owner", "Reader"))
        ]
        self.tables["system_settings"] = [{"id": 1, "default_group": None, "default_group_role": None}]
        self.add("users", {"username": "admin", "password": password, "is_superuser": True})
        page = {"limit", "offset"}
        self.routes["POST /api/v2/api-token-auth/"] = ({"username", "password"}, self.token)
        for name in self.tables:
            filters = set(self.FILTERS.get(name, ()))
            fields = self.FIELDS.get(name, {"default_group", "default_group_role"})
            self.routes[f"GET /api/v2/{name}/"] = (page | filters, lambda d, h, n=name: self.listed(n, d))
            if name in self.FIELDS:
                self.routes[f"POST /api/v2/{name}/"] = (fields, lambda d, h, n=name: (201, self.add(n, d)))
                self.routes[f"PUT /api/v2/{name}/{{}}/"] = (fields, lambda i, d, h, n=name: self.change(n, i, d))
        self.routes["DELETE /api/v2/global_roles/{}/"] = (set(), lambda i, d, h: self.remove("global_roles", i))
        self.routes["PATCH /api/v2/system_settings/{}/"] = (
            {"default_group", "default_group_role"}, lambda i, d, h: self.change("system_settings", i, d),
        )  # fmt: skip

    @staticmethod
    def of(username: str) -> str:
        return f"token-of-{username}-000000"

    def allowed(self, path: str, headers: Mapping[str, str]) -> bool:
        return path.endswith("api-token-auth/") or headers.get("Authorization") == f"Token {self.of('admin')}"

    def token(self, data: dict[str, str], _: Any) -> Answer:
        good = any(
            u["username"] == data["username"] and u["password"] == data["password"] for u in self.tables["users"]
        )
        return (200, {"token": self.of(data["username"])}) if good else (400, {"non_field_errors": ["no"]})

    def add(self, table: str, data: dict[str, Any]) -> dict[str, Any]:
        made = {"id": len(self.tables[table]) + 1, **data}
        self.tables[table].append(made)
        return {key: value for key, value in made.items() if key not in self.HIDDEN}

    def change(self, table: str, number: int, data: dict[str, Any]) -> Answer:
        found = next(one for one in self.tables[table] if one["id"] == number)
        found |= data
        return 200, {key: value for key, value in found.items() if key not in self.HIDDEN}

    def remove(self, table: str, number: int) -> Answer:
        self.tables[table] = [one for one in self.tables[table] if one["id"] != number]
        return 204, None

    def listed(self, table: str, data: dict[str, str]) -> Answer:
        def fits(given: str, value: Any) -> bool:
            return given in value if isinstance(value, str) else given == str(value)

        asked = {field: data[name] for name, field in self.FILTERS.get(table, {}).items() if name in data}
        rows = [one for one in self.tables[table] if all(fits(given, one[field]) for field, given in asked.items())]
        start = int(data["offset"])
        page = rows[start : start + int(data["limit"])]
        shown = [{k: v for k, v in one.items() if k not in self.HIDDEN} for one in page]
        return 200, {"count": len(rows), "results": shown}


class Cluster(Double):
    """Secrets of the Kubernetes API; `/descriptor` gives the realm's description for SAML."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[str, dict[str, Any]] = {}
        self.certificate = "MIIBcertificateOne"

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if target == "/descriptor":
            return 200, DESCRIPTOR.format(certificate=self.certificate)
        if headers.get("Authorization") != "Bearer account":
            return 401, None
        found = self.secrets.get(target)
        if method == "GET":
            return (200, found) if found else (404, None)
        data = json.loads(body)
        place = target if method == "PUT" else f"{target}/{data['metadata']['name']}"
        if method == "PUT" and (
            not found or data["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]
        ):
            return 409, None
        data["metadata"]["resourceVersion"] = str(len(self.changes) + 1)
        self.secrets[place] = data
        self.changes.append(f"{method} {place}")
        return 200, data

    def value(self, namespace: str, name: str, key: str) -> str:
        secret = self.secrets[f"/api/v1/namespaces/{namespace}/secrets/{name}"]
        return base64.b64decode(secret["data"][key]).decode()


@contextmanager
def serving(double: Double) -> Iterator[str]:
    """Its URL, for as long as it is served."""

    class Handler(BaseHTTPRequestHandler):
        def one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, data = double.answer(self.command, self.path, self.headers, body)  # type: ignore[arg-type]
            text = b"" if data is None else data.encode() if isinstance(data, str) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = one

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
