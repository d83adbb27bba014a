"""What every layer of a canonical transformation offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from sciflow.shapes import Float, Tensor


class CanonicalLayer(nn.Module, ABC):
    """A symplectic map of phase space, physical to latent, with its inverse.

    Every layer keeps the volume of phase space by construction: no log-determinant is computed.

    Attributes:
        config: JSON values from which the class builds the layer again, without its weights.
    """

    config: dict[str, Any]

    @abstractmethod
    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent coordinates and momenta (Q, P) of physical ones."""

    @abstractmethod
    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Physical coordinates and momenta (q, p) of latent ones."""


class PointMap(CanonicalLayer):
    """A map Q = F(q) of coordinates, whose momenta follow as P = (dF/dq)^-T p.

    Its two directions on coordinates alone are far cheaper than those on phase space, and their
    log-determinants cancel against those of the momenta.
    """

    @abstractmethod
    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of physical ones, and ln |det dQ/dq|."""

    @abstractmethod
    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Physical coordinates of latent ones, and ln |det dq/dQ|."""


def replaced(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """``x`` (B, n) with ``values`` (B, m) in the columns ``index`` (m,)."""
    return x.index_copy(1, index, values)
