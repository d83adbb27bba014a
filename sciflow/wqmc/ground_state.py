"""What a fit returns: a wave function, its energy, and ways to ask it more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import History
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.evaluate import Evaluation, equilibrated
from sciflow.wqmc.observables import Observables, observables
from sciflow.wqmc.physics import Coulomb, local_energy


@dataclass(frozen=True)
class GroundState:
    """A fitted wave function and its energy.

    Attributes:
        wavefunction: psi; called on x (B, N, 3) [bohr] it gives (sign, log|psi|).
        evaluation: energy by fresh walkers with frozen parameters.
        history: energy and variance [hartree, hartree^2] of each logged step; energies of training
            walkers, which lag behind the parameters: report ``energy`` instead.
        interrupted: whether Ctrl-C ended the fit.
    """

    wavefunction: Wavefunction
    evaluation: Evaluation
    history: History = field(repr=False)
    interrupted: bool = False

    @property
    def energy(self) -> float:
        """Mean local energy [hartree]."""
        return self.evaluation.energy

    @property
    def error(self) -> float:
        """Standard error of the energy [hartree]."""
        return self.evaluation.error

    @property
    def variance(self) -> float:
        """Variance of the local energy [hartree^2]."""
        return self.evaluation.variance

    def local_energy(self, x: Float[Tensor, "batch electron 3"]) -> Float[Tensor, "batch"]:
        """E_loc [hartree] at ``x`` (B, N, 3) [bohr], electrons of spin up first.

        Raises:
            ValueError: ``x`` has another shape or entries that are not finite.
        """
        psi = self.wavefunction
        if x.ndim != 3 or x.shape[1:] != (psi.molecule.n_electrons, 3):
            expected = f"(B, {psi.molecule.n_electrons}, 3)"
            raise ValueError(f"x has shape {tuple(x.shape)}; expected {expected}")
        if not bool(torch.isfinite(x).all()):
            raise ValueError("x has entries that are not finite numbers")
        with torch.no_grad():
            return local_energy(psi.log_psi, Coulomb(psi.molecule), x.to(psi.slater)).energy

    def sample(self, n: int, seed: int = 0, burn_in: int = 300) -> Float[Tensor, "n electron 3"]:
        """``n`` independent samples of psi^2 in float64 (n, N, 3) [bohr].

        Args:
            n: number of samples, each by a walker of its own.
            seed: of their walk.
            burn_in: moves of each walker.
        """
        source, _ = equilibrated(self.wavefunction, n, burn_in, 5, seed, "metropolis")
        return source.x

    def observables(self, walkers: int = 1024, batches: int = 32, seed: int = 0) -> Observables:
        """Dipole moment and forces on the nuclei by fresh walkers; see `observables`."""
        return observables(self.wavefunction, walkers, batches, seed=seed)

    def save(self, path: str | Path) -> Path:
        """Write the wave function; `sciflow.wqmc.load` reads it."""
        return self.wavefunction.save(path)
