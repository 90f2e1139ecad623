"""Long work that can be stopped: requests to stop, and when a checkpoint is due."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Clock", "stop_requests"]


class Clock:
    """When a checkpoint is due, and when this call has taken its steps.

    Args:
        save_seconds: between checkpoints.
        stop_after: steps of this call; 0 for no limit.
    """

    def __init__(self, save_seconds: float, stop_after: int) -> None:
        self.save_seconds, self.stop_after = save_seconds, stop_after
        self.saved = self.last = time.monotonic()
        self.taken = 0

    def tick(self) -> float:
        """Count a step; the seconds since the one before."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        self.taken += 1
        return passed

    def save_due(self) -> bool:
        if due := self.last - self.saved > self.save_seconds:
            self.saved = self.last
        return due

    def stops(self, asked: bool) -> bool:
        return asked or 0 < self.stop_after <= self.taken


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While it lasts, the first Ctrl-C or SIGTERM is a request, and the second interrupts.

    Gives a function that says whether a request came.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step, with a checkpoint ...", file=sys.stderr, flush=True)

    try:
        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
