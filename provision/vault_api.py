"""What the Vault scripts share: the Kubernetes API, the record of the shares, and the unsealing of replicas.

Standard library only; lies beside client.py. The record is the Secret that holds Vault's shares, and says by its
annotation `opstella.io/vault-state` how far the procedure has come:

`initialising`  written before Vault is asked to initialise; holds nothing yet
`configuring`   holds the shares; Vault is being configured
`handing-over`  holds a temporary share, which opens Vault until the custodians have proven theirs
`ready`         done; holds the shares (nobody holds them otherwise), or nothing (the custodians hold them)
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from client import Client, Failure, Refused, bearer, environment, hide

STATE, CLUSTER, NONCE = "opstella.io/vault-state", "opstella.io/vault-cluster", "opstella.io/verification-nonce"
INITIALISING, CONFIGURING, HANDING_OVER, READY = "initialising", "configuring", "handing-over", "ready"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_SECONDS = 600  # the shortest that Kubernetes issues


class Kubernetes:
    """The Kubernetes API, as the pod's own ServiceAccount.

    Environment: `KUBERNETES_API` (https://kubernetes.default.svc), `SERVICE_ACCOUNT`, the folder with `token`, `ca.crt`
    and `namespace`; `ACCOUNT_NAME`, the ServiceAccount's name.
    """

    def __init__(self) -> None:
        folder = Path(environment("SERVICE_ACCOUNT", ACCOUNT))
        self._token = folder / "token"
        self._namespace = folder / "namespace"
        base = environment("KUBERNETES_API", "https://kubernetes.default.svc")
        self._client = Client(base, ca_file=str(folder / "ca.crt"))

    def _api(self) -> Client:
        # The kubelet renews the token while the pod runs.
        self._client.headers["Authorization"] = bearer(self._token.read_text(encoding="utf-8").strip())
        return self._client

    def read(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A Secret, or None."""
        found: dict[str, Any] | None = self._api().find(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return found

    def write(self, secret: Mapping[str, Any]) -> dict[str, Any]:
        """Creates the Secret, or replaces the one that it was read from: what changed in between is an error (409)."""
        metadata = secret["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/secrets"
        if "resourceVersion" in metadata:
            answer: dict[str, Any] = self._api().put(f"{path}/{metadata['name']}", secret)
        else:
            answer = self._api().post(path, secret)
        return answer

    def token(self, audience: str) -> str:
        """A token of the pod's own ServiceAccount that only `audience` accepts, for ten minutes."""
        namespace = self._namespace.read_text(encoding="utf-8").strip()
        answer = self._api().post(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{environment('ACCOUNT_NAME')}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": [audience], "expirationSeconds": TOKEN_SECONDS},
            },
        )
        return hide(answer["status"]["token"])


class Record:
    """The Secret with the shares. `shares` are hexadecimal, as Vault gave them."""

    def __init__(self, kubernetes: Kubernetes, namespace: str, name: str) -> None:
        self._kubernetes, self.namespace, self.name = kubernetes, namespace, name
        self._secret: dict[str, Any] | None = None
        self.read()

    def read(self) -> None:
        self._secret = self._kubernetes.read(self.namespace, self.name)
        for share in self.shares:
            hide(share)

    @property
    def where(self) -> str:
        return f"Secret {self.name} in the namespace {self.namespace}"

    @property
    def _annotations(self) -> Mapping[str, str]:
        return (self._secret or {}).get("metadata", {}).get("annotations") or {}

    @property
    def state(self) -> str | None:
        """None when there is no record."""
        return None if self._secret is None else self._annotations.get(STATE, READY)

    @property
    def cluster(self) -> str | None:
        """The id of the Vault that it belongs to, once known."""
        return self._annotations.get(CLUSTER)

    @property
    def shares(self) -> tuple[str, ...]:
        text = ((self._secret or {}).get("data") or {}).get("shares")
        return tuple(json.loads(base64.b64decode(text))) if text else ()

    def set(self, state: str, *, shares: Sequence[str] | None = None, cluster: str | None = None) -> None:
        """Writes it; what is None stays as it is."""
        kept = self.shares if shares is None else tuple(shares)
        annotations = {**self._annotations, STATE: state, **({CLUSTER: cluster} if cluster else {})}
        self._secret = self._kubernetes.write(_secret(self._secret, self.namespace, self.name, annotations,
                                                      {"shares": json.dumps(kept)} if kept else {}))  # fmt: skip


def keep(
    kubernetes: Kubernetes, namespace: str, name: str, annotations: Mapping[str, str], data: Mapping[str, str]
) -> None:
    """Writes a Secret of exactly `data` (text), whether it is there or not."""
    kubernetes.write(_secret(kubernetes.read(namespace, name), namespace, name, annotations, data))


def _secret(
    old: Mapping[str, Any] | None, namespace: str, name: str, annotations: Mapping[str, str], data: Mapping[str, str]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "annotations": dict(annotations),
        "labels": {"app.kubernetes.io/managed-by": "opstella"},
    }
    if old is not None:
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": encoded}


class Vault:
    """One replica of Vault."""

    def __init__(self, address: str, *, patience: float | None = None) -> None:
        self.address = address
        self.client = Client(address, patience=patience)

    def use(self, token: str | None) -> None:
        """The token of the requests from now on; None for none."""
        if token is None:
            self.client.headers.pop("X-Vault-Token", None)
        else:
            self.client.headers["X-Vault-Token"] = hide(token)

    def seal(self) -> dict[str, Any]:
        """Its seal: `initialized`, `sealed`, `t`, `n`, `version`; `cluster_id` and `cluster_name` once it is open."""
        answer: dict[str, Any] = self.client.get("/v1/sys/seal-status")
        return answer

    def login(self, role: str, jwt: str) -> str:
        """A token of the Kubernetes method's `role`. Raises Refused."""
        answer = self.client.post("/v1/auth/kubernetes/login", {"role": role, "jwt": jwt})
        return hide(answer["auth"]["client_token"])


def replicas(patience: float | None = None) -> list[Vault]:
    """Every replica, by `VAULT_REPLICAS`: addresses with a space in between."""
    return [Vault(address, patience=patience) for address in environment("VAULT_REPLICAS").split()]


def wait(what: str, where: str, do: str, look: Callable[[], Any], seconds: float | None = None) -> Any:
    """What `look` finds, as soon as it is not None. Raises Failure when `seconds` (PATIENCE) are over."""
    limit = float(os.environ.get("PATIENCE", "300")) if seconds is None else seconds
    deadline = time.monotonic() + limit
    while (found := look()) is None:
        if time.monotonic() >= deadline:
            raise Failure(f"{what}: not within {limit:.0f} s", where, "Vault did not get there", do)
        time.sleep(0.5)
    return found


def unseal(vaults: Iterable[Vault], shares: Sequence[str], did: Callable[[str], None]) -> None:
    """Opens every replica that is sealed. A replica that is empty joins the others first, by its own retry_join."""
    for vault in vaults:
        what = f"{vault.address} is not part of the cluster"
        status = wait(what, vault.address, "look at its log: it names the replica it cannot join",
                      lambda vault=vault: _initialised(vault))  # fmt: skip
        if not status["sealed"]:
            continue
        # Half a key of somebody else's attempt would spoil this one.
        vault.client.post("/v1/sys/unseal", {"reset": True})
        for share in shares[: status["t"]]:
            try:
                vault.client.post("/v1/sys/unseal", {"key": share})
            except Refused as refused:
                raise Failure(
                    "the recorded shares do not open Vault",
                    vault.address,
                    f"it answered {refused.status}: {refused.why}",
                    "Vault was rekeyed, or its storage is another one: put its own shares into the Secret"
                    " (docs/vault.md, recovery)",
                ) from None
        wait(f"{vault.address} stays sealed", vault.address, "look at its log",
             lambda vault=vault: None if vault.seal()["sealed"] else True)  # fmt: skip
        did(f"unsealed {vault.address}")


def _initialised(vault: Vault) -> dict[str, Any] | None:
    status = vault.seal()
    return status if status["initialized"] else None


def leader(vaults: Sequence[Vault]) -> Vault:
    """The replica that answers for all."""

    def look() -> Vault | None:
        for vault in vaults:
            if not vault.seal()["sealed"]:
                answer = vault.client.request("GET", "/v1/sys/leader", also=(400, 500))
                if answer.status == 200 and answer.json().get("is_self"):
                    return vault
        return None

    found: Vault = wait("Vault has no leader", ", ".join(v.address for v in vaults),
                        "more than half of its replicas must be open and reach one another at port 8201", look)  # fmt: skip
    return found
