"""How the program ends after a failure: silently, since the engine has shown the reason.

Without this the language host prints a Python traceback below, or in the middle of, the message of the script that
failed: a KeyboardInterrupt when the engine closes a run (it sends SIGINT), and a ResourceRegistrationFailed when a
resource failed on which others depend and the run goes on (`up --continue-on-error`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn

from pulumi.runtime.stack import ResourceRegistrationFailed, wait_for_rpcs

# Exit status by which Pulumi's language host knows that the user has been shown the reason
# (sdk/python/cmd/pulumi-language-python-exec in pulumi/pulumi).
SHOWN = 32


def leave(*_: object) -> NoReturn:
    """Ends the process at once: what the engine has not been sent by now is of a run that is over."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(SHOWN)


def leave_when_interrupted() -> None:
    """Makes SIGINT end the program without a word. A program in another thread is not sent signals."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, leave)


async def settle() -> None:
    """Waits for every resource of the program; given to `pulumi.run`.

    Ends the program when one was not made. All others that do not depend on it have been waited for then.
    """
    try:
        await wait_for_rpcs()
    except ResourceRegistrationFailed:
        leave()
