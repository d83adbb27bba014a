"""The energy of a frozen wave function, with an honest error bar."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.wqmc.ansatz import Wavefunction
from sciflow.wqmc.physics import Coulomb, local_energy
from sciflow.wqmc.sampling import ElectronWalkers


@dataclass(frozen=True)
class Evaluation:
    """Energies of fresh walkers; nothing is clipped.

    Attributes:
        energy: mean local energy [hartree]; an upper bound of the ground-state energy.
        error: its standard error. Each walker is a block: walkers are independent, whatever the
            correlation along their paths.
        variance: of the local energy [hartree^2]; zero for an eigenstate.
        samples: number of local energies.
        outlier: largest deviation from the mean, in standard deviations.
        bad: number of local energies that were not finite, and are left out.
        acceptance: of the moves.
        autocorrelation: correlation of a walker's successive local energies.
    """

    energy: float
    error: float
    variance: float
    samples: int
    outlier: float
    bad: int
    acceptance: float
    autocorrelation: float

    @property
    def ess(self) -> float:
        """Independent samples that the energies are worth."""
        return self.variance / self.error**2 if self.error > 0 else float(self.samples)


def evaluate(
    psi: Wavefunction,
    walkers: int = 1024,
    batches: int = 64,
    burn_in: int = 300,
    moves: int = 10,
    seed: int = 0,
    sampler: str = "metropolis",
) -> Evaluation:
    """Energy of ``psi`` by fresh walkers, in float64; the parameters stay as they are.

    Args:
        psi: wave function.
        walkers: independent walkers.
        batches: local energies per walker.
        burn_in: moves before the first, during which the width of the moves is adapted.
        moves: moves between two local energies of a walker.
        seed: of walkers and moves.
        sampler: key of `sciflow.wqmc.sampling.SAMPLERS`.

    Raises:
        ValueError: fewer than 2 walkers or batches, or no local energy is finite.
    """
    if walkers < 2 or batches < 2:
        raise ValueError(f"walkers and batches must be at least 2; got {walkers} and {batches}")
    source, generator = equilibrated(psi, walkers, burn_in, moves, seed, sampler)
    potential = Coulomb(psi.molecule)
    rows, acceptance = [], 0.0
    for _ in range(batches):
        x = source.sample(walkers, generator)
        with torch.inference_mode():
            rows.append(local_energy(source.psi.log_psi, potential, x).energy)
        acceptance += source.acceptance / batches
    return summary(torch.stack(rows), acceptance)


class Measured(NamedTuple):
    """A mean over walkers with its standard error; each walker is a block.

    Attributes:
        value: shape (...).
        error: shape (...).
    """

    value: Float[Tensor, "..."]
    error: Float[Tensor, "..."]


def blocked(values: Float[Tensor, "batch walker ..."]) -> Measured:
    """Mean of values (batches, walkers, ...), those that are not finite left out.

    Walkers are independent, whatever the correlation along their paths.

    Raises:
        ValueError: fewer than two walkers have a finite value.
    """
    good = torch.isfinite(values)
    count = good.sum(0)
    if int((count > 0).sum(0).min()) < 2:
        raise ValueError("fewer than two walkers have a value that is finite")
    total = count.sum(0)
    mean = torch.where(good, values, 0.0).sum((0, 1)) / total
    # Each walker enters by the sum of its deviations, so that missing values weigh nothing.
    blocks = torch.where(good, values - mean, 0.0).sum(0)
    return Measured(mean, blocks.square().sum(0).sqrt() / total)


def summary(energies: Float[Tensor, "batch walker"], acceptance: float) -> Evaluation:
    """Statistics of local energies (batches, walkers).

    Raises:
        ValueError: fewer than two walkers have a finite local energy.
    """
    mean, error = blocked(energies)
    good = torch.isfinite(energies)
    centred = torch.where(good, energies - mean, 0.0)
    variance = centred.square().sum() / (good.sum() - 1)
    pairs = (good[1:] & good[:-1]).sum().clamp(min=1)
    correlation = (centred[1:] * centred[:-1]).sum() / pairs / variance.clamp(min=1e-300)
    # Of an eigenstate there is nothing to correlate but rounding.
    exact = float(variance) < 1e-20 * (1 + float(mean) ** 2)
    return Evaluation(
        energy=float(mean),
        error=float(error),
        variance=float(variance),
        samples=int(good.sum()),
        outlier=0.0 if exact else float(centred.abs().max() / variance.sqrt()),
        bad=int((~good).sum()),
        acceptance=acceptance,
        autocorrelation=0.0 if exact else float(correlation),
    )


def equilibrated(
    psi: Wavefunction, walkers: int, burn_in: int, moves: int, seed: int, sampler: str
) -> tuple[ElectronWalkers, torch.Generator]:
    """Fresh walkers of a frozen float64 copy of ``psi``, after ``burn_in`` moves."""
    frozen = copy.deepcopy(psi).double().requires_grad_(False).eval()
    generator = torch.Generator(frozen.nuclei.device).manual_seed(seed)
    source = ElectronWalkers(frozen, walkers, generator, sampler, moves)
    for _ in range(-(-burn_in // moves)):
        source.sample(1, generator)
    source.adapting = False
    return source, generator
