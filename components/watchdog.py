"""Watchdog of remote steps: a step ends within its bound also when its peer falls silent.

The command plugin sets no deadline on a command that runs, nor on an SSH handshake, and ignores the engine's while it
waits for either (pulumi-command 1.2.1, `remote/connection.go` and `commandOutputs.go`). The script's own `timeout` is of
no use once its machine, or the bastion on the way, sends nothing more: such a step would last for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pulumi

# The engine starts a plugin by its program, or by an interpreter, from the folder that it was installed in.
PLUGIN, FOLDER = "pulumi-resource-command", "resource-command-v"


@dataclass(frozen=True)
class Step:
    """A remote step: the machine it runs on, seconds its script may take, and seconds until it is given up."""

    machine: str
    seconds: int
    limit: float


class Watchdog:
    """Gives up steps that exceed their limit; `name` is unique in the stack.

    The engine calls the hooks when a step really begins and ends, so time spent waiting for its turn does not count. A
    step is given up by ending the command plugin: no request of the engine makes the plugin leave a silent connection.
    All other steps of that moment fail with it, and the next `up` repeats them. A removal is not watched, since
    `destroy` runs no program that could do it.
    """

    def __init__(self, name: str) -> None:
        self._steps: dict[str, Step] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        quiet = pulumi.ResourceHookOptions(ignore_errors=True)
        self._begin = pulumi.ResourceHook(f"{name}-begin", self._begun, quiet)
        self._end = pulumi.ResourceHook(f"{name}-end", self._ended, quiet)
        self._failure = pulumi.ErrorHook(f"{name}-failure", self._failed)

    def binding(self, resource: str, step: Step) -> pulumi.ResourceHookBinding:
        """The hooks of the command named `resource`, which runs `step`."""
        self._steps[resource] = step
        return pulumi.ResourceHookBinding(
            before_create=[self._begin],
            before_update=[self._begin],
            after_create=[self._end],
            after_update=[self._end],
            on_error=[self._failure],
        )

    async def _begun(self, args: pulumi.ResourceHookArgs) -> None:
        step = self._steps[args.name]
        loop = asyncio.get_running_loop()
        self._timers[args.urn] = loop.call_later(step.limit, self._give_up, args.name, step)

    async def _ended(self, args: pulumi.ResourceHookArgs) -> None:
        self._stop(args.urn)

    async def _failed(self, args: pulumi.ErrorHookArgs) -> bool:
        self._stop(args.urn)
        return False  # not to be tried again

    def _stop(self, urn: str) -> None:
        if timer := self._timers.pop(urn, None):
            timer.cancel()

    def _give_up(self, name: str, step: Step) -> None:
        pulumi.log.error(
            f"{step.machine}: {name} has not ended after {step.limit:.0f} s, although its script is stopped after "
            f"{step.seconds} s: {step.machine}, or the bastion on the way, accepts connections and sends nothing more. "
            "The command plugin is ended, and all steps that are running now fail with it (error reading from server). "
            f"What to do: see whether `ssh {step.machine}` answers, restart the machine or its sshd, then run "
            "`pulumi up` again: finished steps are not repeated."
        )
        for process in plugins(os.getpid()):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(process, signal.SIGKILL)


def plugins(process: int) -> tuple[int, ...]:
    """Processes of the command plugin that the engine above `process` has started.

    The engine is the nearest ancestor that has such a child; a program, its language host and the engine's plugins are
    processes of one tree (Linux' /proc).
    """
    parents = dict(_parents())
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    ancestor = parents.get(process)
    while ancestor:
        if found := tuple(child for child in children.get(ancestor, ()) if _is_plugin(child)):
            return found
        ancestor = parents.get(ancestor)
    return ()


def _parents() -> Iterator[tuple[int, int]]:
    """Process number and that of its parent, for all processes that can be seen."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # pid (name, in parentheses and perhaps with blanks) state parent …
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            yield int(folder.name), int(fields[1])


def _is_plugin(process: int) -> bool:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    parts = [part for word in command for part in Path(os.fsdecode(word)).parts]
    return any(part == PLUGIN or part.startswith(FOLDER) for part in parts)
