"""What MinIO keeps for the platform: buckets, users and policies, made by a Job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from config.errors import Problem, key
from plan import versions
from plan.tools.common import provision_files
from plan.tools.model import ToolInputs
from plan.tools.needs import ITSELF, Flow, Job, StorageAccess

NAME = NAMESPACE = "minio"
PORT = 9000
ENDPOINT = f"{NAME}.{NAMESPACE}.svc.cluster.local:{PORT}"
ROOT_SECRET, ROOT_USER, ROOT_PASSWORD = "minio-root", "opstella-root", "minio-root"
USERS_SECRET = "minio-users"  # a key per user of the store; plan/tools/wiring.py fills it
ACCESS_POLICY = "opstella.access."  # and the user's name
USER_LENGTH = range(3, 21)  # MinIO's
KEPT = "opstella.kept"
"""Stands in the groups' policies for every bucket in the store that the platform ever marked: the script names them."""

_READ_WRITE = (
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion",
    "s3:GetObjectTagging", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
)  # fmt: skip
_LIST = (
    "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
)  # fmt: skip
# Of _LIST, what MinIO grants by prefix; it lists unfinished uploads of a whole bucket or not at all.
_LIST_BELOW, _LIST_WHOLE = ("s3:ListBucket", "s3:ListBucketVersions"), ("s3:GetBucketLocation", "s3:GetBucketVersioning")


def owner(inputs: ToolInputs) -> str:
    """What the tag of a bucket of this stack says."""
    return f"{inputs.cluster}.{inputs.domain}"


def user_of(tool: str, inputs: ToolInputs) -> str:
    """A name for the credential of `tool`, which every cluster of a platform may carry, that the store takes."""
    if len(inputs.clusters) == 1:
        return tool
    name = f"{tool}-{inputs.cluster}"
    return name if len(name) in USER_LENGTH else f"{tool[:11]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=1) + "\n"


def _statement(effect: str, actions: Sequence[str], resources: Sequence[str] = ()) -> dict[str, Any]:
    place = {"Resource": [f"arn:aws:s3:::{name}" for name in resources]} if resources else {}
    return {"Effect": effect, "Action": sorted(actions), **place}


def access_policy(access: StorageAccess) -> str:
    """The policy (JSON) of one credential: its own buckets, and what lies in them below its prefix."""
    names = sorted(bucket.name for bucket in access.buckets)
    objects = _statement("Allow", _READ_WRITE, [f"{name}/{access.prefix}*" for name in names])
    if not access.prefix:
        return _document(_statement("Allow", _LIST, names), objects)
    # Of a shared bucket, only such lists are given as name the prefix.
    below = {"Condition": {"StringLike": {"s3:prefix": [f"{access.prefix}*"]}}}
    return _document(_statement("Allow", _LIST_WHOLE, names), _statement("Allow", _LIST_BELOW, names) | below, objects)


def group_policies(buckets: Sequence[str]) -> dict[str, str]:
    """Group to policy (JSON). `buckets` are the platform's: backups and logs, which only administrators may see.

    Closed are also those of tools that were switched off, whose data stay: KEPT, which the script replaces by the buckets
    that carry the mark of a stack.
    """
    names = [*sorted(buckets), KEPT]
    closed = _statement("Deny", ["s3:*"], [part for name in names for part in (name, f"{name}/*")])
    read = ("s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject")
    return {
        "platform-admins": _document(
            _statement("Allow", ["admin:*"]), _statement("Allow", ["kms:*"]), _statement("Allow", ["s3:*"], ["*"])
        ),
        "developers": _document(_statement("Allow", ["s3:*"], ["*"]), closed),
        "viewers": _document(_statement("Allow", read, ["*"]), closed),
    }


def provisioning(accesses: Sequence[StorageAccess], inputs: ToolInputs) -> Job:
    """The Job that makes buckets, users and policies; `provision/minio.sh` says what its files hold.

    Raises ValueError: two accesses want the same bucket differently, or a user's name is too long for MinIO.
    """
    for access in accesses:
        if len(access.user) not in USER_LENGTH:
            raise ValueError(f"the store takes names of 3 to 20 characters, not '{access.user}'")
    buckets = {bucket.name: bucket for access in accesses for bucket in access.buckets}
    for access in accesses:
        for bucket in access.buckets:
            if buckets[bucket.name] != bucket:
                raise ValueError(f"the bucket {bucket.name} is declared in two ways, once by {access.user}")
    groups = group_policies(tuple(buckets))
    lines = [f"owner {owner(inputs)}"]
    for name, bucket in sorted(buckets.items()):
        adopt = "adopt" if name in inputs.object_store.adopt else "-"
        lines.append(f"bucket {name} {'versioned' if bucket.versioning else '-'} {bucket.expire_days or '-'} {adopt}")
    lines += [f"policy {name}" for name in sorted(groups)]
    lines += [f"user {access.user}" for access in sorted(accesses, key=lambda access: access.user)]
    policies = groups | {f"{ACCESS_POLICY}{access.user}": access_policy(access) for access in accesses}
    return Job(
        name="minio-provisioning",
        image=f"{versions.MC_IMAGE.name}:{versions.MC_IMAGE.version}",
        command=("/bin/sh", "/opstella/minio.sh"),
        files={
            **provision_files("minio.sh"),
            "wanted.txt": "\n".join(lines) + "\n",
            **{f"policy.{name}.json": text for name, text in policies.items()},
            **{
                f"expiry.{name}.json": _expiry(bucket.expire_days)
                for name, bucket in buckets.items()
                if bucket.expire_days
            },
        },
        environment={"ENDPOINT": f"http://{ENDPOINT}"},
        secret_files={"root": ROOT_SECRET, "users": USERS_SECRET},
        flows=(Flow(peer=ITSELF, ports=(PORT,), why="makes buckets, users and policies"),),
    )


def strange(platform: Sequence[ToolInputs], needs: Sequence[object]) -> Iterator[Problem]:
    """A problem for each bucket that is to be taken over, but is none of `needs`, of all stores of the platform."""
    there = sorted({bucket.name for need in needs if isinstance(need, StorageAccess) for bucket in need.buckets})
    for name in dict.fromkeys(name for inputs in platform for name in inputs.object_store.adopt):
        if name not in there:
            yield Problem(
                key("objectStore.adopt"),
                f"the platform keeps no bucket '{name}', so that there is nothing to take over",
                f"name one of {', '.join(there)}, or remove it" if there else "remove it",
            )


def _expiry(days: int) -> str:
    """A lifecycle configuration (JSON): current and older versions go after `days`, a delete marker with the last."""
    rule = {
        "ID": "opstella",
        "Status": "Enabled",
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
    }
    return json.dumps({"Rules": [rule]}, indent=1) + "\n"
