"""Plays Pulumi's engine to one stand-in: the same gRPC messages, over loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2_grpc, provider_pb2, provider_pb2_grpc

PROVIDERS = Path(__file__).resolve().parents[3] / "lab" / "providers"
if str(PROVIDERS) not in sys.path:
    sys.path.append(str(PROVIDERS))

from standin import server  # noqa: E402
from standin.schema import Package  # noqa: E402
from standin.values import UNKNOWN, Properties, plain, secret, wrap  # noqa: E402

__all__ = ["PROVIDERS", "UNKNOWN", "Driver", "Failure", "Process", "plain", "secret", "secrets_of", "wrap"]


class Failure(Exception):
    """What the user would see as ``error: …``."""


class _Engine(engine_pb2_grpc.EngineServicer):
    def __init__(self) -> None:
        self.messages: list[tuple[int, str, bool]] = []

    async def Log(self, request: Any, context: Any) -> Any:
        self.messages.append((request.severity, request.message, request.ephemeral))
        return empty_pb2.Empty()


class Driver:
    """One running stand-in; every argument and result is a dict of plain or wrapped values."""

    def __init__(self, package: Package) -> None:
        self._engine = _Engine()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def serve() -> tuple[Any, Any, int]:
            engine = grpc.aio.server()
            engine_pb2_grpc.add_EngineServicer_to_server(self._engine, engine)
            engine_port = engine.add_insecure_port("127.0.0.1:0")
            await engine.start()
            provider, port = await server.start(package, f"127.0.0.1:{engine_port}")
            return engine, provider, port

        self._servers = asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{self._servers[2]}", options=_GRPC_CHANNEL_OPTIONS)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self._channel)

    @property
    def messages(self) -> list[tuple[int, str, bool]]:
        """What was logged: severity, text, whether it is a status line."""
        return self._engine.messages

    def close(self) -> None:
        """Stop everything."""
        async def stop() -> None:
            for one in self._servers[:2]:
                await one.stop(0)

        self._channel.close()
        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @staticmethod
    def _struct(values: dict[str, Any]) -> Any:
        return PropertyValue.marshal_map({key: wrap(value) for key, value in values.items()
                                          if value is not None})

    @staticmethod
    def _rpc(method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=60)
        except grpc.RpcError as error:
            raise Failure(error.details()) from None

    @staticmethod
    def urn(token: str, name: str = "thing") -> str:
        """A resource's name as the engine writes it."""
        return f"urn:pulumi:stack::project::{token}::{name}"

    def check(self, token: str, news: dict[str, Any]) -> tuple[Properties, dict[str, str]]:
        """The checked inputs, and failures by property."""
        reply = self._rpc(self.stub.Check, provider_pb2.CheckRequest(
            urn=self.urn(token), news=self._struct(news)))
        return (PropertyValue.unmarshal_map(reply.inputs),
                {failure.property: failure.reason for failure in reply.failures})

    def inputs(self, token: str, news: dict[str, Any]) -> Properties:
        """The checked inputs; none may be refused."""
        checked, failures = self.check(token, news)
        assert not failures, failures
        return checked

    def create(self, token: str, news: dict[str, Any], preview: bool = False,
               timeout: float = 0, name: str = "thing") -> tuple[str, Properties]:
        """Check and create: id and outputs."""
        reply = self._rpc(self.stub.Create, provider_pb2.CreateRequest(
            urn=self.urn(token, name), properties=self._struct(self.inputs(token, news)),
            preview=preview, timeout=timeout))
        return reply.id, PropertyValue.unmarshal_map(reply.properties)

    def diff(self, token: str, old: dict[str, Any], news: dict[str, Any],
             state: Properties | None = None) -> dict[str, str]:
        """Changed paths and their kinds (ADD, UPDATE_REPLACE, …).

        ``old`` and ``news`` are inputs before the check; ``state`` defaults to the old ones.
        """
        old_inputs = self.inputs(token, old)
        reply = self._rpc(self.stub.Diff, provider_pb2.DiffRequest(
            id="id", urn=self.urn(token), olds=self._struct(state or old_inputs),
            old_inputs=self._struct(old_inputs),
            news=self._struct(self.inputs(token, news))))
        kinds = provider_pb2.PropertyDiff.Kind
        found = {path: kinds.Name(change.kind) for path, change in reply.detailedDiff.items()}
        assert (reply.changes == provider_pb2.DiffResponse.DIFF_SOME) == bool(found)
        assert sorted(reply.replaces) == sorted(
            path for path, kind in found.items() if kind.endswith("REPLACE"))
        return found

    def raw_diff(self, token: str, old: dict[str, Any], news: dict[str, Any]) -> dict[str, str]:
        """Changed paths and their kinds, each with whether it is one of the inputs; {} for no change.

        The checked inputs are handed on as the engine does.
        """
        def checked(values: dict[str, Any]) -> Any:
            reply = self._rpc(self.stub.Check, provider_pb2.CheckRequest(
                urn=self.urn(token), news=self._struct(values)))
            assert not reply.failures, reply.failures
            return _without_outputs(reply.inputs)

        old_inputs = checked(old)
        reply = self._rpc(self.stub.Diff, provider_pb2.DiffRequest(
            id="id", urn=self.urn(token), olds=old_inputs, old_inputs=old_inputs,
            news=checked(news)))
        kinds = provider_pb2.PropertyDiff.Kind
        if reply.changes != provider_pb2.DiffResponse.DIFF_SOME:
            return {}
        return {path: kinds.Name(change.kind) + (" of inputs" if change.inputDiff else "")
                for path, change in sorted(reply.detailedDiff.items())}

    def update(self, token: str, state: Properties, news: dict[str, Any],
               preview: bool = False) -> Properties:
        """Check and update: the outputs."""
        reply = self._rpc(self.stub.Update, provider_pb2.UpdateRequest(
            id="id", urn=self.urn(token), olds=self._struct(state), preview=preview,
            news=self._struct(self.inputs(token, news))))
        return PropertyValue.unmarshal_map(reply.properties)

    def delete(self, token: str, state: Properties) -> None:
        """Delete."""
        self._rpc(self.stub.Delete, provider_pb2.DeleteRequest(
            id="id", urn=self.urn(token), properties=self._struct(state)))

    def read(self, token: str, state: Properties) -> Properties:
        """Refresh."""
        reply = self._rpc(self.stub.Read, provider_pb2.ReadRequest(
            id="id", urn=self.urn(token), properties=self._struct(state)))
        return PropertyValue.unmarshal_map(reply.properties)

    def invoke(self, token: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a function."""
        reply = self._rpc(self.stub.Invoke, provider_pb2.InvokeRequest(
            tok=token, args=self._struct(arguments)))
        found = PropertyValue.unmarshal_map(getattr(reply, "return"))
        return {key: plain(value) for key, value in found.items()}


_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"


def _without_outputs(values: Any) -> Any:
    """``values`` (protobuf's) as the engine hands them on to a diff: an output without a value is an unknown value,
    and marked secret if the output was."""
    for value in values.fields.values():
        members = value.struct_value.fields
        if _SIGNATURE in members and members[_SIGNATURE].string_value == _OUTPUT and "value" not in members:
            is_secret = members["secret"].bool_value
            value.string_value = UNKNOWN
            if is_secret:
                value.struct_value.update({_SIGNATURE: _SECRET, "value": UNKNOWN})
    return values


class Process(Driver):
    """The same to a plugin's program, such as a released one."""

    def __init__(self, program: str) -> None:
        self._engine = _Engine()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def serve() -> tuple[Any, int]:
            engine = grpc.aio.server()
            engine_pb2_grpc.add_EngineServicer_to_server(self._engine, engine)
            port = engine.add_insecure_port("127.0.0.1:0")
            await engine.start()
            return engine, port

        self._servers = asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)
        self._process = subprocess.Popen([program, f"127.0.0.1:{self._servers[1]}"], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_GRPC_CHANNEL_OPTIONS)
        self.stub = provider_pb2_grpc.ResourceProviderStub(self._channel)
        self._rpc(self.stub.Configure, provider_pb2.ConfigureRequest(
            acceptSecrets=True, acceptResources=True, sends_old_inputs=True,
            sends_old_inputs_to_delete=True))

    def close(self) -> None:
        """Stop everything."""
        self._process.kill()
        self._process.wait()
        self._servers = (self._servers[0],)
        super().close()


def secrets_of(properties: Properties) -> set[str]:
    """Names of the properties that are marked secret at their top."""
    return {key for key, value in properties.items() if value.is_secret}
