"""The plugin process: gRPC on loopback between Pulumi's engine and one stand-in."""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

import grpc
import grpc.aio
from pulumi.provider.experimental import provider as p
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2_grpc

from .schema import Call, Package, ProviderError, ResourceType, UserCancelled
from .values import Properties, PropertyValue

_SEVERITY = {"debug": engine_pb2.DEBUG, "info": engine_pb2.INFO,
             "warning": engine_pb2.WARNING, "error": engine_pb2.ERROR}
_PARENT_CHECK_SECONDS = 2.0


class EngineLog:
    """Messages to the engine, shown beside the resource, in the order they were sent."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def __call__(self, urn: str, severity: str, message: str, ephemeral: bool) -> None:
        """Queue one message; ``ephemeral`` ones are status lines that do not stay."""
        self._queue.put_nowait(engine_pb2.LogRequest(
            severity=_SEVERITY[severity], message=message, urn=urn, ephemeral=ephemeral))
        if self._task is None:
            self._task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = engine_pb2_grpc.EngineStub(channel)
            while True:
                request = await self._queue.get()
                try:
                    await stub.Log(request)
                except grpc.aio.AioRpcError:
                    # A lost status line must not fail the operation it describes.
                    pass
                finally:
                    self._queue.task_done()

    async def drain(self) -> None:
        """Wait until everything queued was sent, so that lines precede the result."""
        if self._task is not None:
            await self._queue.join()


class StandIn(p.Provider):
    """Dispatches the engine's requests to the resource types of one package."""

    def __init__(self, package: Package, log: EngineLog | None = None) -> None:
        self.package = package
        self._log = log
        self._stopping = asyncio.Event()

    def _type(self, token: str) -> ResourceType:
        # The SDK reads the type off the URN, where the types of the parents stand before it.
        token = token.rpartition("$")[2]
        found = self.package.resources.get(token)
        if found is None:
            raise ProviderError(
                f"the stand-in for {self.package.name} {self.package.version} does not cover "
                f"{token}; it covers {', '.join(sorted(self.package.resources))}: use one of "
                "these, or install the official plugin (lab/providers/README.md)")
        return found

    def _call(self, urn: str, timeout: float) -> Call:
        deadline = time.monotonic() + timeout if timeout else None

        def log(severity: str, message: str, ephemeral: bool) -> None:
            if self._log is not None:
                self._log(urn, severity, message, ephemeral)

        async def sleep(seconds: float) -> None:
            left = seconds if deadline is None else min(seconds, deadline - time.monotonic())
            try:
                await asyncio.wait_for(self._stopping.wait(), max(left, 0))
            except TimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise UserCancelled("context deadline exceeded") from None
                return
            raise UserCancelled("context canceled")

        return Call(urn.rsplit("::", 1)[-1], urn, log, sleep)

    async def _finish(self) -> None:
        if self._log is not None:
            await self._log.drain()

    async def get_schema(self, request: p.GetSchemaRequest) -> p.GetSchemaResponse:
        """The schema of what is covered."""
        return p.GetSchemaResponse(schema=json.dumps(self.package.spec()))

    async def configure(self, request: p.ConfigureRequest) -> p.ConfigureResponse:
        """Secrets and previews are understood; output values and references are not asked for."""
        return p.ConfigureResponse(accept_secrets=True, supports_preview=True)

    async def check(self, request: p.CheckRequest) -> p.CheckResponse:
        """Inputs with defaults and secret marks, or what is wrong with them."""
        inputs, failures = self._type(request.type).check(request.new_inputs)
        return p.CheckResponse(inputs=inputs, failures=failures)

    async def diff(self, request: p.DiffRequest) -> p.DiffResponse:
        """What an update would change."""
        state, news = request.old_state, dict(request.new_inputs)
        old_inputs = getattr(request, "old_inputs", state)
        for key in request.ignore_changes:
            if key in state:
                news[key] = state[key]
        return self._type(request.type).diff(state, old_inputs, news)

    async def create(self, request: p.CreateRequest) -> p.CreateResponse:
        """Create; in a preview, say what is known."""
        try:
            resource_id, properties = await self._type(request.type).create(
                self._call(request.urn, request.timeout), request.properties, request.preview)
        finally:
            await self._finish()
        return p.CreateResponse(resource_id=resource_id, properties=properties)

    async def update(self, request: p.UpdateRequest) -> p.UpdateResponse:
        """Update; in a preview, say what is known."""
        news = dict(request.news)
        for key in request.ignore_changes:
            if key in request.olds:
                news[key] = request.olds[key]
        try:
            properties = await self._type(request.type).update(
                self._call(request.urn, request.timeout), request.olds, news, request.preview)
        finally:
            await self._finish()
        return p.UpdateResponse(properties=properties)

    async def delete(self, request: p.DeleteRequest) -> None:
        """Delete."""
        try:
            await self._type(request.type).delete(
                self._call(request.urn, request.timeout), request.properties)
        finally:
            await self._finish()

    async def read(self, request: p.ReadRequest) -> p.ReadResponse:
        """The state after a refresh; importing an existing resource is not covered."""
        if not request.properties:
            raise ProviderError(
                f"{request.type}: the stand-in cannot import '{request.resource_id}'; create the "
                "resource, or install the official plugin (lab/providers/README.md)")
        return p.ReadResponse(resource_id=request.resource_id, inputs=request.inputs,
                              properties=self._type(request.type).read(request.properties))

    async def invoke(self, request: p.InvokeRequest) -> p.InvokeResponse:
        """Call a function."""
        function = self.package.functions.get(request.tok)
        if function is None:
            covered = ", ".join(sorted(self.package.functions)) or "no function"
            raise ProviderError(
                f"the stand-in for {self.package.name} {self.package.version} does not cover the "
                f"function {request.tok}; it covers {covered} (lab/providers/README.md)")
        result: Properties = await function(self._call("", 0), request.args)
        return p.InvokeResponse(return_value=result)

    async def cancel(self) -> None:
        """Stop waiting: whoever sleeps wakes with an error."""
        self._stopping.set()


