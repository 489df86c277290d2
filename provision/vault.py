"""Initialises Vault, opens it and configures it; run again, it changes only what differs (docs/vault.md).

Reads `CONFIG`, the JSON file that plan/tools/vault_config.py makes, and what vault_api.py reads. A Job killed at any
moment goes on where it stopped: the shares are recorded before anything that needs them. The root token is never
written anywhere; a run that lost one makes another from the shares, and every one is revoked at the end.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import Failure, Refused, Report, environment, hide, main, secret
from vault_api import (
    CONFIGURING,
    HANDING_OVER,
    INITIALISING,
    READY,
    Kubernetes,
    Record,
    Vault,
    leader,
    replicas,
    unseal,
)

Config = Mapping[str, Any]
MANUAL = "docs/vault.md"


def run(report: Report) -> None:
    config: Config = json.loads(Path(environment("CONFIG")).read_text(encoding="utf-8"))
    kubernetes = Kubernetes()
    record = Record(kubernetes, *environment("RECORD").split("/"))
    vaults = replicas()
    token = begin(config, record, vaults, report)
    if not config["automatic"] and record.shares:
        unseal(vaults, record.shares, report.did)
    vault = leader(await_open(vaults, config))
    try:
        token = token or login(config, record, kubernetes, vault, report)
        vault.use(token)
        same_cluster(record, vault)
        audit(vault, config, report)
        Settings(vault, config, report).all()
        if record.state == CONFIGURING:
            finish(config, record, kubernetes, vault, report)
    finally:
        # Whatever went wrong: no token of this run outlives it.
        vault.client.request("POST", "/v1/auth/token/revoke-self", also=(400, 403, 500, 503))


# --- initialise ---


def begin(config: Config, record: Record, vaults: Sequence[Vault], report: Report) -> str | None:
    """Initialises an empty Vault; its root token, or None where it was initialised before. Raises Failure."""
    seals = [vault.seal() for vault in vaults]
    if any(seal["initialized"] for seal in seals):
        refuse_foreign(config, record, vaults, seals)
        return None
    if record.state not in (None, INITIALISING):
        raise Failure(
            f"Vault is empty, but there are shares of another one (cluster {record.cluster or 'unknown'})",
            f"{vaults[0].address}, {record.where}",
            "its storage was lost or replaced",
            f"restore a snapshot ({MANUAL}, recovery), or, to begin anew without the old data, delete that Secret",
        )
    record.set(INITIALISING)  # also proves that the shares can be recorded
    temporary = config["temporary"]
    kind = ("recovery" if config["automatic"] else "secret", "recovery_keys" if config["automatic"] else "keys")
    wish = {f"{kind[0]}_shares": temporary["shares"], f"{kind[0]}_threshold": temporary["threshold"]}
    with undisturbed():
        answer = vaults[0].client.put("/v1/sys/init", wish)
        shares = [hide(share) for share in answer[kind[1]]]
        root = hide(answer["root_token"])
        record.set(CONFIGURING, shares=shares)
    report.did(
        f"initialised Vault: {len(shares)} shares, {temporary['threshold']} of them open it, in the {record.where}"
    )
    return root


@contextmanager
def undisturbed() -> Iterator[None]:
    """Between Vault's answer and the record, the shares are in memory alone: a polite kill waits that long."""
    kept = {name: signal.signal(name, signal.SIG_IGN) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in kept.items():
            signal.signal(name, handler)


def refuse_foreign(config: Config, record: Record, vaults: Sequence[Vault], seals: Sequence[Mapping[str, Any]]) -> None:
    """Raises Failure for a Vault that was not initialised by this procedure, or whose shares were lost on the way."""
    known = next((seal for seal in seals if seal.get("cluster_id")), seals[0])
    what = f"version {known['version']}, cluster {known.get('cluster_name') or 'sealed, so it does not say its name'}"
    what += f" ({known['cluster_id']})" if known.get("cluster_id") else ""
    if record.state is None:
        raise Failure(
            f"this Vault was initialised by somebody else: {what}, {known['t']} of {known['n']} shares open it",
            vaults[0].address,
            f"there is no {record.where}",
            f"adopt it: put {known['t']} of its shares into that Secret and annotate it"
            f" opstella.io/vault-state={CONFIGURING} ({MANUAL}, adoption), then run again; or empty its volumes",
        )
    if record.state == INITIALISING:
        raise Failure(
            f"a run was cut off between Vault's initialisation and the record of its shares: {what}",
            f"{vaults[0].address}, {record.where}",
            "nobody has its shares, so nothing was ever stored in this Vault",
            f"empty its volumes and delete that Secret ({MANUAL}, recovery), then run again",
        )
    if record.state in (CONFIGURING, HANDING_OVER) and not record.shares:
        raise Failure(
            "the record of the shares is empty, before the custodians have theirs",
            record.where,
            "somebody emptied it",
            f"put the shares back from a backup of etcd ({MANUAL}, recovery)",
        )


def await_open(vaults: Sequence[Vault], config: Config) -> Sequence[Vault]:
    """`vaults`, once at least one of them is open. Raises Failure when only custodians can open them."""
    for _ in range(60 if config["automatic"] else 1):
        seals = [vault.seal() for vault in vaults]
        if not all(seal["sealed"] for seal in seals):
            return vaults
        time.sleep(1)
    automatic = "its automatic seal does not open it; look at the log of its pods"
    custodians = f"{seals[0]['t']} custodians open each replica: vault operator unseal ({MANUAL}, after a restart)"
    raise Failure(
        "every replica of Vault is sealed",
        ", ".join(vault.address for vault in vaults),
        "the key service does not answer" if config["automatic"] else "its shares are with their custodians",
        automatic if config["automatic"] else custodians,
    )


def same_cluster(record: Record, vault: Vault) -> None:
    """Binds the record to this Vault. Raises Failure if it belongs to another one."""
    cluster = vault.seal()["cluster_id"]
    if record.cluster and record.cluster != cluster:
        raise Failure(
            f"this is the Vault {cluster}, but the recorded shares are those of {record.cluster}",
            f"{vault.address}, {record.where}",
            "its storage was replaced",
            f"restore the right snapshot, or delete that Secret and adopt this Vault ({MANUAL}, adoption)",
        )
    if not record.cluster:
        record.set(record.state or READY, cluster=cluster)


# --- tokens ---


def login(config: Config, record: Record, kubernetes: Kubernetes, vault: Vault, report: Report) -> str:
    """A token for what this procedure manages; a root token while it configures, for only that can revoke others."""
    if record.state == CONFIGURING and record.shares:
        return generate_root(vault, record.shares, report)
    try:
        return vault.login(config["login"]["role"], kubernetes.token(config["login"]["audience"]))
    except Refused as refused:
        raise Failure(
            "Vault does not let this procedure in",
            f"{vault.address}, role {config['login']['role']} of the login method kubernetes",
            f"it answered {refused.status}: {refused.why}",
            "repair the method, or let the procedure make itself a root token from the shares: annotate the"
            f" {record.where} opstella.io/vault-state={CONFIGURING} and run again ({MANUAL}, recovery)",
        ) from None


def generate_root(vault: Vault, shares: Sequence[str], report: Report) -> str:
    """A root token, from the shares; for a run whose predecessor was cut off with its own."""
    path = "/v1/sys/generate-root"
    vault.client.request("DELETE", f"{path}/attempt", also=(400,))
    attempt = vault.client.put(f"{path}/attempt", {})
    one_time = hide(attempt["otp"]).encode()
    answer: dict[str, Any] = {}
    for share in shares[: attempt["required"]]:
        answer = vault.client.put(f"{path}/update", {"key": share, "nonce": attempt["nonce"]})
    text = answer["encoded_token"]
    encoded = base64.b64decode(text + "=" * (-len(text) % 4))
    report.did("made a root token from the shares")
    return hide(bytes(a ^ b for a, b in zip(encoded, one_time, strict=True)).decode())


def finish(config: Config, record: Record, kubernetes: Kubernetes, vault: Vault, report: Report) -> None:
    """Sees that the next run can log in, then revokes every root token but this run's own, which ends with it."""
    own = vault.client.headers["X-Vault-Token"]
    later = vault.login(config["login"]["role"], kubernetes.token(config["login"]["audience"]))
    mine = vault.client.get("/v1/auth/token/lookup-self")["data"]["accessor"]
    for accessor in vault.client.request("LIST", "/v1/auth/token/accessors").json()["data"]["keys"]:
        found = vault.client.request(
            "POST", "/v1/auth/token/lookup-accessor", data={"accessor": accessor}, also=(400, 403, 404)
        )
        if found.status == 200 and "root" in found.json()["data"]["policies"] and accessor != mine:
            vault.client.post("/v1/auth/token/revoke-accessor", {"accessor": accessor})
            report.did("revoked a root token that an earlier run left")
    for token in (later, own):
        vault.use(token)
        vault.client.post("/v1/auth/token/revoke-self")
    report.did("revoked the root token")
    record.set(HANDING_OVER if config["handover"] else READY)
    if config["handover"]:
        report.did("left the handover of the shares to the unsealer")


# --- configure ---


def audit(vault: Vault, config: Config, report: Report) -> None:
    """The audit device, before anything else is set, so that all of it is in the audit log."""
    present = vault.client.get("/v1/sys/audit")
    devices = present.get("data") or present
    for path, device in config["audit"].items():
        if f"{path}/" not in devices:
            vault.client.put(f"/v1/sys/audit/{path}", device)
            report.did(f"audit device {path}")


class Settings:
    """What Vault is to hold, compared with what it holds."""

    def __init__(self, vault: Vault, config: Config, report: Report) -> None:
        self._client, self._config, self._report = vault.client, config, report
        self._prints: dict[str, str] = {}

    def all(self) -> None:
        config = self._config
        for name, text in config["policies"].items():
            self.policy(name, text)
        self.mounts("mounts", "engine", config["engines"])
        self.mounts("auth", "login method", config["methods"])
        self._prints = self._known()
        before = dict(self._prints)
        self.issuer(config["authority"])
        for item in config["items"]:
            self.item(item)
        self.groups(config["groups"])
        if self._prints != before:
            self._client.post(f"/v1/{config['fingerprints']}", {"data": self._prints})

    def policy(self, name: str, text: str) -> None:
        found = self._client.find(f"/v1/sys/policies/acl/{name}")
        if found is None or found["data"]["policy"] != text:
            self._client.put(f"/v1/sys/policies/acl/{name}", {"policy": text})
            self._report.did(f"policy {name}")

    def mounts(self, kind: str, what: str, wanted: Mapping[str, Any]) -> None:
        answer = self._client.get(f"/v1/sys/{kind}")
        present = answer.get("data") or answer
        for path, mount in wanted.items():
            found = present.get(f"{path}/")
            if found is None:
                self._client.post(f"/v1/sys/{kind}/{path}", mount)
                self._report.did(f"{what} {path}")
                continue
            if found["type"] != mount["type"]:
                raise Failure(
                    f"at {path}/ there is a {what} of type {found['type']}, and {mount['type']} is to be there",
                    f"{self._client.base}/v1/sys/{kind}",
                    "somebody else made it",
                    f"move it away (vault {'secrets' if kind == 'mounts' else 'auth'} move {path}/ NEW/), then run again",
                )
            changed = {k: v for k, v in mount.get("config", {}).items() if found["config"].get(k) != v}
            if changed:
                self._client.post(f"/v1/sys/{kind}/{path}/tune", changed)
                self._report.did(f"{what} {path}: {', '.join(sorted(changed))}")

    def item(self, item: Mapping[str, Any]) -> None:
        """One path and the fields that are to be there; `secrets` are fields out of mounted Secrets, which Vault does
        not give back, `keys` lists of public keys (PEM) out of one, which it does."""
        path, data = item["path"], dict(item["data"])
        hidden = {name: secret(*place) for name, place in item.get("secrets", {}).items()}
        for name, place in item.get("keys", {}).items():
            data[name] = _blocks(secret(*place))
        for name, file in item.get("files", {}).items():
            data[name] = Path(file).read_text(encoding="utf-8")
        found = self._patiently("GET", path, None, (404, 405))
        present = (found or {}).get("data") or {}
        differ = [name for name, value in data.items() if _plain(present.get(name)) != _plain(value)]
        # Vault does not give a secret back: what was written is known by its digest, which is kept in Vault itself.
        digests = {f"{path}:{name}": hashlib.sha256(value.encode()).hexdigest() for name, value in hidden.items()}
        differ += [key.rpartition(":")[2] for key, digest in digests.items() if self._prints.get(key) != digest]
        if differ:
            self._patiently("POST", path, {**data, **hidden}, ())
            self._prints |= digests
            self._report.did(f"{path}: {', '.join(sorted(differ))}")

    def _patiently(self, method: str, path: str, data: Any, also: tuple[int, ...]) -> Any:
        """A new engine prepares its storage, and Keycloak may still start: 400 is tried again for a while."""
        for attempt in range(30, -1, -1):
            try:
                answer = self._client.request(method, f"/v1/{path}", data=data, also=also)
                return answer.json() if answer.status == 200 else None
            except Refused as refused:
                busy = ("upgrading", "oidc discovery", "fetching keys")
                if attempt == 0 or not any(word in refused.why.lower() for word in busy):
                    raise
                time.sleep(2)
        return None

    def issuer(self, authority: Mapping[str, Any]) -> None:
        """The stack's intermediate with its key, as the engine's default issuer."""
        mount = authority["mount"]
        chain, key = secret(*authority["chain"]), secret(*authority["key"])
        wanted = _certificates(chain)[0]
        answer = self._client.request("LIST", f"/v1/{mount}/issuers", also=(404,))
        names = answer.json()["data"]["keys"] if answer.status == 200 else []
        for name in names:
            data = self._client.get(f"/v1/{mount}/issuer/{name}")["data"]
            if data["key_id"] and _certificates(data["certificate"])[:1] == [wanted]:
                issuer = name
                break
        else:
            bundle = {"pem_bundle": f"{chain}\n{key}\n"}
            mapping = self._client.post(f"/v1/{mount}/issuers/import/bundle", bundle)["data"]["mapping"]
            issuer = next(name for name, key_id in mapping.items() if key_id)
            self._report.did(f"{mount}: the stack's intermediate imported")
        if self._client.get(f"/v1/{mount}/config/issuers")["data"].get("default") != issuer:
            self._client.post(f"/v1/{mount}/config/issuers", {"default": issuer})
            self._report.did(f"{mount}: default issuer")

    def groups(self, groups: Mapping[str, Any]) -> None:
        """Vault's own groups for those that the login method `via` names, each with its policies."""
        answer = self._client.get("/v1/sys/auth")
        accessor = (answer.get("data") or answer)[f"{groups['via']}/"]["accessor"]
        for name, policies in groups["policies"].items():
            path = f"/v1/identity/group/name/{name}"
            found = self._client.find(path)
            if (
                found is None
                or found["data"]["type"] != "external"
                or sorted(found["data"]["policies"] or []) != policies
            ):
                self._client.post(path, {"type": "external", "policies": policies})
                self._report.did(f"group {name}")
                found = self._client.get(path)
            alias = found["data"].get("alias") or {}
            if alias.get("name") != name or alias.get("mount_accessor") != accessor:
                self._client.post(
                    "/v1/identity/group-alias",
                    {"name": name, "mount_accessor": accessor, "canonical_id": found["data"]["id"]},
                )
                self._report.did(f"group {name}: its name in {groups['via']}")

    def _known(self) -> dict[str, str]:
        found = self._patiently("GET", self._config["fingerprints"], None, (404,))
        return dict(found["data"]["data"] or {}) if found else {}


def _plain(value: Any) -> Any:
    """As compared: lists without order, text without the space around it."""
    if isinstance(value, list):
        return sorted(str(one).strip() for one in value)
    return value.strip() if isinstance(value, str) else value


def _blocks(pem: str) -> list[str]:
    """Each block of a PEM text by itself."""
    return [f"{part}{end}\n" for part, end in re.findall(r"(-----BEGIN [^-]+-----[^-]+)(-----END [^-]+-----)", pem)]


def _certificates(pem: str) -> list[str]:
    end = "-----END CERTIFICATE-----"
    return ["".join(part.split()) + "".join(end.split()) for part in pem.split(end) if "BEGIN CERTIFICATE" in part]


if __name__ == "__main__":
    sys.exit(main(run))
