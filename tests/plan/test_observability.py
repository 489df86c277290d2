"""Logs, metrics, traces and alerts: that what is sent arrives where it is asked for, and names agree on both sides."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from config.services import Alerts, Mail
from plan.tools import agents, alloy, alloy_config, grafana, kube_prometheus_stack, loki, mimir, telemetry, tempo
from plan.tools.alloy_syntax import Block, Expression, render
from plan.tools.grafana_sources import TRACE_ID, data_sources
from plan.tools.model import Generated, Given, Htpasswd, Override, Release, ToolInputs
from tests.support.api_server import artifact

DOMAIN = "devops.example.com"
STORES = ("loki", "tempo", "mimir")
HOSTS = {key: f"{key}.{DOMAIN}" for key in (*STORES, "grafana", "keycloak")}
MODULES = (loki, tempo, mimir, grafana, alloy, kube_prometheus_stack)
INPUTS = ToolInputs(
    domain=DOMAIN,
    hosts=HOSTS,
    all_hosts=HOSTS,
    nfs_server="192.168.72.13",
    nfs_path="/srv/nfs",
    masters=("192.168.72.15",),
    present=frozenset({*STORES, "grafana", "alloy", "kube-prometheus-stack", "minio", "traefik"}),
)
MAIL = Mail(
    smarthost="mail.example.com:587", sender="alerts@example.com", to=("ops@example.com", "on-call@example.com"),
    username="alerts", password="mail-password",
)  # fmt: skip
LOUD = replace(INPUTS, alerts=Alerts(webhook="alert-webhook", mail=MAIL))
# A cluster whose logs, metrics and traces another one keeps.
FAR = replace(
    INPUTS,
    cluster="dev",
    clusters=("dev", "observability"),
    places=dict.fromkeys(STORES, "observability"),
    hosts={"keycloak": HOSTS["keycloak"]},
    present=frozenset({"alloy", "kube-prometheus-stack"}),
)


def release(module: Any, inputs: ToolInputs = INPUTS) -> Release:
    made: Release = module.TOOL.release(inputs)
    return made


def sources(inputs: ToolInputs = INPUTS) -> dict[str, dict[str, Any]]:
    return {source["uid"]: source for source in data_sources(inputs)}


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


# --- tenants and addresses ---


def test_agents_send_their_clusters_name_as_tenant() -> None:
    text = alloy_config.configuration(replace(INPUTS, cluster="prd", clusters=("prd", "dev")))
    assert 'tenant_id = "prd"' in text  # Loki
    assert text.count('"X-Scope-OrgID" = "prd"') == 2  # Mimir and Tempo
    assert re.search(r'mimir\.rules\.kubernetes "all" {[^}]*tenant_id\s+= "prd"', text)
    assert not re.search(r'(tenant_id|X-Scope-OrgID)"?\s+= "(?!prd")', text)


def test_grafana_reads_the_tenants_that_all_clusters_write() -> None:
    clusters = ("prd", "dev", "devsecops", "observability")
    inputs = replace(INPUTS, cluster="observability", clusters=clusters)
    for uid in STORES:
        source = sources(inputs)[uid]
        assert source["jsonData"]["httpHeaderName1"] == telemetry.TENANT_HEADER
        assert set(source["secureJsonData"]["httpHeaderValue1"].split("|")) == set(clusters)


def test_the_stores_tell_tenants_apart_and_answer_for_several() -> None:
    assert release(loki).values["loki"]["auth_enabled"] is True
    assert release(loki).values["loki"]["querier"]["multi_tenant_queries_enabled"] is True
    assert release(tempo).values["tempo"]["multitenancyEnabled"] is True
    configuration = release(mimir).values["mimir"]["structuredConfig"]
    assert configuration["tenant_federation"] == {"enabled": True}
    assert configuration.get("multitenancy_enabled", True) is True


def test_what_is_near_is_written_to_and_read_inside_of_the_cluster() -> None:
    text = alloy_config.configuration(INPUTS)
    written = {
        "loki": re.search(r'"(http://[^"]+)/loki/api/v1/push"', text),
        "mimir": re.search(r'"(http://[^"/]+)/api/v1/push"', text),
    }
    for uid, found in written.items():
        assert found and found.group(1) == telemetry.service(uid)  # type: ignore[arg-type]
        # What is read goes by another way than what is written: tests/plan/test_reading.py.
        assert sources()[uid]["url"].startswith(f"http://traefik-read-{uid}.traefik.svc.cluster.local:")
    assert "https://" not in text and "tls" not in text


def test_what_is_far_is_written_to_by_its_name_with_a_password_and_the_platforms_authority() -> None:
    text = alloy_config.configuration(FAR)
    for url in ("loki", "mimir", "tempo"):
        assert f'"https://{HOSTS[url]}' in text
    assert text.count('ca_file = "/etc/opstella/ca/ca.crt"') == 4  # the rules go to Mimir too
    assert ".svc.cluster.local" not in text
    files = set(re.findall(rf'= "{agents.FOLDER}/(\w+)"', text))
    (secret,) = release(alloy, FAR).secrets
    assert files == set(secret.data) == set(STORES)
    for store, source in secret.data.items():
        assert source == Generated(password=f"{store}-agents-dev", cluster="observability")
    assert text.count('username      = "dev"') + text.count('username = "dev"') == 4
    volumes = {v["name"]: v for v in release(alloy, FAR).values["controller"]["volumes"]["extra"]}
    mounts = {m["name"]: m for m in release(alloy, FAR).values["alloy"]["mounts"]["extra"]}
    assert volumes["agents"]["secret"]["secretName"] == secret.name
    assert mounts["agents"]["mountPath"] == agents.FOLDER
    assert release(alloy).secrets == ()


@pytest.mark.parametrize("module", [loki, tempo, mimir], ids=lambda m: m.NAME)
def test_a_store_lets_other_clusters_agents_in_where_they_write_each_as_itself(module: Any) -> None:
    several = replace(INPUTS, cluster="observability", clusters=("dev", "observability", "prd"))
    made = release(module, several)
    (secret,), passwords = made.secrets, {password.name for password in made.passwords}
    logins = {cluster: f"{made.name}-agents-{cluster}" for cluster in ("dev", "prd")}
    assert secret.data == {"users": Htpasswd(passwords=logins)} and passwords == set(logins.values())
    middleware, ingress = (manifest.body for manifest in made.after if manifest.body["kind"] != "IngressRoute")
    login = middleware["spec"]["basicAuth"]
    assert login["secret"] == secret.name and login["removeHeader"] is True
    # The door says whose it is. In any other spelling, Traefik would set a second header beside the client's own.
    assert login["headerField"].lower() == telemetry.TENANT_HEADER.lower()
    assert login["headerField"] == "-".join(part.capitalize() for part in telemetry.TENANT_HEADER.split("-"))
    (annotation,) = ingress["metadata"]["annotations"].values()
    assert annotation == f"{made.namespace}-{middleware['metadata']['name']}@kubernetescrd"
    (rule,) = ingress["spec"]["rules"]
    assert rule["host"] == made.host
    opened = {path["path"] for path in rule["http"]["paths"]}
    text = alloy_config.configuration(FAR)
    written = set(re.findall(rf'"https://{re.escape(made.host or "")}(/[^"]+)"', text))
    # Alloy puts the path of traces and of rules behind the address itself.
    assert written | {"/v1/traces", "/prometheus/config/v1/rules"} >= opened >= written
    assert opened and "/" not in opened
    alone = release(module)
    assert (alone.secrets, alone.passwords, [m.body["kind"] for m in alone.after]) == ((), (), ["IngressRoute"])


def test_what_is_switched_off_for_the_platform_is_not_written_to() -> None:
    off = replace(FAR, overrides={"loki": Override(enabled=False)})
    assert "loki." not in alloy_config.configuration(off)
    assert set(release(alloy, off).secrets[0].data) == {"mimir", "tempo"}


def test_what_nobody_keeps_is_not_collected() -> None:
    nowhere = replace(FAR, places={})
    assert alloy_config.configuration(nowhere) == 'logging {\n\tlevel  = "info"\n\tformat = "logfmt"\n}\n'
    only_logs = alloy_config.configuration(replace(INPUTS, present=frozenset({"loki"})))
    assert "loki.source.file" in only_logs and "prometheus" not in only_logs and "tempo" not in only_logs


def test_every_component_that_is_referred_to_is_there() -> None:
    for inputs in (INPUTS, FAR, *(replace(INPUTS, present=INPUTS.present - {store}) for store in STORES)):
        text = alloy_config.configuration(inputs)
        made = {f"{kind}.{label}" for kind, label in re.findall(r'^([a-z_.0-9]+) "(\w+)" {', text, re.MULTILINE)}
        used = set(
            re.findall(r"((?:[a-z_0-9]+\.){2,4})(?:receiver|input|targets|output|rules|content|handler)\b", text)
        )
        assert {name.rstrip(".") for name in used} <= made
        assert (
            len(made) == len(re.findall(r"^[a-z_.0-9]+ .*{", text, re.MULTILINE)) - 1
        )  # no name twice; logging has none


def test_what_all_have_in_common_is_shared_out() -> None:
    text = alloy_config.configuration(INPUTS)
    for component in ("loki.source.kubernetes_events", "prometheus.operator.servicemonitors"):
        block = text[text.index(f'{component} "') :].split("\n}\n")[0]
        assert "clustering {\n\t\tenabled = true" in block
    assert release(alloy).values["alloy"]["clustering"]["enabled"] is True


def test_alloy_runs_on_every_node_and_keeps_its_state_there() -> None:
    values = release(alloy).values
    assert values["controller"]["tolerations"] == [{"operator": "Exists"}]
    (state,) = [v for v in values["controller"]["volumes"]["extra"] if v["name"] == "state"]
    assert state["hostPath"]["path"] == values["alloy"]["storagePath"]
    assert release(alloy).pod_security == "privileged"
    assert "{{" not in values["alloy"]["configMap"]["content"]  # the chart would take it for a template


def test_texts_of_alloys_language() -> None:
    inner = Block("inner", None, {"list": ("a", 1, True), "map": {'say "x"': Expression('sys.env("Y")')}})
    assert render((Block("outer", "label", {"longer": "a\nb", "b": False}, (inner,)), Block("empty"))) == (
        'outer "label" {\n\tlonger = "a\\nb"\n\tb      = false\n\n'
        '\tinner {\n\t\tlist = ["a", 1, true]\n\t\tmap  = {\n\t\t\t"say \\"x\\"" = sys.env("Y"),\n\t\t}\n\t}\n}\n'
        "\nempty { }\n"
    )


@pytest.mark.toolchain
@pytest.mark.parametrize("inputs", [INPUTS, FAR], ids=["near", "far"])
def test_alloys_own_parser_reads_the_configuration(inputs: ToolInputs) -> None:
    def parse(text: str) -> subprocess.CompletedProcess[str]:
        program = artifact("alloy-syntax") / "bin/alloy-syntax"
        return subprocess.run([program], input=text, capture_output=True, text=True, timeout=30, check=False)

    text = alloy_config.configuration(inputs)
    run = parse(text)
    assert run.returncode == 0, run.stderr
    broken = parse(text.replace("forward_to = [", "forward_to = ", 1))
    assert broken.returncode == 1 and "config.alloy:" in broken.stderr


# --- the object store ---


def test_every_use_has_its_own_bucket_and_every_store_its_own_credential() -> None:
    used = [release(m) for m in (loki, tempo, mimir)]
    buckets = [b.name for r in used for access in r.storage for b in access.buckets]
    assert len(buckets) == len(set(buckets))
    assert len({access.user for r in used for access in r.storage}) == len(used)
    named = {text for r in used for text in leaves(r.values) if isinstance(text, str)}
    assert set(buckets) <= named
    for one in used:
        own = {b.name for access in one.storage for b in access.buckets}
        assert not (set(buckets) - own) & {text for text in leaves(one.values) if isinstance(text, str)}


@pytest.mark.parametrize("module", [loki, tempo, mimir], ids=lambda m: m.NAME)
def test_credentials_come_from_the_environment(module: Any) -> None:
    made = release(module)
    (access,) = made.storage
    text = yaml.safe_dump(made.values)
    for variable in (access.access_key, access.secret_key):
        assert f"${{{variable}}}" in text
    assert "secretRef:\n" in text and text.count(f"name: {access.secret}\n") >= 1
    if module is tempo:  # the other two charts do so by themselves
        assert made.values["tempo"]["extraArgs"] == {"config.expand-env": "true"}


# --- Mimir ---


def test_mimir_does_without_kafka() -> None:
    values = release(mimir).values
    configuration = values["mimir"]["structuredConfig"]
    assert values["kafka"]["enabled"] is False
    assert configuration["ingest_storage"]["enabled"] is False
    assert configuration["ingester"]["push_grpc_method_enabled"] is True


@pytest.mark.parametrize(("replicas", "ingesters"), [(1, 1), (2, 3), (3, 3), (5, 5)])
def test_a_sample_is_never_on_more_ingesters_than_there_are(replicas: int, ingesters: int) -> None:
    values = release(mimir, replace(INPUTS, replicas=replicas)).values
    factor = values["mimir"]["structuredConfig"]["ingester"]["ring"]["replication_factor"]
    assert values["ingester"]["replicas"] == ingesters and factor == min(ingesters, 3)


def test_workloads_are_as_large_as_the_values_say() -> None:
    for inputs in (INPUTS, replace(INPUTS, replicas=3)):
        made = release(mimir, inputs)
        for workload in made.workloads:
            part = made.values[workload.name.removeprefix("mimir-").replace("-", "_")]
            assert part["replicas"] == workload.replicas
            assert part["resources"]["requests"] == {"cpu": workload.cpu, "memory": workload.memory}


# --- Grafana ---


def test_data_sources_lead_to_one_another() -> None:
    found = sources()
    assert [s["uid"] for s in found.values() if s["isDefault"]] == ["mimir"]
    fields = found["loki"]["jsonData"]["derivedFields"]
    tempo_data, mimir_data = found["tempo"]["jsonData"], found["mimir"]["jsonData"]
    assert {field["datasourceUid"] for field in fields} == {"tempo"}
    assert tempo_data["tracesToLogsV2"]["datasourceUid"] == "loki"
    assert tempo_data["tracesToMetrics"]["datasourceUid"] == tempo_data["serviceMap"]["datasourceUid"] == "mimir"
    assert {e["datasourceUid"] for e in mimir_data["exemplarTraceIdDestinations"]} == {"tempo"}
    assert mimir_data["alertmanagerUid"] == "alertmanager"
    generator = release(tempo).values["tempo"]
    assert generator["metricsGenerator"]["storage"]["remote_write"][0]["send_exemplars"] is True
    assert generator["overrides"]["defaults"]["metrics_generator"]["processors"] == ["service-graphs", "span-metrics"]


@pytest.mark.parametrize("gone", [*STORES, "kube-prometheus-stack"])
def test_no_data_source_leads_to_one_that_is_not_there(gone: str) -> None:
    found = sources(replace(INPUTS, present=INPUTS.present - {gone}))
    missing = {"loki", "tempo", "mimir", "alertmanager"} - set(found)
    assert missing
    named = {value for source in found.values() for key, value in _pairs(source) if key.endswith("Uid")}
    assert not named & missing


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _pairs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)


@pytest.mark.parametrize(
    "line",
    [
        "level=info trace_id=0af7651916cd43dd8448eb211c80319c msg=x",
        '{"traceID": "0af7651916cd43dd8448eb211c80319c"}',
        "traceId: 0af7651916cd43dd8448eb211c80319c",
    ],
)
def test_a_trace_is_found_in_a_log_line(line: str) -> None:
    found = re.search(TRACE_ID, line)
    assert found and found.group(1) == "0af7651916cd43dd8448eb211c80319c"


def test_grafana_takes_what_is_provisioned_for_no_template_and_no_variable() -> None:
    text = yaml.safe_dump(release(grafana).values["datasources"])
    assert "{{" not in text  # the chart renders it
    assert not re.search(r"(?<!\$)\$(?!\$)[{_a-zA-Z]", text)  # Grafana would ask its environment


def test_groups_become_roles_the_most_powerful_first() -> None:
    login = release(grafana).values["grafana.ini"]["auth.generic_oauth"]
    (client,) = release(grafana).clients
    path = login["role_attribute_path"]
    assert [path.index(group) for group in ("platform-admins", "developers", "viewers")] == sorted(
        path.index(group) for group in client.roles
    )
    for group, role in client.roles.items():
        assert f"contains(groups[*], '{group}') && '{role}'" in path
    assert login["role_attribute_strict"] is True and login["client_id"] == client.client_id
    assert client.redirect_uris == (f"https://{HOSTS['grafana']}/login/generic_oauth",)
    assert login["use_pkce"] is client.pkce is True
    assert login["auth_url"].startswith(f"https://{HOSTS['keycloak']}/realms/opstella/")


def test_what_grafana_keeps_is_in_its_database() -> None:
    made = release(grafana)
    (database,) = made.databases
    configured = made.values["grafana.ini"]["database"]
    assert configured["host"] == f"{database.name}-rw:5432"
    assert (configured["name"], configured["user"]) == (database.database, database.owner)
    assert made.values["persistence"]["enabled"] is False
    assert made.values["envValueFrom"]["GF_DATABASE_PASSWORD"]["secretKeyRef"]["name"] == f"{database.name}-owner"


@pytest.mark.parametrize("name", sorted(grafana.dashboards()))
def test_a_dashboard_is_whole_and_asks_data_sources_that_exist(name: str) -> None:
    dashboard = json.loads(grafana.dashboards()[name])
    assert dashboard["uid"] == f"opstella-{name.removesuffix('.json')}"
    assert dashboard["schemaVersion"] >= 39 and dashboard["title"]
    panels, variables = dashboard["panels"], dashboard["templating"]["list"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    known = {variable["name"] for variable in variables}
    kinds = {uid: source["type"] for uid, source in sources().items()}
    for part in (*panels, *(t for p in panels for t in p["targets"]), *(v for v in variables if v["type"] == "query")):
        assert kinds[part["datasource"]["uid"]] == part["datasource"]["type"]
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert panel["title"] and len({t["refId"] for t in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            expression = target["expr"]
            assert 'cluster="$cluster"' in expression
            assert set(re.findall(r"\$([a-z]\w*)", expression)) <= known
            for opened, closed in ("()", "[]", "{}"):
                assert expression.count(opened) == expression.count(closed)


@pytest.mark.toolchain
def test_prometheus_own_parser_reads_what_dashboards_ask() -> None:
    asked = [
        re.sub(r"\$[a-z]\w*", "x", target["expr"].replace("$__rate_interval", "5m"))
        for text in grafana.dashboards().values()
        for panel in json.loads(text)["panels"]
        for target in panel["targets"]
        if target["datasource"]["uid"] == "mimir"
    ]
    assert len(asked) > 30
    run = judge("promql", "\n".join(asked))
    assert run.returncode == 0, run.stderr
    broken = judge("promql", asked[0].replace("(", "", 1))
    assert broken.returncode == 1 and "parse error" in broken.stderr


def judge(what: str, text: str) -> subprocess.CompletedProcess[str]:
    program = artifact("rule-check") / "bin/rule-check"
    return subprocess.run([program, what], input=text, capture_output=True, text=True, timeout=30, check=False)


def test_dashboards_fit_into_one_config_map_that_grafana_mounts() -> None:
    made = release(grafana)
    (manifest,) = made.before
    size = sum(len(text.encode()) for text in manifest.body["data"].values())
    assert size < 900_000  # Kubernetes refuses a ConfigMap of a mebibyte
    (provider,) = made.values["dashboardProviders"]["dashboardproviders.yaml"]["providers"]
    assert made.values["dashboardsConfigMaps"] == {provider["name"]: manifest.body["metadata"]["name"]}
    assert provider["options"]["path"] == f"/var/lib/grafana/dashboards/{provider['name']}"
    home = made.values["grafana.ini"]["dashboards"]["default_home_dashboard_path"]
    assert home.removeprefix(f"{provider['options']['path']}/") in manifest.body["data"]


# --- alerts ---


def test_alerts_go_the_way_of_the_reference() -> None:
    route = kube_prometheus_stack.route(LOUD)["route"]
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("30s", "5m", "4h")
    by_receiver = {inner["receiver"]: inner for inner in route["routes"]}
    critical = by_receiver["critical"]
    assert critical["matchers"] == ['severity = "critical"']
    assert (critical["group_wait"], critical["repeat_interval"]) == ("10s", "1h")
    assert by_receiver["warning"]["matchers"] == ['severity = "warning"']
    rule = kube_prometheus_stack.route(LOUD)["inhibit_rules"][0]
    assert rule["source_matchers"] == ['severity = "critical"'] and rule["target_matchers"] == ['severity = "warning"']
    assert {"alertname", "namespace", "cluster"} == set(rule["equal"])


@pytest.mark.toolchain
def test_alertmanagers_own_reader_takes_its_configuration() -> None:
    for inputs in (INPUTS, LOUD):
        run = judge("alertmanager", yaml.safe_dump(kube_prometheus_stack.route(inputs)))
        assert run.returncode == 0, run.stderr
    wrong = kube_prometheus_stack.route(LOUD)
    wrong["route"]["receiver"] = "elsewhere"
    assert "undefined receiver" in judge("alertmanager", yaml.safe_dump(wrong)).stderr


def test_every_route_ends_at_a_receiver() -> None:
    for inputs in (INPUTS, LOUD):
        configuration = kube_prometheus_stack.route(inputs)
        receivers = [receiver["name"] for receiver in configuration["receivers"]]
        route = configuration["route"]
        assert len(receivers) == len(set(receivers))
        assert {route["receiver"], *(r["receiver"] for r in route["routes"])} == set(receivers)


def test_receivers_secrets_are_files_that_are_mounted() -> None:
    made = release(kube_prometheus_stack, LOUD)
    (secret,) = made.secrets
    assert secret.data == {"webhook": Given(name="alert-webhook"), "mail-password": Given(name="mail-password")}
    spec = made.values["alertmanager"]["alertmanagerSpec"]
    (volume,), (mount,) = ([one for one in spec[key] if one["name"] == "receivers"] for key in ("volumes", "volumeMounts"))
    assert volume["secret"]["secretName"] == secret.name and volume["name"] == mount["name"]
    receivers = {r["name"]: r for r in made.values["alertmanager"]["config"]["receivers"]}
    for name in ("default", "critical", "warning"):
        (webhook,), (mail,) = receivers[name]["webhook_configs"], receivers[name]["email_configs"]
        assert webhook["url_file"] == f"{mount['mountPath']}/webhook" and "url" not in webhook
        assert mail["auth_password_file"] == f"{mount['mountPath']}/mail-password" and "auth_password" not in mail
        assert mail["to"] == "ops@example.com, on-call@example.com"
    out = [flow for flow in made.flows if flow.peer == "outside"]
    assert [flow.ports for flow in out] == [(443, 587)]


def test_without_receivers_alerts_are_only_shown() -> None:
    made = release(kube_prometheus_stack)
    assert made.secrets == ()
    assert not any(flow.peer == "outside" for flow in made.flows)
    assert all(set(r) == {"name"} for r in made.values["alertmanager"]["config"]["receivers"])


def test_rules_are_evaluated_where_the_metrics_are_and_alerts_arrive_at_the_one_alertmanager() -> None:
    assert release(kube_prometheus_stack).values["prometheus"]["enabled"] is False
    limits = release(mimir).values["mimir"]["structuredConfig"]["limits"]
    assert limits["ruler_alertmanager_client_config"] == {"alertmanager_url": telemetry.ALERTMANAGER}
    (shown,) = (m.body["spec"]["routes"][0]["services"] for m in release(kube_prometheus_stack).after)
    assert [f"http://{s['name']}.monitoring.svc.cluster.local:{s['port']}" for s in shown] == [telemetry.ALERTMANAGER]
    (workload,) = [w for w in release(kube_prometheus_stack).workloads if "alertmanager" in w.name]
    service = f"{workload.name.removeprefix('alertmanager-')}.{workload.namespace}."
    assert f"http://{service}" in telemetry.ALERTMANAGER
    far = release(kube_prometheus_stack, FAR)
    assert far.values["alertmanager"] == {"enabled": False}
    assert not any("alertmanager" in w.name for w in far.workloads)
    assert 'mimir.rules.kubernetes "all"' in alloy_config.configuration(FAR)


def test_links_in_alerts_lead_to_the_public_name_of_grafana() -> None:
    """An address that is valid only inside of the cluster leads people nowhere."""
    host = f"https://{INPUTS.all_hosts['grafana']}"
    assert release(kube_prometheus_stack).values["alertmanager"]["alertmanagerSpec"]["externalUrl"] == f"{host}/alerting/groups"
    assert release(mimir).values["mimir"]["structuredConfig"]["ruler"]["external_url"] == f"{host}/alerting/list#rule"
    ruler = release(loki).values["loki"]["rulerConfig"]
    # Loki makes a link to Grafana's Explore of it, which names the data source.
    assert (ruler["external_url"], ruler["datasource_uid"]) == (host, "loki") and "loki" in sources()
    nameless = replace(INPUTS, all_hosts={k: v for k, v in INPUTS.all_hosts.items() if k != "grafana"})
    assert "ruler" not in release(mimir, nameless).values["mimir"]["structuredConfig"]
    assert "externalUrl" not in release(kube_prometheus_stack, nameless).values["alertmanager"]["alertmanagerSpec"]


@pytest.mark.parametrize("replicas", [1, 3])
def test_pods_of_grafana_agree_on_who_sends_an_alert(replicas: int) -> None:
    made = release(grafana, replace(INPUTS, replicas=replicas))
    gossip = {(flow.peer, flow.protocol, flow.ports) for flow in made.flows if 9094 in flow.ports}
    several = replicas > 1
    assert gossip == ({("itself", protocol, (9094,)) for protocol in ("TCP", "UDP")} if several else set())
    assert made.values["headlessService"] is several
    alerting = made.values["grafana.ini"].get("unified_alerting")
    assert alerting == (
        {"ha_peers": "grafana-headless:9094"} | dict.fromkeys(("ha_listen_address", "ha_advertise_address"), "${POD_IP}:9094")
        if several
        else None
    )


def test_what_a_source_calls_cluster_does_not_hide_the_platforms() -> None:
    """CloudNativePG's metrics have a label `cluster` of their own, to which an external label gives way."""
    text = alloy_config.configuration(replace(INPUTS, cluster="here"))
    blocks = re.findall(r"^(\S+ \"\w+\") \{\n(.*?)^\}", text, re.M | re.S)
    scraping = {
        name: body
        for name, body in blocks
        if name.startswith(("prometheus.operator.", "prometheus.scrape ")) and "discovery.relabel" not in body
    }
    scraping |= {name: body for name, body in blocks if name == 'discovery.relabel "metrics"'}
    assert len(scraping) == 5  # the pods of the node, two kinds of monitors, two paths of MinIO
    for name, body in scraping.items():
        labelled = re.search(r'target_label = "cluster"\n\s*replacement\s*= "here"', body) or '"cluster" = "here"' in body
        assert labelled, name


