"""The Lagrangians of action matching and Wasserstein Lagrangian flows: one table.

A curve of densities ``rho_t`` moves with velocity ``v = grad s`` of one potential ``s(t, x)``.
A Lagrangian enters through its Hamiltonian, the integrand of the dual objective (Neklyudov et
al., arXiv:2310.10649, table 1 and eq. 14): for optimal transport ``d_t s + |grad s|^2 / 2``.
A new Lagrangian is one entry of ``LAGRANGIANS`` and one name in
``tests/contracts/test_lagrangians.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sciflow.shapes import Float, Tensor

Potential = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lagrangian:
    """Kinetic energy minus potential energy, ``L = |v|^2 / 2 - U(t, x)``.

    Attributes:
        potential: ``U(t, x)`` for t (batch,) and x (batch, dim), giving (batch,), in units of
            length^2 / time^2 (energy per mass); None for optimal transport.
    """

    potential: Potential | None = None

    def hamiltonian(
        self,
        t: Float[Tensor, "batch"],
        x: Float[Tensor, "batch dim"],
        s_t: Float[Tensor, "batch"],
        velocity: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, "batch"]:
        """``d_t s + |grad s|^2 / 2 + U(t, x)``, which an optimal potential makes zero.

        Args:
            t: times.
            x: positions.
            s_t: time derivative of the potential s at (t, x).
            velocity: gradient of s at (t, x).
        """
        value = s_t + 0.5 * velocity.square().sum(-1)
        return value if self.potential is None else value + self.potential(t, x)


LAGRANGIANS: dict[str, Lagrangian] = {
    "ot": Lagrangian(),
}


def find_lagrangian(lagrangian: str | Lagrangian) -> Lagrangian:
    """The Lagrangian of this name, or the one given.

    Raises:
        ValueError: the table has no such name.
    """
    if isinstance(lagrangian, Lagrangian):
        return lagrangian
    if lagrangian not in LAGRANGIANS:
        raise ValueError(
            f"lagrangian must be one of {sorted(LAGRANGIANS)} or a Lagrangian; got {lagrangian!r}"
        )
    return LAGRANGIANS[lagrangian]
