"""kube-prometheus-stack: the exporters, the rules, and Alertmanager. Prometheus itself is left out.

Alloy scrapes what the ServiceMonitors name and gives the rules to Mimir, which stores, evaluates, tells Alertmanager.
"""

from __future__ import annotations

from plan import versions
from plan.tools import cert_manager, cloudnative_pg, readers, telemetry, traefik
from plan.tools.common import CA_FOLDER, ca_volume, replicas_of, resources, storage_of
from plan.tools.model import Given, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, KUBERNETES_API, OUTSIDE, Flow
from plan.tools.sources import Source

NAME = "kube-prometheus-stack"
NAMESPACE = telemetry.ALERTMANAGER_NAMESPACE
RECEIVERS_SECRET, RECEIVERS_FOLDER = "alertmanager-receivers", "/etc/alertmanager/receivers"
WEBHOOK, MAIL_PASSWORD = "webhook", "mail-password"
ETCD_METRICS = 2381
SCRAPE_INTERVAL = "30s"
ALERTMANAGER_LABELS = {"app.kubernetes.io/name": "alertmanager"}
# RKE2 binds these to the loopback address, so there is nothing to scrape and no rule that could be told apart from an
# outage. The API server's objectives are left out for their price: they ask for thirty days, every three minutes. The
# operator's metrics want a Secret of whoever scrapes, and Alloy may read none.
UNSCRAPED = (
    "kubeControllerManager", "kubeProxy", "kubeSchedulerAlerting", "kubeSchedulerRecording", "prometheus", "windows",
    "prometheusOperator",
    "kubeApiserverAvailability", "kubeApiserverBurnrate", "kubeApiserverHistogram", "kubeApiserverSlos",
)  # fmt: skip


def route(inputs: ToolInputs) -> Values:
    """Alertmanager's configuration. It names files for what is secret: they come from `alertmanager-receivers`."""
    alerts = inputs.alerts
    ways: Values = {}
    if alerts.webhook:
        ways["webhook_configs"] = [{"url_file": f"{RECEIVERS_FOLDER}/{WEBHOOK}", "send_resolved": True}]
    if alerts.mail:
        mail: Values = {
            "to": ", ".join(alerts.mail.to),
            "from": alerts.mail.sender,
            "smarthost": alerts.mail.smarthost,
            "send_resolved": True,
        }
        if alerts.mail.username:
            mail["auth_username"] = alerts.mail.username
        if alerts.mail.password:
            mail["auth_password_file"] = f"{RECEIVERS_FOLDER}/{MAIL_PASSWORD}"
        ways["email_configs"] = [mail]
    return {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": "default",
            "group_by": ["cluster", "namespace", "alertname"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "4h",
            "routes": [
                # One fires always, to show that alerts arrive; the other only holds others back.
                {"receiver": "nobody", "matchers": ['alertname =~ "Watchdog|InfoInhibitor"']},
                {
                    "receiver": "critical",
                    "matchers": ['severity = "critical"'],
                    "group_wait": "10s",
                    "repeat_interval": "1h",
                },
                {"receiver": "warning", "matchers": ['severity = "warning"']},
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['severity = "critical"'],
                "target_matchers": ['severity = "warning"'],
                "equal": ["cluster", "namespace", "alertname"],
            },
            {
                "source_matchers": ['alertname = "InfoInhibitor"'],
                "target_matchers": ['severity = "info"'],
                "equal": ["cluster", "namespace"],
            },
        ],
        "receivers": [{"name": "nobody"}, *({"name": name, **ways} for name in ("default", "critical", "warning"))],
    }


def _secret_data(inputs: ToolInputs) -> dict[str, Source]:
    data: dict[str, Source] = {}
    if inputs.alerts.webhook:
        data[WEBHOOK] = Given(name=inputs.alerts.webhook)
    if inputs.alerts.mail and inputs.alerts.mail.password:
        data[MAIL_PASSWORD] = Given(name=inputs.alerts.mail.password)
    return data


def _alertmanager(inputs: ToolInputs, replicas: int) -> Values:
    volume = {
        "spec": {
            "storageClassName": inputs.storage_class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage_of(inputs, NAME, "2Gi")}},
        }
    }
    spec: Values = {
        "replicas": replicas,
        "resources": resources("20m", "64Mi", "256Mi"),
        "storage": {"volumeClaimTemplate": volume},
        "automountServiceAccountToken": False,
        # People follow the link from a mail or a chat; inside of the cluster it is served below / all the same.
        **({"externalUrl": f"{grafana}/alerting/groups"} if (grafana := telemetry.grafana(inputs)) else {}),
    }
    volumes: list[Values] = []
    mounts: list[Values] = []
    if _secret_data(inputs):
        volumes.append({"name": "receivers", "secret": {"secretName": RECEIVERS_SECRET}})
        mounts.append({"name": "receivers", "mountPath": RECEIVERS_FOLDER, "readOnly": True})
    if inputs.ca_bundle:
        # For receivers inside. A `ca_file` of a receiver would replace the public authorities; the folder adds to them.
        volume, mount = ca_volume(inputs.ca_bundle)
        volumes.append(volume)
        mounts.append(mount)
        trust = {"name": "SSL_CERT_DIR", "value": f"/etc/ssl/certs:{CA_FOLDER}"}
        # The operator merges it into its own container of that name.
        spec["containers"] = [{"name": "alertmanager", "env": [trust]}]
    if volumes:
        spec |= {"volumes": volumes, "volumeMounts": mounts}
    account = {"automountServiceAccountToken": False}
    return {"enabled": True, "config": route(inputs), "alertmanagerSpec": spec, "serviceAccount": account}


