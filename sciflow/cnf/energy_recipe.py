"""Fitting a flow to an energy, and to samples where there are any."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sciflow.cnf.base import Base
from sciflow.cnf.fields import VectorField
from sciflow.cnf.flow_matching import FlowMatching
from sciflow.cnf.mixture import Joint, Mixture
from sciflow.cnf.model import ContinuousFlow
from sciflow.cnf.recipe import FitOptions, as_flow, build_flow, check_samples, run, units_of
from sciflow.cnf.reverse_kl import Energy, ReverseKL, checked_energy
from sciflow.metrics import ess
from sciflow.shapes import Float, Tensor
from sciflow.train import EnergySampler, Samples, Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(FitOptions):
    """Settings of a fit to an energy; the likelihood's hold for this stage as well."""

    energy_weight: float = 0.5
    """Part of the reverse divergence beside the likelihood of the samples, where there are any:
    between 0 (likelihood alone) and 1 (energy alone)."""
    ceiling: float | None = None
    """Reduced energy U / kT above which gradients are softened, for steep walls."""
    n_evaluate: int = 2000
    """Samples of an evaluation by an adaptive solve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.energy_weight <= 1:
            raise ValueError(f"energy_weight must be in [0, 1]; got {self.energy_weight}")
        if self.n_evaluate < 2:
            raise ValueError(f"n_evaluate must be at least 2; got {self.n_evaluate}")


def fit_energy(
    energy: Energy,
    n_dim: int,
    kT: float = 1.0,
    samples: Float[Tensor, "n dim"] | np.ndarray | None = None,
    periods: Mapping[int, float] | None = None,
    field: VectorField | None = None,
    base: Base | None = None,
    shift: Float[Tensor, " dim"] | float = 0.0,
    scale: Float[Tensor, " dim"] | float = 1.0,
    **options: Any,
) -> ContinuousFlow:
    """Fit a flow to the Boltzmann density exp(-U / kT) / Z of an energy.

    From the energy alone the reverse divergence is minimised over draws of the flow itself. It
    concentrates where the flow already is: modes far from the base may stay unknown. Samples of
    a simulation, even few or biased in their populations, cure that: flow matching starts from
    them, and their likelihood keeps every mode while the energy corrects the weights.

    Args:
        energy: U(x), (B, n_dim) to (B,), differentiable.
        n_dim: number of coordinates.
        kT: thermal energy, in units of U.
        samples: (N, n_dim), where there are any.
        periods: period of each periodic coordinate, by index, in units of x.
        field: a field of the user's own; by default a `VelocityMLP`.
        base: density of the latent variables; by default the standard one.
        shift: where the density is about, without samples; (n_dim,) or a number.
        scale: how wide it is about, without samples; (n_dim,) or a number.
        options: fields of `EnergyOptions`; ``likelihood_steps`` counts the updates of this
            stage too.

    Returns:
        The flow in eval mode, with ``history``: ``eval/free_energy_bound`` in units of kT and
        ``eval/ess``, the effective share of samples. The weights are those of the lowest bound.

    Raises:
        ValueError: the energy gives another shape than (B,) or NaN, sizes disagree, or an option
            is out of range.
        TypeError: the energy is not callable, or an unknown option.
        DataError: samples that cannot be used.

    Example:
        >>> from sciflow import cnf
        >>> spring = lambda x: 2.0 * x.square().sum(1)
        >>> flow = cnf.fit_energy(spring, 2, likelihood_steps=5, width=8, progress=False)
        >>> flow.sample(3).shape
        torch.Size([3, 2])
    """
    if not callable(energy):
        raise TypeError(f"energy must be callable, U(x); got {type(energy).__name__}")
    settings = EnergyOptions(**options)
    if samples is None:
        if not settings.likelihood_steps:
            raise ValueError("likelihood_steps must be at least 1 where there are no samples")
        flow = build_flow(n_dim, shift, scale, settings, 0, periods, field, base)
        x = None
    else:
        x, _ = check_samples(samples)
        if x.shape[1] != n_dim:
            raise ValueError(f"samples have {x.shape[1]} columns; n_dim is {n_dim}")
        units = units_of(x, periods)
        flow = build_flow(n_dim, *units, settings, 0, periods, field, base)
    checked_energy(energy, flow.sample(2, generator=torch.Generator().manual_seed(0)))

    if x is not None and settings.matching_steps:
        trainer = settings.trainer(
            "matching", settings.matching_steps, settings.matching_batch, settings.matching_lr
        )
        result = run(trainer, FlowMatching(flow), settings.matching_source(flow, x), settings)
        flow = as_flow(result)
        if result.interrupted or not settings.likelihood_steps:
            return flow

    objectives: dict[str, nn.Module] = {}
    sources: dict[str, Source] = {}
    part = settings.energy_weight if x is not None else 1.0
    weights = {"energy": part, "samples": 1 - part}
    if x is not None and part < 1:
        objectives["samples"] = settings.maximum_likelihood(flow)
        sources["samples"] = Samples(x)
    if part > 0:
        objectives["energy"] = ReverseKL(
            flow,
            energy,
            kT,
            settings.n_steps,
            settings.method,
            settings.error_penalty,
            settings.ceiling,
        )
        sources["energy"] = EnergySampler(flow.base.sample)
    trainer = settings.trainer(
        "energy",
        settings.likelihood_steps,
        settings.likelihood_batch,
        settings.likelihood_lr,
        ema=0.99,
        clip=1.0,
        eval_every=max(1, settings.likelihood_steps // 8),
    )
    mixture = Mixture(objectives, {name: weights[name] for name in objectives})
    check = WeightsOfSamples(energy, kT, settings.n_evaluate, settings.seed)
    return as_flow(run(trainer, mixture, Joint(sources), settings, check))


class WeightsOfSamples:
    """Evaluation of a flow by the importance weights of its samples, from an adaptive solve.

    Args:
        energy: U(x).
        kT: thermal energy.
        n: number of samples.
        seed: of the samples, the same at each evaluation.
    """

    def __init__(self, energy: Energy, kT: float, n: int, seed: int) -> None:
        self.energy, self.kT, self.n, self.seed = energy, kT, n, seed

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """``free_energy_bound``, mean of U / kT + log p, and ``ess``, the effective share."""
        assert isinstance(model, ContinuousFlow)
        generator = torch.Generator(model.shift.device).manual_seed(self.seed + 2**31)
        x, log_p = model.sample_with_log_prob(self.n, generator=generator)
        u = checked_energy(self.energy, x).double() / self.kT
        log_weight = -u - log_p.double()
        share = float(ess(log_weight)) / self.n
        return {"free_energy_bound": -float(log_weight.mean()), "ess": share}
