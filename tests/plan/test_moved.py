"""One line moves a tool: records, logins, what others send to it and what it reads follow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from config.errors import ConfigurationError
from plan.plan import Plan
from plan.tools import agents, readers
from plan.tools.model import Release
from plan.tools.needs import PUBLIC
from plan.tools.sources import Generated
from tests.plan.stacks import plan

DOMAIN = "devops.example.com"


def moved(**tools: list[str]) -> Plan:
    return plan("multicluster", tools={name: {"clusters": places} for name, places in tools.items()})


def release(stack: Plan, cluster: str, name: str) -> Release:
    return next(r for r in stack.releases[cluster] if r.name == name)


def carrying(stack: Plan, name: str) -> list[str]:
    return [cluster for cluster, releases in stack.releases.items() if any(r.name == name for r in releases)]


def bodies(found: Release, kind: str) -> dict[str, Any]:
    return {m.body["metadata"]["name"]: m.body for m in (*found.before, *found.after) if m.body["kind"] == kind}


GRAFANA = moved(grafana=["devsecops"])
HERE = release(plan("multicluster"), "observability", "grafana")
THERE = release(GRAFANA, "devsecops", "grafana")


def test_grafana_moves_with_its_name_and_its_login() -> None:
    assert carrying(GRAFANA, "grafana") == ["devsecops"]
    balancer = next(c for c in GRAFANA.topology.clusters if c.name == "devsecops").entrance
    (record,) = (r for r in GRAFANA.records if r.service == "grafana")
    assert (record.name, record.address, record.cluster) == (f"grafana.{DOMAIN}", balancer, "devsecops")
    assert THERE.clients == HERE.clients
    users = {s.name: s for s in release(GRAFANA, "devsecops", "keycloak").secrets}["keycloak-clients"].data
    # Its client's secret is one of the cluster it lives in now.
    assert users["grafana"] == Generated(password="client-grafana")
    assert users["oauth2-proxy"] == Generated(password="client-oauth2-proxy", cluster="observability")


def test_a_grafana_elsewhere_reads_the_stores_by_a_door_of_its_own() -> None:
    def sources(found: Release) -> dict[str, Any]:
        return {s["uid"]: s for s in found.values["datasources"]["datasources.yaml"]["datasources"]}

    near, far = sources(HERE), sources(THERE)
    assert set(near) == {"mimir", "loki", "tempo", "alertmanager"}
    assert {uid: s["url"] for uid, s in far.items()} == {
        "mimir": f"https://mimir.{DOMAIN}/readers/prometheus",
        "loki": f"https://loki.{DOMAIN}/readers",
        "tempo": f"https://tempo.{DOMAIN}/readers",
    }
    secret = {s.name: s for s in THERE.secrets}["grafana-readers"].data
    for uid, source in far.items():
        assert (source["basicAuth"], source["basicAuthUser"]) == (True, "grafana")
        variable = source["secureJsonData"]["basicAuthPassword"].removeprefix("$")
        assert THERE.values["envValueFrom"][variable] == {
            "secretKeyRef": {"name": "grafana-readers", "key": variable}
        }
        store = release(GRAFANA, "observability", uid)
        assert secret[variable] == Generated(password=f"{uid}-readers", cluster="observability")
        assert f"{uid}-readers" in {p.name for p in store.passwords}
        # Who reads is a tenant's reader as before.
        assert source["secureJsonData"]["httpHeaderValue1"] == near[uid]["secureJsonData"]["httpHeaderValue1"]
    assert THERE.values["env"]["SSL_CERT_DIR"].split(":")[-1] == "/etc/opstella/ca"
    assert any(flow.peer == PUBLIC and 443 in flow.ports for flow in THERE.flows)


@pytest.mark.parametrize("store", ["loki", "mimir", "tempo"])
def test_the_readers_door(store: str) -> None:
    """A path that is taken off before the store sees it, behind a password; people's paths stay people's."""
    found = release(GRAFANA, "observability", store)
    route = bodies(found, "IngressRoute")["readers"]
    # Which only read: tests/plan/test_reading.py.
    assert route["spec"]["entryPoints"] == ["websecure"]
    for way in route["spec"]["routes"]:
        assert way["match"].startswith(f"Host(`{store}.{DOMAIN}`) && ")
        assert set(re.findall(r"PathPrefix\(`(/[^/`]+)", way["match"])) == {readers.PATH}
        # Asked for the password first.
        assert [m["name"] for m in way["middlewares"]] == ["readers", "readers-path"]
    middlewares = bodies(found, "Middleware")
    assert middlewares["readers"]["spec"]["basicAuth"]["secret"] == "readers"
    assert middlewares["readers-path"]["spec"] == {"stripPrefix": {"prefixes": [readers.PATH]}}
    near = release(plan("multicluster"), "observability", store)
    assert "readers" not in bodies(near, "Middleware") and f"{store}-readers" not in {p.name for p in near.passwords}


def test_agents_send_to_where_loki_is_now() -> None:
    stack = moved(loki=["devsecops"])
    door = bodies(release(stack, "devsecops", "loki"), "Ingress")[agents.NAME]
    assert door["spec"]["rules"][0]["host"] == f"loki.{DOMAIN}"
    for cluster in ("observability", "dev", "prd"):
        keys = next(s for s in release(stack, cluster, "alloy").secrets if "loki" in s.data).data
        assert keys["loki"] == Generated(password=agents.password("loki", cluster), cluster="devsecops")
    # Each of the two clusters with a store has a login of its own for people.
    clients = {c: release(stack, c, "oauth2-proxy").clients[0] for c in ("devsecops", "observability")}
    assert {c: client.client_id for c, client in clients.items()} == {
        "devsecops": "oauth2-proxy-devsecops", "observability": "oauth2-proxy-observability",
    }  # fmt: skip
    assert clients["devsecops"].redirect_uris == (f"https://loki.{DOMAIN}/oauth2/callback",)


def test_a_store_without_an_object_store_beside_it_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        moved(loki=["prd"])
    (problem,) = caught.value.problems
    assert problem.key == "opstella:tools.minio.clusters"
    assert problem.what.startswith("loki stands in prd and keeps its data in an object store beside it")
    assert carrying(moved(loki=["prd"], minio=["devsecops", "observability", "prd"]), "loki") == ["prd"]


def test_an_agent_left_out_of_a_cluster_whose_tools_need_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan("multicluster", tools={"csi-driver-nfs": {"clusters": ["devsecops", "dev", "prd"]}})
    (problem,) = caught.value.problems
    assert problem.key == "opstella:tools.csi-driver-nfs.clusters"
    assert "loki, mimir, tempo and grafana in cluster observability need csi-driver-nfs there" in problem.what
    assert problem.fix.startswith("add observability to it, or place elsewhere what needs it")


def test_support_follows_the_tools_that_need_it() -> None:
    stack = plan("multicluster")
    assert carrying(stack, "cloudnative-pg") == ["devsecops", "observability"]
    assert carrying(stack, "valkey") == ["devsecops"]
    stack = moved(keycloak=["prd"])
    assert carrying(stack, "cloudnative-pg") == ["devsecops", "observability", "prd"]
    assert stack.issuer == f"https://opstella-idp.{DOMAIN}/realms/opstella"
