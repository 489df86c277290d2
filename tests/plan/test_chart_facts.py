"""The plan against facts of the real charts, rendered with its values: what nobody sees by reading the plan alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from lab.charts.facts import facts_of
from plan import versions
from plan.tools import alloy, alloy_config, chart_facts
from plan.tools.kube_prometheus_stack import SCRAPE_INTERVAL
from plan.tools.model import Release
from plan.tools.needs import KUBERNETES_API
from plan.tools.policies import flows_of
from tests.support.platform import ARCHITECTURES, every_tool, plan_of

Facts = dict[str, Any]
UNITS = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "": 1.0}
MADE_BY_OPERATORS = {"kube-prometheus-stack": {9093}}
"""Ports of pods that no chart renders, since an operator makes them: Alertmanager's."""
READERS_OF_SECRETS = {
    "argocd-application-controller": "compares applications, Secrets among them, with Git",
    "argocd-server": "shows them",
    "cert-manager-cainjector": "puts authorities into webhooks",
    "cert-manager-controller-certificates": "keeps certificates in Secrets",
    "cert-manager-controller-challenges": "logs in at DNS providers",
    "cert-manager-controller-clusterissuers": "signs with authorities",
    "cert-manager-controller-issuers": "signs with authorities",
    "cert-manager-controller-orders": "logs in at ACME",
    "cloudnative-pg": "keeps the databases' logins and certificates in Secrets",
    "kube-prometheus-stack-operator": "reads and writes the configuration of Alertmanager",
    "nfs-external-provisioner-role": "a volume's login may be in a Secret",
    "traefik-traefik": "certificates of Ingresses",
}
"""Every ClusterRole by which something may read all Secrets, and what for."""


@cache
def rendered() -> tuple[tuple[str, Release, Facts], ...]:
    """Shape, release, and the facts of its chart there, of every release with a chart of somebody else."""
    found = []
    for architecture in ARCHITECTURES:
        for cluster, releases in plan_of(architecture, every_tool()).releases.items():
            for release in releases:
                shape = f"{architecture}/{cluster}"
                for facts in chart_facts.renderings(release.chart, release.version):
                    if shape in facts["of"]:
                        found.append((shape, release, dict(facts)))
    return tuple(found)


def pods() -> Iterator[tuple[str, Release, str, Facts]]:
    for shape, release, facts in rendered():
        for name, pod in facts.get("pods", {}).items():
            yield shape, release, name, pod


def containers(pod: Facts) -> dict[str, Facts]:
    return {**pod["containers"], **pod.get("init", {})}


def number(quantity: str) -> float:
    digits, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]
    return float(digits) * UNITS[unit]


@pytest.mark.parametrize("chart", versions.CHARTS, ids=lambda chart: chart.name)
def test_every_chart_of_somebody_else_has_facts_of_every_shape(chart: versions.Chart) -> None:
    planned = {
        f"{architecture}/{cluster}"
        for architecture in ARCHITECTURES
        for cluster, releases in plan_of(architecture, every_tool()).releases.items()
        if any(release.chart == chart.name for release in releases)
    }
    found = chart_facts.renderings(chart.name, chart.version)
    assert sorted(shape for facts in found for shape in facts["of"]) == sorted(planned)


def test_the_pods_are_those_that_the_plan_counts_and_waits_for() -> None:
    for shape, release, facts in rendered():
        made = {name for name in facts["pods"] if not name.startswith("Job/")}
        waited = {f"{w.kind}/{w.name}" for w in release.workloads}
        assert made <= waited, (shape, release.name)
        assert waited - made <= {"StatefulSet/alertmanager-kube-prometheus-stack-alertmanager"}, (shape, release.name)
        for workload in release.workloads:
            pod = facts["pods"].get(f"{workload.kind}/{workload.name}")
            assert pod is None or workload.selector.items() <= pod["labels"].items(), workload.name


def test_every_metrics_port_of_a_pod_is_open_to_the_monitoring() -> None:
    for shape, release, name, pod in pods():
        if release.namespace in alloy_config.MONITORED_OTHERWISE.split("|"):
            continue
        for container, facts in containers(pod).items():
            scraped = {
                port
                for label, port in facts.get("ports", {}).items()
                if re.fullmatch(alloy_config.METRICS_PORT_NAME, label) and (release.name, container) != ("mimir", "gateway")
            }
            assert scraped <= set(release.ports_for_metrics), f"{shape}: {release.name} {name} {container}"


def test_no_port_is_open_to_the_monitoring_that_no_pod_has() -> None:
    for shape, release, facts in rendered():
        there = {port for pod in facts["pods"].values() for c in containers(pod).values() for port in c.get("ports", {}).values()}
        assert set(release.ports_for_metrics) <= there | MADE_BY_OPERATORS.get(release.name, set()), (shape, release.name)


def test_no_chart_adds_a_network_policy() -> None:
    for shape, release, facts in rendered():
        assert "policies" not in facts, f"{shape}: {release.name} brings {list(facts['policies'])}; the plan makes them all"


def test_a_workload_of_several_pods_has_one_disruption_budget() -> None:
    several = 0
    for shape, release, facts in rendered():
        for workload in release.workloads:
            pod = facts["pods"].get(f"{workload.kind}/{workload.name}")
            if pod is None or workload.kind == "DaemonSet":
                continue
            specs = [
                *facts.get("budgets", {}).values(),
                *(m.body["spec"] for m in release.after if m.body["kind"] == "PodDisruptionBudget"),
            ]
            fitting = [s for s in specs if s["selector"]["matchLabels"].items() <= pod["labels"].items()]
            several += workload.replicas > 1
            assert len(fitting) == 1 or (workload.replicas == 1 and not fitting), (shape, workload.name)
            assert all(s.get("maxUnavailable") == 1 for s in fitting), (shape, workload.name)
    assert several > 20


