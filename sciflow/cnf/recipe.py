"""Fitting a flow to samples: flow matching to start, likelihood to finish, in one call."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sciflow.cnf.base import Base
from sciflow.cnf.fields import VectorField
from sciflow.cnf.flow_matching import CoupledPairs, FlowMatching, IndependentPairs
from sciflow.cnf.likelihood import MaximumLikelihood
from sciflow.cnf.model import ContinuousFlow
from sciflow.cnf.velocity import VelocityMLP
from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train import FitResult, RunOptions, Samples, Source, StopTraining, Trainer
from sciflow.train.batch import require_finite, to_tensor

Evaluate = Callable[[nn.Module], float | Mapping[str, float]]

_log = logging.getLogger(__name__)

# Up to this many dimensions the closed-form trace costs less than it saves in variance.
EXACT_DIM = 8


@dataclass(frozen=True, kw_only=True)
class FitOptions(RunOptions):
    """Settings of a fit to samples."""

    width: int = 64
    """Width of the hidden layers."""
    depth: int = 3
    """Number of hidden layers."""
    residual: bool = True
    """Add each hidden layer to the one before."""
    plane_waves: int = 0
    """Plane waves of random direction among the features of the network, for structures much
    thinner than the whole."""
    wavelength: float = 2.0
    """Scale of their wavelengths, in standard deviations of the samples."""
    trace: Literal["auto", "exact", "hutchinson"] = "auto"
    """Divergence in training and afterwards; "auto" is exact up to 8 dimensions."""
    coupling: Literal["ot", "independent"] = "ot"
    """Pairs of base and data in flow matching: "ot" (minibatch optimal transport: straighter
    paths) or "independent"."""
    matching_steps: int = 8000
    """Updates of the flow matching; 0 leaves it out."""
    matching_batch: int = 512
    """Pairs per update of the flow matching."""
    matching_lr: float = 2e-3
    """Learning rate of the flow matching (Adam, cosine decay to zero)."""
    likelihood_steps: int = 400
    """Updates of the likelihood; 0 leaves it out."""
    likelihood_batch: int = 256
    """Samples per update of the likelihood."""
    likelihood_lr: float = 5e-4
    """Learning rate of the likelihood (Adam, cosine decay to zero)."""
    n_steps: int = 6
    """Constant integration steps in the likelihood training."""
    method: str = "bosh3"
    """Method of these steps, one with an error estimate: bosh3, dopri5, tsit5."""
    error_penalty: float = 30.0
    """Weight of the solver's squared error in the likelihood training. At 1 and few steps the
    optimiser still gains more from the solver's error than it pays."""
    kinetic: float = 0.0
    """Weight of the kinetic energy in the likelihood training: smoother, straighter fields."""
    jacobian: float = 0.0
    """Weight of the Jacobian's squared norm in the likelihood training."""
    max_gap: float = 0.05
    """Difference in nats between the training's solver and a tight one at which the training
    stops; the best weights by the tight one are kept anyway."""
    validation: float = 0.1
    """Part of the samples, 4000 at most, that is held out to choose the best weights."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating type of the network."""

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be between 0 and 1; got {self.validation}")
        if self.matching_steps < 0 or self.likelihood_steps < 0:
            raise ValueError(
                "matching_steps and likelihood_steps must not be negative; got "
                f"{self.matching_steps} and {self.likelihood_steps}"
            )
        if not self.matching_steps and not self.likelihood_steps:
            raise ValueError("matching_steps and likelihood_steps must not both be 0")
        if self.coupling not in ("ot", "independent"):
            raise ValueError(f"coupling must be 'ot' or 'independent'; got {self.coupling!r}")

    def maximum_likelihood(self, flow: ContinuousFlow) -> MaximumLikelihood:
        """The objective of the likelihood training."""
        return MaximumLikelihood(
            flow, self.n_steps, self.method, self.error_penalty, self.kinetic, self.jacobian
        )

    def matching_source(
        self, flow: ContinuousFlow, x: Tensor, context: Tensor | None = None
    ) -> Source:
        """The pairs of the flow matching; those of a conditional flow are independent."""
        if self.coupling == "ot" and context is None:
            return CoupledPairs(flow, x, seed=self.seed)
        return IndependentPairs(flow, x, context)

    def trainer(self, stage: str, steps: int, batch: int, lr: float, **more: Any) -> Trainer:
        """The trainer of one stage."""
        return Trainer(
            steps=steps,
            batch_size=batch,
            lr=lr,
            dtype=self.dtype,
            **{**self.run_settings, "out": None if self.out is None else Path(self.out) / stage},
            **more,
        )


