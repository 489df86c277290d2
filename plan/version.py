"""What is recorded of one version that this project installs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

CHOSEN = date(2026, 11, 20)  # when every row that says nothing else was chosen


@dataclass(frozen=True, kw_only=True)
class Version:
    """One piece of software: `version` as its installer takes it, `released` by its tag (None
    where that was not read), `source` where it was read."""

    name: str
    version: str
    released: date | None
    source: str
    support: str
    chosen: date = CHOSEN
    end_of_life: date | None = None


@dataclass(frozen=True, kw_only=True)
class Chart(Version):
    """A Helm chart; `name` is the chart's name in `repository`, `app_version` the software it carries."""

    repository: str
    app_version: str
