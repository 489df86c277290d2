"""What an interrupted run leaves of a Helm release, taken away before the release is made or changed again.

An engine that is killed, or loses its machine, leaves Helm's record of the release at `pending-…`, or a record of a
release that the state knows nothing of. Helm then refuses every further run ("cannot re-use a name that is still in
use", "another operation is in progress"). Only the record goes: the objects stay, and Helm takes over those that carry
its name of the release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pulumi

from components import helm_lists
from components.cluster_api import requests as _requests
from plan.tools.common import OWNER as OWNER
from plan.tools.common import OWNER_LABEL as OWNER_LABEL


def hooks(name: str, kubeconfig: pulumi.Input[str]) -> pulumi.ResourceHookBinding:
    """Hooks for every Helm release of one cluster; `name` is unique in the stack.

    The engine lets only one run work on a stack, so nobody else can be installing what it is about to make.
    """
    text: pulumi.Output[str] = pulumi.Output.from_input(kubeconfig)

    async def before_create(args: pulumi.ResourceHookArgs) -> None:
        await _clear(text, args.new_inputs, pending_only=False)

    async def before_update(args: pulumi.ResourceHookArgs) -> None:
        await _clear(text, args.new_inputs, pending_only=True)
        await _make_changeable(text, args.new_inputs)

    return pulumi.ResourceHookBinding(
        before_create=[pulumi.ResourceHook(f"{name}-before-create", before_create)],
        before_update=[pulumi.ResourceHook(f"{name}-before-update", before_update)],
    )


async def _clear(kubeconfig: pulumi.Output[str], inputs: Mapping[str, Any] | None, *, pending_only: bool) -> None:
    known = await kubeconfig.future()
    if known and inputs:
        cleared = await asyncio.to_thread(clear, known, inputs["namespace"], inputs["name"], pending_only=pending_only)
        for record in cleared:
            pulumi.log.info(f"removed {record}, which an interrupted run left")


async def _make_changeable(kubeconfig: pulumi.Output[str], inputs: Mapping[str, Any] | None) -> None:
    """Of releases that are rendered without what Helm cannot change, what an older version of this program deployed."""
    known = await kubeconfig.future()
    if known and inputs and inputs.get("postrender") == helm_lists.POST_RENDERER:
        for deleted in await asyncio.to_thread(helm_lists.clear, known, inputs["namespace"], inputs["name"]):
            pulumi.log.info(f"deleted {deleted}, which Helm cannot change; the update makes it again")


def clear(kubeconfig: str, namespace: str, release: str, *, pending_only: bool) -> list[str]:
    """Removes Helm's records of `release` (with `pending_only`, those of an operation that never ended).

    Returns what was removed. Touches nothing in a namespace that is not this program's. Raises RuntimeError when the
    API server does not answer, or refuses.
    """
    request = _requests(kubeconfig)
    path = f"/api/v1/namespaces/{namespace}"
    found = request("GET", path)
    if not found or found["metadata"].get("labels", {}).get(OWNER_LABEL) != OWNER:
        return []
    records = request("GET", f"{path}/secrets?labelSelector=owner%3Dhelm,name%3D{release}")
    removed = []
    for record in (records or {}).get("items", []):
        meta = record["metadata"]
        status = meta["labels"].get("status", "unknown")
        if pending_only and not status.startswith("pending-"):
            continue
        request("DELETE", f"{path}/secrets/{meta['name']}")
        removed.append(f"Helm's record {namespace}/{meta['name']} ({status})")
    return removed
