"""Makes the runner in GitLab, and keeps its authentication token in a Secret, whence GitLab Runner takes it.

Idempotent: a token that GitLab still accepts, of a runner that was made with the same settings, is left alone.
Otherwise a new runner is made, its token written, and only then the old runner removed, by its own token.

Environment: `GITLAB_URL`; `RUNNER`, a JSON file (runner.json beside this): `runner`, the fields of
`POST /user/runners`, `namespace` and `secret`, where the token goes, under the keys that the chart reads. Secret:
`gitlab` (token).
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from client import Client, Failure, Refused, Report, environment, hide, main, secret
from vault_api import Kubernetes, keep

MADE_WITH = "opstella.io/runner"
"""Annotation: a hash of the fields that the runner was made with, and of the GitLab that made it."""
TOKEN = "runner-token"
REGISTRATION = "runner-registration-token"  # the chart wants this key too; empty since GitLab has done away with it


class Runners:
    """GitLab's API for runners."""

    def __init__(self, base: str) -> None:
        self.api = Client(f"{base}/api/v4")
        self._access = {"PRIVATE-TOKEN": secret("gitlab", "token")}

    def accepts(self, token: str) -> bool:
        """Whether `token` is that of a runner of this GitLab."""
        return self.api.request("POST", "/runners/verify", data={"token": token}, also=(403,)).status != 403

    def make(self, fields: dict[str, Any]) -> str:
        """A new runner's token."""
        try:
            made = self.api.post("/user/runners", fields, headers=self._access)
        except Refused as refused:
            if refused.status not in (401, 403):
                raise
            raise Failure(
                "GitLab refuses the token by which runners are made",
                f"POST {self.api.base}/user/runners",
                refused.why,
                "run pulumi up: it renews the platform's tokens; with one that was revoked, say --replace with the URN"
                " of its password (gitlab-runners)",
            ) from None
        return hide(made["token"])

    def remove(self, token: str) -> None:
        """The runner of `token` is gone afterwards, also if it was before."""
        self.api.request("DELETE", "/runners", data={"token": token}, also=(403, 404))


def run(report: Report) -> None:
    file = Path(environment("RUNNER", str(Path(__file__).with_name("runner.json"))))
    wanted = json.loads(file.read_text(encoding="utf-8"))
    namespace, name, fields = wanted["namespace"], wanted["secret"], wanted["runner"]
    url = environment("GITLAB_URL")
    runners, kubernetes = Runners(url), Kubernetes()
    made_with = hashlib.sha256(json.dumps([url, fields], sort_keys=True).encode()).hexdigest()
    known = kubernetes.read(namespace, name) or {}
    held = (known.get("data") or {}).get(TOKEN)
    token = hide(base64.b64decode(held).decode()) if held else None
    same = (known.get("metadata", {}).get("annotations") or {}).get(MADE_WITH) == made_with
    accepted = token is not None and runners.accepts(token)
    if accepted and same:
        return
    fresh = runners.make(fields)
    try:
        keep(kubernetes, namespace, name, {MADE_WITH: made_with}, {TOKEN: fresh, REGISTRATION: ""})
    except Failure:
        runners.remove(fresh)  # nobody would ever know its token
        raise
    report.did(f"runner '{fields['description']}': made, its token is in the Secret {name}")
    if accepted and token:
        runners.remove(token)
        report.did("the former runner: removed")


if __name__ == "__main__":
    sys.exit(main(run))
