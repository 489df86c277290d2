"""Annotated scalars: what a single value of the configuration may be, and the sentence that says so.

Nothing is coerced: "3" is no number, 1 is no truth value, 1.20 is no version. A refused value is repeated in the
message only by `shown`, which never repeats a secret.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel

from config import cron
from config.errors import REMOVE, Fault

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
# Semantic versioning 2.0.0, with the v that some charts have; Helm takes anything else for a range.
_NUMBER, _IDENTIFIER = r"(?:0|[1-9]\d*)", r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = (
    rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_SYSTEM = frozenset(("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr"))
_SYSTEM_VAR = (
    *(f"/var/{name}" for name in ("backups", "cache", "lock", "log", "run", "spool", "tmp")),
    *(f"/var/lib/{name}" for name in ("apt", "dpkg", "nfs", "rancher", "rpm", "systemd")),
)
PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_KUBERNETES_NAME = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)\Z")


class Frozen(BaseModel):
    """Base of every settings model: immutable, camelCase keys, unknown keys refused.

    Python code may also use the field names; what a user writes is validated by alias only (`load`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )


def shown(value: Any) -> str:
    """`value` for an error message: short, on one line, without keys, and without the password of a URL."""
    if isinstance(value, str):
        if "PRIVATE KEY" in value:
            return "a private key"
        # A blank at an end is often all that is wrong.
        inside, before, after = " ".join(value.split()), " " * value[:1].isspace(), " " * value[-1:].isspace()
        text = re.sub(r"//[^/\s]*@", "//…@", f"{before}{inside}{after}")
        return f"'{text[:57]}…'" if len(text) > 60 else f"'{text}'"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else str(value)


def _text(value: Any, fix: str) -> str:
    if not isinstance(value, str):
        raise Fault(f"{shown(value)} is not text", fix)
    return value


def _dns_label(value: str) -> str:
    if not LABEL.match(value):
        raise Fault(f"{shown(value)} is not a DNS label", "use a-z, 0-9 and '-' inside, at most 63 characters")
    return value


def _dns_name(value: str) -> str:
    labels = value.split(".")
    # 253 characters less the longest label of a service and its dot.
    if len(value) > 189 or len(labels) < 2 or not all(LABEL.match(label) for label in labels) or labels[-1].isdigit():
        raise Fault(
            f"{shown(value)} is not a domain name", "write lower-case labels joined by dots, such as devops.example.com"
        )
    if labels[-1] == "localhost" or labels[-2:] == ["cluster", "local"]:
        whose = "every machine takes for itself" if labels[-1] == "localhost" else "every cluster answers for itself, from its own Services"
        raise Fault(f"{shown(value)} is a domain that {whose}", "write one of your own, such as devops.example.com")
    return value


def host_name(value: Any) -> Any:
    """An IP address or a DNS name under which a machine is dialled."""
    fix = "write an IP address or a DNS name"
    text = _text(value, fix)
    if "%" in text:
        # It names an interface of one machine, and would stand in the configuration of another (RFC 4007, 11).
        raise Fault(f"{shown(text)} has a scope identifier", "write an address without %, or a DNS name")
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if not all(LABEL.match(label) for label in text.lower().split(".")) or text.replace(".", "").isdigit():
            raise Fault(f"{shown(text)} is neither an IP address nor a DNS name", fix) from None
    return text


def _network(value: Any) -> Any:
    if isinstance(value, ipaddress.IPv4Network):
        return value
    fix = "write it as 192.168.72.0/24"
    text = _text(value, fix)
    try:
        if "/" not in text:
            fix = _with_length(text) or fix
            raise ValueError("its prefix length is missing")
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        reason = str(error).removeprefix(f"{text!r} ").removeprefix(text).strip()
        if reason == "has host bits set":
            meant = str(ipaddress.IPv4Network(text, strict=False))
            raise Fault(f"{shown(text)} is not an IPv4 network (it has host bits set)", f"write {meant}", meant) from None
        raise Fault(f"{shown(text)} is not an IPv4 network ({shown(reason)[1:-1]})", fix) from None


def _with_length(text: str) -> str | None:
    """What to write for an address that has no prefix length; None for what is not an IPv4 address."""
    try:
        around = ipaddress.IPv4Network(f"{text}/24", strict=False)
    except ValueError:
        return None
    if str(around.network_address) == text:
        return f"write {around}, or another prefix length"
    return f"write {text}/32 for this address alone, or a whole network, such as {around}"


def _address(value: Any) -> Any:
    if isinstance(value, ipaddress.IPv4Address):
        return value
    text = _text(value, "write it as 192.168.72.11")
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise Fault(f"{shown(text)} is not an IPv4 address", "write it as 192.168.72.11") from None


def _single(value: Any) -> Any:
    """Of choices that exclude each other a user may write several, as a list or in one text."""
    several = value if isinstance(value, list) else re.split(r"[\s,+]+", value.strip()) if isinstance(value, str) else []
    if len(several) > 1:
        raise Fault(f"{' and '.join(map(shown, several))} at once", "choose one of them: their rules do not add up to one contract")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise Fault(f"{shown(value)} is not a SHA-256 sum", "write its 64 hexadecimal digits, as sha256sum prints them")
    return value.lower()


