"""A bias on the slow modes of a canonical transformation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from sciflow.nct import CanonicalTransformation
from sciflow.shapes import Float, Tensor


class ModeBias(nn.Module):
    """Energy ``bias(Q)`` of some modes Q(q) of a model, as a function of the coordinates q.

    Args:
        model: gives the modes; in its unit system are q and the energy.
        bias: module or function of torch, modes (B, k) to energies (B,).
        modes: which modes, counted from the slowest, 0.

    Raises:
        ValueError: there is no such mode, or the bias is not one energy for each sample.

    Example:
        >>> spring = lambda Q: 50.0 * (Q[:, 0] - 1.2).square()
        >>> bias = ModeBias(model, spring)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: CanonicalTransformation,
        bias: Callable[[Tensor], Tensor],
        modes: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        if not modes or not all(0 <= mode < model.n_dim for mode in modes):
            raise ValueError(f"modes must be of 0 to {model.n_dim - 1}; got {list(modes)}")
        self.model, self.bias, self.chosen = model, bias, list(modes)
        with torch.no_grad():
            energy = self(model.sample(2).q)
        if energy.shape != (2,):
            raise ValueError(f"bias must map (2, k) to (2,); got {tuple(energy.shape)}")

    def modes(self, q: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch k"]:
        """The biased modes of ``q``."""
        return self.model.coordinates(q)[0][:, self.chosen]

    def forward(self, q: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
        """Energy at ``q``."""
        return self.bias(self.modes(q))
