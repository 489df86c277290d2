"""What the lab adds to a stack file: the settings that any user must make for machines of their own.

Pure: values in, values out. The rest of the stack file, sizes and versions included, stays as committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.hosts.site import SERVICES_ADDRESS, SERVICES_PORT

_OPSTELLA = {"ui": "ui", "core": "core", "clearSession": "clear-session"}
_SERVICES = f"http://{SERVICES_ADDRESS}:{SERVICES_PORT}"


def access(key_file: str) -> dict[str, Any]:
    """Enough to have the file validated and planned: whose machines, and by which key."""
    return {"opstella:ssh": {"user": "ops", "privateKey": f"file:{key_file}"}}


def environment(clusters: Iterable[str], host_keys: Mapping[str, str], sums: Mapping[str, str]) -> dict[str, Any]:
    """The lab's own place: its media, time and names, and what its kernel lacks.

    `host_keys` pins some hosts (name to `ssh-ed25519 …`); the others are recorded on first contact.
    `sums` maps each file of the media to its SHA-256 sum; without any, media stay as the file has them.
    """
    values: dict[str, Any] = {
        "opstella:ssh": {"hostKeys": dict(host_keys)},
        # Hosts share the machine's cores and memory, so they are "too small" by design.
        "opstella:machines": {"sizeCheck": "warning"},
        # The kernel of a host is the machine's, which may have no NFS server.
        "opstella:clusters": {name: {"nfs": {"server": "ganesha"}} for name in clusters},
        "opstella:time": {"servers": [str(SERVICES_ADDRESS)]},
        "opstella:dns": {"servers": [str(SERVICES_ADDRESS)]},
    }
    if sums:
        values["opstella:media"] = {
            "source": "airgap",
            "artifacts": f"{_SERVICES}/artifacts",
            "sha256": dict(sorted(sums.items())),
            "chartRepository": f"{_SERVICES}/charts",
            "allowHttp": True,
            "trivyDatabases": "registry.lab.example/trivy",  # never asked for: pods are played
        }
        # Licensed, so a user names them; here pods are played, and no image is ever pulled.
        values["opstella:opstella"] = {
            part: {"image": f"registry.lab.example/opstella/{name}:1.0.0"} for part, name in _OPSTELLA.items()
        }
    return values


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings key by key, everything else replaced; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
