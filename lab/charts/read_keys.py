#!/usr/bin/env python3
"""List the values keys of a real Helm chart, as facts: one path and type a line, no defaults and no prose.

    lab/charts/read_keys.py CHART_FOLDER VERSION SOURCE > lab/charts/keys/NAME-VERSION.txt

Reads the chart's values.yaml and, where it has one, values.schema.json. Types: those of the JSON schema joined by
`|`, or from the default alone `boolean`, `scalar` (text or number), `list`, `map` (open: any keys) or `any`. `*`
stands for any key. A dot inside of a key is written `\\.`. What a chart only documents in comments, or leaves open
in its templates, is added from EXTRA.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

import yaml

# Read in each chart's templates and commented defaults. `map` opens a map that the defaults make look closed.
EXTRA: dict[str, dict[str, str]] = {
    "argo-cd": {
        "configs.cm": "map",
        "configs.params": "map",
        "configs.rbac": "map",
        "redis-ha": "map",  # a sub-chart's values
    },
    "csi-driver-nfs": {
        "nameOverride": "scalar",
        "storageClass.name": "scalar",
        "storageClass.annotations": "map",
        "storageClass.parameters": "map",
        "storageClass.reclaimPolicy": "scalar",
        "storageClass.volumeBindingMode": "scalar",
        "storageClass.mountOptions": "list",
        "storageClasses": "list",
    },
    "headlamp": {"env": "list"},
    "oauth2-proxy": {
        "affinity": "map",
        "config.existingSecret": "scalar",
        "fullnameOverride": "scalar",
        "nameOverride": "scalar",
        "topologySpreadConstraints": "list",
    },
    "vault": {
        "fullnameOverride": "scalar",
        "nameOverride": "scalar",
        "injector.gid": "scalar",
        "injector.uid": "scalar",
        "server.affinity": "null|object|string",
        "server.gid": "scalar",
        "server.ha.config": "string",  # the schema would take a map, the templates do not
        "server.ha.raft.config": "string",
        "server.readinessProbe.path": "scalar",
        "server.service.clusterIP": "scalar",
        "server.service.type": "scalar",
        "server.standalone.config": "string",
        "server.uid": "scalar",
    },
    "gitlab-runner": {
        "gitlabUrl": "scalar",
        "certsSecretName": "scalar",
        "fullnameOverride": "scalar",
        "image.tag": "scalar",
        "nameOverride": "scalar",
        "podSecurityContext": "map",
        "replicas": "scalar",
        "revisionHistoryLimit": "scalar",
        "runners.executor": "scalar",
        "runners.name": "scalar",
        "runners.secret": "scalar",
        "securityContext": "map",
        "serviceAccount.create": "boolean",
    },
    "harbor": {
        "caBundleSecretName": "scalar",
        "uaaSecretName": "scalar",
        "fullnameOverride": "scalar",
        "nameOverride": "scalar",
        "core.configureUserSettings": "scalar",
        "core.resources": "map",
        "exporter.resources": "map",
        "jobservice.resources": "map",
        "nginx.resources": "map",
        "portal.resources": "map",
        "registry.controller.resources": "map",
        "registry.registry.resources": "map",
        "persistence.imageChartStorage.caBundleSecretName": "scalar",
        **{
            f"persistence.imageChartStorage.s3.{key}": "scalar"
            for key in (
                "accesskey",
                "chunksize",
                "existingSecret",
                "keyid",
                "multipartcopychunksize",
                "multipartcopymaxconcurrency",
                "multipartcopythresholdsize",
                "regionendpoint",
                "rootdirectory",
                "secretkey",
                "storageclass",
            )
        },
        **{
            f"persistence.imageChartStorage.s3.{key}": "boolean"
            for key in ("encrypt", "secure", "skipverify", "v4auth")
        },
        "redis.external.cacheLayerDatabaseIndex": "scalar",
        "redis.external.harborDatabaseIndex": "scalar",
    },
    "minio": {"environment": "map", "customCommands": "list", "extraSecret": "scalar"},
    "keycloakx": {"startupScripts": "map", "dbchecker.image.digest": "scalar"},
    "alloy": {"crds": "map"},  # a sub-chart's values
    "grafana": {
        "grafana\\.ini": "map",
        "ingress.ingressClassName": "scalar",
        "persistence.storageClassName": "scalar",
    },
    "kube-prometheus-stack": {
        "alertmanager.config": "map",
        # Sub-charts: what is used of their own values.
        "kube-state-metrics.collectorsExclude": "list",
        "kube-state-metrics.resources": "map",
        "prometheus-node-exporter.resources": "map",
        "prometheus-node-exporter.tolerations": "list",
    },
    "loki": {
        "loki.limits_config": "map",
        "loki.rulerConfig": "map",
        "loki.storage.bucketNames.admin": "scalar",
        "loki.storage.bucketNames.chunks": "scalar",
        "loki.storage.bucketNames.ruler": "scalar",
    },
    "mimir-distributed": {
        "compactor.persistentVolume.storageClass": "scalar",
        "ingester.persistentVolume.storageClass": "scalar",
        "kafka.enabled": "boolean",
        "mimir.structuredConfig": "map",
        "store_gateway.persistentVolume.storageClass": "scalar",
    },
    "tempo": {
        "persistence.storageClassName": "scalar",
        **{
            f"tempo.storage.trace.s3.{key}": kind
            for key, kind in {
                "access_key": "scalar",
                "bucket": "scalar",
                "endpoint": "scalar",
                "forcepathstyle": "boolean",
                "insecure": "boolean",
                "secret_key": "scalar",
            }.items()
        },
    },
    "sonarqube": {
        "caCerts.configMap.key": "scalar",
        "caCerts.configMap.name": "scalar",
        "caCerts.configMap.path": "scalar",
        "caCerts.image": "scalar",
        "caCerts.secret": "scalar",
        "env": "list",
        "image.tag": "scalar",
        "ingress.ingressClassName": "scalar",
        "jdbcOverwrite.jdbcSecretName": "scalar",
        "jdbcOverwrite.jdbcSecretPasswordKey": "scalar",
        "edition": "scalar",
        "monitoringPasscode": "scalar",
        "monitoringPasscodeSecretKey": "scalar",
        "monitoringPasscodeSecretName": "scalar",
        "nameOverride": "scalar",
        "fullnameOverride": "scalar",
        "sonarProperties": "map",
        "serviceAccount.name": "scalar",
        "sonarSecretProperties": "scalar",
    },
    "traefik": {"service.spec": "map", "ports.*.expose": "map", "ports.*.http.redirections.entryPoint": "map"},
}
# Maps that Kubernetes types: which keys they take is the API's matter, not the chart's.
KUBERNETES = {
    "affinity", "annotations", "containerSecurityContext", "jobAnnotations", "labels", "nodeSelector",
    "podSecurityContext", "resources", "securityContext",
}  # fmt: skip


def escape(key: str) -> str:
    return key.replace(".", "\\.")


def is_kubernetes(key: str, value: dict[str, Any]) -> bool:
    """`resources` of a pod with several containers has the containers' names first, which are the chart's."""
    quantities = set(value) <= {"requests", "limits", "claims"}
    return quantities if key == "resources" else key in KUBERNETES or bool(value) and quantities


def walk(path: str, key: str, value: Any, schema: dict[str, Any], root: dict[str, Any]) -> dict[str, str]:
    """Paths below `path` to their types, from a default and what the schema says of it."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/")
        target: Any = root
        for part in name.split("/"):
            target = target[part]
        schema = target
    properties: dict[str, Any] = schema.get("properties", {})
    every = schema.get("additionalProperties")
    below: dict[str, str] = {}
    if isinstance(every, dict) and every.get("properties"):
        return walk(f"{path}.*", "*", {}, every, root)
    defaults = value if isinstance(value, dict) else {}
    if isinstance(value, dict) and is_kubernetes(key, value):
        return {path: "map"}
    if properties or defaults:
        for name in sorted({*properties, *defaults}):
            inner = f"{path}.{escape(name)}" if path else escape(name)
            below |= walk(inner, name, defaults.get(name), properties.get(name, {}), root)
        return below
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else sorted(kinds)
    if isinstance(value, dict) or "object" in kinds:
        return {path: "map"}
    if isinstance(value, list) or kinds == ["array"]:
        return {path: "list"}
    if kinds:
        return {path: "|".join(kinds)}
    if value is None:
        return {path: "any"}
    return {path: "boolean" if isinstance(value, bool) else "scalar"}


def keys(folder: Path) -> dict[str, str]:
    """Every values key of the chart in `folder`."""
    name = yaml.safe_load((folder / "Chart.yaml").read_text())["name"]
    values = yaml.safe_load((folder / "values.yaml").read_text())
    file = folder / "values.schema.json"
    schema = json.loads(file.read_text()) if file.exists() else {}
    found = walk("", "", values, schema, schema)
    for path, kind in EXTRA.get(name, {}).items():
        if kind == "map":
            found = {p: k for p, k in found.items() if not p.startswith(f"{path}.")}
        found[path] = kind
    return found


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    folder, version, source = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    name = yaml.safe_load((folder / "Chart.yaml").read_text())["name"]
    print(f"# chart: {name}\n# version: {version}\n# source: {source}\n# read: {date.today()}")
    for path, kind in sorted(keys(folder).items()):
        print(path, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
