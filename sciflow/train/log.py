"""Where the rows of a history go while a run goes on."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

from sciflow.errors import require
from sciflow.train.history import History


@runtime_checkable
class Logger(Protocol):
    """Takes the last row of a history after each logged step."""

    def write(self, history: History) -> None:
        """Log the last row of ``history``."""
        ...

    def close(self) -> None:
        """Flush and release files."""
        ...


class CsvLogger:
    """``metrics.csv``: a column per quantity, an empty cell where it was not measured.

    The history in memory is the truth. The first write of a run, and every write that brings a
    new column, writes the whole file: a resumed run thus drops the rows that were logged after
    its checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.csv"
        self._file: TextIO | None = None
        self._names: tuple[str, ...] = ()

    def write(self, history: History) -> None:
        """Append the last row, or write all rows."""
        start = len(history) - 1
        if self._file is None or self._names != history.names:
            self.close()
            self._file = open(self.path, "w", newline="", encoding="utf-8")
            self._names = history.names
            csv.writer(self._file).writerow(("step", *self._names))
            start = 0
        columns = [history[name] for name in self._names]
        csv.writer(self._file).writerows(
            (history.step[i], *("" if math.isnan(c[i]) else repr(c[i]) for c in columns))
            for i in range(start, len(history))
        )
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorBoardLogger:
    """Event files for TensorBoard, in the folder of the run.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "log")
        self.folder = folder
        self._writer: Any = None

    def write(self, history: History) -> None:
        """Add the scalars of the last row."""
        step = history.step[-1]
        if self._writer is None:
            board = require("torch.utils.tensorboard", "log")
            # A resumed run hides what was logged after its checkpoint.
            self._writer = board.SummaryWriter(str(self.folder), purge_step=step)
        for name, value in history.row(-1).items():
            if not math.isnan(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


LOGGERS: dict[str, Callable[[Path], Logger]] = {
    "csv": CsvLogger,
    "tensorboard": TensorBoardLogger,
}
