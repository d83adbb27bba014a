"""What every chart offers: both directions, their volume factor, periods, and the mass metric."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from sciflow.shapes import Float, Tensor


class Chart(nn.Module, ABC):
    """Invertible coordinates xi of the coordinates q of a system, sample by sample.

    Attributes:
        n_dim: number of coordinates xi.
        periods: (n_dim,) the period of each coordinate, in its unit; infinity where it has none.
            Periodic coordinates are returned in [-period / 2, period / 2).
    """

    n_dim: int
    periods: Tensor

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates xi of ``q``, and ln |det dxi/dq|.

        A molecule has no rotations and translations here: q counts as the coordinates of the
        aligned molecule, an orthonormal set of 3N - 6.
        """

    @abstractmethod
    def inverse(
        self, xi: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, " batch"]]:
        """Coordinates q of ``xi``, and ln |det dq/dxi|."""

    def cartesian(
        self, q: Float[Tensor, "batch *shape"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates xi of ``q``, and ln of the volume of xi per volume of all entries of q.

        For a molecule the volume is that of its 3N positions, which simulations sample; the
        constant volume of its places and orientations is left out.
        """
        return self(q)

    def metric(
        self, q: Float[Tensor, "batch *shape"], mass: Float[Tensor, "..."]
    ) -> Float[Tensor, "batch dim dim"]:
        """Inverse mass metric G = B M^-1 B^T with B = dxi/dq, at ``q`` (Wilson's G matrix).

        Momenta conjugate to xi are distributed as N(0, kT G^-1). This rule takes B by automatic
        differentiation, one vector-Jacobian product per coordinate, batched; charts with a
        formula override it.

        Args:
            q: (B, ...) coordinates of the system.
            mass: mass of each entry of q, of a shape that broadcasts against q[0].
        """
        track = torch.is_grad_enabled()
        with torch.enable_grad():
            q = q if track and q.requires_grad else q.detach().requires_grad_()
            xi, _ = self(q)
            basis = torch.eye(self.n_dim, dtype=q.dtype, device=q.device)
            basis = basis[:, None, :].expand(-1, len(q), -1)
            (rows,) = torch.autograd.grad(xi, q, basis, create_graph=track, is_grads_batched=True)
        b = rows.flatten(2).transpose(0, 1)  # (B, n_dim, entries of q)
        inverse_mass = (1 / mass).expand(q.shape[1:]).flatten()
        return (b * inverse_mass) @ b.mT
