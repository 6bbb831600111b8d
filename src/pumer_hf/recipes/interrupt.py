"""What happens at Ctrl-C and SIGTERM: a run ends with one line that says how to go on, and what is lost."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
STARTED_BY = "PUMER_HF_STARTED_BY"
"""The Makefile sets it to its own command, whose flags for a script go into `ARGS`."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the training of a stage; the message says what is lost."""


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End the program with a line in the place of a traceback at Ctrl-C and SIGTERM, and with the status of a shell.

    The first process of several writes the line. A signal that was ignored stays so, as Ctrl-C is in what a shell
    script starts in the background. So does a handler that is not of Python.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        # A launcher of several processes passes on what they have got themselves. Without one, a second Ctrl-C ends
        # the program at once.
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
        # Where a process waits for another one that has ended, its wait fails before it sees the signal.
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
    """The line that a stopped run ends with."""
    lost = str(error) if isinstance(error, Stopped) else "no stage was training, so no step is lost"
    command = resuming_command()
    again = f"`{command}`" if command else "the same command with --resume"
    again = "the same command" if "--resume" in sys.argv else again
    note = " (The launcher's own traceback says no more.)" if "ACCELERATE_MIXED_PRECISION" in os.environ else ""
    return f"Stopped by {signal_name}: {lost}. To go on, give {again}.{note}"


def resuming_command() -> str | None:
    """The command that continues this run, if `make` started it; else it is that of the run with `--resume`."""
    started_by = os.environ.get(STARTED_BY)
    if started_by is None:
        return None
    return f"{started_by} ARGS={shlex.quote(shlex.join([*sys.argv[1:], '--resume']))}"
