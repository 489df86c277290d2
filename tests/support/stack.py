"""A double of the Pulumi engine's resource monitor: runs a program and records every request it makes.

What it does as the engine does: names and URNs, secretness of outputs (`additional_secret_outputs`, and outputs named
like a secret input), unknown outputs in preview. What it does not prove: what providers accept (their schemas), what
a real provider answers, diffs, replacement and deletion; the tests with the built engine and the lab show those.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc, settings
from pulumi.runtime.mocks import MockMonitor, Mocks
from pulumi.runtime.proto import resource_pb2

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n"
STACK = "pulumi:pulumi:Stack"
COMMANDS = ("command:remote:Command", "command:local:Command")


@dataclass(frozen=True)
class Secret:
    """A value that the engine encrypts in state and hides in output."""

    value: Any


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
"""An output that nobody knows before the resource exists."""


def _decoded(value: Any) -> Any:
    """A wire value with its markers as objects."""
    if value == rpc.UNKNOWN:
        return UNKNOWN
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return Secret(_decoded(value.get("value")))
        return {k: _decoded(v) for k, v in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _encoded(value: Any) -> Any:
    if value is UNKNOWN:
        return rpc.UNKNOWN
    if isinstance(value, Secret):
        return {rpc._special_sig_key: rpc._special_secret_sig, "value": _encoded(value.value)}
    if isinstance(value, Mapping):
        return {k: _encoded(v) for k, v in value.items()}
    return [_encoded(v) for v in value] if isinstance(value, list) else value


def _properties(struct: struct_pb2.Struct) -> dict[str, Any]:
    return _decoded(json_format.MessageToDict(struct))


def bare(value: Any) -> Any:
    """`value` without its marks of secretness."""
    if isinstance(value, Secret):
        return bare(value.value)
    if isinstance(value, dict):
        return {k: bare(v) for k, v in value.items()}
    return [bare(v) for v in value] if isinstance(value, list) else value


def clear_texts(value: Any) -> Iterator[str]:
    """Every text, keys included, that stands in `value` outside of a secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from clear_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from clear_texts(inner)


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One resource as the engine sees it. `marked` and `outputs` hold `Secret` around what is one."""

    request: resource_pb2.RegisterResourceRequest
    urn: str
    marked: dict[str, Any]
    outputs: dict[str, Any]

    @property
    def type(self) -> str:
        return self.request.type

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def parent(self) -> str:
        return self.request.parent

    @property
    def custom(self) -> bool:
        return self.request.custom

    @cached_property
    def inputs(self) -> dict[str, Any]:
        return bare(self.marked)

    @property
    def secrets(self) -> set[str]:
        """Names of the inputs that hold a secret, or are one."""
        return {name for name, value in self.marked.items() if value != bare(value)}

    @cached_property
    def waits_for(self) -> frozenset[str]:
        """URNs of the resources that must stand before this one."""
        request = self.request
        of_properties = {urn for p in request.propertyDependencies.values() for urn in p.urns}
        provider = {request.provider.rpartition("::")[0]} if request.provider else set()
        return frozenset({*request.dependencies, *of_properties, *provider})


# The example of an elliptic curve's key in RFC 7517, A.1.
KEY_SET = json.dumps(
    {
        "keys": [
            {
                "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
                "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
                "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
            }
        ]
    }
)  # fmt: skip


def kubeconfig(text: str) -> str:
    """An administrator's kubeconfig with `text` as the key, of a cluster whose authority is `authority`."""
    data = base64.b64encode(b"authority").decode()
    clusters = [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", "certificate-authority-data": data}}]
    return json.dumps({"kind": "Config", "clusters": clusters, "users": [{"name": "u", "user": {"client-key-data": text}}]})


Answers = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def answers(type_: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Made-up computed outputs of a resource; a text that must stay secret is different in every run."""
    hidden = f"hidden-{secrets.token_hex(8)}-of-{name}"
    if type_ == "random:index/randomPassword:RandomPassword":
        return {"result": hidden, "bcryptHash": f"$2b$10${hidden}"}
    if type_ == "tls:index/privateKey:PrivateKey":
        return {"privateKeyPem": hidden, "publicKeyPem": f"public-of-{name}"}
    if type_ in ("tls:index/selfSignedCert:SelfSignedCert", "tls:index/locallySignedCert:LocallySignedCert"):
        return {"certPem": CERTIFICATE.format(name=name)}
    if type_ == "tls:index/certRequest:CertRequest":
        return {"certRequestPem": f"request-of-{name}"}
    if type_ in COMMANDS:
        text = f"stdout-of-{name}"
        if name.endswith("-kubeconfig"):
            text = kubeconfig(text)
        if name.endswith("-account-keys"):
            text = KEY_SET
        return {"stdout": text, "stderr": ""}
    return {}


@dataclass
class Recording:
    """What a program registered, in the order of the requests."""

    resources: list[Registered] = field(default_factory=list)
    declared: dict[str, dict[str, Any]] = field(default_factory=dict)
    """URN of a component, or of the stack, to what it gave to `register_outputs`; secrets are marked."""
    stack: str = ""

    def of_type(self, token: str) -> list[Registered]:
        return [r for r in self.resources if r.type == token]

    def named(self, name: str, token: str | None = None) -> Registered:
        """The one resource of that name (and type)."""
        found = [r for r in self.resources if r.name == name and token in (None, r.type)]
        assert len(found) == 1, f"{len(found)} resources named {name}: {sorted(r.name for r in self.resources)}"
        return found[0]

    @cached_property
    def by_urn(self) -> dict[str, Registered]:
        return {r.urn: r for r in self.resources}

    @property
    def commands(self) -> list[Registered]:
        return [r for r in self.resources if r.type in COMMANDS]

    @property
    def components(self) -> list[Registered]:
        return [r for r in self.resources if not r.custom and r.type != STACK]

    @property
    def exports(self) -> dict[str, Any]:
        """The stack's outputs; secrets are marked."""
        return self.declared.get(self.stack, {})

    def children(self, of: Registered) -> list[Registered]:
        return [r for r in self.resources if r.parent == of.urn]

    def outputs_of(self, name: str) -> dict[str, Any]:
        """What the component `name` declared; secrets are marked."""
        return self.declared[self.named(name).urn]

    @cached_property
    def _earlier(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        # A resource is requested only once what it waits for stands, so one pass in order is enough.
        for resource in self.resources:
            direct = resource.waits_for - {resource.urn}
            found[resource.urn] = direct.union(*(found.get(urn, frozenset()) for urn in direct))
        return found

    def before(self, first: Registered, then: Registered) -> bool:
        """Whether `then` cannot start before `first` stands."""
        return first.urn in self._earlier[then.urn]


class Monitor(MockMonitor):
    """Answers the program's requests and keeps them."""

    def __init__(self, recording: Recording, stack: str, *, preview: bool, answer: Answers) -> None:
        super().__init__(Mocks)  # the Mocks interface shows too little of a request; nothing here uses it
        self._recording, self._stack, self._preview, self._answer = recording, stack, preview, answer
        self._lock = threading.Lock()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        kind = f"{parent.split('::')[2]}${type_}" if parent and STACK not in parent.split("::")[2] else type_
        return f"urn:pulumi:{self._stack}::opstella::{kind}::{name}"

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802
        urn = self.make_urn(request.parent, request.type, request.name)
        marked = _properties(request.object)
        outputs: dict[str, Any] = {}
        if request.type == STACK:
            self._recording.stack = urn
        elif request.custom:
            made = self._answer(request.type, request.name, bare(marked))
            outputs = marked | {k: UNKNOWN if self._preview else v for k, v in made.items()}
            for name in request.additionalSecretOutputs:
                if name in outputs and not isinstance(outputs[name], Secret):
                    outputs[name] = Secret(outputs[name])
        with self._lock:
            self._recording.resources.append(
                Registered(request=request, urn=urn, marked=marked, outputs=outputs)
            )
        return resource_pb2.RegisterResourceResponse(
            urn=urn,
            id="" if self._preview or not request.custom else f"id-of-{request.name}",
            object=json_format.ParseDict(_encoded(outputs), struct_pb2.Struct()),
        )

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> Any:  # noqa: N802
        with self._lock:
            self._recording.declared[request.urn] = _properties(request.outputs)
        return empty_pb2.Empty()


class _Callbacks:
    """Takes hooks and never calls them: what a hook does is tested by itself, and in the lab."""

    def register_resource_hook(self, hook: pulumi.ResourceHook) -> None:
        pass

    def register_error_hook(self, hook: pulumi.ErrorHook) -> None:
        pass


def run(
    program: Callable[[], None],
    *,
    preview: bool = False,
    stack: str = "standalone",
    config: Mapping[str, str] | None = None,
    secret_keys: Iterable[str] = (),
    answer: Answers = answers,
) -> Recording:
    """Runs `program` to its end, all outputs resolved, and gives what it registered.

    `config` is full key to text, `secret_keys` those of them that are encrypted. What the program raises comes out.
    """
    recording = Recording()
    settings.set_root_resource(None)  # type: ignore[arg-type]  # else the stack of the run before stays
    monitor = Monitor(recording, stack, preview=preview, answer=answer)
    pulumi.runtime.set_mocks(Mocks, project="opstella", stack=stack, preview=preview, monitor=monitor)
    settings.SETTINGS.callbacks = _Callbacks()
    pulumi.runtime.set_all_config(dict(config or {}), list(secret_keys))

    def whole() -> None:
        root: Any = settings.get_root_resource()
        # The stack of the mocks takes no entrypoint any more (`pulumi.run`); what it would wait for is waited for below.
        root._async_program_registration_closed = False
        program()
        root.register_outputs(root.outputs)

    pulumi.runtime.test(whole)()
    return recording
