"""Free energies of one and two coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.metrics.surfaces import Surface
from sciflow.plots.style import CATEGORIES, axes, legend_above


def free_energy(
    surface: Surface,
    ax: Any = None,
    labels: Sequence[str] | None = None,
    highest: float | None = None,
    degrees: bool = False,
    name: str | None = None,
) -> Any:
    """Draw a free energy: a line with its band of error, or the bins of a plane.

    Args:
        surface: what `free_energy_surface` gives.
        ax: matplotlib axes. A plane gets a colour bar beside it.
        labels: names of the coordinates.
        highest: free energies above are cut off; by default nothing is.
        degrees: show angles, which are in radians, in degrees.
        name: of a line, for a legend where several are drawn on the same axes.

    Returns:
        The axes.

    Raises:
        ValueError: the surface has no finite value, or ``highest`` is not positive.
    """
    value, error = surface.value.cpu().numpy(), surface.error.cpu().numpy()
    if highest is not None and not highest > 0:
        raise ValueError(f"highest must be positive, got {highest}")
    if not np.isfinite(value).any():
        raise ValueError("surface has no finite value")
    turn = 180 / math.pi if degrees else 1.0
    at = [turn * center.cpu().numpy() for center in surface.centers]
    given = labels or [f"coordinate {i + 1}" for i in range(len(at))]
    names = [f"{label} [deg]" for label in given] if degrees else list(given)
    ax = axes(ax)
    ax.set_xlabel(names[0])
    if degrees:
        _degrees(ax.xaxis, surface.edges[0].cpu().numpy() * turn)
    if len(at) == 1:
        color = CATEGORIES[len(ax.lines) % len(CATEGORIES)]
        shown = np.where(np.isfinite(value), value, np.nan)
        ax.plot(at[0], shown, color=color, lw=1.6, label=name)
        band = np.where(np.isfinite(error), error, 0.0)
        if band.any():
            ax.fill_between(at[0], shown - band, shown + band, color=color, alpha=0.25, lw=0)
        ax.set_ylabel(f"free energy [{surface.unit}]")
        ax.set_ylim(bottom=0, top=highest)
        if name is not None:
            legend_above(ax)
        return ax
    if highest is not None:
        value = np.where(value > highest, np.inf, value)
    edges = [turn * edge.cpu().numpy() for edge in surface.edges]
    # Bins without a sample, of infinite free energy, stay blank.
    mesh = ax.pcolormesh(*edges, np.ma.masked_invalid(value).T, vmin=0, vmax=highest)
    ax.figure.colorbar(mesh, ax=ax, label=f"free energy [{surface.unit}]")
    ax.set_ylabel(names[1])
    if degrees:
        _degrees(ax.yaxis, edges[1])
    return ax


def _degrees(axis: Any, edges: np.ndarray) -> None:
    """Ticks at multiples of 90 degrees where the axis spans a good part of the circle."""
    low, high = edges.min(), edges.max()
    if high - low > 150:
        axis.set_ticks(np.arange(math.ceil(low / 90) * 90, high + 1, 90))
