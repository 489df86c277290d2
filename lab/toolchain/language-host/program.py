"""Runs one Pulumi program: the second process of the language host.

Reads one line of JSON from standard input: `path` of the program, address of the `engine`, and the engine's
`request` (pulumirpc.RunRequest). Ends as the released host's second process does: status 0; 1 after a RunError,
whose text is shown as an error; 32 after any other exception, whose trace is shown from the program's own
frames on; whatever the program gives to `sys.exit`; an interruption (SIGINT) is Python's KeyboardInterrupt.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

# Until there is a program, an interruption concerns the host alone, whose end is seen on standard input.
signal.signal(signal.SIGINT, signal.SIG_IGN)

try:
    import pulumi
    from pulumi.runtime import Settings, configure, run_in_stack, set_all_config
except ImportError:
    sys.exit(1)  # the host says which package is missing

SHOWN = 32
_PR_SET_PDEATHSIG = 1


def end_with_the_host() -> None:
    """A host that was killed cannot end this process: the kernel does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def trace(error: BaseException, path: str) -> str:
    """The trace of `error` from the program's own first frame on."""
    frames = traceback.TracebackException.from_exception(error)
    first = next((n for n, frame in enumerate(frames.stack) if frame.filename == path), 0)
    del frames.stack[:first]
    return "".join(frames.format())


def main() -> int:
    end_with_the_host()
    line = sys.stdin.buffer.readline()
    if not line:
        return 0  # no program was ever to be run
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wanted = json.loads(line)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    path, request = wanted["path"], wanted["request"]
    parallel = max(int(request.get("parallel", 1)), 1)
    set_all_config(request.get("config", {}), request.get("configSecretKeys", []))
    configure(
        Settings(
            monitor=request.get("monitorAddress"),
            engine=wanted["engine"],
            project=request.get("project"),
            stack=request.get("stack"),
            parallel=parallel,
            dry_run=request.get("dryRun", False),
            organization=request.get("organization") or "organization",
            root_directory=request.get("info", {}).get("rootDirectory"),
        )
    )
    os.chdir(request.get("pwd") or os.path.dirname(path))
    sys.path.insert(0, os.path.dirname(path))
    sys.argv = [path, *request.get("args", [])]
    # A task that faults is reported by whoever awaits it; asyncio's own second report is noise.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(parallel * 4)
    loop.set_default_executor(executor)
    status = 1
    try:
        loop.run_until_complete(run_in_stack(lambda: runpy.run_path(path, run_name="__main__") and None))
        status = 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
    except Exception as error:  # noqa: BLE001 whatever a program raises is shown to its author
        pulumi.log.error(f"Program failed with an unhandled exception:\n{trace(error, path)}")
        status = SHOWN
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
