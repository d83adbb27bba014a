"""Pretraining to Hartree-Fock orbitals, by pyscf (the extra ``qmc``)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sciflow.errors import require
from sciflow.shapes import Float, Tensor
from sciflow.train import Loss, Trainer
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.sampling import ElectronWalkers
from sciflow.wqmc.start import basis, evaluate, hueckel, quadrature, start

Orbitals = Callable[[np.ndarray], np.ndarray]


def hartree_fock(molecule: Molecule, basis_set: str = "cc-pvdz") -> Orbitals:
    """Restricted Hartree-Fock orbitals, occupied ones first, as a function of points (P, 3).

    Raises:
        MissingPackageError: pyscf is not installed.
    """
    gto, scf = require("pyscf.gto", "qmc"), require("pyscf.scf", "qmc")
    atoms = list(zip(molecule.symbols, molecule.positions, strict=True))
    mole = gto.M(
        atom=atoms,
        unit="Bohr",
        basis=basis_set,
        charge=molecule.charge,
        spin=molecule.spin,
        verbose=0,
    )
    field = scf.RHF(mole) if molecule.spin == 0 else scf.ROHF(mole)
    field.kernel()
    coefficients = np.asarray(field.mo_coeff)[:, np.argsort(-field.mo_occ, kind="stable")]
    return lambda points: mole.eval_gto("GTOval_sph", points) @ coefficients


class OrbitalMatching(nn.Module):
    """Squared difference of the first determinant's orbitals from given ones, relative to these.

    The electron-nucleus cusp, which is a factor of psi, is taken out of the target.

    Args:
        model: wave function.
        orbitals: the target, occupied orbitals first.
    """

    def __init__(self, model: Wavefunction, orbitals: Orbitals) -> None:
        super().__init__()
        self.model, self.orbitals = model, orbitals

    def forward(self, x: Float[Tensor, "batch electron 3"]) -> Loss:
        """The loss at walkers (B, N, 3)."""
        psi, n_up = self.model, self.model.molecule.n_up
        matrices, nuclear, _ = psi.orbitals(x)
        points = x.detach().double().cpu().reshape(-1, 3).numpy()
        values = torch.from_numpy(self.orbitals(points)).to(x).unflatten(0, x.shape[:2])
        values = values * torch.exp(-nuclear.detach())
        found = matrices[:, 0].to(x)
        target = torch.zeros_like(found)
        target[:, :n_up, :n_up] = values[:, :n_up, :n_up]
        n_down = psi.molecule.n_down
        target[:, n_up:, n_up:] = values[:, n_up:, :n_down]
        return Loss((found - target).square().mean() / target.square().mean())


def pretrain(psi: Wavefunction, seed: int = 0, steps: int = 100) -> Wavefunction:
    """Bring the first determinant of ``psi`` to that of Hartree-Fock.

    Its Slater orbitals are fitted by least squares, then all parameters by Adam on walkers. The
    other determinants keep the excitations of `start`.

    Args:
        psi: a wave function at its start; it is changed.
        seed: of the walkers.
        steps: of Adam.

    Returns:
        the pretrained wave function, in the dtype of ``psi``.

    Raises:
        MissingPackageError: pyscf is not installed.
    """
    molecule, orbitals = psi.molecule, hartree_fock(psi.molecule)
    first = start(molecule, psi.determinants, _occupied(molecule, orbitals))
    with torch.no_grad():
        for p, values in (
            (psi.slater, first.coefficients),
            (psi.zeta, first.exponents),
            (psi.pi, first.weights),
        ):
            p.copy_(values.reshape(p.shape))
    generator = torch.Generator(psi.nuclei.device).manual_seed(seed)
    walkers = ElectronWalkers(psi, 256, generator, moves=3)
    trainer = Trainer(
        steps=steps,
        lr=3e-4,
        ema=0.0,
        seed=seed,
        device=str(psi.nuclei.device),
        dtype=str(psi.nuclei.dtype).removeprefix("torch."),
        progress=False,
    )
    model = trainer.fit(OrbitalMatching(psi, orbitals), walkers).model
    assert isinstance(model, Wavefunction)
    return model.train()


def _occupied(molecule: Molecule, orbitals: Orbitals) -> Float[Tensor, "basis orbital"]:
    """Coefficients in the basis of the start: occupied ones by least squares, then Hueckel's."""
    functions = basis(molecule)
    points, volume = quadrature(molecule)
    root = np.sqrt(np.maximum(volume, 0))[:, None]
    d = np.linalg.norm(points[:, None] - np.array(molecule.positions), axis=-1)
    z = np.array(molecule.charges)
    cusp = np.exp(((np.sqrt(d**2 + z**-2.0) - d) * z).sum(1))[:, None]
    chi = evaluate(molecule, functions, points) * cusp
    most = max(molecule.n_up, molecule.n_down)
    found, *_ = np.linalg.lstsq(root * chi, root * orbitals(points)[:, :most], rcond=1e-8)
    all_orbitals = hueckel(molecule, functions)
    all_orbitals[:, :most] = torch.from_numpy(found)
    return all_orbitals