def test_etcd_is_scraped_on_the_masters() -> None:
    masters = ("192.168.72.15", "192.168.72.16", "192.168.72.17")
    values = release(kube_prometheus_stack, replace(INPUTS, masters=masters)).values
    assert tuple(values["kubeEtcd"]["endpoints"]) == masters


# --- all of them ---


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.NAME)
def test_flows_name_only_what_is_there(module: Any) -> None:
    words = {"itself", "kubernetes-api", "nodes", "outside", "public"}
    for inputs in (LOUD, replace(LOUD, present=frozenset({module.NAME}), all_hosts={"keycloak": HOSTS["keycloak"]})):
        made = release(module, inputs)
        assert {flow.peer for flow in made.flows} <= words | inputs.present
        assert set(made.needs) <= inputs.present | {"csi-driver-nfs", "cert-manager", "traefik"}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.NAME)
def test_nothing_is_fetched_or_reported_outside(module: Any) -> None:
    text = yaml.safe_dump(release(module).values)
    assert "grafana.com" not in text and "stats." not in text
    switches = {
        loki: ("loki", "analytics", "reporting_enabled"), tempo: ("tempo", "reportingEnabled"),
        mimir: ("mimir", "structuredConfig", "usage_stats", "enabled"), alloy: ("alloy", "enableReporting"),
        grafana: ("grafana.ini", "analytics", "reporting_enabled"),
    }  # fmt: skip
    value: Any = release(module).values
    for key in switches.get(module, ()):
        value = value[key]
    assert module not in switches or value is False
