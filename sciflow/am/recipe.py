"""Fitting a potential to snapshots: settings, units, and the call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciflow.am.coupling import POOL, CoupledSnapshots
from sciflow.am.lagrangians import Lagrangian
from sciflow.am.model import Action, ActionPotential, Scale
from sciflow.am.objective import ActionMatching, Estimator
from sciflow.errors import DataError
from sciflow.integrators import integrate
from sciflow.shapes import Tensor
from sciflow.train import ParamGroup, RunOptions, Snapshots, Trainer

# Samples that the action is measured on after a fit.
_MEASURED = 4096


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit."""

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
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            out=self.out,
            log=self.log,
            compile=self.compile,
            progress=self.progress,
            update=update,
        )


def fit(
    snapshots: Snapshots,
    kind: Literal["deterministic"] = "deterministic",
    hold_out: Iterable[int] = (),
    **options: Any,
) -> ActionPotential:
    """Fit a deterministic flow to snapshots by action matching.

    The snapshots are joined by straight lines between partners under exact optimal transport;
    the potential is fitted to that curve of densities.

    Args:
        snapshots: samples at two or more times; masses are not used, since a deterministic flow
            conserves mass.
        kind: ``"deterministic"``.
        hold_out: indices of time points that the fit must not see.
        options: fields of ``FitOptions``.

    Returns:
        The fitted potential, with ``history`` and ``action()`` measured. After Ctrl-C it is what
        the fit had reached, and ``interrupted`` is set.

    Raises:
        ValueError: another kind, or an option out of range.
        DataError: fewer than two time points remain.
    """
    if kind != "deterministic":
        raise ValueError(f"kind must be 'deterministic'; got {kind!r}")
    settings = FitOptions(**options)
    problem = prepare(snapshots, hold_out, settings)
    objective = ActionMatching(problem.model, Lagrangian(), estimator=settings.estimator)
    return train(problem, objective, settings, "adam")


@dataclass(frozen=True)
class Problem:
    """A fit that is ready to run: snapshots and pairs in network units, and the potential."""

    snapshots: Snapshots
    source: CoupledSnapshots
    model: ActionPotential
    generator: torch.Generator


def prepare(snapshots: Snapshots, hold_out: Iterable[int], settings: FitOptions) -> Problem:
    """Leave out what is held out, then take units, couplings and initial weights from the rest."""
    kept = leave_out(snapshots, hold_out)
    scale = scale_of(kept)
    center = torch.tensor(scale.center, dtype=torch.float64)
    inner = Snapshots(
        [(x - center) / scale.length for x in kept.samples],
        (kept.times - scale.start) / scale.duration,
        kept.masses,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    model = ActionPotential(scale, settings.width, settings.depth, generator)
    source = CoupledSnapshots(inner, seed=settings.seed, pool=settings.pool)
    return Problem(inner, source, model, generator)


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
    model.measured_action = measure_action(model, objective, problem)
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


def scale_of(snapshots: Snapshots) -> Scale:
    """Units in which the snapshots have mean zero, unit mean variance and unit duration."""
    x = torch.cat(snapshots.samples)
    center = x.mean(0)
    length = float((x - center).square().mean().sqrt())
    if length == 0.0:
        raise DataError("all samples are the same point: there is nothing to transport")
    start, end = float(snapshots.times[0]), float(snapshots.times[-1])
    return Scale(tuple(center.tolist()), length, start, end - start)


def measure_action(model: ActionPotential, objective: ActionMatching, problem: Problem) -> Action:
    """Kinetic action along the fitted flow, and its dual estimate, in units of the data."""
    scale = model.scale
    unit = scale.length**2 / scale.duration
    device, dtype = model.center.device, model.center.dtype
    first = problem.snapshots.samples[0][:_MEASURED].to(device, dtype)

    def energy(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        _, _, v = model.derivatives(t.expand(len(state[0])), state[0], create_graph=False)
        return v, 0.5 * v.square().sum(-1)

    span = torch.tensor([0.0, 1.0], dtype=dtype, device=device)
    moved = integrate(energy, (first, first.new_zeros(len(first))), span)
    generator = torch.Generator(problem.source.device).manual_seed(2**31)
    batch = problem.source.sample(4 * _MEASURED, generator)
    batch = type(batch)(*(x.to(device, dtype) for x in batch))
    # The objective still holds the last weights; the fit returns their average.
    objective.model = model
    dual = -float(objective(batch).value.detach())
    return Action(float(moved.y[1][-1].mean()) * unit, dual * unit)
