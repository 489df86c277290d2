"""Annotated scalars of the tools' settings; as in `config.types`, a refused value is only repeated if no secret."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from config.errors import REMOVE, Fault
from config.key_types import contents
from config.types import LABEL, PORT, matching, shown

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9-]+\.)*[A-Za-z0-9-]+\Z")
# A container image reference (distribution's grammar): [registry/]path[:tag][@digest].
_REGISTRY = re.compile(r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(:" + PORT + r")?\Z")
_PATH = re.compile(r"[a-z0-9]+((\.|_{1,2}|-+)[a-z0-9]+)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_PUBLIC_KEY, _SECRET_KEY = 6, 5  # OpenPGP packet tags (RFC 9580, 5.5.1)


def _secret_name(value: Any) -> Any:
    # What stands here by mistake is often the secret itself.
    if not isinstance(value, str) or not LABEL.match(value):
        raise Fault(
            "it is not the name of a secret (a-z, 0-9 and '-')",
            "write the name alone here, and the secret itself: pulumi config set --secret --path opstella:secrets.NAME",
        )
    return value


def _login(value: str) -> str:
    # Keycloak refuses user names of fewer than three characters.
    if not LABEL.match(value) or len(value) < 3:
        raise Fault(f"{shown(value)} is not a user name", "use at least three of a-z, 0-9 and '-'")
    return value


def _person(value: str) -> str:
    # What Keycloak's own user profile refuses in a person's name.
    if len(value) > 255 or re.search(r"[<>&\"$%!#?§;*~/\\|^=\[\]{}()\x00-\x1f\x7f]", value):
        raise Fault(f"{shown(value)} is not a person's name", 'leave out signs such as < > & " / ( )')
    if value and not value.strip():
        raise Fault("the name is blank", "write the name, or remove the setting", REMOVE)
    return value


def _email(value: str) -> str:
    if not _EMAIL.match(value) or ".." in value or len(value) > 254:
        raise Fault(f"{shown(value)} is not a mail address", "write it as name@example.com")
    return value


def _smarthost(value: str) -> str:
    host, colon, port = value.rpartition(":")
    named = all(LABEL.match(label) for label in host.lower().split("."))
    if not colon or not named or not re.fullmatch(PORT, port):
        raise Fault(f"{shown(value)} is not a mail server and its port", "write it as smtp.example.com:587")
    return value


def _s3_endpoint(value: str) -> str:
    fix = "write the store's name alone, as s3.example.com or s3.example.com:9000; TLS is always used"
    host, _, port = value.partition(":")
    if "/" in value or not all(LABEL.match(label) for label in host.split(".")):
        raise Fault(f"{shown(value)} is not the name of an object store", fix)
    if ":" in value and not re.fullmatch(PORT, port):
        raise Fault(f"{shown(value)} has no valid port", fix)
    return value


def _s3_folder(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", value):
        raise Fault(f"{shown(value)} is not a folder of a bucket", "write it as a/b, without a slash at either end")
    return value


def _image(value: str) -> str:
    fix = "write it as registry.example.com/opstella/ui:1.0.0, or with @sha256:… instead of a tag"
    if "://" in value:
        raise Fault(f"{shown(value)} is a URL, not an image", fix)
    name, at, digest = value.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    parts = [*(head.split("/") if slash else []), last]
    if len(parts) > 1 and _REGISTRY.match(parts[0]):
        parts = parts[1:]
    formed = all(_PATH.match(part) for part in parts) and (not colon or _TAG.match(tag))
    if not formed or (at and not _DIGEST.match(digest)):
        raise Fault(f"{shown(value)} is not a container image", fix)
    if not at and (not colon or tag == "latest"):
        raise Fault(f"{shown(value)} says no version: another image could run at each restart", fix)
    return value


def _digest(value: str) -> str:
    if not _DIGEST.match(value):
        raise Fault(
            f"{shown(value)} is not the digest of an image",
            "write sha256: and its 64 hexadecimal digits, as `crane digest IMAGE` prints them",
        )
    return value


def _archive_digest(value: str) -> str:
    if not _DIGEST.match(value):
        raise Fault(
            f"{shown(value)} is not the digest of a chart's archive",
            "write sha256: and its 64 hexadecimal digits, as `./opstella charts` prints them",
        )
    return value


def _bucket(value: str) -> str:
    plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value) and ".." not in value
    if not plain or re.fullmatch(r"[\d.]+", value):
        raise Fault(f"{shown(value)} is not a bucket's name", "use 3 to 63 of a-z, 0-9, '-' and '.'")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise Fault(f"{shown(value)} is not a variable's name", "use letters, digits and '_', such as API_URL")
    return value


def _callback(value: str) -> str:
    if value != "/*" and not re.fullmatch(r"/[A-Za-z0-9._~/-]*", value):
        raise Fault(f"{shown(value)} is not a path", "write it from the first slash on, such as /auth/callback, or /* for any")
    return value


def _group_path(value: str) -> str:
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"
    if not re.fullmatch(rf"{part}(?:/{part})*", value) or len(value) > 255:
        raise Fault(f"{shown(value)} is not the path of a group", "write it as in the group's URL, such as shop/backend")
    return value


def _git_url(value: str) -> str:
    fix = "write https://HOST/PATH.git; its login belongs in username and password"
    try:
        parts = urlsplit(value)
        port_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise Fault("it is not the URL of a repository", fix) from None
    if parts.username is not None or parts.password is not None:
        raise Fault(f"{shown(value)} contains a login, in clear", fix)
    if parts.scheme not in ("https", "http") or not parts.hostname or not port_valid or len(parts.path) < 2 or re.search(r"[\s'\"\\%]", value):
        raise Fault(f"{shown(value)} is not the URL of a repository", fix)
    return value


def _pgp_key(value: Any) -> Any:
    fix = "export it by: gpg --export KEY | base64 -w0 (no --armor)"
    value = contents(value)
    if not isinstance(value, str):
        raise Fault("it is not text", fix)
    if "PRIVATE KEY" in value:
        raise Fault("it is a private key", f"keep that with its custodian, and take it out of here; {fix}")
    if "-----BEGIN" in value:
        raise Fault("it is armoured (it has a BEGIN line)", fix)
    text = "".join(value.split())
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault("it is not Base64", fix) from None
    tag = _packet(data)
    if tag == _SECRET_KEY:
        raise Fault("it is a private key", f"keep that with its custodian, and take it out of here; {fix}")
    if tag != _PUBLIC_KEY:
        raise Fault("it does not begin like an OpenPGP public key", fix)
    return text


def _packet(data: bytes) -> int | None:
    """The tag of the first OpenPGP packet in `data`, in the new or the old format; None if there is none."""
    if len(data) < 3 or not data[0] & 0x80:
        return None
    return data[0] & 0x3F if data[0] & 0x40 else data[0] >> 2 & 0x0F


RunnerTag = Annotated[
    str, matching(r"[A-Za-z0-9_.:-]{1,64}", "a tag of a runner", "use letters, digits, '_', '.', ':' and '-', at most 64 of them")
]
SealType = Annotated[str, matching(r"[a-z]+", "a kind of seal", "write one such as transit, awskms, azurekeyvault or gcpckms")]
SecretName = Annotated[str, BeforeValidator(_secret_name)]
"""The name of a secret of opstella:secrets."""
UserLogin = Annotated[str, AfterValidator(_login)]
PersonName = Annotated[str, AfterValidator(_person)]
Email = Annotated[str, AfterValidator(_email)]
SmartHost = Annotated[str, AfterValidator(_smarthost)]
ImageReference = Annotated[str, AfterValidator(_image)]
ImageDigest = Annotated[str, AfterValidator(_digest)]
ArchiveDigest = Annotated[str, AfterValidator(_archive_digest)]
S3Endpoint = Annotated[str, AfterValidator(_s3_endpoint)]
"""Name, and port if it is not 443, of an object store."""
S3Folder = Annotated[str, AfterValidator(_s3_folder)]
BucketName = Annotated[str, AfterValidator(_bucket)]
VariableName = Annotated[str, AfterValidator(_variable)]
CallbackPath = Annotated[str, AfterValidator(_callback)]
"""The path of a URL to which Keycloak redirects."""
RepositoryFolder = Annotated[
    str,
    # Argo CD refuses a path that leads out of the repository.
    matching(
        r"(?!(?:.*/)?\.\.(?:/|$))[^\s/](?:[^\t\r\n]*\S)?", "a folder of a repository", "write its path inside of the repository, such as apps"
    ),
]
Revision = Annotated[str, matching(r"[^\s]+", "a revision", "write a branch, a tag or a commit, such as HEAD")]
GroupPath = Annotated[str, AfterValidator(_group_path)]
"""The full path of a group of GitLab."""
GitUrl = Annotated[str, AfterValidator(_git_url)]
PgpKey = Annotated[str, BeforeValidator(_pgp_key)]
"""An OpenPGP public key, Base64 on one line; `file:PATH` is read."""
