"""Fitting a ground state: settings, one geometry, a path of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sciflow.train import Engine, RunOptions, Trainer
from sciflow.train.kronecker import KroneckerFisher
from sciflow.train.natural import LARGEST, DampedFisher, Spring
from sciflow.train.settings import DTYPES
from sciflow.train.update import Update
from sciflow.wqmc.ansatz import ANSAETZE, Wavefunction
from sciflow.wqmc.evaluate import evaluate
from sciflow.wqmc.ground_state import GroundState
from sciflow.wqmc.hartree_fock import pretrain
from sciflow.wqmc.molecule import Molecule
from sciflow.wqmc.objective import GroundStateEnergy
from sciflow.wqmc.sampling import ElectronWalkers

OPTIMIZERS = ("spring", "fisher", "kronecker", "adam")


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit."""

    steps: int = 1000
    """Updates of the wave function."""
    batch_size: int = 256
    """Walkers, over all processes together."""
    optimizer: Literal["auto", "spring", "fisher", "kronecker", "adam"] = "auto"
    """"spring" (natural gradient by the Gram matrix of the batch; for the metric fisher-rao only),
    "fisher" (by an averaged Fisher matrix; dense for small networks), "kronecker" (by its
    Kronecker factors) or "adam"; "auto" takes spring for fisher-rao and fisher otherwise, which
    goes over to kronecker where the network is large."""
    lr: float | None = None
    """Learning rate at the start; None takes 0.1 (natural gradient) or 0.002 (adam)."""
    decay: Literal["constant", "linear"] = "constant"
    """Learning rate over the run: with "constant" that of a natural gradient falls as
    1 / (1 + step / 500), and a run can be resumed with more steps; "linear" to 0 instead."""
    damping: float = 4e-3
    """Added to the eigenvalues of the Fisher matrix of log psi^2."""
    trust: float = 0.3
    """Largest Euclidean length of an update of a natural gradient at the start; it falls as
    1 / (1 + step / 100)."""
    ema: float = 0.998
    """Decay per step of the running average of the parameters that the fit returns; it never
    reaches back further than about a ninth of the steps."""
    hartree_fock: bool = False
    """Pretrain the orbitals to those of Hartree-Fock (needs pyscf, the extra qmc) instead of
    starting from the built-in Hueckel orbitals."""
    velocity: Literal["tanh", "sign", "l2", "clip"] = "tanh"
    """Velocity of walkers by the gradient of the local energy, for wasserstein and joint."""
    determinants: int = 4
    """Number of determinants."""
    width: int = 32
    """Width of the network."""
    depth: int = 2
    """Number of layers of the network."""
    sampler: Literal["metropolis", "one-electron", "langevin"] = "metropolis"
    """Moves of the walkers: all electrons, one after the other, or with drift (MALA)."""
    moves: int = 10
    """Moves per update."""
    burn_in: int = 200
    """Moves before the first update."""
    evaluation_walkers: int = 1024
    """Fresh walkers of the final evaluation."""
    evaluation_batches: int = 64
    """Local energies of each of them, ten moves apart."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating type of the network; determinants and the evaluation are always in float64."""