def fit_samples(
    x: Float[Tensor, "n dim"] | np.ndarray,
    context: Float[Tensor, "n c"] | np.ndarray | None = None,
    periods: Mapping[int, float] | None = None,
    field: VectorField | None = None,
    base: Base | None = None,
    **options: Any,
) -> ContinuousFlow:
    """Fit a flow to samples: a simulation-free start, then maximum likelihood.

    Flow matching brings the field near in little time, and does not maximise the likelihood;
    backpropagation through a few constant steps does that, with a penalty on the solver's error.
    The weights returned are the best by a tight adaptive solve on held-out samples.

    Args:
        x: samples (N, d), at least 3, in any units: each coordinate is scaled by the mean and
            standard deviation of the samples that are not held out, a periodic one by its period.
        context: features (N, c) that the density is conditional on; pass them on a like scale.
        periods: period of each periodic coordinate, by index, in units of x.
        field: a field of the user's own; by default a `VelocityMLP` by ``width``, ``depth`` and
            ``residual``.
        base: density of the latent variables; by default the standard one.
        options: fields of `FitOptions`.

    Returns:
        The flow in eval mode, with ``history`` of the last stage. After Ctrl-C it is what the
        fit had reached, and ``interrupted`` is set.

    Raises:
        DataError: fewer than three samples, values that are not finite, a coordinate that is
            constant, or shapes that disagree.
        ValueError: an option is out of range.
        TypeError: an unknown option.

    Example:
        >>> import torch
        >>> from sciflow import cnf
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> flow = cnf.fit_samples(x, matching_steps=20, likelihood_steps=2, progress=False)
        >>> flow.log_prob(x).shape
        torch.Size([500])
    """
    settings = FitOptions(**options)
    x, context = check_samples(x, context)
    if len(x) < 3:
        raise DataError("x has 2 samples: two to fit and one held out make 3 at least")
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(x), generator=generator)
    n_held = max(1, min(4000, round(settings.validation * len(x)), len(x) - 2))
    held, kept = order[:n_held], order[n_held:]
    parts = [(part[kept], part[held]) for part in (x, context) if part is not None]
    train, test = (tuple(side) for side in zip(*parts, strict=True))
    n_context = 0 if context is None else context.shape[1]
    units = units_of(train[0], periods)
    flow = build_flow(x.shape[1], *units, settings, n_context, periods, field, base)

    if settings.matching_steps:
        source = settings.matching_source(flow, *train)
        trainer = settings.trainer(
            "matching", settings.matching_steps, settings.matching_batch, settings.matching_lr
        )
        result = run(trainer, FlowMatching(flow), source, settings)
        flow = as_flow(result)
        if result.interrupted:
            return flow
    if settings.likelihood_steps:
        objective = settings.maximum_likelihood(flow)
        trainer = settings.trainer(
            "likelihood",
            settings.likelihood_steps,
            settings.likelihood_batch,
            settings.likelihood_lr,
            ema=0.99,
            clip=1.0,
            eval_every=max(1, settings.likelihood_steps // 8),
        )
        check = TightSolve(objective, test, settings.max_gap)
        before = check.nll(flow) if settings.matching_steps else math.inf
        start = copy.deepcopy(flow)
        result = run(trainer, objective, Samples(*train), settings, check)
        flow = as_flow(result)
        if check.nll(flow) > before:  # possible only where the likelihood training failed
            _log.warning("the likelihood training did not improve on the flow matching")
            start.history = flow.history
            return start.eval()
    return flow


class TightSolve:
    """Evaluation of the likelihood training by an independent, tighter solve.

    Args:
        objective: whose constant steps are checked.
        test: held-out x (N, d), or (x, context).
        max_gap: difference in nats between both solvers at which the training stops.
    """

    def __init__(
        self, objective: MaximumLikelihood, test: tuple[Tensor, ...], max_gap: float
    ) -> None:
        self.objective, self.test, self.max_gap = objective, test, max_gap

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """``nll`` by the tight solve, and ``solver_gap``, by how much the constant steps err."""
        assert isinstance(model, ContinuousFlow)
        test = [part.to(model.shift) for part in self.test]
        nll = self.nll(model)
        coarse = -float(self.objective.coarse_log_prob(model, *test).double().mean())
        figures = {"nll": nll, "solver_gap": abs(nll - coarse)}
        if figures["solver_gap"] > self.max_gap:
            raise StopTraining(
                f"the constant steps of the training miss the likelihood by "
                f"{figures['solver_gap']:.3f} nats: raise n_steps or error_penalty"
            )
        return figures

    @torch.no_grad()
    def nll(self, model: ContinuousFlow) -> float:
        """Mean of -log p on the held-out samples, by the tight solve."""
        x, *context = (part.to(model.shift) for part in self.test)
        features = context[0] if context else None
        tight = model.with_solver("dopri5", 1e-6, 1e-6)
        stream = torch.Generator(model.shift.device).manual_seed(0)
        return -float(tight.log_prob(x, features, stream).double().mean())


def check_samples(x: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
    """Samples (N, d) and context (N, c) as tensors of a floating type.

    Raises:
        DataError: fewer than two samples, values that are not finite, or shapes that disagree.
    """
    out: list[Tensor | None] = []
    for name, value in (("x", x), ("context", context)):
        if value is None:
            out.append(None)
            continue
        value = to_tensor(value, name)
        if not value.is_floating_point():
            value = value.to(torch.float64)
        if value.ndim != 2 or value.shape[1] == 0:
            raise DataError(f"{name} must have shape (N, d); got {tuple(value.shape)}")
        require_finite(value, name)
        out.append(value)
    samples, features = out
    assert samples is not None
    if len(samples) < 2:
        raise DataError(f"x has {len(samples)} samples: a density needs at least 2")
    if features is not None and len(features) != len(samples):
        raise DataError(f"context has {len(features)} rows, x has {len(samples)}")
    return samples, features


def units_of(
    x: Float[Tensor, "n dim"], periods: Mapping[int, float] | None
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; of a periodic one the middle, and 1.

    Raises:
        DataError: a column is constant.
    """
    shift, scale = x.double().mean(0), x.double().std(0)
    for i in range(x.shape[1]):
        if i in (periods or {}):
            shift[i], scale[i] = (x[:, i].min() + x[:, i].max()) / 2, 1.0
        elif not float(scale[i]) > 0:
            raise DataError(f"column {i} of x has the same value in all samples: no density")
    return shift, scale


def build_flow(
    dim: int,
    shift: Float[Tensor, " dim"] | float,
    scale: Float[Tensor, " dim"] | float,
    settings: FitOptions,
    n_context: int = 0,
    periods: Mapping[int, float] | None = None,
    field: VectorField | None = None,
    base: Base | None = None,
) -> ContinuousFlow:
    """An untrained flow; arguments as those of `ContinuousFlow` and `fit_samples`."""
    if field is None:
        field = VelocityMLP(
            dim,
            settings.width,
            settings.depth,
            n_context=n_context,
            periodic=periods or (),
            residual=settings.residual,
            plane_waves=settings.plane_waves,
            wavelength=settings.wavelength,
            generator=torch.Generator().manual_seed(settings.seed),
        )
    trace = settings.trace
    if trace == "auto":
        trace = "exact" if dim <= EXACT_DIM else "hutchinson"
    return ContinuousFlow(
        field, base, trace, dim=dim, periods=dict(periods or {}), shift=shift, scale=scale
    )


def run(
    trainer: Trainer,
    objective: nn.Module,
    source: Source,
    settings: FitOptions,
    check: Evaluate | None = None,
) -> FitResult:
    """One stage, from its checkpoint where there is one to go on from."""
    out = trainer.out
    resume = settings.resume and out is not None and (Path(out) / "checkpoint.pt").is_file()
    result = trainer.fit(objective, source, check, resume=resume)
    if result.stopped:
        _log.warning("the likelihood training stopped early: %s", result.stopped)
    return result


def as_flow(result: FitResult) -> ContinuousFlow:
    """The flow of a stage, with its history."""
    flow = result.model
    assert isinstance(flow, ContinuousFlow)
    flow.history, flow.interrupted = result.history, result.interrupted
    return flow
