"""A double of GitLab's API, as far as provisioning uses it.

Strict: an unknown request or field is answered with 400 and kept in `complaints`. Names, scopes and statuses are those of
GitLab 19. It does not prove that a runner gets a job, nor GitLab's limits on requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.delivery_doubles import Answer, Double

MOST_TAGS = 50  # Ci::Runner, TAG_LIST_MAX_LENGTH
UNAUTHORIZED: Answer = (401, {"message": "401 Unauthorized"})
FORBIDDEN: Answer = (403, {"message": "403 Forbidden"})
_KINDS = {
    "runner_type": str,
    "description": str,
    "tag_list": str,
    "run_untagged": bool,
    "token": str,
}


@dataclass
class AccessToken:
    """A personal access token of an administrator, or of anybody else."""

    scopes: frozenset[str]
    administrator: bool = True
    state: Literal["active", "revoked", "expired"] = "active"


class GitLab(Double):
    """`tokens` by value; `runners` by their tokens, each with the fields that it was made with."""

    def __init__(self, tokens: Mapping[str, AccessToken]) -> None:
        super().__init__()
        self.tokens = dict(tokens)
        self.runners: dict[str, dict[str, Any]] = {}
        self.made = 0
        self.routes = {
            "GET /api/v4/personal_access_tokens/self": (set(), self.self),
            "POST /api/v4/user/runners": ({"runner_type", "description", "tag_list", "run_untagged"}, self.make),
            "POST /api/v4/runners/verify": ({"token"}, self.verify),
            "DELETE /api/v4/runners": ({"token"}, self.remove),
        }

    def allowed(self, path: str, headers: Mapping[str, str]) -> bool:
        return True  # each request has its own rule

    def held(
        self, headers: Mapping[str, str], scopes: set[str] | None, answer: Callable[[AccessToken], Answer]
    ) -> Answer:
        """`answer` for a token that is active and has one of `scopes` (None: any)."""
        found = self.tokens.get(headers.get("PRIVATE-TOKEN", ""))
        if found is None:
            return UNAUTHORIZED
        if found.state != "active":
            return 401, {"error": "invalid_token", "error_description": f"Token was {found.state}."}
        if scopes is not None and not scopes & found.scopes:
            return 403, {"error": "insufficient_scope", "scope": " ".join(sorted(scopes))}
        return answer(found)

    def self(self, _: Any, headers: Mapping[str, str]) -> Answer:
        return self.held(headers, None, lambda found: (200, {"scopes": sorted(found.scopes), "active": True}))

    def make(self, data: dict[str, Any], headers: Mapping[str, str]) -> Answer:
        def made(found: AccessToken) -> Answer:
            wrong = [name for name, value in data.items() if not isinstance(value, _KINDS[name])]
            if wrong:
                return self.complain(f"POST /user/runners: {data}")
            # A runner of a group or of a project needs its number as well, which nobody here gives.
            if data.get("runner_type") != "instance_type":
                return 400, {"error": "runner_type does not have a valid value"}
            if len(data.get("tag_list", "").split(",")) > MOST_TAGS:
                return 400, {"message": f"400 Bad request - Tags list Too many tags specified. Please limit the number of tags to {MOST_TAGS}"}
            if not found.administrator:
                return 403, {"message": "403 Forbidden - Insufficient permissions"}
            if not data.get("run_untagged", True) and not data.get("tag_list"):
                return 400, {"message": "400 Bad request - Tags list can not be empty"}
            self.made += 1
            token = f"glrt-runner{self.made:020d}"
            self.runners[token] = data
            return 201, {"id": self.made, "token": token, "token_expires_at": None}

        return self.held(headers, {"create_runner", "api"}, made)

    def verify(self, data: dict[str, Any], _: Any) -> Answer:
        return (200, {"id": 1, "token": data["token"]}) if data.get("token") in self.runners else FORBIDDEN

    def remove(self, data: dict[str, Any], _: Any) -> Answer:
        return (204, None) if self.runners.pop(data.get("token", ""), None) is not None else FORBIDDEN
