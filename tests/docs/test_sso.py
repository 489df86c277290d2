"""The page of single sign-on is what the catalogue declares; the real Keycloak's tests hold its cells."""

from __future__ import annotations

import json

from docs import sso
from plan.tools.realm import GROUPS


def test_the_page_is_made_from_the_catalogue() -> None:
    assert sso.FILE.read_text(encoding="utf-8") == sso.page(sso.reference()), "write it again: python -m docs.sso"


def test_every_client_of_the_realm_has_a_row_and_every_cell_a_word() -> None:
    plan = sso.reference()
    (job,) = (job for r in plan.releases["standalone"] for job in r.jobs if "realm.json" in job.files)
    rows = sso.rows(plan)
    realm = json.loads(job.files["realm.json"])
    # By one client more nobody logs in: its roles are the claim of groups.
    assert sorted(client["representation"]["clientId"] for client in realm["clients"]) == [row.client_id for row in rows]
    assert len(rows) >= 3 and realm["roles_client"]["clientId"] not in {row.client_id for row in rows}
    assert all(set(row.roles) <= set(GROUPS) and row.roles["platform-admins"] for row in rows)
