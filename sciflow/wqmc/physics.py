"""The electronic Hamiltonian in atomic units, and its local energy.

H = -1/2 sum_i lap_i + V with V = -sum Z_A / r_iA + sum 1 / r_ij + sum Z_A Z_B / R_AB, and
E_loc = (H psi) / psi = V - (lap log|psi| + |grad log|psi||^2) / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sciflow.nn.laplacian import forward_laplacian
from sciflow.shapes import Float, Tensor
from sciflow.wqmc.molecule import Molecule

LogPsi = Callable[[Any], Any]
Potential = Callable[[Tensor], Tensor]


class Coulomb:
    """Potential energy of electrons among fixed nuclei, the repulsion of the nuclei included.

    Args:
        molecule: nuclei and electrons.
    """

    def __init__(self, molecule: Molecule) -> None:
        self.nuclei = molecule.coordinates()
        self.charges = torch.tensor(molecule.charges, dtype=torch.float64, device="cpu")
        self.repulsion = molecule.repulsion()

    def __call__(self, x: Float[Tensor, "batch electron 3"]) -> Float[Tensor, "batch"]:
        """V [hartree] at ``x`` (B, N, 3) [bohr]."""
        attraction = (self.charges.to(x) / distances(x, self.nuclei.to(x))).sum((1, 2))
        return electron_repulsion(x) - attraction + self.repulsion


def distances(
    x: Float[Tensor, "batch electron 3"], nuclei: Float[Tensor, "nucleus 3"]
) -> Float[Tensor, "batch electron nucleus"]:
    """Distances r_iA of electrons from nuclei."""
    return (x[:, :, None] - nuclei).norm(dim=-1)


def electron_repulsion(x: Float[Tensor, "batch electron 3"]) -> Float[Tensor, "batch"]:
    """Sum over pairs of 1 / r_ij; zero for one electron."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    # Pairs, not the full matrix: the distance of an electron from itself has no gradient.
    return (1 / (x[:, i] - x[:, j]).norm(dim=-1)).sum(-1)


class LocalEnergy(NamedTuple):
    """Of a batch of walkers.

    Attributes:
        energy: E_loc (B,) [hartree].
        score: grad log psi^2 = 2 grad log|psi| (B, N, 3).
    """

    energy: Float[Tensor, "batch"]
    score: Float[Tensor, "batch electron 3"]


def local_energy(
    log_psi: LogPsi, potential: Potential, x: Float[Tensor, "batch electron 3"]
) -> LocalEnergy:
    """Local energy by a forward Laplacian.

    Args:
        log_psi: log|psi| of x (B, N, 3), given as tensor or jet (see `forward_laplacian`).
        potential: V(x), (B,).
        x: electrons [bohr].
    """
    psi = forward_laplacian(log_psi, x)
    kinetic = -0.5 * (psi.laplacian + psi.gradient.square().sum((1, 2)))
    return LocalEnergy(kinetic + potential(x), 2 * psi.gradient)


def local_energy_gradient(
    log_psi: LogPsi, potential: Potential, x: Float[Tensor, "batch electron 3"]
) -> tuple[LocalEnergy, Float[Tensor, "batch electron 3"]]:
    """Local energy, and its gradient in x by a reverse pass over the forward Laplacian."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        local = local_energy(log_psi, potential, point)
        (force,) = torch.autograd.grad(local.energy.sum(), point)
    return LocalEnergy(local.energy.detach(), local.score.detach()), force