def _plain(value: str) -> str:
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value):
        raise Fault(f"{shown(value)} has a control character", "write it on one line, of printable characters")
    if value and not value.strip():
        raise Fault("the text is blank", "write a text, or remove the setting", REMOVE)
    return value


def _at_most_three(servers: tuple[ipaddress.IPv4Address, ...]) -> tuple[ipaddress.IPv4Address, ...]:
    # resolv.conf(5), MAXNS: the resolver of glibc reads no fourth one.
    if len(servers) > 3:
        raise Fault(f"{len(servers)} name servers, and machines and pods ask the first three alone", "write at most three")
    return servers


def _absolute(value: str) -> str:
    path = PurePosixPath(value)
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", value) or ".." in path.parts or len(path.parts) < 2 or value[1] == "/":
        raise Fault(f"{shown(value)} is not an absolute path of plain characters", "write one such as /srv/nfs")
    if path.parts[1] in _SYSTEM or str(path) in ("/home", "/opt", "/var", "/var/lib") or any(map(path.is_relative_to, _SYSTEM_VAR)):
        # Every node may write there as root; some of it is emptied at each boot, or by age.
        raise Fault(f"{shown(value)} is the system's own", "write a folder for nothing else, such as /srv/nfs")
    return str(path)


def _label_key(value: str) -> str:
    prefix, slash, name = value.rpartition("/")
    if len(prefix) > 253:
        raise Fault(f"the prefix of {shown(value)} has {len(prefix)} characters", "write at most 253 before the /, as example.com/zone")
    if not _KUBERNETES_NAME.match(name) or (slash and not all(LABEL.match(part) for part in prefix.split("."))):
        raise Fault(f"{shown(value)} is not a Kubernetes label key", "write it as zone or example.com/zone")
    return value


def _label_value(value: Any) -> Any:
    fix = "write at most 63 of A-Z a-z 0-9 . _ -, a number or true/false in quotes"
    if not isinstance(value, str) or (value and not _KUBERNETES_NAME.match(value)):
        raise Fault(f"{shown(value)} is not a Kubernetes label value", fix)
    return value


def matching(pattern: str, noun: str, fix: str) -> Any:
    """Text that matches `pattern`; YAML's numbers are refused with the hint to quote them."""
    expression = re.compile(rf"(?:{pattern})\Z")

    def validate(value: Any) -> Any:
        if not isinstance(value, str):
            raise Fault(f"{shown(value)} is not {noun}", f"{fix}, in quotes")
        if not expression.match(value):
            raise Fault(f"{shown(value)} is not {noun}", fix)
        return value

    return BeforeValidator(validate)


def whole(minimum: int, maximum: int) -> Any:
    """A whole number between two bounds, themselves included."""
    return Field(ge=minimum, le=maximum, strict=True)


Flag = Annotated[bool, Strict()]
NetworkProfile = Annotated[Literal["opstella", "tectonic", "deckhouse", "rke2-cilium"], BeforeValidator(_single)]
DnsLabel = Annotated[str, AfterValidator(_dns_label)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
HostName = Annotated[str, BeforeValidator(host_name)]
Network = Annotated[ipaddress.IPv4Network, BeforeValidator(_network)]
Address = Annotated[ipaddress.IPv4Address, BeforeValidator(_address)]
NameServers = Annotated[tuple[Address, ...], AfterValidator(_at_most_three)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Rke2Version = Annotated[str, matching(r"v1\.\d+\.\d+\+rke2r\d+", "an RKE2 version", "write it as v1.36.3+rke2r1")]
GitLabVersion = Annotated[str, matching(r"\d+\.\d+\.\d+", "a GitLab version", "write all three numbers, as 18.5.1")]
ChartVersion = Annotated[
    str, matching(_SEMVER, "a chart version", "write all three numbers, such as 9.0.0 or 9.0.0-rc.1")
]
Cron = Annotated[str, AfterValidator(cron.check)]
UserName = Annotated[
    str, matching(r"[a-z_][a-z0-9_.-]{0,31}", "a Unix user name", "use a-z, 0-9 and _ . -, at most 32 characters, a letter or _ first")
]
GroupName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a group's name", "use A-Z, a-z, 0-9 and . _ -, at most 128 characters"),
]
ImageFolder = Annotated[
    str,
    matching(
        rf"(?:[a-z0-9-]+\.)+[a-z0-9-]+(?::{PORT})?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*",
        "a folder of a registry",
        "write the registry's name and a path, without https://, as registry.example.com/trivy",
    ),
]
FileName = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9._+~-]*", "a file name", "write the name alone, without a folder")
]
PLAIN = AfterValidator(_plain)
"""Of a text: without control characters, and not blank; what is empty is for `min_length` to refuse."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, BeforeValidator(_label_value)]
Port = Annotated[int, whole(1, 65535)]
Cpu = Annotated[int, whole(1, 1024)]
"""Virtual CPU cores."""
Gigabytes = Annotated[int, whole(1, 65536)]
"""GB as the reference counts them (2**30 bytes)."""
