"""Fitting a forecaster to decays: settings, and the call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from sciflow.errors import DataError
from sciflow.shapes import Tensor
from sciflow.train import RunOptions, Trainer
from sciflow.turbulence.calibrate import calibrate
from sciflow.turbulence.forecaster import Forecaster
from sciflow.turbulence.model import DecayODE
from sciflow.turbulence.runs import DecayRun
from sciflow.turbulence.training import DecayLoss, StartSource, gather_starts


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit."""

    members: int = 5
    """Networks of the ensemble, each with its own bootstrap of the runs."""
    memory: int = 6
    """Memory variables; 0 is the plain neural ODE of k and eps alone."""
    width: int = 48
    """Width of the hidden layers."""
    depth: int = 2
    """Number of hidden layers."""
    steps: int = 1200
    """Updates of the networks."""
    batch_size: int = 320
    """Starts per update, over all members together."""
    lr: float = 3e-3
    """Learning rate (AdamW), after a warm-up and before a cosine decay to zero."""
    horizon: tuple[float, float] = (0.5, 4.0)
    """Span of tau = ln(k_0 / k) of the first updates and of the last quarter of them."""
    starts: int = 12
    """Starts taken from each run."""
    measured: float = 0.4
    """Part of the starts that simulations and measurements get where there are closures too."""
    noise: float = 0.02
    """Standard deviation of the noise on what the encoders see."""
    device: str = "cpu"
    """Torch device: "auto", "cpu", "cuda"; networks as small as these gain nothing from CUDA."""

    def __post_init__(self) -> None:
        if self.batch_size % self.members:
            raise ValueError(
                f"batch_size = {self.batch_size} must be a multiple of members = {self.members}"
            )
        if not 0 < self.horizon[0] <= self.horizon[1]:
            raise ValueError(f"horizon must be two positive values; got {self.horizon}")
        if not 0 < self.measured < 1:
            raise ValueError(f"measured must be between 0 and 1; got {self.measured}")
        if self.starts < 2:
            raise ValueError(f"starts must be at least 2; got {self.starts}")


def fit(
    runs: Sequence[DecayRun],
    calibration: Sequence[DecayRun] | None = None,
    **options: Any,
) -> Forecaster:
    """Fit an ensemble of neural ODEs to decays, and the width of its bands to others.

    Every run has its own times. Starts are taken all along the runs and solved from what their
    encoder makes of them (multiple shooting), over a horizon that grows with the updates.

    Args:
        runs: decays to learn from.
        calibration: decays for the bands, which the networks must not see; None sets aside one
            run in five (whole cases, as their names without the last part tell them apart).
        options: fields of `FitOptions`.

    Returns:
        The forecaster, with ``history`` of the fit; after Ctrl-C what had been reached, and
        ``interrupted`` is set.

    Raises:
        DataError: fewer than two runs.
        ValueError: an option out of range.
        TypeError: an unknown option.
    """
    settings = FitOptions(**options)
    runs = list(runs)
    if len(runs) < 2:
        raise DataError(f"runs must be two decays or more; got {len(runs)}")
    if calibration is None:
        runs, calibration = _set_aside(runs, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    model = DecayODE(settings.members, settings.memory, settings.width, settings.depth, generator)
    starts = gather_starts(runs, settings.starts, settings.horizon[1], settings.seed)
    source = StartSource(
        starts, settings.members, _weights(runs, settings.measured), settings.seed
    )
    growing = 3 * settings.steps // 4
    objective = DecayLoss(model, starts, settings.horizon, growing, settings.noise)
    trainer = Trainer(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.lr,
        ema=0.99,
        clip=1.0,
        update="adamw",
        weight_decay=1e-4,
        warmup=settings.steps // 20,
        **settings.run_settings,
    )
    result = trainer.fit(objective, source, resume=settings.resume)
    fitted = cast(DecayODE, result.model.cpu())
    forecaster = Forecaster(fitted, calibrate(fitted, runs, calibration))
    forecaster.history, forecaster.interrupted = result.history, result.interrupted
    return forecaster


def _weights(runs: Sequence[DecayRun], measured: float) -> Tensor:
    """Weight of each run: closures together have 1 - ``measured`` of all."""
    closure = torch.tensor([run.source == "closure" for run in runs])
    n = int(closure.sum())
    if n in (0, len(runs)):
        return torch.ones(len(runs), dtype=torch.float64)
    return torch.where(closure, (1 - measured) / n, measured / (len(runs) - n)).double()


def _set_aside(runs: Sequence[DecayRun], seed: int) -> tuple[list[DecayRun], list[DecayRun]]:
    cases = sorted({run.name.rpartition("-")[0] or str(i) for i, run in enumerate(runs)})
    number = max(1, math.ceil(len(cases) / 5))
    chosen = set(np.random.default_rng(seed).permutation(cases)[:number].tolist())
    kept: list[DecayRun] = []
    aside: list[DecayRun] = []
    for i, run in enumerate(runs):
        case = run.name.rpartition("-")[0] or str(i)
        (aside if case in chosen else kept).append(run)
    if not kept:
        raise DataError("runs are of one case only: give calibration runs of another")
    return kept, aside
