"""Clouds of points and their weights, as every metric takes them."""

from __future__ import annotations

import numpy as np
import torch

from sciflow.shapes import Float, Tensor

Array = Tensor | np.ndarray


def as_points(x: Array, name: str, at_least: int = 1) -> Float[Tensor, "n d"]:
    """A cloud of points in float64, on its own device and cut off from any graph.

    Args:
        x: (n, d) points, of any real type.
        name: the argument, for messages.
        at_least: fewest points that make sense.

    Raises:
        ValueError: the shape is another, there are too few points, or a value is not finite.
    """
    points = as_real(x, name)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"{name} has shape {tuple(points.shape)}; expected (n, d)")
    if len(points) < at_least:
        raise ValueError(f"{name} has {len(points)} points; expected at least {at_least}")
    bad = ~torch.isfinite(points)
    if bad.any():
        row, column = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are not finite; the first is "
            f"{name}[{row}, {column}] = {points[row, column].item()}"
        )
    return points


def as_pair(
    x: Array, y: Array, at_least: int = 1
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Two clouds in one space, on the device of the first.

    Raises:
        ValueError: as for `as_points`, or the dimensions differ.
    """
    first, second = as_points(x, "x", at_least), as_points(y, "y", at_least)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"y has {second.shape[1]} dimensions where x has {first.shape[1]}: they must agree"
        )
    return first, second.to(first.device)


def as_weights(weights: Array | None, points: Float[Tensor, "n d"], name: str) -> Tensor:
    """(n,) weights that sum to one; equal weights for None.

    Raises:
        ValueError: the shape is not (n,), a weight is negative or not finite, or all are zero.
    """
    n = len(points)
    if weights is None:
        return torch.full((n,), 1.0 / n, dtype=torch.float64, device=points.device)
    values = as_real(weights, name).to(points.device)
    if values.shape != (n,):
        raise ValueError(f"{name} has shape {tuple(values.shape)}; expected ({n},)")
    bad = ~(torch.isfinite(values) & (values >= 0))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{name}[{row}] is {values[row].item()}; weights must be finite and not negative"
        )
    # Dividing by the largest first keeps the sum finite, whatever the scale.
    largest = values.max()
    if largest == 0:
        raise ValueError(f"{name} are all zero; expected at least one positive weight")
    values = values / largest
    return values / values.sum()


def as_real(x: Array, name: str) -> Tensor:
    """Any real tensor or array as float64, cut off from any graph."""
    values = torch.from_numpy(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x
    if values.dtype.is_complex or values.dtype == torch.bool:
        raise ValueError(f"{name} holds {values.dtype}; expected real numbers")
    return values.detach().to(torch.float64)
