"""Variables that GitLab gives to every pipeline of the instance, by its API for administrators (GitLab 16.8 or newer).

Idempotent: compares, changes what differs, says what it changed. A variable of a wanted name whose description does not
carry the mark is somebody else's: it is refused before anything is changed. A script that has values of its own imports
this and gives them to `publish`; run by itself, it publishes those that its file holds.

Environment: `GITLAB_URL`; `VARIABLES_FILE` (/opstella/ci_variables.json, plan/tools/ci.py makes it). Secret:
`gitlab-ci` (token), an administrator's with the scope api.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client import Answer, Client, Failure, Refused, Report, environment, hide, main, secret

MARK = "made by the Opstella stack"
PATH = "/admin/ci/variables"
MASKABLE = re.compile(r"\S{8,}")
"""What GitLab masks of a variable that it does not expand."""


class Variables:
    """What the file wants, and what GitLab has of it. Raises Failure for a variable that is somebody else's."""

    def __init__(self, report: Report) -> None:
        file = Path(environment("VARIABLES_FILE", "/opstella/ci_variables.json"))
        self.wanted: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        self.api = Client(f"{environment('GITLAB_URL')}/api/v4", headers={"PRIVATE-TOKEN": secret("gitlab-ci", "token")})
        self.report = report
        self.now = {key: found for key in self.wanted if (found := self._read(key)) is not None}
        foreign = [key for key, found in self.now.items() if MARK not in (found.get("description") or "")]
        if foreign:
            raise Failure(
                f"GitLab has the CI variable {', '.join(foreign)} that was not made by this stack",
                f"{self.api.base}{PATH}, in the browser Admin, Settings, CI/CD, Variables",
                f"its description does not hold '{MARK}', and pipelines may depend on its value",
                "remove or rename it; or hand it over, and its value will be replaced: write those words into its description",
            )

    def _read(self, key: str) -> dict[str, Any] | None:
        answer = self._ask("GET", f"{PATH}/{key}", also=(404,))
        if answer.status == 404:
            return None
        found: dict[str, Any] = answer.json()
        if found.get("masked"):
            hide(found["value"])
        return found

    def value(self, key: str) -> str | None:
        """What GitLab has; None for nothing."""
        return self.now[key]["value"] if key in self.now else None

    def publish(self, values: Mapping[str, str] | None = None) -> None:
        """Brings every variable about: with the value of the file, or of `values` where that has none."""
        for key, wanted in self.wanted.items():
            value = wanted.get("value") or (values or {})[key]
            if wanted["masked"] and not MASKABLE.fullmatch(hide(value)):
                raise Failure(
                    f"the value of {key} cannot be masked in the logs of pipelines",
                    f"{self.api.base}{PATH}/{key}",
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
            now = self.now.get(key)
            if now is None:
                self._ask("POST", PATH, data={"key": key, **data})
                self.report.did(f"CI variable {key}: made")
            elif changed := [name for name, wish in data.items() if now.get(name) != wish]:
                self._ask("PUT", f"{PATH}/{key}", data=data)
                self.report.did(f"CI variable {key}: {', '.join(changed)}")

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
