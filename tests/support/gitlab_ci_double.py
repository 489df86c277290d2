"""A double of GitLab's API that also has CI variables, of the instance and of groups, as provision/ci_variables.py sets them.

Strict as its base: an unknown field, a wrong type or an unknown key of the path is answered as GitLab does, or with 400 and
kept in `complaints`. Which values it masks are GitLab's own two rules; words and lengths are those of lib/api/admin/ci/variables.rb,
lib/api/helpers/groups_helpers.rb, Ci::InstanceVariable and Gitlab::Access. It does not prove what a pipeline sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from tests.support.delivery_doubles import Answer
from tests.support.gitlab_double import AccessToken, GitLab

PATH = "/api/v4/admin/ci/variables"
_KINDS = {
    "key": str, "value": str, "description": str, "variable_type": str, "masked": bool, "protected": bool, "raw": bool,
}  # fmt: skip
_EXPANDED, _RAW = re.compile(r"[a-zA-Z0-9_+=/@:.~-]{8,}"), re.compile(r"\S{8,}")


VARIABLE_TYPES = ("env_var", "file")
VALUE_LENGTH, DESCRIPTION_LENGTH = 10_000, 255
GROUP_WORDS = {
    "visibility": ("private", "internal", "public"),
    "project_creation_level": ("noone", "owner", "maintainer", "developer", "administrator"),
}
GROUP_PATH = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,253}(?<![.-])")
_GROUP = {"name": str, "path": str, "visibility": str, "project_creation_level": str, "description": str}


class CiGitLab(GitLab):
    """`variables` of the instance by key, as the API shows them; `groups` by full path, each with its variables."""

    def __init__(self, tokens: Mapping[str, AccessToken]) -> None:
        super().__init__(tokens)
        self.variables: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, dict[str, Any]]] = {}
        self.made_groups: list[dict[str, Any]] = []

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        data = json.loads(body) if body else {}
        parts = target.removeprefix("/api/v4/groups").split("/")
        if target.startswith("/api/v4/groups") and len(parts) <= 2:
            return self._group(method, unquote(parts[-1]), data, headers)
        if target.startswith("/api/v4/groups/") and parts[2] == "variables":
            group = unquote(parts[1])
            if group not in self.groups:
                return self.held(headers, {"api", "read_api"}, lambda token: (404, {"message": "404 Group Not Found"}))
            return self._variables(method, target, "/".join(parts[3:]), self.groups[group], data, headers, bool(body))
        if not target.startswith(PATH):
            return super().answer(method, target, headers, body)
        key = target.removeprefix(PATH).removeprefix("/")
        return self._variables(method, target, key, self.variables, data, headers, bool(body))

    def _group(self, method: str, path: str, data: dict[str, Any], headers: Mapping[str, str]) -> Answer:
        if method == "GET" and path:
            there = path in self.groups
            answer: Answer = (200, {"full_path": path}) if there else (404, {"message": "404 Group Not Found"})
            return self.held(headers, {"api", "read_api"}, lambda token: answer)
        wrong = [name for name, value in data.items() if not isinstance(value, _GROUP.get(name, type(None)))]
        if method != "POST" or path or wrong or not {"name", "path"} <= set(data) or "/" in data["path"]:
            return self.complain(f"{method} group {path}: {sorted(data)}")

        def made(token: AccessToken) -> Answer:
            for name, words in GROUP_WORDS.items():
                if data.get(name, words[0]) not in words:
                    return 400, {"error": f"{name} does not have a valid value"}
            if not GROUP_PATH.fullmatch(data["path"]):
                return 400, {"message": "Failed to save group {:path=>[\"can contain only letters, digits, '_', '-' and '.'\"]}"}
            if data["path"] in self.groups:
                return 400, {"message": "Failed to save group {:path=>[\"has already been taken\"]}"}
            self.groups[data["path"]] = {}
            self.made_groups.append(data)
            return 201, data

        found = self.held(headers, {"api"}, made)
        if found[0] < 400:
            self.changes.append(f"POST group {data['path']}")
        return found

    def _variables(
        self, method: str, target: str, key: str, there: dict[str, Any], data: dict[str, Any], headers: Mapping[str, str],
        with_body: bool,
    ) -> Answer:  # fmt: skip
        wrong = [name for name, value in data.items() if not isinstance(value, _KINDS.get(name, type(None)))]
        known = {"GET": bool(key), "POST": not key and "key" in data, "PUT": bool(key) and "key" not in data, "DELETE": bool(key)}
        if wrong or not known.get(method) or (with_body and headers.get("Content-Type") != "application/json"):
            return self.complain(f"{method} {target}: {sorted(data)}")
        scopes = {"api", "read_api"} if method == "GET" else {"api"}
        found = self.held(headers, scopes, lambda token: self._variable(method, key, there, data, token))
        if method != "GET" and found[0] < 400:
            self.changes.append(f"{method} {key or data['key']}")
        return found

    def _variable(
        self, method: str, key: str, there: dict[str, Any], data: dict[str, Any], token: AccessToken
    ) -> Answer:
        if not token.administrator:
            return 403, {"message": "403 Forbidden"}
        if method != "POST" and key not in there:
            return 404, {"message": "404 Variable Not Found"}
        if method == "GET":
            return 200, there[key]
        if method == "DELETE":
            del there[key]
            return 204, None
        if method == "POST" and data["key"] in there:
            return 400, {"message": {"key": [f"({data['key']}) has already been taken"]}}
        if data.get("variable_type", VARIABLE_TYPES[0]) not in VARIABLE_TYPES:
            return 400, {"error": "variable_type does not have a valid value"}
        for name, most in (("value", VALUE_LENGTH), ("description", DESCRIPTION_LENGTH)):
            if len(data.get(name, "")) > most:
                return 400, {"message": {name: [f"is too long (maximum is {most} characters)"]}}
        if not re.fullmatch(r"[a-zA-Z0-9_]{1,255}", data.get("key", key)):
            return 400, {"message": {"key": ["can contain only letters, digits and '_'."]}}
        first = {"description": None, "variable_type": "env_var", "masked": False, "protected": False, "raw": False}
        wanted = {**there.get(key, first), **data}
        if wanted["masked"] and not (_RAW if wanted["raw"] else _EXPANDED).fullmatch(wanted["value"]):
            return 400, {"message": {"value": ["is invalid"]}}
        there[wanted["key"]] = wanted
        return (201 if method == "POST" else 200), wanted
