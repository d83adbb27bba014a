"""How a run of the trainer went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.plots.style import CATEGORIES, axes, legend_above
from sciflow.train.history import History


def history(
    history: History,
    ax: Any = None,
    columns: Sequence[str] | None = None,
    window: int | None = None,
) -> Any:
    """Draw logged quantities against the step: each value faintly, a running median over them.

    The vertical axis is logarithmic where all values are positive and span two decades.

    Args:
        history: the record of a run.
        ax: matplotlib axes.
        columns: names of the quantities; the loss and all evaluations where not given.
        window: rows of the running median; a thirtieth of the run where not given, 1 for none.

    Returns:
        The axes.

    Raises:
        ValueError: no column is there to draw, or ``window`` is less than 1.
        KeyError: there is no such column.
    """
    if columns is None:
        columns = [name for name in history.names if name == "loss" or name.startswith("eval/")]
    if not columns:
        raise ValueError(f"columns must name one of {', '.join(history.names) or 'none'}")
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    ax = axes(ax)
    every: list[float] = []
    for i, name in enumerate(columns):
        steps, values = history.series(name)
        color = CATEGORIES[i % len(CATEGORIES)]
        rows = window or max(1, len(values) // 30)
        smooth = _running_median(np.asarray(values), rows)
        if rows > 1:
            ax.plot(steps, values, color=color, lw=0.6, alpha=0.3)
        marker = "o" if len(values) < 30 else None
        ax.plot(steps, smooth, color=color, lw=1.6, marker=marker, ms=3, label=name)
        every += values
    if every and min(every) > 0 and max(every) > 100 * min(every):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(columns[0] if len(columns) == 1 else "value")
    if len(columns) > 1:
        legend_above(ax, columns=3)
    return ax


def _running_median(values: np.ndarray, rows: int) -> np.ndarray:
    """Median over ``rows`` neighbours, fewer at the ends, so that the length is kept."""
    half = rows // 2
    return np.array(
        [np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    )
