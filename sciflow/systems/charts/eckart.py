"""Cartesian coordinates of the aligned molecule: 3N - 6 of them, orthonormal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.charts.chart import Chart
from sciflow.systems.charts.frame import (
    align,
    center,
    check_positions,
    check_weights,
    frame_log_volume,
    internal_basis,
    iterated_mean,
    rotations,
)


class EckartFrame(Chart):
    """Displacements of a molecule from a reference, after the best rigid alignment to it.

    With equal weights (Kabsch) the coordinates have the unit of length and the volume of the
    aligned molecule, so that ln |det| is zero: this is the chart in which densities of different
    charts are compared. With masses as weights it is Eckart's frame, in sqrt(mass) times length.

    Aligned structures fill a linear space of 3N - 6 dimensions. ``inverse`` is affine; far from
    the reference, where another rotation would align better, ``forward`` finds that one instead.

    Args:
        reference: (N, 3) positions, N at least 3, not on a line.
        weights: (N,) weights of the atoms, such as masses; None for equal weights.

    Raises:
        ValueError: the reference or a weight cannot be used.

    Source: Eckart, Phys. Rev. 47, 552 (1935).
    """

    reference: Tensor
    weights: Tensor
    basis: Tensor

    def __init__(
        self,
        reference: Float[Tensor, "atom 3"] | Sequence[Sequence[float]],
        weights: Float[Tensor, " atom"] | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(reference, Tensor):
            reference = torch.tensor(reference, dtype=torch.float64)
        if weights is not None:
            weights = torch.as_tensor(weights, dtype=torch.float64)
        # What the class is made again from, in the words of JSON.
        self.config = {
            "reference": reference.tolist(),
            "weights": None if weights is None else weights.tolist(),
        }
        reference = check_positions(reference[None], "reference")[0].detach().double()
        self.equal_weights = weights is None
        weights = check_weights(weights, reference)
        reference = center(reference[None], weights)[0]
        self.n_dim = 3 * len(reference) - 6
        self.register_buffer("reference", reference)
        self.register_buffer("weights", weights)
        self.register_buffer("basis", internal_basis(reference, weights))
        self.register_buffer(
            "periods", torch.full_like(reference[0, :1], math.inf).expand(self.n_dim).clone()
        )

    @classmethod
    def from_samples(
        cls, q: Float[Tensor, "batch atom 3"], weights: Float[Tensor, " atom"] | None = None
    ) -> EckartFrame:
        """The frame whose reference is the mean of the structures aligned to it."""
        q = check_positions(q, "q").detach().double()
        return cls(iterated_mean(q, check_weights(weights, q[0])), weights)

    def forward(
        self, q: Float[Tensor, "batch atom 3"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Displacements (B, 3N - 6) of positions q (B, N, 3), and ln |det| (see `Chart`)."""
        q = check_positions(q, "q", len(self.reference))
        reference, weights = self.reference.to(q), self.weights.to(q)
        moved = align(q, reference, weights) - reference
        xi = (weights.sqrt()[:, None] * moved).flatten(1) @ self.basis.to(q)
        return xi, self._log_det(q)

    def inverse(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch atom 3"], Float[Tensor, " batch"]]:
        """Aligned positions (B, N, 3) of displacements (B, 3N - 6), and ln |det|."""
        moved = (xi @ self.basis.to(xi).T).unflatten(1, (-1, 3))
        q = self.reference.to(xi) + moved / self.weights.to(xi).sqrt()[:, None]
        return q, -self._log_det(q)

    def cartesian(
        self, q: Float[Tensor, "batch atom 3"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Displacements, and ln of their volume per volume of positions (see `Chart`)."""
        xi, _ = self(q)
        return xi, -frame_log_volume(q, self.reference.to(q), self.weights.to(q))

    def metric(
        self, q: Float[Tensor, "batch atom 3"], mass: Float[Tensor, "..."]
    ) -> Float[Tensor, "batch dim dim"]:
        """Wilson's G: motion along a coordinate, seen from the frame that turns with it.

        Args:
            q: (B, N, 3) positions.
            mass: of each atom, of a shape that broadcasts against (N, 3).
        """
        q = check_positions(q, "q", len(self.reference))
        reference, weights = self.reference.to(q), self.weights.to(q)
        turn = rotations(align(q, reference, weights), weights).flatten(1, 2)
        fixed = rotations(reference, weights).flatten(0, 1)
        back = torch.linalg.solve(fixed.T @ turn, fixed.T.expand(len(q), -1, -1))
        rows = self.basis.to(q).T - (self.basis.to(q).T @ turn) @ back
        scale = (
            weights.sqrt().repeat_interleave(3) / mass.to(q).expand(q.shape[1:]).flatten().sqrt()
        )
        rows = rows * scale
        return rows @ rows.mT

    def _log_det(self, q: Float[Tensor, "batch atom 3"]) -> Float[Tensor, " batch"]:
        if self.equal_weights:
            return q.new_zeros(len(q))
        reference, weights = self.reference.to(q), self.weights.to(q)
        equal = torch.ones_like(weights)
        plain = frame_log_volume(q, center(reference[None], equal)[0], equal)
        return plain - frame_log_volume(q, reference, weights)
