"""A double of GitLab's API that also has CI variables of the instance, as provision/ci_variables.py sets them.

Strict as its base: an unknown field, a wrong type or an unknown key of the path is answered as GitLab does, or with 400 and
kept in `complaints`. Which values it masks are GitLab's own two rules. It does not prove what a pipeline sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.support.delivery_doubles import Answer
from tests.support.gitlab_double import AccessToken, GitLab

PATH = "/api/v4/admin/ci/variables"
_KINDS = {
    "key": str, "value": str, "description": str, "variable_type": str, "masked": bool, "protected": bool, "raw": bool,
}  # fmt: skip
_EXPANDED, _RAW = re.compile(r"[a-zA-Z0-9_+=/@:.~-]{8,}"), re.compile(r"\S{8,}")


class CiGitLab(GitLab):
    """`variables` by key, as the API shows them."""

    def __init__(self, tokens: Mapping[str, AccessToken]) -> None:
        super().__init__(tokens)
        self.variables: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if not target.startswith(PATH):
            return super().answer(method, target, headers, body)
        key = target.removeprefix(PATH).removeprefix("/")
        data = json.loads(body) if body else {}
        wrong = [name for name, value in data.items() if not isinstance(value, _KINDS.get(name, type(None)))]
        known = {"GET": bool(key), "POST": not key and "key" in data, "PUT": bool(key) and "key" not in data}
        if wrong or not known.get(method) or (body and headers.get("Content-Type") != "application/json"):
            return self.complain(f"{method} {target}: {sorted(data)}")
        scopes = {"api", "read_api"} if method == "GET" else {"api"}
        found = self.held(headers, scopes, lambda token: self._variable(method, key, data, token))
        if method != "GET" and found[0] < 400:
            self.changes.append(f"{method} {key or data['key']}")
        return found

    def _variable(self, method: str, key: str, data: dict[str, Any], token: AccessToken) -> Answer:
        if not token.administrator:
            return 403, {"message": "403 Forbidden"}
        if method != "POST" and key not in self.variables:
            return 404, {"message": "404 InstanceVariable Not Found"}
        if method == "GET":
            return 200, self.variables[key]
        if method == "POST" and data["key"] in self.variables:
            return 400, {"message": {"key": [f"({data['key']}) has already been taken"]}}
        if not re.fullmatch(r"[a-zA-Z0-9_]{1,255}", data.get("key", key)) or len(data.get("description", "")) > 255:
            return 400, {"message": {"key": ["can contain only letters, digits and '_'."]}}
        first = {"description": None, "variable_type": "env_var", "masked": False, "protected": False, "raw": False}
        wanted = {**self.variables.get(key, first), **data}
        if wanted["masked"] and not (_RAW if wanted["raw"] else _EXPANDED).fullmatch(wanted["value"]):
            return 400, {"message": {"value": ["is invalid"]}}
        self.variables[wanted["key"]] = wanted
        return (201 if method == "POST" else 200), wanted
