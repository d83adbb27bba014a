"""Properties of a frozen wave function: dipole moment, forces on nuclei, electron density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.evaluate import Measured, blocked, equilibrated
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.physics import Coulomb, local_energy

_GROUPS = 32  # of walkers, for the error bar of the density


@dataclass(frozen=True)
class Observables:
    """Properties at the positions of the nuclei, in atomic units.

    Attributes:
        energy: [hartree].
        dipole: of nuclei and electrons (3,) [e bohr]; for an ion it depends on the origin.
        forces: on the nuclei (A, 3) [hartree/bohr], with `zero_variance` and its bias correction.
    """

    energy: Measured
    dipole: Measured
    forces: Measured


def observables(
    psi: Wavefunction, walkers: int = 1024, batches: int = 32, burn_in: int = 300, seed: int = 0
) -> Observables:
    """Dipole moment and Hellmann-Feynman forces by fresh walkers, in float64.

    Args:
        psi: wave function.
        walkers: independent walkers.
        batches: measurements per walker, ten moves apart.
        burn_in: moves before the first.
        seed: of walkers and moves.

    Raises:
        ValueError: fewer than two walkers gave finite numbers.
    """
    source, generator = equilibrated(psi, walkers, burn_in, 10, seed, "metropolis")
    molecule, potential = psi.molecule, Coulomb(psi.molecule)
    energies, dipoles, forces, moments = [], [], [], []
    for _ in range(batches):
        x = source.sample(walkers, generator)
        with torch.no_grad():
            local = local_energy(source.psi.log_psi, potential, x)
        force, pulay = zero_variance(molecule, x, local.score)
        energies.append(local.energy)
        forces.append(force)
        moments.append(pulay)
        dipoles.append(dipole(molecule, x))
    energy = torch.stack(energies)
    mean = blocked(energy).value
    # The bias correction needs the mean energy, which is known only now.
    bias = 2 * (energy - mean)[..., None, None] * torch.stack(moments)
    return Observables(
        blocked(energy), blocked(torch.stack(dipoles)), blocked(torch.stack(forces) - bias)
    )


def dipole(molecule: Molecule, x: Float[Tensor, "batch electron 3"]) -> Float[Tensor, "batch 3"]:
    """Dipole moment of nuclei and electrons [e bohr]."""
    charges = torch.tensor(molecule.charges).to(x)
    return charges @ molecule.coordinates().to(x) - x.sum(1)


def zero_variance(
    molecule: Molecule,
    x: Float[Tensor, "batch electron 3"],
    score: Float[Tensor, "batch electron 3"],
) -> tuple[Float[Tensor, "batch nucleus 3"], Float[Tensor, "batch nucleus 3"]]:
    """Force on each nucleus by the estimator of Assaraf and Caffarel, with finite variance.

    The bare force Z (x - R) / r^3 has infinite variance. With Q = Z sum_i (x_i - R) / r_i, the
    change of log psi when cusps follow the nucleus, its mean is that of
    ``F = grad Q . grad log|psi|`` (J. Chem. Phys. 119, 10536 (2003)), to which
    ``-2 (E_loc - E) Q`` adds what the wave function changes by moving.

    Args:
        molecule: nuclei and electrons.
        x: electrons (B, N, 3) [bohr].
        score: grad log psi^2 (B, N, 3).

    Returns:
        the force of the electrons and the other nuclei (B, A, 3) [hartree/bohr], and Q.
    """
    nuclei = molecule.coordinates().to(x)
    charges = torch.tensor(molecule.charges).to(x)
    d = x[:, :, None] - nuclei
    r = d.norm(dim=-1, keepdim=True)
    n = d / r
    half = (0.5 * score)[:, :, None]  # grad log|psi|
    along = (n * half).sum(-1, keepdim=True)
    force = (charges[:, None] * (half - n * along) / r).sum(1)
    return force + nuclear_forces(molecule).to(x), (charges[:, None] * n).sum(1)


def nuclear_forces(molecule: Molecule) -> Float[Tensor, "nucleus 3"]:
    """Coulomb repulsion of the nuclei among each other [hartree/bohr]."""
    r = molecule.coordinates()
    z = torch.tensor(molecule.charges, dtype=r.dtype, device=r.device)
    d = r[:, None] - r
    cube = d.square().sum(-1, keepdim=True) ** 1.5 + torch.eye(len(r)).to(r)[..., None]
    return (z[:, None, None] * z[:, None] * d / cube).sum(1)


class Density(NamedTuple):
    """Electrons per volume in the cells of a grid.

    Attributes:
        edges: of the cells along x, y, z [bohr].
        value: (nx, ny, nz) [1/bohr^3].
        error: its standard error.
    """

    edges: tuple[Tensor, ...]
    value: Float[Tensor, "nx ny nz"]
    error: Float[Tensor, "nx ny nz"]


def density(
    psi: Wavefunction,
    edges: Any,
    walkers: int = 2048,
    batches: int = 50,
    burn_in: int = 300,
    seed: int = 0,
) -> Density:
    """One-electron density, counted in cells.

    Args:
        psi: wave function.
        edges: three ascending sequences, of the cells along x, y and z [bohr].
        walkers: independent walkers.
        batches: counts per walker, ten moves apart.
        burn_in: moves before the first.
        seed: of walkers and moves.

    Raises:
        ValueError: edges are not three ascending sequences of at least two numbers.

    Example:
        >>> line = torch.linspace(-4, 4, 41)
        >>> density(result.wavefunction, (line, line, [-0.2, 0.2]))  # doctest: +SKIP
    """
    if len(edges) != 3:
        raise ValueError(f"edges has {len(edges)} sequences; expected 3, along x, y and z")
    device = psi.nuclei.device
    sides = tuple(torch.as_tensor(e, dtype=torch.float64).to(device) for e in edges)
    for name, side in zip("xyz", sides, strict=True):
        if side.ndim != 1 or len(side) < 2 or not bool((side.diff() > 0).all()):
            raise ValueError(f"edges along {name} must be at least two ascending numbers")
    source, generator = equilibrated(psi, walkers, burn_in, 10, seed, "metropolis")
    shape = tuple(len(side) - 1 for side in sides)
    cells = shape[0] * shape[1] * shape[2]
    # Groups of walkers are the blocks of the error bar: no two groups share a path.
    group = torch.arange(walkers, device=device) * _GROUPS // walkers
    counts = torch.zeros(_GROUPS, cells, dtype=torch.float64, device=device)
    for _ in range(batches):
        x = source.sample(walkers, generator)
        index = torch.zeros(x.shape[:2], dtype=torch.long, device=device)
        inside = torch.ones_like(index, dtype=torch.bool)
        for axis, side in enumerate(sides):
            cell = torch.bucketize(x[..., axis].contiguous(), side, right=True) - 1
            inside &= (cell >= 0) & (cell < shape[axis])
            index = index * shape[axis] + cell.clamp(0, shape[axis] - 1)
        flat = (group[:, None] * cells + index)[inside]
        counts += torch.bincount(flat, minlength=_GROUPS * cells).view(_GROUPS, cells)
    total = counts.sum(0)
    square = (counts - total / _GROUPS).square().sum(0) * _GROUPS / (_GROUPS - 1)
    wx, wy, wz = (side.diff() for side in sides)
    volume = wx[:, None, None] * wy[:, None] * wz * walkers * batches
    return Density(sides, total.view(shape) / volume, square.sqrt().view(shape) / volume)
