"""Pulumi language host for Python programs: starts each program in a process of its own.

The engine starts this, reads a port from the first line of its standard output and calls the gRPC
service `pulumirpc.LanguageRuntime` there. As the host that Pulumi releases (which cannot be built from a
package registry), it runs the program by a second process (program.py), passes the engine's cancel on to it
as SIGINT, and turns its exit status into the answer. What the released host does beyond that, installing
dependencies, packing SDKs, attaching debuggers, is refused with a clear message.

The second process is started at once and waits for its request, so that both import the SDK side by side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

PROGRAM = os.path.join(os.path.dirname(os.path.realpath(__file__)), "program.py")


def start_program() -> subprocess.Popen[bytes]:
    """A process that runs one program as soon as its request arrives on its standard input."""
    return subprocess.Popen([sys.executable, "-u", PROGRAM], stdin=subprocess.PIPE, start_new_session=False)


if __name__ == "__main__":
    waiting = start_program()

try:
    import grpc
    from google.protobuf import empty_pb2, json_format
    from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2
except ImportError as error:
    if __name__ == "__main__":
        waiting.kill()
    sys.exit(
        f"error: the Python that runs Pulumi programs, {sys.executable}, lacks the Pulumi SDK ({error}). "
        "Run through lab/toolchain/pulumi, or set OPSTELLA_PYTHON to the interpreter of an environment with "
        "the packages of requirements.txt."
    )

MESSAGE_BYTES = 400 << 20  # the engine's own limit for one gRPC message
# Exit status of a program whose error has been shown to the user already (the released host's number).
SHOWN = 32
# How long a program that was told to stop may take, in seconds.
STOP_SECONDS = 5


class Host(language_pb2_grpc.LanguageRuntimeServicer):
    """Answers the engine; `engine` is its address, `waiting` a started process that has no program yet."""

    def __init__(self, engine: str, waiting: subprocess.Popen[bytes]) -> None:
        self._engine = engine
        self._waiting: subprocess.Popen[bytes] | None = waiting
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def Handshake(self, request, context):
        return language_pb2.LanguageHandshakeResponse()

    def Run(self, request, context):
        folder = request.info.program_directory or request.pwd
        path = os.path.normpath(os.path.join(folder, request.info.entry_point or "."))
        if os.path.isdir(path):
            path = os.path.join(path, "__main__.py")
        if not os.path.isfile(path):
            return language_pb2.RunResponse(error=f"no program at {path}: the project's folder needs a __main__.py")
        with self._lock:
            program, self._waiting = self._waiting or start_program(), None
            self._running.add(program)
        context.add_callback(lambda: stop(program))
        wanted = {"path": path, "engine": self._engine, "request": json_format.MessageToDict(request)}
        try:
            program.stdin.write(json.dumps(wanted).encode() + b"\n")
            program.stdin.close()
        except BrokenPipeError:
            pass  # it ended before it read anything; its status says so
        status = program.wait()
        with self._lock:
            self._running.discard(program)
        sys.stdout.flush()
        sys.stderr.flush()
        if status == SHOWN:
            return language_pb2.RunResponse(bail=True)
        if status:
            # As in Go, the status of a program that a signal ended is -1.
            return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {max(status, -1)}")
        return language_pb2.RunResponse()

    def GetRequiredPackages(self, request, context):
        return language_pb2.GetRequiredPackagesResponse()

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo()

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
        with self._lock:
            running = list(self._running)
        for program in running:
            stop(program)
        return empty_pb2.Empty()

    def close(self) -> None:
        """End whatever still runs or waits."""
        with self._lock:
            left = [*self._running, *([self._waiting] if self._waiting else [])]
        for program in left:
            program.kill()


def stop(program: subprocess.Popen[bytes]) -> None:
    """Interrupt a program that still runs; kill it when it has not ended STOP_SECONDS later."""
    if program.poll() is not None:
        return
    program.send_signal(signal.SIGINT)

    def end() -> None:
        try:
            program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()

    threading.Thread(target=end, daemon=True).start()


def main(waiting: subprocess.Popen[bytes]) -> None:
    ended = threading.Event()
    # The engine ends its hosts with SIGINT; that is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(16), options=limits)
    host = Host(sys.argv[-1] if len(sys.argv) > 1 else "", waiting)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    ended.wait()
    host.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of a request that was cut off in the middle must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main(waiting)
