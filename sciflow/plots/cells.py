"""Populations over time: what was measured, how it moves, and how well that is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sciflow.plots.style import (
    CATEGORIES,
    GREY,
    axes,
    columns,
    legend_above,
    plane,
    time_colors,
    time_map,
)
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots


@dataclass(frozen=True)
class ScoreRow:
    """Distance between a prediction and one held-out time point.

    Attributes:
        method: name of the method.
        time: the held-out time.
        w1: Wasserstein distance between prediction and cells.
        floor: distance between two samples of the same cells, as large as those compared: what a
            perfect prediction would score.
        error: standard deviation of ``w1`` over seeds, 0 where there is one.
    """

    method: str
    time: float
    w1: float
    floor: float
    error: float = 0.0


def marginals(
    snapshots: Snapshots,
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    unit: str = "",
) -> Any:
    """Scatter the cells of each time, coloured by time.

    Args:
        snapshots: K samples of shapes (n_k, d).
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        unit: unit of the times, for the legend.

    Returns:
        The axes.
    """
    ax = axes(ax)
    times = snapshots.times.tolist()
    for color, time, x in zip(time_colors(times), times, snapshots.samples, strict=True):
        points = columns(x, dims, "snapshots")
        ax.scatter(*points.T, s=5, color=color, alpha=0.6, linewidths=0, label=f"{time:g}")
    plane(ax, dims, labels)
    legend_above(ax, f"time ({unit})" if unit else "time")
    return ax


def trajectories(
    t: Float[Tensor, " times"],
    x: Float[Tensor, "times batch dim"],
    ax: Any = None,
    background: Snapshots | None = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    n_max: int = 40,
    unit: str = "",
) -> Any:
    """Draw paths, coloured by time, over the measured cells in grey.

    Args:
        t: times, shape (T,).
        x: paths, shape (T, N, d).
        ax: matplotlib axes.
        background: cells to draw underneath.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        n_max: most paths to draw; they are taken evenly from the N.
        unit: unit of the times, for the colour bar.

    Returns:
        The axes.

    Raises:
        ValueError: there are less than two times.
    """
    from matplotlib.collections import LineCollection

    if len(t) < 2:
        raise ValueError(f"t must hold at least two times, got {len(t)}")
    ax = axes(ax)
    if background is not None:
        for sample in background.samples:
            points = columns(sample, dims, "background")
            ax.scatter(*points.T, s=3, color=GREY, alpha=0.25, linewidths=0, zorder=0)
    chosen = np.unique(np.linspace(0, x.shape[1] - 1, min(n_max, x.shape[1])).astype(int))
    paths = columns(x[:, chosen.tolist()], dims, "x").transpose(1, 0, 2)
    pieces = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)
    times = t.detach().cpu().numpy()
    lines = LineCollection(list(pieces), cmap=time_map(), linewidths=0.8, alpha=0.9)
    lines.set_array(np.tile((times[:-1] + times[1:]) / 2, len(chosen)))
    lines.set_clim(float(times.min()), float(times.max()))
    ax.add_collection(lines)
    ax.autoscale_view()
    bar = ax.figure.colorbar(lines, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label(f"time ({unit})" if unit else "time")
    bar.outline.set_visible(False)
    plane(ax, dims, labels)
    return ax


def velocity_field(
    x: Float[Tensor, "batch dim"],
    v: Float[Tensor, "batch dim"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    grid: int = 22,
    min_cells: int = 4,
    unit: str = "",
) -> Any:
    """Draw the velocity of cells, averaged over the cells of a grid.

    Args:
        x: positions, shape (N, d).
        v: velocities, shape (N, d).
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        grid: squares along the longer side.
        min_cells: no arrow is drawn for a square with fewer cells.
        unit: unit of the velocity, for the title, which states the length of the arrows.

    Returns:
        The axes.

    Raises:
        ValueError: no square holds ``min_cells`` cells.
    """
    ax = axes(ax)
    points, arrows = columns(x, dims, "x"), columns(v, dims, "v")
    low = points.min(0)
    side = float((points.max(0) - low).max()) / grid or 1.0
    square = np.floor((points - low) / side).astype(int)
    _, member, count = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    member = member.reshape(-1)
    mean = np.stack(
        [np.bincount(member, values) / count for values in (*points.T, *arrows.T)], axis=1
    )[count >= min_cells]
    if not len(mean):
        raise ValueError(f"min_cells={min_cells} leaves no square of the grid; got {len(x)} cells")
    ax.scatter(*points.T, s=3, color=GREY, alpha=0.3, linewidths=0, zorder=0)
    speed = np.hypot(mean[:, 2], mean[:, 3])
    longest = float(speed.max()) or 1.0
    ax.quiver(
        *mean.T,
        color=CATEGORIES[0],
        angles="xy",
        scale_units="xy",
        scale=longest / (3 * side),
        width=0.004,
    )
    # A key arrow is left out of the layout of a figure and may fall off it; a title is not.
    ax.set_title(f"longest arrow: {longest:.2g} {unit}".rstrip(), loc="left", fontsize="medium")
    plane(ax, dims, labels)
    return ax


def scores(rows: Sequence[ScoreRow], ax: Any = None, unit: str = "") -> Any:
    """Bars of the distance of each method at each held-out time, against the sampling floor.

    Args:
        rows: one for each method and held-out time.
        ax: matplotlib axes.
        unit: unit of the times.

    Returns:
        The axes.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("rows must not be empty")
    ax = axes(ax)
    methods = list(dict.fromkeys(row.method for row in rows))
    times = sorted({row.time for row in rows})
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        mine = [row for row in rows if row.method == method]
        place = [times.index(row.time) - 0.4 + (i + 0.5) * width for row in mine]
        errors = [row.error for row in mine]
        ax.bar(
            place,
            [row.w1 for row in mine],
            0.9 * width,
            yerr=errors if any(errors) else None,
            error_kw={"elinewidth": 1, "capsize": 2},
            color=CATEGORIES[i % len(CATEGORIES)],
            label=method,
        )
    floors = {row.time: row.floor for row in rows}
    for i, time in enumerate(times):
        label = "sampling floor" if i == 0 else None
        # White under black keeps the line visible on every bar.
        ax.hlines(floors[time], i - 0.45, i + 0.45, color="white", lw=3.5)
        ax.hlines(floors[time], i - 0.45, i + 0.45, color="black", lw=1.5, label=label)
    ax.set_xticks(range(len(times)), [f"{time:g}" for time in times])
    ax.set_xlabel(f"held-out time ({unit})" if unit else "held-out time")
    ax.set_ylabel(r"$W_1$ to the held-out cells")
    ax.set_ylim(bottom=0)
    legend_above(ax, columns=2)
    return ax


def predicted_against_held_out(
    pred: Float[Tensor, "n dim"],
    true: Float[Tensor, "m dim"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    weights: Float[Tensor, "n"] | None = None,
) -> Any:
    """Scatter predicted cells over the cells that were held out.

    Args:
        pred: predicted cells, shape (n, d).
        true: held-out cells, shape (m, d).
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        weights: relative weights of the predicted cells (n,), shown by size; None for equal ones.

    Returns:
        The axes.
    """
    ax = axes(ax)
    held, guess = columns(true, dims, "true"), columns(pred, dims, "pred")
    ax.scatter(*held.T, s=9, color=CATEGORIES[0], alpha=0.55, linewidths=0, label="held out")
    share = np.ones(len(guess)) if weights is None else weights.detach().cpu().numpy()
    size = 11 * share / share.mean()
    ax.scatter(
        *guess.T, s=size, marker="x", color=CATEGORIES[1], alpha=0.7, lw=0.8, label="predicted"
    )
    plane(ax, dims, labels)
    legend_above(ax)
    return ax