def fit(
    molecule: Molecule | str,
    metric: str = "fisher-rao",
    ansatz: str = "ferminet",
    start: Wavefunction | None = None,
    **options: Any,
) -> GroundState:
    """Find the ground state of a molecule by variational Monte Carlo.

    Under torchrun the walkers are shared by all processes, which make the same updates.

    Args:
        molecule: nuclei, charge and spin, or a name such as ``"LiH"``.
        metric: "fisher-rao" (the usual natural gradient), "wasserstein" or "joint".
        ansatz: "ferminet" or "psiformer".
        start: wave function to begin with, of the same atoms elsewhere and the same sizes.
        options: fields of `FitOptions`.

    Raises:
        ValueError: an unknown name, an option out of range, spring with a metric that it cannot
            follow, or a start that does not fit.
        TrainingError: more than 1 % of the local energies are not finite; the last checkpoint is
            in ``out``.
        MissingPackageError: ``hartree_fock`` without pyscf.

    Example:
        >>> result = fit("He", steps=300)  # doctest: +SKIP
        >>> result.energy, result.error  # doctest: +SKIP
    """
    settings = FitOptions(**options)
    if isinstance(molecule, str):
        molecule = Molecule(molecule)
    engine = Engine.start(settings.device)
    psi = _wavefunction(molecule, ansatz, settings, start).to(
        engine.device, DTYPES[settings.dtype]
    )
    size = sum(p.numel() for p in psi.parameters())
    update, lr = _update(settings, metric, size)
    if settings.batch_size % engine.world:
        raise ValueError(
            f"batch_size = {settings.batch_size} is not a multiple of the {engine.world} processes"
        )
    walk = engine.generator(settings.seed, engine.device, 2, engine.rank)
    walkers = ElectronWalkers(
        psi, settings.batch_size // engine.world, walk, settings.sampler, settings.moves
    )
    objective = GroundStateEnergy(psi, metric, settings.velocity, walkers.figures)
    for _ in range(-(-settings.burn_in // settings.moves)):
        walkers.sample(1, walk)
    trainer = Trainer(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=lr,
        ema=settings.ema,
        dtype=settings.dtype,
        decay=settings.decay,
        update=update,
        checkpoint_every=100,
        **settings.run_settings,
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


def curve(
    molecules: Sequence[Molecule],
    metric: str = "fisher-rao",
    ansatz: str = "ferminet",
    later_steps: int | None = None,
    **options: Any,
) -> list[GroundState]:
    """Ground states along a path of geometries, each begun from the one before.

    Args:
        molecules: the same atoms at different places, neighbours in order.
        metric: as for `fit`.
        ansatz: as for `fit`.
        later_steps: updates from the second geometry on; None takes a quarter of ``steps``.
        options: fields of `FitOptions`; the run of each geometry has a folder in ``out``.

    Raises:
        ValueError: there is no molecule, or they differ in more than positions.

    Example:
        >>> bonds = [Molecule("H2", [[0, 0, 0], [0, 0, r]]) for r in (1.2, 1.4)]
        >>> results = curve(bonds, steps=500)  # doctest: +SKIP
    """
    if not molecules:
        raise ValueError("molecules is empty; expected at least one geometry")
    settings = FitOptions(**options)
    found: list[GroundState] = []
    for k, molecule in enumerate(molecules):
        own = dict(options)
        if k:
            own["steps"] = later_steps or max(1, settings.steps // 4)
        if settings.out is not None:
            own["out"] = Path(settings.out) / f"{k:02d}"
        start = found[-1].wavefunction if found else None
        found.append(fit(molecule, metric, ansatz, start, **own))
    return found


def _wavefunction(
    molecule: Molecule, ansatz: str, settings: FitOptions, start: Wavefunction | None
) -> Wavefunction:
    """The wave function to train.

    Raises:
        ValueError: an unknown ansatz, or a start that does not fit.
    """
    if ansatz not in ANSAETZE:
        raise ValueError(f"ansatz must be one of {', '.join(ANSAETZE)}; got {ansatz!r}")
    psi = ANSAETZE[ansatz](
        molecule,
        determinants=settings.determinants,
        width=settings.width,
        depth=settings.depth,  # type: ignore[call-arg]
        generator=torch.Generator("cpu").manual_seed(settings.seed),
    )
    if start is None:
        return pretrain(psi, settings.seed) if settings.hartree_fock else psi
    for name, value, own in (
        ("ansatz", start.name, psi.name),
        ("atoms", start.molecule.symbols, molecule.symbols),
        ("charge", start.molecule.charge, molecule.charge),
        ("spin", start.molecule.spin, molecule.spin),
        ("sizes", start.config, psi.config),
    ):
        if value != own:
            raise ValueError(f"start has the {name} {value}; expected {own}")
    psi.load_state_dict(start.state_dict())
    return psi


def _update(settings: FitOptions, metric: str, size: int) -> tuple[str | Update, float]:
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
    if name == "fisher" and size > LARGEST:
        name = "kronecker"
    kind = {"spring": Spring, "fisher": DampedFisher, "kronecker": KroneckerFisher}[name]
    delay = 500.0 if settings.decay == "constant" else math.inf
    return kind(lr=lr, delay=delay, damping=settings.damping, trust=settings.trust), lr
