"""What a run leaves: its record, one column per quantity, and the result of the fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


class History:
    """What was logged, in columns; a quantity not measured at a step is NaN there.

    Attributes:
        step: the steps (updates made) at which something was logged, ascending.
    """

    def __init__(self) -> None:
        self.step: list[int] = []
        self._columns: dict[str, list[float]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns: ``loss``, the metrics, ``eval/NAME`` of each evaluation."""
        return tuple(self._columns)

    def __len__(self) -> int:
        return len(self.step)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> list[float]:
        """The column ``name``, as long as ``step``.

        Raises:
            KeyError: there is no such column; the message lists those there are.
        """
        if name not in self._columns:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.names) or 'none'}")
        return self._columns[name]

    def __repr__(self) -> str:
        last = f" to step {self.step[-1]}" if self.step else ""
        return f"History({len(self)} rows{last}: {', '.join(self.names)})"

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of ``name`` where it was measured, ready to plot."""
        pairs = [(s, v) for s, v in zip(self.step, self[name], strict=True) if not math.isnan(v)]
        return [s for s, _ in pairs], [v for _, v in pairs]

    def row(self, index: int) -> dict[str, float]:
        """The quantities of one row by name."""
        return {name: column[index] for name, column in self._columns.items()}

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row; a new name starts a column that is NaN in the rows before."""
        for name in values:
            self._columns.setdefault(name, [math.nan] * len(self.step))
        self.step.append(step)
        for name, column in self._columns.items():
            column.append(values.get(name, math.nan))

    def state_dict(self) -> dict[str, Any]:
        """The columns as float64 tensors, which are smaller and faster to save than lists."""
        return {
            "step": torch.tensor(self.step, dtype=torch.int64, device="cpu"),
            "columns": {
                name: torch.tensor(column, dtype=torch.float64, device="cpu")
                for name, column in self._columns.items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the contents by those of ``state_dict``."""
        self.step = state["step"].tolist()
        self._columns = {name: column.tolist() for name, column in state["columns"].items()}


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves.

    Attributes:
        model: a copy of the objective's model in eval mode, with the weights of the best
            evaluation, else the averaged weights, else (``ema=0``) the last ones.
        history: what was logged.
        best_step: step of the best evaluation; the last step made where there was none.
        seconds: wall time of the training, earlier parts of a resumed run included.
        interrupted: whether Ctrl-C ended the run before its last step.
        checkpoint: file to resume from; None where the trainer has no ``out``.
        stopped: why ``evaluate`` ended the run before its last step; None where it did not.
    """

    model: nn.Module
    history: History
    best_step: int
    seconds: float
    interrupted: bool = False
    checkpoint: Path | None = None
    stopped: str | None = None