def test_no_container_has_a_limit_of_cpu_and_every_one_has_a_limit_of_memory() -> None:
    for shape, release, name, pod in pods():
        for container, facts in containers(pod).items():
            assert "cpu_limit" not in facts, f"{shape}: {release.name} {name} {container}: {facts['cpu_limit']}"
            assert "memory_limit" in facts or (release.name, container) in UNBOUNDED, f"{release.name} {name} {container}"


UNBOUNDED: set[tuple[str, str]] = set()


def test_gos_own_limit_of_memory_leaves_room_below_the_containers() -> None:
    seen = set()
    for shape, release, name, pod in pods():
        for container, facts in containers(pod).items():
            if limit := facts.get("environment", {}).get("GOMEMLIMIT"):
                share = number(limit) / number(facts["memory_limit"])
                assert 0.5 <= share <= 0.95, f"{shape}: {release.name} {name} {container}: {share:.0%} of its limit"
                seen.add(container)
    assert {"store-gateway", "loki", "traefik"} <= seen


def test_a_pod_has_a_token_of_the_api_only_where_it_may_reach_the_api() -> None:
    """A token that leads nowhere is good for nothing but to be stolen."""
    for shape, release, name, pod in pods():
        # That of who names none has no token in any tool's namespace.
        accounts = {"default": False} | {
            m.body["metadata"]["name"]: m.body.get("automountServiceAccountToken", True)
            for m in release.before
            if m.body["kind"] == "ServiceAccount"
        }
        if not (pod["token"] and accounts.get(pod["account"], True)) or pod.get("host_network"):
            continue
        reaching = [
            flow
            for flow in flows_of(release)
            if flow.peer == KUBERNETES_API and not flow.inbound and flow.pods.items() <= pod["labels"].items()
        ]
        assert reaching, f"{shape}: {release.name} {name} has a token and no way to the API"


def test_who_may_read_every_secret_of_the_cluster_is_known() -> None:
    found = {role for _, _, facts in rendered() for role in facts.get("reads_secrets", ())}
    assert found == set(READERS_OF_SECRETS)


def test_no_monitor_wants_a_secret_which_the_scraper_may_not_read() -> None:
    assert not [rule for rule in alloy.RIGHTS if "secrets" in rule["resources"]]
    for shape, release, facts in rendered():
        for name, monitor in facts.get("monitors", {}).items():
            assert "secrets" not in monitor, f"{shape}: {name} of {release.name} wants {monitor['secrets']}"


def test_nothing_is_scraped_more_often_than_the_documentation_says() -> None:
    assert SCRAPE_INTERVAL == alloy_config.SCRAPE_INTERVAL
    own = int(SCRAPE_INTERVAL.removesuffix("s"))
    for _, _, facts in rendered():
        for name, monitor in facts.get("monitors", {}).items():
            assert all(int(i.removesuffix("s")) >= own for i in monitor.get("intervals", ())), name


# --- what reads the charts ---


def test_facts_of_objects() -> None:
    """Each fact once: what is optional, made by the chart, a hook, a test, or in an argument."""
    container = {
        "name": "server",
        "image": "docker.io/a/b:1.2.3",
        "args": ["--reloader=quay.io/c/d:v1", "--level=info"],
        "ports": [{"name": "metrics", "containerPort": 8080}, {"containerPort": 9}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "tmp", "mountPath": "/tmp"}],
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "login", "key": "a"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "perhaps", "key": "b", "optional": True}}},
        ],
        "envFrom": [{"configMapRef": {"name": "all"}}],
    }
    spec = {
        "serviceAccountName": "robot",
        "containers": [container],
        "volumes": [{"name": "tls", "configMap": {"name": "certificates"}}, {"name": "tmp", "emptyDir": {}}],
    }
    role = {"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}
    test_hook = {"kind": "Pod", "metadata": {"name": "t", "annotations": {"helm.sh/hook": "test"}}, "spec": {"containers": [{"image": "x:1"}]}}
    found = facts_of(
        [
            {"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}},
            {"kind": "ServiceAccount", "metadata": {"name": "robot"}, "automountServiceAccountToken": False},
            {"kind": "NetworkPolicy", "metadata": {"name": "open"}, "spec": {"ingress": [{}]}},
            role,
            test_hook,
        ]
    )
    pod = found["pods"]["Deployment/web"]
    assert pod["references"] == ["ConfigMap/all", "ConfigMap/certificates", "Secret/login", "ServiceAccount/robot"]
    assert pod["token"] is False and pod["containers"]["server"]["ports"] == {"9": 9, "metrics": 8080}
    assert pod["containers"]["server"]["mounts"] == {"/tls": "ConfigMap/certificates"}
    assert (pod["containers"]["server"]["cpu_limit"], pod["containers"]["server"]["memory_limit"]) == ("1", "1Gi")
    assert found["images"] == ["docker.io/a/b:1.2.3", "quay.io/c/d:v1"] and "hook_images" not in found
    assert found["policies"] == {"open": {"ingress": [{}]}} and found["reads_secrets"] == ["all"]
    assert chart_facts.references(found) == {("ConfigMap", "all"), ("ConfigMap", "certificates"), ("Secret", "login")}
