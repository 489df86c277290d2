"""What is read from a cluster's hosts and from the engine's words."""

from __future__ import annotations

from chaos.cluster import down
from chaos.engine import at_work, helm_records

HEAD = "# pxname,svname,qcur,status\n"


def test_a_backend_that_haproxy_does_not_call_up_is_named() -> None:
    rows = "api,FRONTEND,,OPEN\napi,master-1,0,UP\napi,master-2,0,DOWN\napi,master-3,0,UP 1/2\napi,BACKEND,0,UP\n"
    assert down(HEAD + rows) == ["api/master-2 is DOWN"]


def test_haproxy_that_says_nothing_is_not_well() -> None:
    assert down("") == down(HEAD) == ["HAProxy gives no statistics"]


UP = """\
Updating (small):
 +  tls:index:PrivateKey pki-root creating (0s)
 +  tls:index:PrivateKey pki-root created (0.9s)
 ~  command:remote:Command small-nodes-master-1-rke2 updating (0s)
 +  command:remote:Command gitlab-omnibus creating (0s)
"""


def test_what_was_at_work_when_the_engine_died() -> None:
    assert at_work(UP) == "small-nodes-master-1-rke2 and 1 more"
    assert at_work(UP + " +  command:remote:Command gitlab-omnibus created (9s)\n") == "small-nodes-master-1-rke2"
    assert at_work("".join(UP.splitlines(keepends=True)[:3])) == "between two resources"
    assert at_work("") == "before the first resource"


def test_records_of_helm_are_counted_by_release_and_state() -> None:
    def record(name: str, status: str) -> dict[str, object]:
        return {"metadata": {"labels": {"owner": "helm", "name": name, "status": status}}}

    found = helm_records(
        [record("a", "superseded"), record("a", "deployed"), record("b", "pending-install"), {"metadata": {}}]
    )
    assert found == {"a": {"superseded": 1, "deployed": 1}, "b": {"pending-install": 1}}
