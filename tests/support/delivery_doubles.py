"""Doubles of SonarQube's API, and of Secrets in the Kubernetes API, as far as the provisioning uses them.

Strict: an unknown request, parameter or field is answered with 400 and kept in `complaints`. Names, enumerations and lengths
are those of SonarQube's definitions (server/sonar-webserver-webapi: permission/ws, setting/ws, usertoken/ws, almsettings/ws;
what a new one has: PopulateInitialSchema; the settings: sonar-auth-saml, SamlSettings). They do not prove that a login works.
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


# Of the Community Build; the paid editions have more.
PERMISSIONS = {"admin", "gateadmin", "profileadmin", "provisioning", "scan"}
# A token for any project is made for whoever is logged in alone, who has the permission scan.
TOKEN_TYPES = {"USER_TOKEN", "GLOBAL_ANALYSIS_TOKEN"}
GROUPS_OF_ADMIN = ("sonar-administrators", "sonar-users")
SAML = {
    *(f"sonar.auth.saml.{name}" for name in ("applicationId", "providerName", "providerId", "loginUrl", "certificate.secured")),
    *(f"sonar.auth.saml.{name}" for name in ("user.login", "user.name", "user.email", "group.name")),
}
SWITCHES = {"sonar.auth.saml.enabled", "sonar.forceAuthentication"}
SETTINGS = {"sonar.core.serverBaseURL", *SAML, *SWITCHES}
# Parameter to its greatest length, by request.
LENGTHS = {
    "POST /api/settings/set": {"value": 4000},
    "POST /api/v2/authorizations/groups": {"name": 255, "description": 200},
    "POST /api/alm_settings/create_gitlab": {"key": 200, "url": 2000, "personalAccessToken": 2000},
    "POST /api/alm_settings/update_gitlab": {"key": 200, "newKey": 200, "url": 2000, "personalAccessToken": 2000},
    "POST /api/user_tokens/generate": {"name": 100},
}
GREATEST = {"GET /api/v2/authorizations/groups": {"pageSize": 500}, "GET /api/permissions/groups": {"ps": 100}}
OPTIONAL = {"newKey", "login", "description", "pageSize", "ps", "keys", "type"}


class SonarQube(Double):
    """A SonarQube whose administrator still has the password of every new one."""

    def __init__(self) -> None:
        super().__init__()
        self.password, self.status = "admin", "UP"
        self.values: dict[str, str] = {}
        self.groups = [
            {"name": "sonar-administrators", "description": "System administrators"},
            {"name": "sonar-users", "description": "Every authenticated user automatically belongs to this group"},
        ]
        self.permissions: dict[str, set[str]] = {
            "sonar-administrators": PERMISSIONS - {"scan"} | {"applicationcreator", "portfoliocreator"},
            "sonar-users": {"scan", "provisioning"},
        }
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

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        split = urlsplit(target)
        route = f"{method} {split.path}"
        text = split.query if method == "GET" else body.decode()
        json_body = headers.get("Content-Type") == "application/json"
        # Only what is below /api/v2 takes JSON, and takes nothing else.
        if body and json_body != split.path.startswith("/api/v2/"):
            return 415, {"message": f"Content-Type '{headers.get('Content-Type')}' is not supported"}
        given = json.loads(body) if json_body else dict(parse_qsl(text, keep_blank_values=True))
        for name, most in LENGTHS.get(route, {}).items():
            if len(str(given.get(name, ""))) > most:
                return refused(f"'{name}' length ({len(given[name])}) is longer than the maximum authorized ({most})")
        for name, most in GREATEST.get(route, {}).items():
            if not 1 <= int(given.get(name, most)) <= most:
                return refused(f"'{name}' value ({given[name]}) must be between 1 and {most}")
        names = self.routes.get(route, (set(), None))[0]
        if lacking := sorted(names - set(given) - OPTIONAL - ({"personalAccessToken"} if "update_gitlab" in route else set())):
            return refused(f"The '{lacking[0]}' parameter is missing")
        return super().answer(method, target, headers, body)

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
        if data["key"] not in SETTINGS:  # the real one keeps it, and nobody reads it
            return self.complain(f"no setting {data['key']}")
        if not data["value"].strip():
            return refused("A non empty value must be provided")
        if data["key"] in SWITCHES and data["value"] not in ("true", "false"):
            return refused(f"'{data['value']}' is not a boolean")
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
        if wrong := self.unfit(data):
            return wrong
        self.permissions.setdefault(data["groupName"], set()).add(data["permission"])
        return 204, None

    def take(self, data: dict[str, str], _: Any) -> Answer:
        if wrong := self.unfit(data):
            return wrong
        if data["permission"] == "admin" and not any(
            "admin" in given for name, given in self.permissions.items() if name != data["groupName"]
        ):
            return refused("Last group with permission 'admin'. Permission cannot be removed.")
        self.permissions[data["groupName"]].discard(data["permission"])
        return 204, None

    def unfit(self, data: dict[str, str]) -> Answer | None:
        if data["permission"] not in PERMISSIONS:
            known = ", ".join(sorted(PERMISSIONS))
            return refused(f"The 'permission' parameter for global permissions must be one of {known}. '{data['permission']}' was passed.")
        if data["groupName"] not in {group["name"] for group in self.groups}:
            return 404, {"errors": [{"msg": f"No group with name '{data['groupName']}'"}]}
        return None

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
        if data["type"] not in TOKEN_TYPES:
            return refused(f"Value of parameter 'type' ({data['type']}) must be one of: {sorted(TOKEN_TYPES)}")
        if data["name"] in self.tokens:
            return refused(f"A user token for login '{data['login']}' and name '{data['name']}' already exists")
        if data["type"] == "GLOBAL_ANALYSIS_TOKEN" and not any("scan" in self.permissions[group] for group in GROUPS_OF_ADMIN):
            return 403, {"errors": [{"msg": "Insufficient privileges"}]}
        self.made += 1
        self.tokens[data["name"]] = f"sqtoken{self.made:033d}"
        return 200, {"token": self.tokens[data["name"]]}


def refused(text: str) -> Answer:
    return 400, {"errors": [{"msg": text}]}


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
