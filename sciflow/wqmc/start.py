"""Where a wave function starts: molecular orbitals of an extended Hueckel calculation.

Hoffmann, J. Chem. Phys. 39, 1397 (1963), on Slater's orbitals, with overlaps by quadrature: no
other package is needed, and an atom starts near its Hartree-Fock state.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from sciflow.shapes import Float, Tensor
from sciflow.wqmc.elements import shells
from sciflow.wqmc.molecule import Molecule

# Wolfsberg-Helmholz constant, and the energy of p in units of that of s.
_COUPLING, _P_ENERGY = 1.75, 0.6
# Share of an excited determinant in the start: about that of 2s2 -> 2p2 in beryllium.
_EXCITED = -0.1


class BasisFunction(NamedTuple):
    """``ro^(n - 1 - l) exp(-exponent ro)`` times 1 or a component of ``x - R``.

    Here ``ro = sqrt(|x - R|^2 + s^2)`` is smooth at the nucleus; the cusp is a factor of its own.

    Attributes:
        nucleus: number of the nucleus at R.
        power: n - 1 - l.
        exponent: [1/bohr].
        axis: 0, 1, 2 for a p function along x, y, z; -1 for an s function.
        energy: of the orbital in the atom, by Slater's rules [hartree].
    """

    nucleus: int
    power: int
    exponent: float
    axis: int
    energy: float

    @property
    def norm(self) -> float:
        """Root of the integral of its square, where ro is |x - R|."""
        n = self.power + (self.axis >= 0) + 1
        solid = 4 * math.pi / (3 if self.axis >= 0 else 1)
        return math.sqrt(solid * math.factorial(2 * n) / (2 * self.exponent) ** (2 * n + 1))


def basis(molecule: Molecule) -> list[BasisFunction]:
    """Slater's orbitals of all atoms, s and p to each occupied shell."""
    functions = []
    for a, z in enumerate(molecule.charges):
        for n, l, exponent in shells(z):
            energy = -0.5 * exponent**2 * (_P_ENERGY if l else 1.0)
            if z <= 2 and l:
                energy *= 0.1  # polarisation only
            for axis in range(3) if l else (-1,):
                functions.append(BasisFunction(a, n - 1 - l, exponent, axis, energy))
    return functions


class Start(NamedTuple):
    """Coefficients of the first wave function.

    Attributes:
        coefficients: (2, M, K, N), of the M basis functions in orbital j of determinant k for
            electrons of spin up and of spin down. The orbitals of the other spin are zero.
        exponents: (2, A, K, N), of the envelope of each orbital at each nucleus.
        weights: (2, A, K, N), of the same.
    """

    coefficients: Float[Tensor, "2 basis determinant orbital"]
    exponents: Float[Tensor, "2 nucleus determinant orbital"]
    weights: Float[Tensor, "2 nucleus determinant orbital"]


def start(molecule: Molecule, determinants: int, orbitals: Tensor | None = None) -> Start:
    """Slater determinants of the lowest orbitals, and excitations of the highest pair.

    Args:
        molecule: nuclei and electrons.
        determinants: number of determinants K.
        orbitals: coefficients (M, at least the occupied ones) by ascending energy; None takes
            those of an extended Hueckel calculation.

    Raises:
        ValueError: there are fewer orbitals than electrons of one spin.
    """
    functions = basis(molecule)
    if orbitals is None:
        orbitals = hueckel(molecule, functions)
    n_up, n_down, n = molecule.n_up, molecule.n_down, molecule.n_electrons
    most, m, available = max(n_up, n_down), len(functions), orbitals.shape[1]
    if most > available:
        raise ValueError(
            f"charge = {molecule.charge} with spin = {molecule.spin} needs {most} orbitals of one "
            f"spin; the shells of {' '.join(molecule.symbols)} have {available}"
        )
    coefficients = torch.zeros(2, m, determinants, n, dtype=torch.float64, device="cpu")
    exponents = torch.zeros(2, len(molecule.symbols), determinants, n, dtype=torch.float64)
    weights = torch.zeros_like(exponents)
    exponents, weights = exponents.cpu(), weights.cpu()
    for k in range(determinants):
        occupied = [list(range(n_up)), list(range(n_down))]
        share = 1.0 if k == 0 else _EXCITED
        virtual, pair = most + k - 1, min(n_up, n_down) - 1
        if k and pair >= 0 and virtual < available:
            occupied[0][pair] = occupied[1][pair] = virtual
        for spin, first in ((0, 0), (1, n_up)):
            for j, orbital in enumerate(occupied[spin]):
                column = orbitals[:, orbital]
                # The share of the determinant sits in one of its orbitals.
                factor = share if first + j == 0 else 1.0
                coefficients[spin, :, k, first + j] = factor * column
    # Envelopes are for both spins: the network may use every orbital for every electron.
    # A core function that a valence orbital holds to be orthogonal has a large coefficient and a
    # small norm: by the former, all of that orbital would decay like the core.
    norms = torch.tensor([f.norm for f in functions], dtype=torch.float64, device="cpu")
    size = coefficients.abs().sum(0) * norms[:, None, None]  # (M, K, N)
    for a in range(len(molecule.symbols)):
        own = [i for i, f in enumerate(functions) if f.nucleus == a]
        largest, where = size[own].max(0)
        exponent = torch.tensor([functions[i].exponent for i in own], dtype=torch.float64)
        exponents[:, a] = exponent.cpu()[where]
        weights[:, a] = (largest / size.amax(0)).clamp(min=0.05)
    return Start(coefficients, exponents, weights)


