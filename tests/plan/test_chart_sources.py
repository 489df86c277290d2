"""Where charts come from, and what their archives are held to."""

from __future__ import annotations

import pytest

from config.errors import ConfigurationError, Rename
from plan import chart_sources, versions
from plan.plan import Plan
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

DIGEST = f"sha256:{7:064x}"


def pinned(*tools: str, **changes: object) -> Plan:
    return plan_of("standalone", {"media": {"chartDigests": dict.fromkeys(tools, DIGEST)}, **changes})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_is_one_for_every_chart_that_has_an_archive(architecture: str) -> None:
    plan = plan_of(architecture, every_tool())
    releases = [release for of_cluster in plan.releases.values() for release in of_cluster]
    assert {(s.tool, s.chart, s.version, s.repository) for s in plan.charts} == {
        (r.name, r.chart, r.version, r.repository) for r in releases if r.repository
    }
    assert len({source.tool for source in plan.charts}) == len(plan.charts) == len(versions.CHARTS)
    assert {source.digest for source in plan.charts} == {None}


def test_a_digest_is_that_of_its_tool_and_the_file_says_it() -> None:
    held = {source.tool: source for source in pinned("keycloak").charts if source.digest}
    assert set(held) == {"keycloak"}
    assert held["keycloak"].file == f"keycloakx-{versions.KEYCLOAK.version}-sha256-{7:064x}.tgz"
    assert held["keycloak"].setting == "opstella:media.chartDigests.keycloak"


def test_the_releases_do_not_depend_on_digests() -> None:
    assert pinned("harbor").releases == plan_of("standalone").releases


def test_some_without_a_digest_beside_some_with_one_are_told() -> None:
    names = [source.tool for source in plan_of("standalone").charts]
    (warning,) = (w for w in pinned(*names[1:]).warnings if "chartDigests" in w)
    assert f"and not of {names[0]};" in warning and "`./opstella charts`" in warning
    for all_or_none in (pinned(*names), pinned()):
        assert not [w for w in all_or_none.warnings if "chartDigests" in w]


def test_a_name_that_is_taken_is_not_offered() -> None:
    """`mimir-distributed` is mimir's chart; both at once is one too many."""
    with pytest.raises(ConfigurationError) as error:
        pinned("mimir", "mimir-distributed")
    (problem,) = error.value.problems
    assert (
        not [change for change in problem.change.values() if isinstance(change, Rename)] and "remove it" in problem.fix
    )


def test_where_nothing_can_be_planned_no_tool_is_called_missing() -> None:
    assert [*chart_sources.check({}, {"harbor": DIGEST})] == []
