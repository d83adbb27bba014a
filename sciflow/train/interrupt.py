"""Ctrl-C that waits for the end of a step, so that what it leaves can be resumed exactly."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class StopTraining(Exception):
    """Raised by an ``evaluate`` to end the training, with the reason as its message."""


class Interrupts:
    """While entered, SIGINT inside ``held()`` becomes a KeyboardInterrupt at its end.

    A second SIGINT is raised at once. Nothing is installed outside the main thread, or where
    the program has a handler of its own: then KeyboardInterrupt comes as it does elsewhere.
    """

    def __init__(self) -> None:
        self._held = False
        self._pending = False
        self._previous: Any = None

    def __enter__(self) -> Interrupts:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._held or self._pending:
            raise KeyboardInterrupt
        self._pending = True
        logger.warning("interrupted: stopping after this step; once more stops at once")

    @contextmanager
    def held(self) -> Iterator[None]:
        """A stretch that SIGINT must not cut."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
