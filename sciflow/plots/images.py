"""Images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sciflow.plots.style import axes
from sciflow.shapes import Shaped, Tensor


def image_grid(
    images: Shaped[Tensor, "rows columns height width"],
    ax: Any = None,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Any:
    """Draw grey images in rows and columns, dark on white.

    Args:
        images: (rows, columns, height, width); white is the least of all values, black the
            largest.
        ax: matplotlib axes.
        rows: names of the rows; none are written where not given.
        columns: names of the columns.

    Returns:
        The axes.

    Raises:
        ValueError: another number of names than of rows or columns.
    """
    n_rows, n_columns, height, width = images.shape
    for name, names, n in (("rows", rows, n_rows), ("columns", columns, n_columns)):
        if len(names) not in (0, n):
            raise ValueError(f"{name} has {len(names)} names; expected {n}")
    ax = axes(ax)
    values = images.detach().cpu().numpy()
    # A line between the images, of the background.
    framed = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=values.min())
    whole = framed.transpose(0, 2, 1, 3).reshape(n_rows * (height + 2), n_columns * (width + 2))
    ax.imshow(whole, cmap="gray_r", interpolation="nearest")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.set_xticks((np.arange(len(columns)) + 0.5) * (width + 2) - 0.5, columns)
    ax.set_yticks((np.arange(len(rows)) + 0.5) * (height + 2) - 0.5, rows)
    return ax
