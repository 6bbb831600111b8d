"""Shows how long a benchmark takes: first an estimate, then a bar. Both go to stderr; the results go to stdout."""

import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

from ..figures import duration


class Progress:
    """A bar that shows how many of the expected seconds have passed. It disappears at the end.

    Args:
        name: what takes the time.
        seconds: how long it is expected to take; printed at once.
    """

    def __init__(self, name: str, seconds: float):
        tqdm.write(f"{name}: about {duration(float(f'{seconds:.2g}'))}", file=sys.stderr)
        self.expected = seconds
        self.start = time.perf_counter()
        self.bar = tqdm(total=seconds, leave=False, bar_format="{l_bar}{bar}| {elapsed}<{remaining}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.bar.close()

    def begin(self, part: str) -> None:
        """Show what is measured now."""
        self.bar.set_description_str(part, refresh=False)
        self.move()
        self.bar.refresh()

    def move(self) -> None:
        """Move the bar to the time that has passed. If that is more than expected, the bar becomes longer."""
        passed = time.perf_counter() - self.start
        self.bar.total = self.expected = max(self.expected, passed)
        self.bar.update(passed - self.bar.n)
