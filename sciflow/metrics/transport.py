"""Optimal transport distances between samples: exact W1 and W2, sliced W2, and the floor of W1.

W1 between two finite samples of one and the same distribution is not zero, and grows with the
dimension: `sampling_floor` gives that value, and a score means something only beside it.
"""

from __future__ import annotations

import warnings

import torch

from sciflow.errors import SciflowError, require
from sciflow.metrics.points import Array, as_pair, as_points, as_weights
from sciflow.shapes import Float, Tensor


def wasserstein1(
    x: Array,
    y: Array,
    a: Array | None = None,
    b: Array | None = None,
    max_iter: int = 10_000_000,
) -> float:
    """Exact W1 with the Euclidean distance, by the network simplex of POT in float64.

    Memory is 8 n m bytes for the costs; the time grows about as n^2 to n^3 (1 s at n = 1000).

    Args:
        x: (n, d) points.
        y: (m, d) points.
        a: (n,) weights of ``x``; None for equal ones. They are normalised.
        b: (m,) weights of ``y``; None for equal ones. They are normalised.
        max_iter: most pivots of the simplex.

    Returns:
        The distance, in the unit of the points.

    Raises:
        ValueError: an argument is not finite or of another shape; it is named.
        SciflowError: the simplex stopped before the optimum.

    Source: Bonneel, van de Panne, Paris, Heidrich (2011), ACM TOG 30, 158, as in POT.
    """
    first, second = as_pair(x, y)
    return _emd(_distances(first, second), first, second, a, b, max_iter)


def wasserstein2(
    x: Array,
    y: Array,
    a: Array | None = None,
    b: Array | None = None,
    max_iter: int = 10_000_000,
) -> float:
    """Exact W2, the root of the least mean squared Euclidean distance; else as `wasserstein1`.

    Raises:
        ValueError: an argument is not finite or of another shape; it is named.
        SciflowError: the simplex stopped before the optimum.
    """
    first, second = as_pair(x, y)
    cost = _emd(_distances(first, second).square_(), first, second, a, b, max_iter)
    return max(cost, 0.0) ** 0.5


def sliced_wasserstein2(
    x: Array,
    y: Array,
    n_projections: int,
    generator: torch.Generator,
    a: Array | None = None,
    b: Array | None = None,
) -> float:
    """Sliced W2: root mean square of the W2 of projections on random directions.

    It is cheap at any size, n log n, and unlike W1 does not saturate in high dimension; its own
    bias between finite samples remains. For a shift s alone its square is near ``|s|^2 / d``.

    Args:
        x: (n, d) points.
        y: (m, d) points.
        n_projections: number of directions, uniform on the sphere.
        generator: where the directions come from.
        a: (n,) weights of ``x``; None for equal ones.
        b: (m,) weights of ``y``; None for equal ones.

    Raises:
        ValueError: an argument is not finite, of another shape, or not positive; it is named.

    Source: Bonneel, Rabin, Peyré, Pfister (2015), J. Math. Imaging Vision 51, 22, as in POT.
    """
    if n_projections < 1:
        raise ValueError(f"n_projections is {n_projections}; expected at least 1")
    first, second = as_pair(x, y)
    directions = torch.randn(
        first.shape[1],
        n_projections,
        generator=generator,
        device=generator.device,
        dtype=torch.float64,
    ).to(first.device)
    value = require("ot").sliced_wasserstein_distance(
        first.cpu().numpy(),
        second.cpu().numpy(),
        as_weights(a, first, "a").cpu().numpy(),
        as_weights(b, second, "b").cpu().numpy(),
        p=2,
        projections=(directions / directions.norm(dim=0)).cpu().numpy(),
    )
    return float(value)


def sampling_floor(x: Array, generator: torch.Generator, repeats: int = 10) -> float:
    """W1 between two random disjoint halves of one sample, as a mean over splits.

    What a perfect model would score, were it compared on half as many points. It decreases as
    the sample grows (as n^(-1/d) for d > 2), so it belongs to the size n // 2.

    Args:
        x: (n, d) points of one distribution, for instance the cells of one time.
        generator: where the splits come from.
        repeats: number of splits.

    Raises:
        ValueError: fewer than two points, or not finite; or ``repeats`` is less than one.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected at least 1")
    points = as_points(x, "x", at_least=2)
    half = len(points) // 2
    total = 0.0
    for _ in range(repeats):
        order = torch.randperm(len(points), generator=generator, device=generator.device)
        order = order.to(points.device)
        total += wasserstein1(points[order[:half]], points[order[half : 2 * half]])
    return total / repeats


def _distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # By differences: the product form loses half the digits where points nearly coincide.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _emd(
    cost: Float[Tensor, "n m"],
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    a: Array | None,
    b: Array | None,
    max_iter: int,
) -> float:
    source = as_weights(a, x, "a").cpu().numpy()
    target = as_weights(b, y, "b").cpu().numpy()
    with warnings.catch_warnings():
        # POT warns and returns a value all the same; that value is no distance, so we raise.
        warnings.simplefilter("ignore", UserWarning)
        value, log = require("ot").emd2(
            source, target, cost.cpu().numpy(), numItermax=max_iter, log=True
        )
    if log["warning"] is not None:
        raise SciflowError(
            f"optimal transport between {len(x)} and {len(y)} points did not converge within "
            f"{max_iter} pivots: {log['warning']}"
        )
    return float(value)