def _reports_errors(method: Any) -> Any:
    """Turn an exception into the engine's error message, without Python's decoration."""

    @functools.wraps(method)
    async def wrapper(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except ProviderError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except NotImplementedError as error:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
        except Exception as error:  # noqa: BLE001  (the boundary of the process)
            traceback.print_exc()
            await context.abort(grpc.StatusCode.INTERNAL, "fault in the stand-in provider: "
                                f"{type(error).__name__}: {error}; its trace is above, please "
                                "report it")

    return wrapper


class Servicer(ProviderServicer):
    """The SDK's servicer, with the old inputs kept in a diff and plain error messages."""

    async def Diff(self, request: Any, context: Any) -> Any:
        """As the SDK's, but lets the provider see the old inputs, which the SDK drops."""
        old_inputs = (PropertyValue.unmarshal_map(request.old_inputs)
                      if request.HasField("old_inputs") else None)
        inner = self._provider.diff

        class WithOldInputs:
            async def diff(self, diff_request: Any) -> p.DiffResponse:
                if old_inputs is not None:
                    diff_request.old_inputs = old_inputs
                return await inner(diff_request)

        view = Servicer(self._args, self._version, WithOldInputs(), self._engine_address)  # type: ignore[arg-type]
        return await ProviderServicer.Diff(view, request, context)


for _name in ("Check", "Diff", "Create", "Update", "Delete", "Read", "Invoke", "GetSchema",
              "Configure", "CheckConfig", "DiffConfig"):
    setattr(Servicer, _name, _reports_errors(getattr(Servicer, _name)))


async def start(package: Package, engine_address: str) -> tuple[grpc.aio.Server, int]:
    """Start serving ``package`` on a free loopback port: the server and its port."""
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    stand_in = StandIn(package, EngineLog(engine_address) if engine_address else None)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(
        Servicer([], package.version, stand_in, engine_address), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def run(name: str, arguments: list[str]) -> None:
    """Serve the stand-in ``name`` until the engine goes away; prints its port first."""
    package: Package = importlib.import_module(f"standin.{name}_package").PACKAGE
    address = next((argument for argument in arguments if not argument.startswith("-")), "")
    engine = os.getppid()

    async def serve() -> None:
        server, port = await start(package, address)
        print(port, flush=True)
        # An engine that was killed cannot tell its plugins; they must not outlive it.
        while os.getppid() == engine:
            await asyncio.sleep(_PARENT_CHECK_SECONDS)
        await server.stop(0)

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        sys.exit(0)
