"""What a cluster shows the others, so that they can verify it: its API's authority, and the keys of its accounts."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pulumi
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}


@dataclass(frozen=True, kw_only=True)
class ClusterTrust:
    """PEM: `authority` signed the API server's certificate; `account_keys`, one after another, verify the tokens of the
    cluster's ServiceAccounts. None for what nobody asks for."""

    authority: pulumi.Input[str] | None = None
    account_keys: pulumi.Input[str] | None = None


def account_keys(key_set: str) -> str:
    """The public keys of a JSON Web Key Set, as PEM. Raises ValueError for one neither RSA nor of a known curve."""
    keys = [_public_key(key) for key in json.loads(key_set)["keys"]]
    return "".join(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() for key in keys)


def _public_key(key: dict[str, Any]) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    if key["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key()
    if key["kty"] == "EC" and key["crv"] in _CURVES:
        return ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), _CURVES[key["crv"]]()).public_key()
    raise ValueError(f"the cluster signs its ServiceAccounts' tokens with a key of type {key['kty']}, which is unknown here")


def _number(text: str) -> int:
    """An unsigned integer as JSON Web Keys write it (RFC 7518, Base64urlUInt)."""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
