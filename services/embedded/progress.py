"""What a person sees while things download and start: a line at least every five seconds, and clear refusals."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable

QUIET_S = 5.0  # A launcher that is silent for longer looks broken.
_POLL_S = 0.05


class CannotStart(Exception):
    """Something that is needed is missing or does not start; the message says what to do about it."""


def say(text: str) -> None:
    """Prints one line at once, so that it is seen in order even through a pipe."""
    print(text, flush=True)


def wait_until(ready: Callable[[], bool], what: str, within_s: float, detail: Callable[[], str] = lambda: "") -> None:
    """Polls `ready` until it is true and prints a line every five seconds; CannotStart after `within_s` seconds.

    `ready` may raise CannotStart itself when waiting on is of no use; `detail` adds to the line what is known by then.
    """
    began = time.monotonic()
    said = began
    while not ready():
        now = time.monotonic()
        if now - began > within_s:
            raise CannotStart(f"{what}: not done after {within_s:.0f} s. {detail()}".rstrip())
        if now - said >= QUIET_S:
            say(f"{what}: {now - began:.0f} s … {detail()}".rstrip())
            said = now
        time.sleep(_POLL_S)


def dying_with_us(command: list[str], farewell: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command, made so that it gets `farewell` when the thread that starts it ends, even by kill -9 (Linux only).

    Without it a launcher that was killed would leave servers behind that hold its ports.
    """
    if shutil.which("setpriv") is None:
        return command
    # Changing the user forgets this signal, so a command that does so by setpriv must do both in one go.
    rest = command[1:] if command[0] == "setpriv" else command
    return ["setpriv", f"--pdeathsig={farewell.name.removeprefix('SIG')}", *rest]


def end(process: subprocess.Popen[bytes], what: str, ask: int, within_s: float) -> None:
    """Sends the signal `ask`, waits up to `within_s` seconds, then kills; says so when it had to kill."""
    if process.poll() is None:
        process.send_signal(ask)
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        say(f"{what} did not stop within {within_s:.0f} s and is killed")
        process.kill()
        process.wait()
