"""What all figures share: colours told apart by everyone, axes, legends beside the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.shapes import Tensor

# Okabe and Ito, Color Universal Design (2008), without its yellow, which is faint on white.
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#9A9A9A"


def axes(ax: Any = None) -> Any:
    """``ax``, or the current axes of matplotlib, without the upper and right spines."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def time_map() -> Any:
    """Viridis without its lightest end, which is faint on white: for ordered times."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["viridis"](np.linspace(0, 0.92, 256)), name="time")


def time_colors(times: Sequence[float | int]) -> list[tuple[float, float, float, float]]:
    """One colour for each of the times, by its place between the first and the last."""
    values = np.asarray(times, dtype=float)
    spread = np.ptp(values) or 1.0
    return [tuple(map(float, rgba)) for rgba in time_map()((values - values.min()) / spread)]  # type: ignore[misc]


def legend_above(ax: Any, title: str | None = None, columns: int = 5) -> None:
    """Put the legend above the axes, where it covers no data, with markers large enough to see."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    legend = ax.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=min(len(handles), columns),
        frameon=False,
        title=title,
        alignment="left",
        borderaxespad=0,
        handletextpad=0.3,
        columnspacing=1.1,
    )
    for handle in legend.legend_handles:
        if hasattr(handle, "set_sizes"):
            handle.set_sizes([28])
            handle.set_alpha(1)


def plane(ax: Any, dims: tuple[int, int], labels: Sequence[str] | None) -> None:
    """Name the two coordinates shown; ``labels`` are names of all coordinates."""
    names = [labels[i] if labels is not None else f"coordinate {i + 1}" for i in dims]
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])


def columns(x: Tensor, dims: tuple[int, int], name: str) -> np.ndarray:
    """The two columns ``dims`` of the last axis of ``x`` as an array.

    Raises:
        ValueError: ``x`` has no such columns, or values that are not finite.
    """
    if not all(0 <= i < x.shape[-1] for i in dims):
        raise ValueError(f"dims must be columns of {name}, which has {x.shape[-1]}; got {dims}")
    values = x.detach().cpu().numpy()[..., list(dims)]
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite")
    return values
