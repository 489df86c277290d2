"""The unsealer: opens replicas of Vault that restarted, and hands the shares over to their custodians.

Runs for ever, one look every `INTERVAL` seconds (10); with `--once`, one look. Besides what vault_api.py reads:
`RECORD`, namespace and name of the Secret with the shares; `HANDOVER`, a JSON file: `role` of the Kubernetes method,
`audience`, `shares`, `threshold`, `pgp_keys`, `secret` (name, beside the record), and `target` (`rekey`, or
`rekey-recovery-key` with an automatic seal). Without pgp_keys nothing is handed over.

The shares are read when a sealed replica needs them, and kept nowhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from client import Failure, blank, environment
from vault_api import HANDING_OVER, NONCE, READY, Kubernetes, Record, Vault, keep, leader, replicas, unseal

PATIENCE = 5.0  # a replica that is not there is looked at again later
LOOK_SECONDS = 600


def once(kubernetes: Kubernetes, handover: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """One look. Raises Failure."""
    vaults = replicas(PATIENCE)
    namespace, name = environment("RECORD").split("/")
    sealed, problems = [], []
    for vault in vaults:
        try:
            if (status := vault.seal())["initialized"] and status["sealed"]:
                sealed.append(vault)
        except Failure as failure:  # the others are opened all the same
            problems.append(failure)
    record = Record(kubernetes, namespace, name) if sealed or handover["pgp_keys"] else None
    if sealed and record:
        if record.shares:
            unseal(sealed, record.shares, say)
        elif record.state == READY:
            raise Failure(
                f"{len(sealed)} of {len(vaults)} replicas are sealed",
                ", ".join(vault.address for vault in sealed),
                "the shares are with their custodians",
                f"{handover['threshold']} of them unseal: vault operator unseal (docs/vault.md, after a restart)",
            )
    if record and record.state == HANDING_OVER:
        hand_over(kubernetes, record, leader(vaults), handover, say)
    if problems:
        raise problems[0]


def hand_over(
    kubernetes: Kubernetes, record: Record, vault: Vault, handover: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """One step of the handover: begin it, or, once the custodians have proven their shares, forget the temporary one.

    Until then the temporary share alone opens Vault, so nothing is lost whenever this is killed. A proof that Vault has
    forgotten (a new leader) is begun anew, with new shares: those picked up before are void.
    """
    wanted = (handover["shares"], handover["threshold"])
    status = vault.seal()
    if (status["n"], status["t"]) == wanted:
        record.set(READY, shares=())
        say(f"the custodians have proven their shares: the temporary one is deleted from the {record.where}")
        return
    path = f"/v1/sys/{handover['target']}"
    vault.use(vault.login(handover["role"], kubernetes.token(handover["audience"])))
    try:
        current = _plain(vault.client.get(f"{path}/init"))
        kept = kubernetes.read(record.namespace, handover["secret"])
        nonce = current.get("verification_nonce")
        if nonce and kept and (kept["metadata"].get("annotations") or {}).get(NONCE) == nonce:
            return
        if current.get("started"):
            # Not ours to continue: its shares were never recorded.
            vault.client.request("DELETE", f"{path}/init", data={"nonce": current["nonce"]})
        wish = {
            "secret_shares": handover["shares"],
            "secret_threshold": handover["threshold"],
            "pgp_keys": handover["pgp_keys"],
            "require_verification": True,
        }
        begun = _plain(vault.client.post(f"{path}/init", wish))
        answer: dict[str, Any] = {}
        for share in record.shares:
            answer = _plain(vault.client.post(f"{path}/update", {"key": share, "nonce": begun["nonce"]}))
            if answer.get("complete"):
                break
        nonce = answer["verification_nonce"]
        shares = {f"share-{n}": text for n, text in enumerate(answer["keys_base64"], 1)}
        prints = {f"fingerprint-{n}": text for n, text in enumerate(answer["pgp_fingerprints"], 1)}
        keep(kubernetes, record.namespace, handover["secret"], {NONCE: nonce}, {**shares, **prints, "nonce": nonce})
    finally:
        vault.client.request("POST", "/v1/auth/token/revoke-self", also=(400, 403, 500))
        vault.use(None)
    say(
        f"{len(shares)} shares, each encrypted for its custodian, lie in the Secret {handover['secret']};"
        f" {handover['threshold']} custodians prove theirs: vault operator rekey -verify"
    )


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Where the endpoints ask for a token (from Vault 2.0 on), they may answer below `data`, as others do."""
    below: dict[str, Any] = answer.get("data") or answer
    return below


def look() -> int:
    """One look; its exit status, with the error's page on stderr."""
    handover = json.loads(Path(environment("HANDOVER")).read_text(encoding="utf-8"))
    try:
        once(Kubernetes(), handover, lambda text: print(blank(f"changed: {text}"), flush=True))
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def main() -> int:
    if "--once" in sys.argv[1:]:
        return look()
    last = ""
    while True:
        # A process of its own for each look: whatever it read of the shares ends with it.
        try:
            child = subprocess.run(
                [sys.executable, "-B", __file__, "--once"], stderr=subprocess.PIPE, text=True, timeout=LOOK_SECONDS
            )
            error = child.stderr
        except subprocess.TimeoutExpired:
            error = f"error: the look was not over within {LOOK_SECONDS} s, and ended\n"
        if error and error != last:  # once, not at every look
            print(error, end="", file=sys.stderr, flush=True)
        last = error
        time.sleep(float(os.environ.get("INTERVAL", "10")))


if __name__ == "__main__":
    sys.exit(main())
