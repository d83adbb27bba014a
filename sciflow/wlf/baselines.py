"""What a user would do without learning: the rows any flow has to beat."""

from __future__ import annotations

import torch

from sciflow.am.coupling import exact_coupling
from sciflow.shapes import Float, Tensor


def transport_midpoint(
    before: Float[Tensor, "n dim"],
    after: Float[Tensor, "m dim"],
    fraction: float,
    pool: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "pair dim"], Float[Tensor, "pair"]]:
    """Displacement interpolation between two snapshots under exact optimal transport.

    Args:
        before: samples at the time before.
        after: samples at the time after.
        fraction: how far on the way, 0 to 1.
        pool: largest exact problem; see ``exact_coupling``.
        generator: deals larger snapshots into pools.

    Returns:
        Points on the lines between partners, and their masses.
    """
    pairs = exact_coupling(before, after, pool, generator)
    x, y = before[pairs.left], after[pairs.right]
    return x + fraction * (y - x), pairs.chance