def hueckel(molecule: Molecule, functions: list[BasisFunction]) -> Tensor:
    """Coefficients (M, M) of the molecular orbitals, normalised, by ascending energy."""
    points, volume = quadrature(molecule)
    values = evaluate(molecule, functions, points)
    # Orthonormal orbitals of each atom by Gram and Schmidt, from the core outwards: Slater's 2s
    # overlaps 1s, and the energies of the table are those of orthogonal orbitals.
    atomic = np.zeros((len(functions), len(functions)))
    for a in range(len(molecule.symbols)):
        own = [i for i, f in enumerate(functions) if f.nucleus == a]
        block = values[:, own].T @ (volume[:, None] * values[:, own])
        atomic[np.ix_(own, own)] = np.linalg.inv(np.linalg.cholesky(block)).T
    values = values @ atomic
    overlap = values.T @ (volume[:, None] * values)
    energy = np.array([f.energy for f in functions])
    hamiltonian = 0.5 * _COUPLING * overlap * (energy[:, None] + energy)
    np.fill_diagonal(hamiltonian, energy)
    size, axes = np.linalg.eigh(overlap)
    kept = size > 1e-6
    root = axes[:, kept] / np.sqrt(size[kept])
    _, rotated = np.linalg.eigh(root.T @ hamiltonian @ root)
    found = root @ rotated
    # A fixed sign, whatever the linear algebra library.
    found *= np.sign(found[np.abs(found).argmax(0), np.arange(found.shape[1])])
    return torch.from_numpy(atomic @ found)


def evaluate(molecule: Molecule, functions: list[BasisFunction], points: np.ndarray) -> np.ndarray:
    """The basis functions at points (P, 3), shape (P, M)."""
    columns = []
    for f in functions:
        d = points - np.array(molecule.positions[f.nucleus])
        ro = np.sqrt((d**2).sum(1) + molecule.charges[f.nucleus] ** -2.0)
        angular = d[:, f.axis] if f.axis >= 0 else 1.0
        columns.append(angular * ro**f.power * np.exp(-f.exponent * ro))
    return np.stack(columns, 1)


def quadrature(
    molecule: Molecule, radial: int = 40, angular: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) and volumes (P,) of a product quadrature around every nucleus."""
    u, du = np.polynomial.legendre.leggauss(radial)
    r, dr = (1 + u) / (1 - u), 2 * du / (1 - u) ** 2
    cos, weight = np.polynomial.legendre.leggauss(angular)
    phi = 2 * np.pi * (np.arange(angular) + 0.5) / angular
    sin = np.sqrt(1 - cos**2)
    rays = np.stack(
        [np.outer(sin, np.cos(phi)), np.outer(sin, np.sin(phi)), np.outer(cos, np.ones(angular))],
        -1,
    ).reshape(-1, 3)
    solid = np.repeat(weight, angular) * 2 * np.pi / angular
    nuclei = np.array(molecule.positions)
    points, volumes = [], []
    for a, center in enumerate(nuclei):
        x = center + (r[:, None, None] * rays).reshape(-1, 3)
        distance = np.linalg.norm(x[:, None] - nuclei, axis=-1)
        # Each point counts for the nuclei in proportion to an atomic density that peaks there.
        density = np.exp(-2 * distance) / distance**3
        share = density[:, a] / np.maximum(density.sum(1), 1e-300)
        points.append(x)
        volumes.append(np.outer(r**2 * dr, solid).ravel() * share)
    return np.concatenate(points), np.concatenate(volumes)
