"""How long and how large a request may be, hop by hop from a user to a tool: each limit is chosen, and rendered from here.

An outer hop bears at least what an inner one does, so that whoever refuses says why; what is not in the table is not limited
on the way (Harbor, MinIO and GitLab's Git have no limit of a request's size). tests/plan/test_limits.py reads each one
back from what is rendered, and docs/network.md has the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Limit:
    """`value` is in seconds, MB (10**6 bytes) or MiB (2**20), or a number of requests; 0 seconds: no limit."""

    hop: str
    what: str
    value: int
    unit: Literal["s", "MB", "MiB", "requests a minute", "requests at once"]
    why: str

    @property
    def text(self) -> str:
        """With its unit, as people write it."""
        if self.unit == "s":
            if not self.value:
                return "none"
            return f"{self.value // 3600} h" if self.value % 3600 == 0 else f"{self.value} s"
        return f"{self.value} {self.unit}"


CONNECT = Limit(hop="HAProxy", what="timeout connect", value=1, unit="s", why="a server in the same network answers at once")
IDLE = Limit(
    hop="HAProxy", what="timeout client, timeout server", value=3600, unit="s",
    why="silence, not length: watches of the API, terminals and pushed logs are silent for long",
)  # fmt: skip
DRAIN = Limit(
    hop="HAProxy", what="hard-stop-after", value=600, unit="s",
    why="after a reload the old process lets its connections end; longer ones are cut",
)  # fmt: skip
REQUEST = Limit(
    hop="Traefik", what="respondingTimeouts.readTimeout", value=6 * 3600, unit="s",
    why="the whole request with its body: an image layer or a backup over a slow line; 8 GB take 6 h at 3 Mbit/s",
)  # fmt: skip
RESPONSE = Limit(
    hop="Traefik", what="respondingTimeouts.writeTimeout", value=0, unit="s",
    why="downloads, followed logs and WebSockets last as long as they are wanted",
)  # fmt: skip
KEEP_ALIVE = Limit(
    hop="Traefik", what="respondingTimeouts.idleTimeout", value=180, unit="s",
    why="between two requests of a connection; less than HAProxy's, so that HAProxy never cuts one that is about to be used",
)  # fmt: skip
LOGIN_RATE = Limit(
    hop="Traefik", what="rate of log-ins at Keycloak, by client address", value=30, unit="requests a minute",
    why="an account is locked after 30 failures in a row: one address needs more than a minute for that, and is in the log. Divided "
    "among the workers, at least 6 each, for each Traefik counts for itself",
)  # fmt: skip
LOGIN_BURST = Limit(
    hop="Traefik", what="burst of log-ins at Keycloak, by client address", value=20, unit="requests at once",
    why="an office behind one address that begins its day; divided among the workers, at least 5 each",
)  # fmt: skip
GITLAB_BODY = Limit(
    hop="GitLab's nginx", what="client_max_body_size", value=250, unit="MiB",
    why="attachments and imports by the browser; Git, LFS, packages and artifacts are exempt in GitLab's own configuration",
)  # fmt: skip
GITLAB_READ = Limit(
    hop="GitLab's nginx", what="proxy_read_timeout", value=3600, unit="s",
    why="a clone of a large repository is silent while it is packed; no longer than HAProxy would wait elsewhere",
)  # fmt: skip
METRICS_BODY = Limit(
    hop="Mimir's nginx", what="client_max_body_size", value=100, unit="MiB",
    why="one push of metrics, which Mimir itself takes up to 100 MiB",
)  # fmt: skip
SCAN_FILE = Limit(
    hop="DefectDojo", what="DD_SCAN_FILE_MAX_SIZE", value=100, unit="MB",
    why="one report of a scanner; larger ones take the pod's memory when they are parsed",
)  # fmt: skip

TABLE = (
    CONNECT, IDLE, DRAIN, REQUEST, RESPONSE, KEEP_ALIVE, LOGIN_RATE, LOGIN_BURST, GITLAB_BODY, GITLAB_READ, METRICS_BODY, SCAN_FILE,
)  # fmt: skip


def as_markdown() -> str:
    """The table, a row a limit."""
    rows = "".join(f"| {one.hop} | {one.what} | {one.text} | {one.why} |\n" for one in TABLE)
    return f"| where | limit | | why |\n|---|---|---|---|\n{rows}"
