"""Variables that GitLab gives to pipelines, by its API for administrators (GitLab 16.8 or newer).

A variable is one of the instance, which every pipeline finds, or one of each group that the file names for it, which
only the projects below these groups find. A group on the top level that is not there is made, private and without
members. What was of the instance formerly, and is of groups now, is removed there.

Idempotent: compares, changes what differs, says what it changed. A variable of a wanted name whose description does not
carry the mark is somebody else's: it is refused before anything is changed. A script that has values of its own imports
this and gives them to `publish`; run by itself, it publishes those that its file holds.

Environment: `GITLAB_URL`; `VARIABLES_FILE` (/opstella/ci_variables.json, plan/tools/ci.py makes it). Secret:
`gitlab-ci` (token), an administrator's with the scope api; those that variables name as `secret` (password).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from client import Answer, Client, Failure, Refused, Report, environment, hide, main, secret

MARK = "made by the Opstella stack"
INSTANCE = "/admin/ci/variables"
MASKABLE = re.compile(r"\S{8,}")
"""What GitLab masks of a variable that it does not expand."""


def of_group(group: str) -> str:
    """Path of the API to a group's variables."""
    return f"/groups/{quote(group, safe='')}/variables"


class Variables:
    """What the file wants, and what GitLab has of it. Raises Failure for a variable that is somebody else's."""

    def __init__(self, report: Report) -> None:
        file = Path(environment("VARIABLES_FILE", "/opstella/ci_variables.json"))
        self.wanted: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        self.api = Client(f"{environment('GITLAB_URL')}/api/v4", headers={"PRIVATE-TOKEN": secret("gitlab-ci", "token")})
        self.report = report
        self.groups = dict.fromkeys(group for one in self.wanted.values() for group in one.get("groups") or ())
        self.missing = [group for group in self.groups if not self._is_there(group)]
        for group in self.missing:
            if "/" in group:
                raise Failure(
                    f"GitLab has no group {group}",
                    f"{self.api.base}/groups/{quote(group, safe='')}",
                    "opstella:gitlabRunner.pushGroups names it, and only groups on the top level are made by this stack",
                    f"make the group {group} in GitLab, or take it out of opstella:gitlabRunner.pushGroups",
                )
        self.now: dict[tuple[str, str], dict[str, Any]] = {}
        self.former: list[str] = []
        foreign = []
        for key in self.wanted:
            for place in self.places(key):
                if found := self._read(place, key):
                    self.now[place, key] = found
                    foreign += [] if self._ours(found) else [(place, key)]
            if self.wanted[key].get("groups") is not None and (found := self._read(INSTANCE, key)) and self._ours(found):
                self.former.append(key)
        if foreign:
            names = ", ".join(dict.fromkeys(key for _, key in foreign))
            raise Failure(
                f"GitLab has the CI variable {names} that was not made by this stack",
                f"{self.api.base}{foreign[0][0]}, in the browser {self._in_the_browser(foreign[0][0])}",
                f"its description does not hold '{MARK}', and pipelines may depend on its value",
                "remove or rename it; or hand it over, and its value will be replaced: write those words into its description",
            )

    def places(self, key: str) -> list[str]:
        """Paths of the API to where the variable is wanted."""
        groups = self.wanted[key].get("groups")
        return [INSTANCE] if groups is None else [of_group(group) for group in groups]

    def publish(self, values: Mapping[str, str] | None = None) -> None:
        """Brings every variable about: with the value of the file or of the Secret that it names, else of `values`."""
        self._make_groups()
        for key, wanted in self.wanted.items():
            for place in self.places(key):
                self._publish(place, key, wanted, self._value(wanted) or (values or {})[key])
            if key in self.former:
                self._ask("DELETE", f"{INSTANCE}/{key}")
                self.report.did(f"CI variable {key}: of the instance no more")

    def _value(self, wanted: Mapping[str, Any]) -> str | None:
        return secret(wanted["secret"], "password") if wanted.get("secret") else wanted.get("value")

    def _publish(self, place: str, key: str, wanted: Mapping[str, Any], value: str) -> None:
        if wanted["masked"] and not MASKABLE.fullmatch(hide(value)):
            raise Failure(
                f"the value of {key} cannot be masked in the logs of pipelines",
                f"{self.api.base}{place}/{key}",
                "GitLab masks only what is on one line, without spaces, and at least 8 characters long",
                "renew it in the tool that made it, then run the Job again",
            )
        data = {
            "value": value,
            "description": f"{wanted['about']} ({MARK})",
            "variable_type": "env_var",
            "masked": wanted["masked"],
            "protected": wanted["protected"],
            "raw": True,  # a $ in it is a $
        }
        now = self.now.get((place, key))
        if now is None:
            self._ask("POST", place, data={"key": key, **data})
            self.report.did(f"CI variable {key}: made")
        elif changed := [name for name, wish in data.items() if now.get(name) != wish]:
            self._ask("PUT", f"{place}/{key}", data=data)
            self.report.did(f"CI variable {key}: {', '.join(changed)}")

    def _make_groups(self) -> None:
        for group in self.missing:
            data = {"name": group, "path": group, "visibility": "private", "project_creation_level": "maintainer"}
            self._ask("POST", "/groups", data={**data, "description": f"Its pipelines push images ({MARK})"})
            self.report.did(f"group {group}: made")
        self.missing = []

    def _is_there(self, group: str) -> bool:
        return self._ask("GET", f"/groups/{quote(group, safe='')}", also=(404,)).status != 404

    def _ours(self, found: Mapping[str, Any]) -> bool:
        return MARK in (found.get("description") or "")

    def _in_the_browser(self, place: str) -> str:
        return "Admin, Settings, CI/CD, Variables" if place == INSTANCE else "the group's Settings, CI/CD, Variables"

    def _read(self, place: str, key: str) -> dict[str, Any] | None:
        answer = self._ask("GET", f"{place}/{key}", also=(404,))
        if answer.status == 404:
            return None
        found: dict[str, Any] = answer.json()
        if found.get("masked"):
            hide(found["value"])
        return found

    def _ask(self, method: str, path: str, **more: Any) -> Answer:
        try:
            return self.api.request(method, path, **more)
        except Refused as refused:
            if refused.status not in (401, 403):
                raise
            raise Failure(
                "GitLab does not let this stack's token at the CI variables",
                refused.where,
                f"it answered {refused.status}: {refused.why}",
                "the token must be an administrator's, with the scope api: let pulumi up make it again (docs/ci.md)",
            ) from None
        except Failure as failure:
            raise Failure(
                f"{failure.what}: GitLab",
                failure.where,
                failure.why,
                "look at its machine (gitlab-ctl status), at its firewall's port 443 and at the CA bundle;"
                " then let the Job run again",
            ) from None


def run(report: Report) -> None:
    Variables(report).publish()


if __name__ == "__main__":
    sys.exit(main(run))
