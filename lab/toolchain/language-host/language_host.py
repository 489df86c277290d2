"""Pulumi language host for Python programs, on the Pulumi SDK's own runtime.

The engine starts this, reads a port from the first line of its standard output and calls the gRPC
service `pulumirpc.LanguageRuntime` there. One program runs per process, in this process: what it
prints goes to the engine as messages. The host that Pulumi releases (which cannot be built from a
package registry) runs the program in a second process and also installs dependencies, packs SDKs and
attaches debuggers; this one refuses those with a clear message.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import runpy
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

try:
    import grpc
    import pulumi
    from google.protobuf import empty_pb2
    from pulumi.automation._server import LanguageServer
    from pulumi.runtime import reset_options, run_in_stack, set_all_config
    from pulumi.runtime.proto import language_pb2, language_pb2_grpc
except ImportError as error:
    sys.exit(
        f"error: the Python that runs Pulumi programs, {sys.executable}, lacks the Pulumi SDK ({error}). "
        "Run through lab/toolchain/pulumi, or set OPSTELLA_PYTHON to the interpreter of an environment with "
        "the packages of requirements.txt."
    )

MESSAGE_BYTES = 400 << 20  # the engine's own limit for one gRPC message


class ProgramError(Exception):
    """The program ended in an error that has already been reported to the engine."""


def _report(message: str) -> None:
    """Show an error to the user; falls back on stderr when the engine no longer listens."""
    try:
        pulumi.log.error(message)
    except Exception:  # noqa: BLE001 the engine may be gone already
        print(message, file=sys.stderr, flush=True)


async def _run(path: str) -> None:
    """Run the program file as `__main__` inside a stack, and wait for its resources."""

    def program() -> None:
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if end.code in (None, 0):
                return
            # As with any Python program, a text given to sys.exit is the message, a number says
            # that the message has been printed already.
            if not isinstance(end.code, int):
                _report(str(end.code))
            raise ProgramError(f"the program exited with status {end.code}") from None

    await run_in_stack(program)


def _own_frames(error: BaseException) -> str:
    """Traceback of the program's failure without the frames of this host and of runpy."""
    frames = traceback.TracebackException.from_exception(error)
    started = [n for n, frame in enumerate(frames.stack) if frame.filename == "<frozen runpy>"]
    del frames.stack[: started[-1] + 1 if started else 0]
    return "".join(frames.format()).rstrip()


class Host(LanguageServer):
    """The SDK's server for inline programs, made to run a program from the project's folder."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Handshake(self, request, context):
        return language_pb2.LanguageHandshakeResponse()

    def Run(self, request, context):
        return contextvars.copy_context().run(self._run_program, request)

    def _run_program(self, request) -> language_pb2.RunResponse:
        folder = request.info.program_directory or request.pwd
        path = os.path.normpath(os.path.join(folder, request.info.entry_point or "."))
        if os.path.isdir(path):
            path = os.path.join(path, "__main__.py")
        if not os.path.isfile(path):
            return language_pb2.RunResponse(error=f"no program at {path}: the project's folder needs a __main__.py")
        os.chdir(request.pwd)
        sys.path.insert(0, os.path.dirname(path))
        sys.argv = [path, *request.args]
        reset_options(
            project=request.project,
            stack=request.stack,
            organization=request.organization or "organization",
            monitor_address=request.monitor_address,
            engine_address=self._engine,
            parallel=request.parallel,
            preview=request.dryRun,
        )
        set_all_config(dict(request.config), list(request.configSecretKeys))
        # A task that faults is reported by whoever awaits it; asyncio's own second report is noise.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        loop = asyncio.new_event_loop()
        loop.set_default_executor(ThreadPoolExecutor(max(request.parallel, 1) * 4))
        try:
            loop.run_until_complete(_run(path))
        except ProgramError:
            return language_pb2.RunResponse(bail=True)
        except pulumi.RunError as error:
            _report(str(error))
            return language_pb2.RunResponse(bail=True)
        except grpc.RpcError as error:
            # The engine closes its side when a deployment is cancelled or a resource failed; it has
            # said why.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                _report(f"the engine refused a request of the program: {error.details()}")
            return language_pb2.RunResponse(bail=True)
        except BaseException as error:  # noqa: BLE001 whatever a program raises is shown to its author
            _report(f"the program failed with an unhandled exception:\n{_own_frames(error)}")
            return language_pb2.RunResponse(bail=True)
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
                try:
                    loop.run_until_complete(task)
                except BaseException:  # noqa: BLE001, S110 it is cancelled; its outcome is not wanted
                    pass
            loop.close()
            sys.stdout.flush()
            sys.stderr.flush()
        return language_pb2.RunResponse()

    _engine = sys.argv[-1] if len(sys.argv) > 1 else ""

    def GetProgramDependencies(self, request, context):
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=d.metadata["Name"], version=d.version) for d in metadata.distributions()
            ]
        )

    def InstallDependencies(self, request, context):
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "this language host installs nothing: `make setup` makes the Python environment from requirements.lock",
        )

    def RuntimeOptionsPrompts(self, request, context):
        return language_pb2.RuntimeOptionsResponse()

    def Cancel(self, request, context):
        return empty_pb2.Empty()


def main() -> None:
    stop = threading.Event()
    # The engine ends its hosts with SIGINT; that is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(16), options=limits)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Host(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    stop.wait()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a program that was cut off in the middle must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
