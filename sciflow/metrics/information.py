"""Mutual information of samples by nearest neighbours, without bins."""

from __future__ import annotations

import numpy as np
import torch

from sciflow.errors import require
from sciflow.metrics.points import Array, as_points, as_real
from sciflow.shapes import Float, Tensor


def mutual_information(x: Array, y: Array, k: int = 5) -> float:
    """Mutual information I(x; y) in nats, by the first estimator of Kraskov et al.

    Each coordinate is first scaled to unit variance, which leaves I unchanged but balances the
    distances. An angle is best given as the two columns (cos, sin): I is the same, and its cut
    is gone. The estimate may be slightly negative; its error grows as 1/sqrt(n) and its bias
    with the strength of the dependence.

    Args:
        x: (n,) or (n, d) samples of one variable or vector.
        y: (n,) or (n, m) samples of the other, row by row of the same draws.
        k: neighbours: fewer lower the bias, more the variance.

    Raises:
        ValueError: an argument is not finite, constant or of another shape, ``k`` is not between
            1 and n - 1, or more than ``k`` samples coincide, so that there is no density.

    Source: Kraskov, Stögbauer, Grassberger, Phys. Rev. E 69, 066138 (2004), equation (8).
    """
    first, second = _scaled(x, "x", k), _scaled(y, "y", k)
    n = len(first)
    if len(second) != n:
        raise ValueError(f"y has {len(second)} samples where x has {n}: they must agree")
    tree = require("scipy.spatial").cKDTree
    digamma = require("scipy.special").digamma
    a, b = first.cpu().numpy(), second.cpu().numpy()
    joint = np.hstack([a, b])
    distance = tree(joint).query(joint, k + 1, p=np.inf)[0][:, k]
    if not (distance > 0).all():
        raise ValueError(
            f"{int((distance == 0).sum())} samples of (x, y) have more than k = {k} copies; "
            "expected samples of a density: add noise below the resolution, or raise k"
        )
    # Neighbours strictly nearer than the k-th: the ball is closed, so its radius goes down a bit.
    radius = np.nextafter(distance, 0)
    counts = [
        # The point itself is among them, which is the + 1 of the formula.
        tree(points).query_ball_point(points, radius, p=np.inf, return_length=True)
        for points in (a, b)
    ]
    inner = np.mean(digamma(counts[0]) + digamma(counts[1]))
    return float(digamma(k) + digamma(n) - inner)


def mutual_information_matrix(x: Array, y: Array, k: int = 5) -> Float[Tensor, "dim other"]:
    """Mutual information [nats] of every column of ``x`` with every column of ``y``.

    Args:
        x: (n, d), for instance the latent modes of a model.
        y: (n, m), for instance named observables.
        k: neighbours, as for `mutual_information`.

    Returns:
        shape (d, m), float64.

    Raises:
        ValueError: as for `mutual_information`.
    """
    first, second = as_points(x, "x"), as_points(y, "y")
    rows = [[mutual_information(u, v, k) for v in second.unbind(1)] for u in first.unbind(1)]
    return torch.tensor(rows, dtype=torch.float64, device=first.device)


def _scaled(x: Array, name: str, k: int) -> Float[Tensor, "n d"]:
    values = as_real(x, name)
    points = as_points(values[:, None] if values.ndim == 1 else values, name, at_least=2)
    if not 1 <= k < len(points):
        raise ValueError(f"k is {k}; expected between 1 and {len(points) - 1}")
    spread = points.std(0)
    if (spread == 0).any():
        raise ValueError(f"{name} has a constant column, {int((spread == 0).nonzero()[0])}")
    return (points - points.mean(0)) / spread
