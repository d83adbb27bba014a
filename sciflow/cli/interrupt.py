"""Ctrl-C in a verb: what is raised, and what it says."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(Exception):
    """Ctrl-C ended a run; the message says where it goes on from."""


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Ctrl-C ends everything, not just the fit under way of several."""

    def stop(*_: Any) -> None:
        raise Interrupted("interrupted; nothing was written")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
