"""Looks for the secrets of a deployed stack where they must not be: in clear, in base64, escaped for URLs and JSON."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tests.lab.standalone import Lab, processes

# Properties that hold a secret, by the type of their resource.
_PROPERTIES = {
    "random:index/randomPassword:RandomPassword": ("result", "bcryptHash"),
    "tls:index/privateKey:PrivateKey": ("privateKeyPem", "privateKeyPemPkcs8"),
}


def hidden_values(lab: Lab) -> dict[str, list[str]]:
    """What the secret is, to the texts by which it would be found: its own, and its base64 at every alignment."""
    found: dict[str, str] = {}
    exported = json.loads(lab.pulumi("stack", "export", "--show-secrets").stdout)
    for resource in exported["deployment"]["resources"]:
        for name in _PROPERTIES.get(resource["type"], ()):
            if value := _plain(resource["outputs"].get(name)):
                found[f"{resource['urn'].rpartition('::')[2]}.{name}"] = value
    outputs = lab.outputs()
    for tool, login in outputs["credentials"].items():
        found[f"password of {tool}"] = login["password"]
    for cluster, kubeconfig in outputs["kubeconfigs"].items():
        line = next(line for line in kubeconfig.splitlines() if "client-key-data:" in line)
        found[f"client key of {cluster}"] = base64.b64decode(line.split()[1]).decode()
    found["SSH key"] = (lab.folder / "id_ed25519").read_text()
    assert len([name for name in found if name.endswith("privateKeyPem")]) >= 3, sorted(found)
    assert any("nodes-token" in name for name in found) and any("gitlab-root" in name for name in found), sorted(found)
    return {name: needles(value) for name, value in found.items()}


def _plain(value: Any) -> str | None:
    """The text of a property as `stack export --show-secrets` writes it."""
    if isinstance(value, Mapping):
        assert "plaintext" in value, f"neither a text nor a secret: {sorted(value)}"
        return json.loads(value["plaintext"])
    return value


def needles(secret: str) -> list[str]:
    """Texts of which at least one stands wherever `secret` does; none of them is short enough to be there by chance."""
    lines = secret.strip().splitlines()
    # Of a PEM text one line of its body: line ends are written in many ways.
    text = lines[len(lines) // 2] if len(lines) > 2 else secret
    assert len(text) >= 16, "too short to be looked for"
    forms = list(dict.fromkeys([text, quote(text, safe=""), json.dumps(text)[1:-1]]))
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text.encode()).decode()
        # The first and the last group depend on the neighbours.
        forms.append(encoded[4 if shift else 0 :].rstrip("=")[:-4])
    return forms


def traces(hidden: Mapping[str, list[str]], places: Mapping[str, str]) -> dict[str, list[str]]:
    """Secret to the places at which it stands. The values themselves are not in the answer."""
    found: dict[str, list[str]] = {}
    for name, forms in hidden.items():
        for place, text in places.items():
            if any(form in text for form in forms):
                found.setdefault(name, []).append(place)
    return found


def cluster_objects(lab: Lab) -> dict[str, str]:
    """Every object of the cluster that is no Secret, by its kind: what the API shows to whoever may read that kind.

    Events and Helm's records of its releases (Secrets, but with values and objects that belong into none) are among them.
    """
    listed = lab.kubectl("api-resources", "--verbs=list", "--output=name").stdout.split()
    kinds = [kind for kind in listed if kind != "secrets"]
    assert {"pods", "configmaps", "events", "jobs.batch", "ingresses.networking.k8s.io"} <= set(kinds), kinds
    found = {kind: lab.kubectl("get", kind, "--all-namespaces", "--output=json", "--show-managed-fields").stdout for kind in kinds}
    assert any('"kind": "Ingress"' in text for text in found.values()), "the cluster looks empty"
    records = json.loads(lab.kubectl("get", "secrets", "-A", "-l", "owner=helm", "-o", "json").stdout)["items"]
    assert records, "no release of Helm is there"
    for record in records:
        packed = base64.b64decode(base64.b64decode(record["data"]["release"]))
        # Without the objects, of which a chart's own Secrets are some.
        told = json.loads(gzip.decompress(packed))
        found[f"Helm's values of {record['metadata']['name']}"] = json.dumps([told["config"], told["info"]])
    return found


@contextlib.contextmanager
def argument_watch() -> Iterator[set[str]]:
    """The command lines of all processes of this machine, the hosts' included, seen every few milliseconds."""
    seen: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            seen.update(command for _, command in processes())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)
