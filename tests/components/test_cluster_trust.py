"""What is read out of a cluster so that others can verify it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from components.cluster_trust import account_keys


def encoded(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")


def test_keys_of_both_kinds_become_pem() -> None:
    """RKE2 signs with RSA; after a change of keys the old one stays in the set for a while."""
    one, two = rsa.generate_private_key(65537, 2048).public_key(), ec.generate_private_key(ec.SECP256R1()).public_key()
    first, second = one.public_numbers(), two.public_numbers()
    keys = [
        {"kty": "RSA", "n": encoded(first.n), "e": encoded(first.e)},
        {"kty": "EC", "crv": "P-256", "x": encoded(second.x), "y": encoded(second.y)},
    ]
    text = account_keys(json.dumps({"keys": keys}))
    end = "-----END PUBLIC KEY-----\n"
    read = [load_pem_public_key((part + end).encode()) for part in text.split(end)[:-1]]
    assert [key.public_numbers() for key in read] == [first, second]  # type: ignore[union-attr]


def test_an_unknown_kind_of_key_is_named() -> None:
    with pytest.raises(ValueError, match="OKP"):
        account_keys('{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "eA"}]}')
