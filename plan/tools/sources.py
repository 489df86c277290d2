"""Secrets of tools as data: a secret is declared by its keys and by where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

PkiItem = Literal[
    "intermediate.chain",  # PEM: the intermediate, then what stands above it, up to and with the root
    "intermediate.key",
    "wildcard.chain",  # PEM: the user's certificate of *.domain, then its chain
    "wildcard.key",
]


@dataclass(frozen=True, kw_only=True)
class Password:
    """A generated password; `name` is unique in its cluster. Letters and digits only, unless `special`."""

    name: str
    length: int = 32
    special: bool = False


@dataclass(frozen=True, kw_only=True)
class Clear:
    """A value that is no secret, in a secret because the reader looks there."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Generated:
    """The value of the Password `password`; of this cluster, unless `cluster` names another one of the platform."""

    password: str
    cluster: str | None = None


@dataclass(frozen=True, kw_only=True)
class Bcrypt:
    """The bcrypt hash of the Password `password`, after `prefix`; must stay the same from run to run."""

    password: str
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class Htpasswd:
    """A file of logins: a line `user:hash` for each user of `passwords`, with the bcrypt hash of the Password named."""

    passwords: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class FromPki:
    """A certificate or key of the stack's PKI."""

    item: PkiItem


@dataclass(frozen=True, kw_only=True)
class CaBundle:
    """The PEM bundle of every CA that the stack trusts."""


@dataclass(frozen=True, kw_only=True)
class EachCa:
    """Each certificate of that bundle under a key of its own, for what reads only the first certificate of a file.

    The key in `data` holds `{number}`, which counts from 1.
    """


@dataclass(frozen=True, kw_only=True)
class ClusterAuthority:
    """The PEM certificate that the API server of another cluster of the platform is verified by."""

    cluster: str


@dataclass(frozen=True, kw_only=True)
class ClusterAccountKeys:
    """The PEM public keys, one after another, that verify tokens of another cluster's ServiceAccounts."""

    cluster: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """The secret `name` of opstella:secrets."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Text with `{name}` for the Password `name`; every other brace is doubled. For files that hold a secret."""

    template: str
    passwords: tuple[str, ...]


Source = (
    Clear
    | Generated
    | Bcrypt
    | Htpasswd
    | FromPki
    | CaBundle
    | EachCa
    | ClusterAuthority
    | ClusterAccountKeys
    | Given
    | Composed
)


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A Kubernetes Secret that stands before the release does; `data` maps each key to its value's source."""

    name: str
    namespace: str
    data: Mapping[str, Source]
    type: str = "Opaque"
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True)
class ConfigMap:
    """A ConfigMap that stands before the release does, of what is not secret and known only when the stack is made.

    Deleting a chart's own ConfigMap of the same name, as Helm does once its values no longer want it, leaves this one.
    """

    name: str
    namespace: str
    data: Mapping[str, Clear | CaBundle]
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
