"""Fitting a potential to snapshots: settings, units, and the call."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciflow.am.action import measure_action
from sciflow.am.coupling import POOL, independent_coupling
from sciflow.am.lagrangians import Lagrangian, find_lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.objective import ActionMatching, Estimator
from sciflow.am.scale import scale_of
from sciflow.am.source import CoupledSnapshots
from sciflow.am.times import Times
from sciflow.errors import DataError
from sciflow.train import ParamGroup, RunOptions, Snapshots, Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit."""

    sigma: float | None = None
    """Noise of the motion, in length / sqrt(time), for Lagrangians that have it; None takes that
    of the table."""
    growth_penalty: float | None = None
    """Lambda of the growth term growth^2 / (2 lambda), in 1 / length^2, for Lagrangians that have
    it: mass travels at most pi / sqrt(lambda); None takes that of the table."""
    coupling: Literal["optimal", "independent"] = "optimal"
    """How samples of neighbouring snapshots are paired: "optimal" for the Lagrangian, or
    independently."""
    time_sampling: Literal["even", "adaptive"] = "even"
    """How times are drawn: evenly, or more often where the loss varies more."""
    steps: int = 2000
    """Updates of the networks."""
    batch_size: int = 512
    """Pairs of samples per update."""
    lr: float = 2e-3
    """Learning rate of the potential (Adam), after a warm-up over the first twentieth of the
    steps and before a cosine decay to zero."""
    ema: float = 0.999
    """Decay per step of the running average of the weights that the fit returns."""
    clip: float | None = 5.0
    """Largest gradient norm; None does not clip."""
    width: int = 64
    """Width of the hidden layers."""
    depth: int = 3
    """Number of hidden layers."""
    estimator: Estimator = "pathwise"
    """Estimator of the dual objective: "pathwise" (integrated by parts along the path: less
    variance) or "dual" (as in the papers)."""
    pool: int = POOL
    """Snapshots of more samples than this are coupled in pools of this size."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating type of the networks."""
    compile: bool = False
    """Compile the objective with torch.compile."""

    def trainer(self, update: str | list[ParamGroup] = "adam") -> Trainer:
        """The trainer of these settings."""
        return Trainer(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            ema=self.ema,
            clip=self.clip,
            warmup=self.steps // 20,
            dtype=self.dtype,
            compile=self.compile,
            update=update,
            **self.run_settings,
        )


KINDS = {
    "deterministic": "ot",
    "entropic": "sb",
    "unbalanced": "uot",
    "entropic+unbalanced": "sb+uot",
}


def fit(
    snapshots: Snapshots,
    kind: Literal[
        "deterministic", "entropic", "unbalanced", "entropic+unbalanced"
    ] = "deterministic",
    hold_out: Iterable[int] = (),
    **options: Any,
) -> ActionPotential:
    """Fit the flow of a population to its snapshots by action matching.

    Partners in neighbouring snapshots, optimal for the kind of flow, are joined by the paths of
    least action in closed form: straight lines ("deterministic"), Brownian bridges ("entropic"),
    travelling point masses ("unbalanced"). The potential is fitted to that curve of densities.

    Args:
        snapshots: samples at two or more times; their masses count where the flow may grow.
        kind: which flow.
        hold_out: indices of time points that the fit must not see.
        options: fields of ``FitOptions``.

    Returns:
        The fitted potential, with ``history`` and ``action()`` measured. After Ctrl-C it is what
        the fit had reached, and ``interrupted`` is set.

    Raises:
        ValueError: another kind, or an option out of range.
        DataError: fewer than two time points remain.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}; got {kind!r}")
    settings = FitOptions(**options)
    lagrangian = find_lagrangian(KINDS[kind], settings.sigma, settings.growth_penalty)
    problem = prepare(snapshots, hold_out, settings, lagrangian)
    objective = ActionMatching(
        problem.model, problem.lagrangian, estimator=settings.estimator, times=problem.source.times
    )
    return train(problem, objective, settings, "adam")


@dataclass(frozen=True)
class Problem:
    """A fit that is ready to run, in network units: snapshots, pairs, Lagrangian, potential."""

    snapshots: Snapshots
    lagrangian: Lagrangian
    source: CoupledSnapshots
    model: ActionPotential
    generator: torch.Generator


def prepare(
    snapshots: Snapshots, hold_out: Iterable[int], settings: FitOptions, lagrangian: Lagrangian
) -> Problem:
    """Leave out what is held out, then take units, couplings and initial weights from the rest."""
    if settings.coupling not in ("optimal", "independent"):
        raise ValueError(f"coupling must be 'optimal' or 'independent'; got {settings.coupling!r}")
    if settings.time_sampling not in ("even", "adaptive"):
        raise ValueError(
            f"time_sampling must be 'even' or 'adaptive'; got {settings.time_sampling!r}"
        )
    kept = leave_out(snapshots, hold_out)
    if lagrangian.growth_penalty is not None and kept.masses is None:
        logger.warning(
            "growth without masses: the population is taken to have the same mass at all times, "
            "so that it grows in one place only as much as it dies in another; give "
            "Snapshots(..., masses=...) if its size is known"
        )
    scale = scale_of(kept)
    visible = scale.inside(kept)
    inner = lagrangian.inside(scale, visible)
    generator = torch.Generator().manual_seed(settings.seed)
    model = ActionPotential(
        scale,
        settings.width,
        settings.depth,
        generator,
        lagrangian.sigma,
        lagrangian.growth_penalty,
    )
    couplings = None
    if settings.coupling == "independent":
        sizes = visible.sizes
        couplings = [
            independent_coupling(n, m, generator)
            for n, m in zip(sizes[:-1], sizes[1:], strict=True)
        ]
    times = Times(settings.time_sampling == "adaptive")
    source = CoupledSnapshots(visible, couplings, inner, times, settings.seed, settings.pool)
    return Problem(visible, inner, source, model, generator)


def train(
    problem: Problem,
    objective: ActionMatching,
    settings: FitOptions,
    update: str | list[ParamGroup],
) -> ActionPotential:
    """Run the fit and measure the action of what it found."""
    result = settings.trainer(update).fit(objective, problem.source, resume=settings.resume)
    model = result.model
    assert isinstance(model, ActionPotential)
    model.history, model.interrupted = result.history, result.interrupted
    model.measured_action = measure_action(model, objective, problem.source)
    return model


def leave_out(snapshots: Snapshots, hold_out: Iterable[int]) -> Snapshots:
    """The snapshots without these time points.

    Raises:
        DataError: there is no such time point, or fewer than two would remain.
    """
    held = sorted({k % len(snapshots) if k < 0 else k for k in hold_out}, reverse=True)
    for k in held:
        if k >= len(snapshots):
            raise DataError(f"hold_out names time point {k}; there are {len(snapshots)}")
        snapshots = snapshots.without(k)
    return snapshots
