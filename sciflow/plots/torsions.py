"""Modes of a molecule in the plane of two torsions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.plots.style import axes
from sciflow.shapes import Float, Tensor


def mode_on_torsions(
    angles: Float[Tensor, "n 2"],
    mode: Float[Tensor, " n"],
    ax: Any = None,
    labels: Sequence[str] | None = None,
    number: int | None = None,
    along: Float[Tensor, "m 2"] | None = None,
) -> Any:
    """Draw a mode as the colour of frames in the plane of two torsions.

    Args:
        angles: (n, 2) torsions [rad], drawn in degrees.
        mode: (n,) the mode at the same frames, drawn in standard deviations.
        ax: matplotlib axes; a colour bar is put beside it.
        labels: names of the two torsions.
        number: of the mode, for the colour bar.
        along: (m, 2) torsions [rad] of structures along the mode, drawn as points in their order.

    Returns:
        The axes.

    Raises:
        ValueError: the numbers of frames differ, or the mode is constant.
    """
    if len(angles) != len(mode):
        raise ValueError(f"mode has {len(mode)} frames where angles has {len(angles)}")
    spread = float(mode.std())
    if not spread > 0:
        raise ValueError("mode is constant")
    ax = axes(ax)
    turn = 180 / math.pi
    x, y = (turn * angles.detach().cpu().numpy()).T
    value = ((mode - mode.mean()) / spread).detach().cpu().numpy()
    points = ax.scatter(x, y, c=value, s=3, lw=0, cmap="coolwarm", vmin=-2.5, vmax=2.5)
    name = "mode" if number is None else f"mode {number}"
    ax.figure.colorbar(points, ax=ax, label=f"{name} [standard deviations]")
    if along is not None:
        a, b = (turn * along.detach().cpu().numpy()).T
        ax.scatter(a, b, s=14, c="black", zorder=3)
    names = labels or ["first torsion", "second torsion"]
    ax.set(
        xlim=(-180, 180), ylim=(-180, 180), xlabel=f"{names[0]} [deg]", ylabel=f"{names[1]} [deg]"
    )
    ticks = np.arange(-180, 181, 90)
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    return ax
