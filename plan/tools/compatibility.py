"""Versions that a user may pin and that are known not to work here: each with its reason and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import Problem, key
from plan import versions
from plan.tools.model import Release

Numbers = tuple[int, ...]


def numbers(version: str) -> Numbers:
    """The first three numbers of a version, `v1.9.30-rc1` as (1, 9, 30); none for a word such as `latest`."""
    match = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`of` a release for which `when` holds, chart versions that `bad` names do not work. `image` judges, in the same
    way, the tag that the user's values may set at this path."""

    of: str
    bad: Callable[[Numbers], bool]
    reason: str
    remedy: str
    when: Callable[[Release], bool] = lambda release: True
    image: tuple[str, ...] = ()
    bad_image: Callable[[Numbers], bool] = lambda tag: False


RULES: tuple[Rule, ...] = (
    Rule(
        of="keycloak",
        bad=lambda chart: chart < (6, 0, 0),
        image=("image", "tag"),
        bad_image=lambda tag: tag < (26, 0, 0),
        reason="it carries a Keycloak older than 26, which knows neither KC_BOOTSTRAP_ADMIN_USERNAME nor hostname URLs "
        "as this project writes them, so that no realm could be set up",
        remedy=f"take chart 6.0.0 or newer ({versions.KEYCLOAK.version} is what was tested), or remove the key",
    ),
    Rule(
        of="defectdojo",
        when=lambda release: bool(release.clients),
        bad=lambda chart: chart >= (1, 9, 30),
        image=("images", "django", "image", "tag"),
        bad_image=lambda tag: tag >= (3, 0, 0),
        reason="from chart 1.9.30 on it carries DefectDojo 3, whose open-source edition has no single sign-on any more",
        remedy=f"stay at {versions.DEFECTDOJO.version} (DefectDojo {versions.DEFECTDOJO.app_version}), or remove the key",
    ),
)


def check(releases: Sequence[Release]) -> list[Problem]:
    """A problem for each release whose chart, or whose image, is known not to work."""
    problems = []
    for rule in RULES:
        for release in releases:
            if release.name != rule.of or not rule.when(release):
                continue
            if (chart := numbers(release.version)) and rule.bad(chart):
                where = key("tools", release.name, "version")
                problems.append(Problem(where, f"{release.version} does not work: {rule.reason}", rule.remedy))
            tag = _at(release.values, rule.image)
            if isinstance(tag, str) and (image := numbers(tag)) and rule.bad_image(image):
                where = key("tools", release.name, "values", *rule.image)
                problems.append(Problem(where, f"{tag} does not work: {rule.reason}", rule.remedy))
    return problems


def _at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    node: Any = values
    for part in path:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node
