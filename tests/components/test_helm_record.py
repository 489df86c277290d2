"""Helm's records of an interrupted run: which go, which stay, and that every release asks."""

from __future__ import annotations

from typing import Any

import pytest

from components import helm_record
from tests.support.platform import reference

RELEASE = "kubernetes:helm.sh/v3:Release"


class Cluster:
    """Stands in for an API server that holds one namespace and Helm's records in it."""

    def __init__(self, owner: str | None, *statuses: str) -> None:
        self.labels = {} if owner is None else {helm_record.OWNER_LABEL: owner}
        self.records = {f"sh.helm.release.v1.traefik.v{n}": status for n, status in enumerate(statuses, 1)}
        self.asked: list[str] = []

    def request(self, method: str, path: str) -> dict[str, Any] | None:
        self.asked.append(f"{method} {path}")
        if method == "DELETE":
            del self.records[path.rpartition("/")[2]]
            return {}
        if path == "/api/v1/namespaces/traefik":
            return {"metadata": {"labels": self.labels}}
        if path == "/api/v1/namespaces/traefik/secrets?labelSelector=owner%3Dhelm,name%3Dtraefik":
            return {"items": [{"metadata": {"name": n, "labels": {"status": s}}} for n, s in self.records.items()]}
        return None


@pytest.mark.parametrize(
    ("owner", "statuses", "pending_only", "left"),
    [
        ("opstella", ["pending-install"], False, []),
        # Made, but the engine died before it wrote that down.
        ("opstella", ["deployed"], False, []),
        ("opstella", ["deployed", "pending-upgrade"], True, ["deployed"]),
        ("opstella", ["superseded", "deployed"], True, ["superseded", "deployed"]),
        ("somebody", ["pending-install"], False, ["pending-install"]),
        (None, ["pending-install"], False, ["pending-install"]),
        ("opstella", [], False, []),
    ],
)
def test_only_what_an_interrupted_run_left_goes(
    monkeypatch: pytest.MonkeyPatch, owner: str | None, statuses: list[str], pending_only: bool, left: list[str]
) -> None:
    cluster = Cluster(owner, *statuses)
    monkeypatch.setattr(helm_record, "_requests", lambda kubeconfig: cluster.request)
    removed = helm_record.clear("kubeconfig", "traefik", "traefik", pending_only=pending_only)
    assert list(cluster.records.values()) == left
    assert len(removed) == len(statuses) - len(left)
    assert all("Helm's record traefik/sh.helm.release.v1.traefik.v" in line for line in removed)


def test_a_namespace_that_is_not_there_is_nothing_to_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster("opstella", "pending-install")
    monkeypatch.setattr(helm_record, "_requests", lambda kubeconfig: cluster.request)
    assert helm_record.clear("kubeconfig", "elsewhere", "traefik", pending_only=False) == []
    assert cluster.asked == ["GET /api/v1/namespaces/elsewhere"]


def test_every_release_asks_before_it_is_made_and_before_it_is_changed() -> None:
    releases = reference("standalone").of_type(RELEASE)
    assert releases
    for release in releases:
        assert release.request.hooks.before_create[0] == "standalone-tools-helm-record-before-create"
        assert release.request.hooks.before_update[0] == "standalone-tools-helm-record-before-update"
