"""Stand-in for the package ``command``: remote.Command, local.Command and local.run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import CheckFailure, DiffResponse

from .schema import (
    Call,
    Members,
    Package,
    Property,
    ProviderError,
    ResourceType,
    diff_response,
)
from .values import (
    UNKNOWN,
    Properties,
    PropertyValue,
    go_quote,
    plain,
    secret,
    unique_hex,
    unknown,
    wrap,
)

VERSION = "1.2.1"

_HOP = {
    "host": Property(required=True),
    "port": Property("number", default=22),
    "user": Property(default="root"),
    "password": Property(secret=True),
    "privateKey": Property(secret=True),
    "privateKeyPassword": Property(secret=True),
    "agentSocketPath": Property(),
    "dialErrorLimit": Property("integer", default=10),
    "perDialTimeout": Property("integer", default=15),
    "hostKey": Property(),
}
_PROXY = Property("object", fields=_HOP, ref="command:remote:ProxyConnection")
_CONNECTION = Property("object", required=True, secret=True, ref="command:remote:Connection",
                       fields={**_HOP, "proxy": _PROXY})

_COMMAND_INPUTS = {
    "create": Property(), "update": Property(), "delete": Property(),
    "triggers": Property("array", items="any", replace=True),
    "stdin": Property(),
    "logging": Property(),
    "environment": Property("map"),
    "addPreviousOutputInEnv": Property("boolean"),
}
_LOCAL_INPUTS = {**_COMMAND_INPUTS, "dir": Property(), "interpreter": Property("array")}
_OUTPUTS = {"stdout": Property(), "stderr": Property()}
_NO_GLOBS = {key: "files found by glob are not collected" for key in
             ("assetPaths", "archivePaths")}


def _with_defaults(value: PropertyValue, members: dict[str, Property]) -> PropertyValue:
    """An object with its defaults filled in and its secret members marked, recursively."""
    if not isinstance(value.value, Mapping):
        return value
    given = {key: item for key, item in value.value.items()
             if key in members and plain(item) is not None}
    for key, declared in members.items():
        if key not in given:
            if declared.default is not None:
                given[key] = wrap(declared.default)
            continue
        item = given[key]
        if declared.fields:
            item = _with_defaults(item, dict(declared.fields))
        given[key] = secret(item) if declared.secret else item
    return PropertyValue(given, value.is_secret)


def _changes(path: str, old: PropertyValue | None,
             new: PropertyValue | None) -> dict[str, tuple[str, bool]]:
    """The changed leaves below ``path``; a secret is compared and named as a whole.

    A secret that is unknown is not a change, as for the official provider: the SDK makes a connection one secret, so
    a preview shows nothing of a command whose connection has an unknown member.
    """
    if old is not None and new is not None and new.is_secret and plain(new) == UNKNOWN:
        return {}
    if old is None or new is None:
        if old is None and new is None:
            return {}
        return {path: ("add" if old is None else "delete", False)}
    if not old.is_secret and not new.is_secret:
        before, after = old.value, new.value
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found: dict[str, tuple[str, bool]] = {}
            for key in [*before, *(key for key in after if key not in before)]:
                step = f".{key}" if key.replace("_", "a").isalnum() else f'["{key}"]'
                found |= _changes(path + step, before.get(key), after.get(key))
            return found
        if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
            found = {}
            for index in range(max(len(before), len(after))):
                found |= _changes(f"{path}[{index}]",
                                  before[index] if index < len(before) else None,
                                  after[index] if index < len(after) else None)
            return found
    return {} if old == new else {path: ("update", False)}


_GO_TYPES = {"string": "string", "number": "float64", "integer": "int", "boolean": "bool"}


def _go_type(value: Any) -> str:
    """The Go type of a plain value of the wire."""
    if isinstance(value, bool):
        return "bool"
    for name, kinds in (("string", str), ("float64", (int, float)), ("[]interface {}", list)):
        if isinstance(value, kinds):
            return name
    return "map[string]interface {}"


def _faults(owner: str, declared: Members, given: Mapping[str, Any]) -> dict[str, str]:
    """What the official provider's decoder refuses in ``given``, by key, in its words.

    ``owner`` is the Go type that the members belong to, such as remote.CommandInputs. Unknown values pass.
    """
    found = {key: f"Unrecognized field '{key}' on '{owner}'" for key, value in given.items()
             if key not in declared and value is not None and not key.startswith("__")}
    for key, member in declared.items():
        value = given.get(key)
        if value is None:
            if member.required:
                found[key] = f"Missing required field '{key}' on '{owner}'"
        elif value == UNKNOWN:
            continue
        elif member.fields and isinstance(value, dict):
            name = member.ref.rpartition(":")[2]
            if inner := _faults(f"remote.{name}", member.fields, value):
                lines = "".join(f"\n\t{at}: {why}" for at, why in inner.items())
                found[key] = (f"An error occurred decoding '{owner.rpartition('.')[2]}.{key}': {len(inner)} failures "
                              f"decoding:{lines}")
        elif problems := member.problems(key, value):
            wanted = _GO_TYPES.get(member.type)
            found[key] = (f"Field '{key}' on '{owner}' must be a '{wanted}'; got '{_go_type(value)}' instead"
                          if wanted else problems[0].reason)
    return found


class _Command(ResourceType):
    """What both Command resources share: check, diff, and when something runs."""

    outputs: ClassVar[Members] = _OUTPUTS
    owner: ClassVar[str]

    async def execute(self, call: Call, command: str, properties: dict[str, Any]) -> dict[str, str]:
        """Run ``command`` with the plain inputs and previous outputs: stdout and stderr."""
        raise NotImplementedError

    def check(self, news: Properties) -> tuple[Properties, list[CheckFailure]]:
        """Fill in the connection's defaults and mark it secret; unknown keys and wrong types are refused."""
        failures = self._uncovered_failures(news)
        given = {key: plain(value) for key, value in news.items() if key not in self.uncovered}
        failures += [CheckFailure(key, why) for key, why in _faults(self.owner, self.inputs, given).items()]
        inputs: Properties = {}
        for key, declared in self.inputs.items():
            value = news.get(key)
            if value is None or plain(value) is None:
                continue
            if declared.fields:
                value = _with_defaults(value, dict(declared.fields))
            inputs[key] = secret(value) if declared.secret else value
        return inputs, failures

    def diff(self, state: Properties, old_inputs: Properties, news: Properties) -> DiffResponse:
        """Any changed input is an update; only ``triggers`` as a whole replaces here.

        A changed element of ``triggers`` replaces too, but it is the SDK that asks
        the engine for it (``replace_on_changes=["triggers[*]"]``).
        """
        changes: dict[str, tuple[str, bool]] = {}
        for key, declared in self.inputs.items():
            for path, (kind, _) in _changes(key, old_inputs.get(key), news.get(key)).items():
                changes[path] = (kind, declared.replace and path == key)
        return diff_response(changes, of_inputs=False)

    def _inputs(self, properties: Properties) -> Properties:
        return {key: properties[key] for key in self.inputs if key in properties}

    async def create(self, call: Call, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Run ``create``, if given."""
        state = self._inputs(inputs)
        resource_id = unique_hex(call.name)
        if preview:
            return resource_id, {**state, **{key: unknown() for key in self.outputs}}
        ran = {"stdout": "", "stderr": ""}
        if "create" in inputs:
            bare = {key: plain(value) for key, value in state.items()}
            ran = await self.execute(call, bare["create"], bare)
        return resource_id, {**state, **{key: wrap(value) for key, value in ran.items()}}

    async def update(self, call: Call, state: Properties, inputs: Properties,
                     preview: bool) -> Properties:
        """Run ``update``, else ``create``; without either keep the earlier output."""
        news = self._inputs(inputs)
        before = {key: plain(state.get(key)) or "" for key in self.outputs}
        if preview:
            if self._may_change_output(state, news):
                return {**news, **{key: unknown() for key in self.outputs}}
            return {**news, **{key: wrap(value) for key, value in before.items()}}
        bare = {key: plain(value) for key, value in news.items()}
        command = bare.get("update", bare.get("create"))
        if command is not None:
            before = await self.execute(call, command, {**bare, **before})
        return {**news, **{key: wrap(value) for key, value in before.items()}}

    def _may_change_output(self, state: Properties, news: Properties) -> bool:
        """Whether a preview shows the output as unknown: an unknown input, or a changed one, a new mark of
        secrecy included.

        An input that the state does not have is not counted, as in the official provider.
        """
        for key in self.inputs:
            if plain(news.get(key)) == UNKNOWN or (key in state and state[key] != news.get(key)):
                return True
        return False

    async def delete(self, call: Call, state: Properties) -> None:
        """Run the stored ``delete`` with the stored inputs, the connection included."""
        bare = {key: plain(value) for key, value in state.items()}
        if bare.get("delete") is not None:
            await self.execute(call, bare["delete"], bare)


def _previous(properties: dict[str, Any]) -> dict[str, str]:
    """The earlier output as environment variables, unless that is switched off."""
    if properties.get("addPreviousOutputInEnv") is False:
        return {}
    pairs = (("PULUMI_COMMAND_STDOUT", "stdout"), ("PULUMI_COMMAND_STDERR", "stderr"))
    return {name: properties[key] for name, key in pairs if properties.get(key)}


class RemoteCommand(_Command):
    """``command:remote:Command``: one new SSH connection a run."""

    token = "command:remote:Command"
    owner = "remote.CommandInputs"
    inputs: ClassVar[Members] = {**_COMMAND_INPUTS, "connection": _CONNECTION}

    async def execute(self, call: Call, command: str, properties: dict[str, Any]) -> dict[str, str]:
        """Dial and run; the connection stays open."""
        from . import ssh  # 0.2 s to import: a preview never needs it

        client = await ssh.dial(call, properties["connection"])
        stdout, stderr = await ssh.run(
            call, client, command, stdin=properties.get("stdin"),
            environment=properties.get("environment") or {},
            previous=_previous(properties), logging=properties.get("logging"))
        return {"stdout": stdout, "stderr": stderr}


async def _run_locally(call: Call, command: str, properties: dict[str, Any]) -> dict[str, str]:
    """Run ``command`` on this machine by its interpreter, ``/bin/sh -c`` by default."""
    from .streams import LineLog, Output, text

    program = [*(properties.get("interpreter") or ["/bin/sh", "-c"]), command]
    environment = {**os.environ, **(properties.get("environment") or {}),
                   **_previous(properties)}
    output = Output()
    lines = LineLog(call, properties.get("logging"))
    try:
        process = await asyncio.create_subprocess_exec(
            *program, cwd=properties.get("dir"), env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ProviderError(f"fork/exec {program[0]}: {reason}: running "
                            f"{go_quote(command)}:\n") from None

    async def collect(stream: str) -> None:
        reader: asyncio.StreamReader = getattr(process, stream)
        while data := await reader.read(65536):
            getattr(output, stream).extend(data)
            output.both.extend(data)
            lines.feed(stream, data)

    async def feed() -> None:
        assert process.stdin is not None
        try:
            process.stdin.write((properties.get("stdin") or "").encode())
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass
        process.stdin.close()

    async def stop() -> None:
        # The official provider kills a local command when the engine stops or time is up.
        while True:
            await call.sleep(3600)

    work = asyncio.gather(feed(), collect("stdout"), collect("stderr"), process.wait())
    watch = asyncio.ensure_future(stop())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            process.kill()
        await work
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    lines.close()
    status = process.returncode or 0
    if status:
        import signal

        failure = (f"exit status {status}" if status > 0 else
                   f"signal: {signal.strsignal(-status) or -status}".lower())
        raise ProviderError(f"{failure}: running {go_quote(command)}:\n"
                            f"{output.both.decode(errors='replace')}")
    return {"stdout": text(output.stdout), "stderr": text(output.stderr)}


class LocalCommand(_Command):
    """``command:local:Command``."""

    token = "command:local:Command"
    owner = "local.CommandInputs"
    inputs: ClassVar[Members] = _LOCAL_INPUTS
    uncovered: ClassVar[Mapping[str, str]] = _NO_GLOBS

    async def execute(self, call: Call, command: str, properties: dict[str, Any]) -> dict[str, str]:
        """Run on this machine."""
        return await _run_locally(call, command, properties)


async def local_run(call: Call, arguments: Properties) -> Properties:
    """``command:local:run``: runs at every preview and update; returns inputs and outputs."""
    for key in _NO_GLOBS:
        if plain(arguments.get(key)) is not None:
            raise ProviderError(f"command:local:run: the stand-in does not cover '{key}'; "
                                "see lab/providers/README.md")
    if plain(arguments.get("command")) is None:
        raise ProviderError("command:local:run: missing required property 'command'")
    bare = {key: plain(value) for key, value in arguments.items()}
    ran = await _run_locally(call, bare["command"], bare)
    return {**arguments, **{key: wrap(value) for key, value in ran.items()}}


PACKAGE = Package(
    "command", VERSION,
    {kind.token: kind() for kind in (RemoteCommand, LocalCommand)},
    {"command:local:run": local_run},
    {"command:remote:Connection": _CONNECTION.fields,
     "command:remote:ProxyConnection": _PROXY.fields},
)
