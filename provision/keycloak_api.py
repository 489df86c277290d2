"""Keycloak's Admin REST API, and what counts as a difference between what is wanted and what is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from client import Client, bearer, secret

TOKEN_SECONDS = 30  # an administrator's token lives for a minute
# Lists whose order means nothing.
UNORDERED = ("redirectUris", "webOrigins", "eventsListeners")


class Keycloak:
    """The Admin REST API, logged in as the first administrator; every request has a token that is still good."""

    def __init__(self, base: str, administrator: str) -> None:
        self._administrator = administrator
        # Keycloak refuses plain HTTP from addresses that are not private; the pods' network may be such a one. What
        # comes to it through the ingress says the same.
        self._http = Client(base, headers={"X-Forwarded-Proto": "https"})
        self._until = 0.0

    def _admin(self) -> Client:
        if time.monotonic() >= self._until:
            # The old token would be sent along and refused.
            self._http.headers.pop("Authorization", None)
            answer = self._http.request(
                "POST",
                "/realms/master/protocol/openid-connect/token",
                form={
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": self._administrator,
                    "password": secret("admin", "password"),
                },
            ).json()
            self._http.headers["Authorization"] = bearer(answer["access_token"])
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._http

    def get(self, path: str, **query: str) -> Any:
        return self._admin().get(f"/admin/realms{path}", query=query or None)

    def find(self, path: str) -> Any | None:
        return self._admin().find(f"/admin/realms{path}")

    def post(self, path: str, data: Any) -> None:
        self._admin().request("POST", f"/admin/realms{path}", data=data)

    def put(self, path: str, data: Any = None) -> None:
        self._admin().request("PUT", f"/admin/realms{path}", data=data)

    def delete(self, path: str, data: Any = None) -> None:
        self._admin().request("DELETE", f"/admin/realms{path}", data=data)


def part(name: str) -> str:
    """`name` as one part of a path."""
    return quote(name, safe="")


def same(key: str, wanted: Any, found: Any) -> bool:
    """Whether `found` is as wanted: of a map, the wanted keys are; a list in UNORDERED in any order."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(same(name, value, found.get(name)) for name, value in wanted.items())
    if key in UNORDERED:
        return sorted(wanted) == sorted(found or [])
    return wanted == found


def differing(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The keys whose values are not as wanted."""
    return [key for key, value in wanted.items() if not same(key, value, found.get(key))]
