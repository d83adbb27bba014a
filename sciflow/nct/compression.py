"""Conceptual compression: what the slow modes alone say of a sample."""

from __future__ import annotations

from typing import Literal

import torch

from sciflow.nct.model import CanonicalTransformation
from sciflow.shapes import Float, Tensor

_CHUNK = 1000


@torch.no_grad()
def compress(
    model: CanonicalTransformation,
    q: Float[Tensor, "batch *shape"],
    n_modes: int,
    fill: Literal["mean", "draw"] = "mean",
    seed: int = 0,
) -> Float[Tensor, "batch *shape"]:
    """Samples rebuilt from their slowest modes, the others at rest or drawn anew.

    Modes are independent in the model, so that what is kept says nothing of what is replaced.

    Args:
        model: the model.
        q: samples (B, ...).
        n_modes: how many of the slowest modes are kept; all of them give the samples back.
        fill: what the other modes become: their mean, or draws from the model.
        seed: of the draws.

    Raises:
        ValueError: there are not so many modes, or ``fill`` is unknown.

    Source: Li, Dong, Zhang, Wang, Phys. Rev. X 10, 021020 (2020), on images of digits.
    """
    if not 0 <= n_modes <= model.n_dim:
        raise ValueError(f"n_modes must be between 0 and {model.n_dim}; got {n_modes}")
    if fill not in ("mean", "draw"):
        raise ValueError(f"fill must be 'mean' or 'draw'; got {fill!r}")
    generator = torch.Generator(model.mass.device).manual_seed(seed)
    parts = []
    for part in q.split(_CHUNK):
        kept = model.modes(part)[:, :n_modes]
        z = kept.new_zeros(len(part), model.n_dim)
        if fill == "draw":
            z.normal_(generator=generator)
        rest = model.latent.coordinates(z)[:, n_modes:]
        parts.append(model.coordinates_inverse(torch.cat([kept, rest], 1))[0])
    return torch.cat(parts)
