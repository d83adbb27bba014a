"""Linear canonical transformations: normal modes, changes of origin, scale and order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sciflow.nct.layers.base import Columns, PointMap
from sciflow.shapes import Float, Tensor


class Linear(PointMap):
    """Normal modes: q = center + basis Q and p = basis^-T P, on some of the coordinates.

    The columns of ``basis`` are the modes. It starts as the identity; `set_modes` starts it from
    a Hessian or from the covariance of samples.

    Args:
        n_dim: number of coordinates.
        index: those that are mixed; all where not given.
    """

    def __init__(self, n_dim: int, index: Sequence[int] | None = None) -> None:
        super().__init__()
        chosen = list(range(n_dim)) if index is None else list(index)
        self.config = {"n_dim": n_dim, "index": chosen}
        self.columns = Columns(chosen)
        self.center = nn.Parameter(torch.zeros(len(chosen)))
        self.basis = nn.Parameter(torch.eye(len(chosen)))

    @torch.no_grad()
    def set_modes(self, center: Float[Tensor, " dim"], basis: Float[Tensor, "dim dim"]) -> None:
        """Put the origin at ``center`` and the modes in the columns of ``basis``."""
        self.center.copy_(center)
        self.basis.copy_(basis)

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Mode coordinates Q = basis^-1 (q - center)."""
        Q = torch.linalg.solve(self.basis, (self.columns.take(q) - self.center).T).T
        return self.columns.put(q, Q), -self._log_det(q)

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Positions of mode coordinates."""
        q = torch.addmm(self.center, self.columns.take(Q), self.basis.T)
        return self.columns.put(Q, q), self._log_det(Q)

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Mode coordinates and their momenta basis^T p."""
        return self.coordinates(q)[0], self.columns.put(p, self.columns.take(p) @ self.basis)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Positions and momenta of modes."""
        p = torch.linalg.solve(self.basis.T, self.columns.take(P).T).T
        return self.coordinates_inverse(Q)[0], self.columns.put(P, p)

    def _log_det(self, x: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.basis).logabsdet.expand(len(x))


class Scale(PointMap):
    """Units of the coordinates: q = center + exp(log_scale) Q and p = exp(-log_scale) P.

    Args:
        n_dim: number of coordinates.
        index: those that are moved; all where not given.
    """

    def __init__(self, n_dim: int, index: Sequence[int] | None = None) -> None:
        super().__init__()
        chosen = list(range(n_dim)) if index is None else list(index)
        self.config = {"n_dim": n_dim, "index": chosen}
        self.columns = Columns(chosen)
        self.center = nn.Parameter(torch.zeros(len(chosen)))
        self.log_scale = nn.Parameter(torch.zeros(len(chosen)))

    @torch.no_grad()
    def set_units(self, center: Float[Tensor, " dim"], scale: Float[Tensor, " dim"]) -> None:
        """Put the origins at ``center`` and the units at ``scale``."""
        self.center.copy_(center)
        self.log_scale.copy_(scale.log())

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates in their units."""
        Q = (self.columns.take(q) - self.center) * torch.exp(-self.log_scale)
        return self.columns.put(q, Q), -self.log_scale.sum().expand(len(q))

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates as they were given."""
        q = self.center + self.columns.take(Q) * self.log_scale.exp()
        return self.columns.put(Q, q), self.log_scale.sum().expand(len(Q))

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Coordinates and momenta in their units."""
        P = self.columns.take(p) * self.log_scale.exp()
        return self.coordinates(q)[0], self.columns.put(p, P)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Coordinates and momenta as they were given."""
        p = self.columns.take(P) * torch.exp(-self.log_scale)
        return self.coordinates_inverse(Q)[0], self.columns.put(P, p)


class Reorder(PointMap):
    """Coordinates and momenta in another order: Q = q[order], P = p[order].

    Args:
        order: a permutation of all coordinates.
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(len(order))):
            raise ValueError(f"order must be a permutation; got {list(order)}")
        self.config = {"order": list(order)}
        self.register_buffer("order", torch.tensor(list(order)), persistent=False)
        self.register_buffer("back", self.order.argsort(), persistent=False)

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates in their new order."""
        return q[:, self.order], q.new_zeros(len(q))

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Coordinates in their old order."""
        return Q[:, self.back], Q.new_zeros(len(Q))

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Both in their new order."""
        return q[:, self.order], p[:, self.order]

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Both in their old order."""
        return Q[:, self.back], P[:, self.back]