def _values(inputs: ToolInputs, replicas: int) -> Values:
    return {
        "crds": {"enabled": True},
        "prometheus": {"enabled": False},
        "grafana": {"enabled": False},
        "alertmanager": _alertmanager(inputs, replicas) if replicas else {"enabled": False},
        "defaultRules": {"rules": dict.fromkeys(UNSCRAPED, False)},
        "kubeControllerManager": {"enabled": False},
        "kubeScheduler": {"enabled": False},
        "kubeProxy": {"enabled": False},
        # The chart's ten seconds would be three times the samples of the largest target of every node.
        "kubelet": {"serviceMonitor": {"cAdvisorInterval": SCRAPE_INTERVAL, "resourceInterval": SCRAPE_INTERVAL}},
        "kubeEtcd": {
            "enabled": True,
            "endpoints": list(inputs.masters),
            "service": {"port": ETCD_METRICS, "targetPort": ETCD_METRICS},
        },
        "prometheusOperator": {
            "admissionWebhooks": {"certManager": {"enabled": True}},
            "serviceMonitor": {"selfMonitor": False},
            "resources": resources("25m", "96Mi", "256Mi"),
            "prometheusConfigReloader": {"resources": resources("10m", "32Mi", "64Mi")},
        },
        "kube-state-metrics": {
            "resources": resources("20m", "64Mi", "256Mi"),
            "collectorsExclude": ["secrets"],  # no rule or dashboard asks for them, and it would read every one
        },
        "prometheus-node-exporter": {"resources": resources("20m", "32Mi", "128Mi")},
    }


def _workloads(replicas: int) -> tuple[Workload, ...]:
    def workload(kind: str, name: str, cpu: str, memory: str, **more: object) -> Workload:
        return Workload(kind=kind, name=name, namespace=NAMESPACE, cpu=cpu, memory=memory, **more)  # type: ignore[arg-type]

    alertmanager = workload(  # made by the operator
        "StatefulSet", f"alertmanager-{NAME}-alertmanager", "30m", "96Mi", replicas=replicas,
        selector=ALERTMANAGER_LABELS,
    )  # fmt: skip
    return (
        workload("Deployment", f"{NAME}-operator", "25m", "96Mi"),
        workload("Deployment", f"{NAME}-kube-state-metrics", "20m", "64Mi"),
        workload("DaemonSet", f"{NAME}-prometheus-node-exporter", "20m", "32Mi"),
        *((alertmanager,) if replicas else ()),
    )


def release(inputs: ToolInputs) -> Release:
    """Exporters and rules in every cluster; Alertmanager beside Mimir, which alone sends to it."""
    replicas = replicas_of(inputs, NAME) if "mimir" in inputs.present else 0
    data = _secret_data(inputs) if replicas else {}
    mail = inputs.alerts.mail
    out = ((443,) if inputs.alerts.webhook else ()) + ((int(mail.smarthost.rpartition(":")[2]),) if mail else ())
    ports = tuple(sorted(set(out)))
    reading = readers.near(inputs, "alertmanager")
    reader = Flow(
        peer=traefik.NAME, ports=(telemetry.ALERTMANAGER_PORT,), pods=ALERTMANAGER_LABELS, inbound=True,
        why="alerts and silences, as Grafana shows them",
    )  # fmt: skip
    receivers = Flow(peer=OUTSIDE, ports=ports, pods=ALERTMANAGER_LABELS, why="those who get alerts: mail, webhook")
    return Release.of(
        versions.KUBE_PROMETHEUS_STACK,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, replicas),
        needs=(cert_manager.NAME, *(cloudnative_pg.storage_needs(inputs) if replicas else ())),
        pod_security="privileged",  # node-exporter shares the host's network and processes, and reads its files
        secrets=(Secret(name=RECEIVERS_SECRET, namespace=NAMESPACE, data=data),) if data else (),
        ca_bundle=inputs.ca_bundle if replicas else None,
        crds=(
            "alertmanagers.monitoring.coreos.com",
            "podmonitors.monitoring.coreos.com",
            "prometheusrules.monitoring.coreos.com",
            "servicemonitors.monitoring.coreos.com",
        ),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="watches rules, and the objects that it has metrics of"),
            Flow(peer=KUBERNETES_API, ports=(10250,), inbound=True, why="admission: whether a rule is valid"),
            Flow(peer=ITSELF, ports=(telemetry.ALERTMANAGER_PORT, 9094), why="Alertmanagers, and their gossip"),
            Flow(peer=ITSELF, ports=(9094,), protocol="UDP", why="Alertmanagers' gossip, which is by both protocols"),
            *((receivers,) if ports else ()),
            *((reader,) if reading else ()),
        ),
        ports_for_metrics=(8080, 8081, telemetry.ALERTMANAGER_PORT),
        workloads=_workloads(replicas),
        after=reading,
    )


TOOL = Tool(name=NAME, release=release)
