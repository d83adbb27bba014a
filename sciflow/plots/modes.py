"""Modes of a canonical transformation: their frequencies, their shapes, their coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from sciflow.plots.style import CATEGORIES, GREY, axes, columns, legend_above, plane
from sciflow.shapes import Float, Tensor


def spectrum(
    frequencies: Float[Tensor, " dim"],
    ax: Any = None,
    exact: Float[Tensor, " dim"] | None = None,
    unit: str = "",
) -> Any:
    """Draw the frequency of each mode against its number.

    Args:
        frequencies: (n,) ascending; `Frequencies` or its ``cm1``.
        ax: matplotlib axes.
        exact: (n,) reference values, drawn as a line behind the points.
        unit: unit for the label of the axis.

    Returns:
        The axes.

    Raises:
        ValueError: the two have different lengths.
    """
    ax = axes(ax)
    values = frequencies.detach().cpu().numpy()
    number = np.arange(1, len(values) + 1)
    if exact is not None:
        if len(exact) != len(values):
            raise ValueError(f"exact has {len(exact)} values; expected {len(values)}")
        ax.plot(number, exact.detach().cpu().numpy(), color=GREY, lw=1.5, label="exact")
    ax.plot(number, values, "o", color=CATEGORIES[0], ms=4, label="learned")
    ax.set_xlabel("mode")
    ax.set_ylabel(f"angular frequency [{unit}]" if unit else "angular frequency")
    ax.set_ylim(bottom=0)
    if exact is not None:
        legend_above(ax)
    return ax


def mode_shapes(
    shapes: Float[Tensor, "dim sites"],
    ax: Any = None,
    exact: Float[Tensor, "dim sites"] | None = None,
    n: int = 3,
) -> Any:
    """Draw the displacements of the slowest modes against the number of the site.

    Args:
        shapes: (modes, sites), one mode in each row, slowest first.
        ax: matplotlib axes.
        exact: reference shapes, drawn as lines; each learned mode is given the sign of its own.
        n: number of modes, at most 7.

    Returns:
        The axes.

    Raises:
        ValueError: ``n`` is out of range, or the shapes disagree.
    """
    if not 1 <= n <= min(len(shapes), len(CATEGORIES)):
        most = min(len(shapes), len(CATEGORIES))
        raise ValueError(f"n must be between 1 and {most}; got {n}")
    if exact is not None and exact.shape != shapes.shape:
        raise ValueError(f"exact has shape {tuple(exact.shape)}; expected {tuple(shapes.shape)}")
    ax = axes(ax)
    sites = np.arange(1, shapes.shape[1] + 1)
    for k in range(n):
        values = shapes[k].detach().cpu().numpy()
        if exact is not None:
            truth = exact[k].detach().cpu().numpy()
            ax.plot(sites, truth, color=CATEGORIES[k], lw=1, alpha=0.6)
            values = values * (1.0 if values @ truth >= 0 else -1.0)
        style = "o" if exact is not None else "o-"
        ax.plot(sites, values, style, color=CATEGORIES[k], ms=3.5, lw=1, label=f"mode {k + 1}")
    ax.axhline(0, color=GREY, lw=0.6, zorder=0)
    ax.set_xlabel("site")
    ax.set_ylabel("displacement")
    legend_above(ax)
    return ax


def latent(
    Q: Float[Tensor, "n dim"],
    ax: Any = None,
    dims: tuple[int, int] = (0, 1),
    color: Float[Tensor, " n"] | None = None,
    label: str | None = None,
) -> Any:
    """Scatter two mode coordinates of samples, coloured by an observable if there is one.

    Args:
        Q: (N, n) mode coordinates.
        ax: matplotlib axes.
        dims: which two.
        color: (N,) observable.
        label: its name.

    Returns:
        The axes.

    Raises:
        ValueError: ``dims`` are no columns, or ``color`` has another length.
    """
    ax = axes(ax)
    points = columns(Q, dims, "Q")
    if color is None:
        ax.scatter(*points.T, s=3, lw=0, color=CATEGORIES[0], alpha=0.5, rasterized=True)
    else:
        if len(color) != len(points):
            raise ValueError(f"color has {len(color)} values; expected {len(points)}")
        values = color.detach().cpu().numpy()
        drawn = ax.scatter(*points.T, s=3, lw=0, c=values, cmap="viridis", rasterized=True)
        ax.figure.colorbar(drawn, ax=ax, label=label)
    plane(ax, dims, [f"$Q_{{{i + 1}}}$" for i in range(Q.shape[1])])
    return ax
