"""What happens at Ctrl-C and SIGTERM: a run ends with one line that says how to go on, and what is lost."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the training of a stage; the message says what is lost."""


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End the program with a line in the place of a traceback at Ctrl-C and SIGTERM, and with the status of a shell.

    The first process of several writes the line.
    """
    received: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        # A launcher of several processes passes on what they have got themselves. Without one, a second Ctrl-C ends
        # the program at once.
        later = signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL
        for name in NAMES:
            signal.signal(name, later)
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in NAMES}
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
    same = "the same command" if "--resume" in sys.argv else "the same command with --resume"
    note = " (The launcher's own traceback says no more.)" if "ACCELERATE_MIXED_PRECISION" in os.environ else ""
    return f"Stopped by {signal_name}: {lost}. To go on, give {same}.{note}"
