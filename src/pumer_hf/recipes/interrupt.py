"""The end of a run at Ctrl-C or SIGTERM: one line says what is lost and how to go on."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
STARTED_BY = "PUMER_HF_STARTED_BY"
"""The environment variable that the Makefile sets to its own command. Flags for a script go into `ARGS`."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the training of a stage; the message says what is lost."""


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """At Ctrl-C or SIGTERM, end the program with one line instead of a traceback, and with the status that shells use.

    If there are several processes, the first one writes the line. A signal that was ignored stays ignored. For
    example, shell scripts ignore Ctrl-C in background jobs. Signal handlers outside of Python stay too.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        # A launcher of several processes sends them the signal a second time, which is ignored. Without a launcher,
        # a second Ctrl-C ends the program at once.
        later = signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL
        for name in before:
            signal.signal(name, later)
        raise KeyboardInterrupt

    handlers = {name: signal.getsignal(name) for name in NAMES}
    before = {name: handler for name, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    for name in before:
        signal.signal(name, stop)
    try:
        yield
    except BaseException as error:
        # If a process waits for another one that has ended, the wait fails before the process sees the signal.
        if not received and not isinstance(error, KeyboardInterrupt):
            raise
        number = received[0] if received else signal.SIGINT
        if os.environ.get("RANK", "0") == "0":
            print(f"\n{last_line(error, NAMES[number])}", file=sys.stderr)
        sys.exit(128 + number)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def last_line(error: BaseException, signal_name: str) -> str:
    """Return the last line of a stopped run."""
    lost = str(error) if isinstance(error, Stopped) else "no stage was training, so no step is lost"
    command = resuming_command()
    again = f"`{command}`" if command else "the same command with --resume"
    again = "the same command" if "--resume" in sys.argv else again
    note = " (The launcher's own traceback says no more.)" if "ACCELERATE_MIXED_PRECISION" in os.environ else ""
    return f"Stopped by {signal_name}: {lost}. To go on, give {again}.{note}"


def resuming_command() -> str | None:
    """Return the command that continues this run if `make` started it, else None."""
    started_by = os.environ.get(STARTED_BY)
    if started_by is None:
        return None
    return f"{started_by} ARGS={shlex.quote(shlex.join([*sys.argv[1:], '--resume']))}"
