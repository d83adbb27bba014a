"""Fitting a ground state: settings, the call, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from sciflow.shapes import Float, Tensor
from sciflow.train import Engine, History, RunOptions, Trainer
from sciflow.train.natural import DampedFisher, Spring
from sciflow.train.settings import DTYPES
from sciflow.train.update import Update
from sciflow.wqmc.ansatz import ANSAETZE, Wavefunction
from sciflow.wqmc.evaluate import Evaluation, equilibrated, evaluate
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.objective import GroundStateEnergy
from sciflow.wqmc.physics import Coulomb, local_energy
from sciflow.wqmc.sampling import ElectronWalkers

OPTIMIZERS = ("spring", "fisher", "adam")


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit."""

    steps: int = 500
    """Updates of the wave function."""
    batch_size: int = 256
    """Walkers."""
    optimizer: Literal["auto", "spring", "fisher", "adam"] = "auto"
    """"spring" (natural gradient by the Gram matrix of the batch; for the metric fisher-rao only),
    "fisher" (natural gradient by a dense averaged Fisher matrix) or "adam"; "auto" takes spring
    for fisher-rao and fisher for the other metrics."""
    lr: float | None = None
    """Learning rate at the start; None takes 0.1 (natural gradient) or 0.002 (adam)."""
    ema: float = 0.98
    """Decay per step of the running average of the parameters that the fit returns."""
    velocity: Literal["tanh", "sign", "l2", "clip"] = "tanh"
    """Velocity of walkers by the gradient of the local energy, for wasserstein and joint."""
    determinants: int = 4
    """Number of determinants."""
    width: int = 32
    """Width of the network."""
    depth: int = 2
    """Number of layers of the network."""
    sampler: Literal["metropolis", "langevin"] = "metropolis"
    """Moves of the walkers."""
    moves: int = 10
    """Moves of all electrons per update."""
    burn_in: int = 200
    """Moves before the first update."""
    evaluation_walkers: int = 1024
    """Fresh walkers of the final evaluation."""
    evaluation_batches: int = 16
    """Local energies of each of them, five moves apart."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating type of the network; determinants and the evaluation are always in float64."""


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

    def save(self, path: str | Path) -> Path:
        """Write the wave function; `sciflow.wqmc.load` reads it."""
        return self.wavefunction.save(path)


def fit(
    molecule: Molecule | str,
    metric: str = "fisher-rao",
    ansatz: str = "ferminet",
    **options: Any,
) -> GroundState:
    """Find the ground state of a molecule by variational Monte Carlo.

    Args:
        molecule: nuclei, charge and spin, or a name such as ``"LiH"``.
        metric: "fisher-rao" (the usual natural gradient), "wasserstein" or "joint".
        ansatz: "ferminet" or "psiformer".
        options: fields of `FitOptions`.

    Raises:
        ValueError: an unknown name, an option out of range, or spring with a metric that it cannot
            follow.
        TrainingError: more than 1 % of the local energies are not finite.

    Example:
        >>> result = fit("He", steps=300)  # doctest: +SKIP
        >>> result.energy, result.error  # doctest: +SKIP
    """
    settings = FitOptions(**options)
    if isinstance(molecule, str):
        molecule = Molecule(molecule)
    if ansatz not in ANSAETZE:
        raise ValueError(f"ansatz must be one of {', '.join(ANSAETZE)}; got {ansatz!r}")
    device = Engine.start(settings.device).device
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    psi = ANSAETZE[ansatz](
        molecule,
        determinants=settings.determinants,
        width=settings.width,
        depth=settings.depth,  # type: ignore[call-arg]
        generator=generator,
    ).to(device, DTYPES[settings.dtype])
    objective = GroundStateEnergy(psi, metric, settings.velocity)
    update, lr = _update(settings, metric)

    walk = torch.Generator(device).manual_seed(settings.seed + 1)
    walkers = ElectronWalkers(psi, settings.batch_size, walk, settings.sampler, settings.moves)
    for _ in range(-(-settings.burn_in // settings.moves)):
        walkers.sample(1, walk)
    trainer = Trainer(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=lr,
        ema=settings.ema,
        seed=settings.seed,
        device=settings.device,
        dtype=settings.dtype,
        out=settings.out,
        log=settings.log,
        decay="constant" if isinstance(update, Update) else "cosine",
        update=update,
        progress=settings.progress,
    )
    result = trainer.fit(objective, walkers, resume=settings.resume)
    model = result.model
    assert isinstance(model, Wavefunction)
    measured = evaluate(
        model,
        settings.evaluation_walkers,
        settings.evaluation_batches,
        seed=settings.seed + 2,
        sampler=settings.sampler,
    )
    return GroundState(model, measured, result.history, result.interrupted)


def _update(settings: FitOptions, metric: str) -> tuple[str | Update, float]:
    """The update and its rate.

    Raises:
        ValueError: an unknown optimiser, or spring with a metric that it cannot follow.
    """
    name = settings.optimizer
    if name == "auto":
        name = "spring" if metric == "fisher-rao" else "fisher"
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be auto or one of {', '.join(OPTIMIZERS)}; got {name!r}")
    if name == "spring" and metric != "fisher-rao":
        raise ValueError(
            f"optimizer 'spring' is for the metric 'fisher-rao'; got {metric!r}: take 'fisher'"
        )
    lr = settings.lr or (0.002 if name == "adam" else 0.1)
    if name == "adam":
        return name, lr
    return (Spring(lr=lr) if name == "spring" else DampedFisher(lr=lr)), lr
