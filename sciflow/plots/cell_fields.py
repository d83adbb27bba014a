"""What a fitted flow says of cells: streams, growth and potential on an embedding, and in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.plots.style import CATEGORIES, GREY, axes, columns, legend_above, plane, time_map
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots


def stream(
    x: Float[Tensor, "batch dim"],
    v: Float[Tensor, "batch dim"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    color: Float[Tensor, "batch"] | None = None,
    color_label: str = "time",
    grid: int = 40,
) -> Any:
    """Draw stream lines of the velocity of cells, averaged over neighbouring cells.

    Args:
        x: positions, shape (N, d).
        v: velocities, shape (N, d); on another embedding than that of the fit, what
            ``bridges.embedding.project_velocity`` gives.
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        color: values (N,) to colour the cells by, for instance their times; None for grey.
        color_label: what they are, with their unit.
        grid: points of the grid of means along each side.

    Returns:
        The axes. Where there are no cells there are no lines; thicker lines are faster.
    """
    ax = axes(ax)
    points, arrows = columns(x, dims, "x"), columns(v, dims, "v")
    if color is None:
        ax.scatter(*points.T, s=4, color=GREY, alpha=0.35, linewidths=0, zorder=0)
    else:
        shades = ax.scatter(
            *points.T, s=5, c=_values(color), cmap=time_map(), alpha=0.45, linewidths=0, zorder=0
        )
        _bar(ax, shades, color_label)
    xs, ys, mean = _smoothed(points, arrows, grid)
    speed = np.hypot(mean[..., 0], mean[..., 1])
    ax.streamplot(
        xs,
        ys,
        mean[..., 0],
        mean[..., 1],
        color="black",
        linewidth=0.3 + 1.5 * np.nan_to_num(speed / np.nanmax(speed)),
        density=1.3,
        arrowsize=0.9,
    )
    plane(ax, dims, labels)
    return ax


def growth(
    x: Float[Tensor, "batch dim"],
    rate: Float[Tensor, "batch"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    unit: str = "1 / time",
) -> Any:
    """Scatter cells, red where their mass grows and blue where it shrinks.

    The scale is symmetric about zero and ends at the 98th percentile of the sizes, so that a few
    outliers do not wash out the rest.

    Args:
        x: positions, shape (N, d).
        rate: growth rates (N,).
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        unit: unit of the rates, for the colour bar.

    Returns:
        The axes.
    """
    ax = axes(ax)
    points, values = columns(x, dims, "x"), _values(rate)
    limit = float(np.quantile(np.abs(values), 0.98)) or 1.0
    order = np.argsort(np.abs(values))  # the strongest on top
    shades = ax.scatter(
        *points[order].T,
        s=7,
        c=values[order],
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        linewidths=0.15,
        edgecolors="0.45",
    )
    _bar(ax, shades, f"growth rate ({unit})", extend="both")
    plane(ax, dims, labels)
    return ax


def landscape(
    x: Float[Tensor, "batch dim"],
    potential: Float[Tensor, "batch"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    labels: Sequence[str] | None = None,
    unit: str = "",
    grid: int = 80,
    levels: int = 12,
) -> Any:
    """Draw contours of the potential at one time, averaged over neighbouring cells.

    Cells are driven towards higher potential, across the contours where they are straight lines
    in all coordinates. Values at different times cannot be compared, unless mass grows: take
    ``model.potential(t, x)`` of all cells at one t.

    Args:
        x: positions, shape (N, d).
        potential: values (N,).
        ax: matplotlib axes.
        dims: the two coordinates to show.
        labels: names of the d coordinates, with their units.
        unit: unit of the potential, for the colour bar.
        grid: points of the grid of means along each side.
        levels: number of contours.

    Returns:
        The axes.
    """
    ax = axes(ax)
    points = columns(x, dims, "x")
    xs, ys, mean = _smoothed(points, _values(potential)[:, None], grid)
    filled = ax.contourf(xs, ys, mean[..., 0], levels, cmap="cividis")
    ax.contour(xs, ys, mean[..., 0], levels, colors="white", linewidths=0.4)
    ax.scatter(*points.T, s=2, color="black", alpha=0.2, linewidths=0)
    _bar(ax, filled, f"potential ({unit})" if unit else "potential")
    plane(ax, dims, labels)
    return ax


def marginals_over_time(
    t: Float[Tensor, " times"],
    x: Float[Tensor, "times batch dim"],
    snapshots: Snapshots,
    ax: Any = None,
    dim: int = 0,
    weights: Float[Tensor, "times batch"] | None = None,
    label: str | None = None,
    unit: str = "",
) -> Any:
    """Draw one coordinate of moving samples in time, against that of the measured cells.

    Args:
        t: times, shape (T,).
        x: samples at these times, shape (T, N, d).
        snapshots: the measured cells.
        ax: matplotlib axes.
        dim: the coordinate.
        weights: weights of the samples at each time, shape (T, N).
        label: name of the coordinate, with its unit.
        unit: unit of the times.

    Returns:
        The axes: median and the band from the 10th to the 90th percentile of the samples; dots and
        bars are the same of the cells.
    """
    ax = axes(ax)
    levels = np.array([0.1, 0.5, 0.9])
    value = x[..., dim].detach().cpu().numpy()
    mass = np.ones_like(value) if weights is None else weights.detach().cpu().numpy()
    low, middle, high = np.array(
        [_quantiles(row, w, levels) for row, w in zip(value, mass, strict=True)]
    ).T
    times = t.detach().cpu().numpy()
    ax.fill_between(times, low, high, color=CATEGORIES[0], alpha=0.2, linewidth=0, label="flow")
    ax.plot(times, middle, color=CATEGORIES[0])
    cells = np.array([np.quantile(s[:, dim].numpy(), levels) for s in snapshots.samples])
    errors = np.stack([cells[:, 1] - cells[:, 0], cells[:, 2] - cells[:, 1]])
    when = snapshots.times.numpy()
    ax.errorbar(when, cells[:, 1], errors, fmt="o", color="black", ms=4, lw=1, label="cells")
    ax.set_xlabel(f"time ({unit})" if unit else "time")
    ax.set_ylabel(label or f"coordinate {dim + 1}")
    legend_above(ax)
    return ax


def mass_over_time(
    t: Float[Tensor, " times"],
    mass: Float[Tensor, " times"],
    snapshots: Snapshots,
    ax: Any = None,
    unit: str = "",
) -> Any:
    """Draw the total mass of weighted samples against the masses of the snapshots.

    Args:
        t: times, shape (T,).
        mass: mass at these times, relative to the first, shape (T,).
        snapshots: with masses.
        ax: matplotlib axes.
        unit: unit of the times.

    Returns:
        The axes.

    Raises:
        ValueError: the snapshots have no masses.
    """
    if snapshots.masses is None:
        raise ValueError("snapshots have no masses to compare with")
    ax = axes(ax)
    ax.plot(t.detach().cpu().numpy(), mass.detach().cpu().numpy(), label="flow")
    relative = snapshots.masses / snapshots.masses[0]
    ax.plot(snapshots.times.numpy(), relative.numpy(), "o", color="black", ms=4, label="snapshots")
    ax.set_xlabel(f"time ({unit})" if unit else "time")
    ax.set_ylabel("mass, relative to the first")
    ax.set_ylim(bottom=0)
    legend_above(ax)
    return ax


def _smoothed(
    points: np.ndarray, values: np.ndarray, grid: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian means of values at cells on a grid (x, y, means); NaN where there are no cells."""
    from scipy.spatial import cKDTree

    low, high = points.min(0), points.max(0)
    margin = 0.02 * (high - low)
    xs, ys = (np.linspace(a, b, grid) for a, b in zip(low - margin, high + margin, strict=True))
    # Both coordinates count alike, whatever their units.
    size = np.where(high > low, high - low, 1.0)
    tree = cKDTree(points / size)
    nodes = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2) / size
    k = min(len(points), max(10, len(points) // 50))
    distance, index = tree.query(nodes, k=k)
    distance, index = distance.reshape(len(nodes), k), index.reshape(len(nodes), k)
    width = 1.0 / 25
    weight = np.exp(-0.5 * (distance / width) ** 2)
    mean = (weight[..., None] * values[index]).sum(1) / np.maximum(weight.sum(1), 1e-12)[:, None]
    mean[distance[:, min(k, 3) - 1] > 1.5 * width] = np.nan
    return xs, ys, mean.reshape(grid, grid, -1)


def _quantiles(x: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    order = np.argsort(x)
    share = np.cumsum(weights[order])
    return np.interp(levels, (share - 0.5 * weights[order]) / share[-1], x[order])


def _values(x: Tensor) -> np.ndarray:
    values = x.detach().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("values to be coloured must be finite")
    return values


def _bar(ax: Any, shades: Any, label: str, **options: Any) -> None:
    bar = ax.figure.colorbar(shades, ax=ax, pad=0.02, fraction=0.05, **options)
    bar.set_label(label)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
