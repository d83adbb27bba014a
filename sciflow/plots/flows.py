"""Normalizing flows in two of their coordinates: density, the lines of the flow, its samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sciflow.cnf import ContinuousFlow
from sciflow.plots.style import CATEGORIES, GREY, axes, columns, plane, time_map
from sciflow.shapes import Float, Tensor

Bounds = tuple[float | int, float | int, float | int, float | int]


@torch.no_grad()
def density(
    flow: ContinuousFlow,
    ax: Any = None,
    bounds: Bounds | None = None,
    grid: int = 160,
    context: Float[Tensor, " c"] | None = None,
    data: Float[Tensor, "n 2"] | None = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """Draw the density of a flow in the plane, white where it vanishes.

    Args:
        flow: of two dimensions.
        ax: matplotlib axes.
        bounds: x from, x to, y from, y to; by default what holds the samples of the flow.
        grid: points along the longer side.
        context: of a conditional flow.
        data: points to draw on it.
        labels: names of both coordinates, with their units.

    Returns:
        The axes.

    Raises:
        ValueError: the flow has another number of dimensions.
    """
    _planar(flow)
    ax = axes(ax)
    x0, x1, y0, y1 = bounds or _bounds(_draw(flow, 2000, context))
    step = max(x1 - x0, y1 - y0) / grid
    xs, ys = (np.arange(a + step / 2, b, step) for a, b in ((x0, x1), (y0, y1)))
    points = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    log_p = flow.log_prob(torch.from_numpy(points).to(flow.shift.device), context)
    image = ax.imshow(
        log_p.double().exp().cpu().numpy().reshape(len(ys), len(xs)),
        extent=(xs[0] - step / 2, xs[-1] + step / 2, ys[0] - step / 2, ys[-1] + step / 2),
        origin="lower",
        cmap=_density_map(),
        interpolation="bilinear",
    )
    if data is not None:
        ax.scatter(*columns(data, (0, 1), "data").T, s=2, color="black", alpha=0.25, linewidths=0)
    image.set_clim(0, None)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label("density")
    bar.outline.set_visible(False)
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    plane(ax, (0, 1), labels)
    return ax


@torch.no_grad()
def flow_lines(
    flow: ContinuousFlow,
    ax: Any = None,
    n: int = 150,
    dims: tuple[int, int] = (0, 1),
    context: Float[Tensor, " c"] | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> Any:
    """Draw the lines along which a flow carries draws of its base to samples, coloured by time.

    Args:
        flow: of any number of dimensions.
        ax: matplotlib axes.
        n: number of lines.
        dims: the two coordinates to show.
        context: of a conditional flow.
        labels: names of the d coordinates, with their units.
        seed: seed of the draws.

    Returns:
        The axes.
    """
    from matplotlib.collections import LineCollection

    ax = axes(ax)
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    paths = columns(_paths(flow, times, n, context, seed), dims, "x").transpose(1, 0, 2)
    pieces = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)
    lines = LineCollection(list(pieces), cmap=time_map(), linewidths=0.7, alpha=0.8)
    middle = ((times[:-1] + times[1:]) / 2).numpy()
    lines.set_array(np.tile(middle, n))
    lines.set_clim(0, 1)
    ax.add_collection(lines)
    ax.scatter(*paths[:, 0].T, s=7, color=GREY, linewidths=0, zorder=3)
    ax.scatter(*paths[:, -1].T, s=7, color="black", linewidths=0, zorder=3)
    ax.autoscale_view()
    ax.set_aspect("equal")
    bar = ax.figure.colorbar(lines, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label("time: 0 base (grey), 1 data (black)")
    bar.outline.set_visible(False)
    plane(ax, dims, labels)
    return ax


@torch.no_grad()
def samples_over_time(
    flow: ContinuousFlow,
    ax: Any = None,
    times: Sequence[float | int] = (0.0, 0.25, 0.5, 0.75, 1.0),
    n: int = 2000,
    dims: tuple[int, int] = (0, 1),
    context: Float[Tensor, " c"] | None = None,
    seed: int = 0,
) -> Any:
    """Draw the same samples at several times of the flow, a panel each, from base to data.

    Args:
        flow: of any number of dimensions.
        ax: matplotlib axes, which the panels divide; a wide one shows them best.
        times: between 0 and 1, ascending.
        n: number of samples.
        dims: the two coordinates to show.
        context: of a conditional flow.
        seed: seed of the samples.

    Returns:
        The axes; the panels are its ``child_axes``.

    Raises:
        ValueError: the times are not ascending within [0, 1].
    """
    values = [float(t) for t in times]
    inside = all(0 <= t <= 1 for t in values)
    if len(values) < 2 or not inside or sorted(set(values)) != values:
        raise ValueError(f"times must be two or more, ascending within [0, 1]; got {values}")
    ax = axes(ax)
    ax.set_axis_off()
    grid = torch.tensor(([] if values[0] == 0 else [0.0]) + values, dtype=torch.float64)
    paths = columns(_paths(flow, grid, n, context, seed)[-len(values) :], dims, "x")
    x0, x1, y0, y1 = _bounds(paths.reshape(-1, 2))
    width = 1 / len(values)
    for i, t in enumerate(values):
        panel = ax.inset_axes((i * width, 0, 0.94 * width, 1))
        panel.scatter(*paths[i].T, s=2, color=CATEGORIES[0], alpha=0.6, linewidths=0)
        panel.set(xlim=(x0, x1), ylim=(y0, y1), xticks=[], yticks=[], aspect="equal")
        panel.set_title(f"t = {t:g}", fontsize="medium")
        panel.spines[:].set_color(GREY)
    return ax


def _planar(flow: ContinuousFlow) -> None:
    if flow.dim != 2:
        raise ValueError(f"flow must have 2 dimensions to draw its density; got {flow.dim}")


def _draw(flow: ContinuousFlow, n: int, context: Tensor | None, seed: int = 0) -> np.ndarray:
    generator = torch.Generator(flow.shift.device).manual_seed(seed)
    return flow.sample(n, context, generator).double().cpu().numpy()


def _paths(
    flow: ContinuousFlow, times: Tensor, n: int, context: Tensor | None, seed: int
) -> Tensor:
    generator = torch.Generator(flow.shift.device).manual_seed(seed)
    return flow.path(flow.base.sample(n, generator), times, context)


def _bounds(points: np.ndarray) -> Bounds:
    """What holds all but a few points, with a margin."""
    low, high = np.quantile(points, 0.002, axis=0), np.quantile(points, 0.998, axis=0)
    margin = 0.08 * (high - low).max()
    (x0, y0), (x1, y1) = (low - margin).tolist(), (high + margin).tolist()
    return x0, x1, y0, y1


def _density_map() -> Any:
    """Viridis reversed, from white: as time_map, it has no light end that could be missed."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    dark = colormaps["viridis"](np.linspace(0.85, 0, 12))
    return LinearSegmentedColormap.from_list("density", ["white", *dark])
