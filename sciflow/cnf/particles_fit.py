"""Fitting a Boltzmann generator of identical particles, from samples, an energy, or both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciflow.cnf.energy_recipe import WeightsOfSamples
from sciflow.cnf.equivariant import ParticleField
from sciflow.cnf.flow_matching import FlowMatching
from sciflow.cnf.likelihood import MaximumLikelihood
from sciflow.cnf.mixture import Joint, Mixture
from sciflow.cnf.model import ContinuousFlow
from sciflow.cnf.particles import MeanFreeGaussian
from sciflow.cnf.particles_alignment import align
from sciflow.cnf.recipe import as_flow
from sciflow.cnf.reverse_kl import Energy, ReverseKL
from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor
from sciflow.train import EnergySampler, RunOptions, Samples, Source, Trainer
from sciflow.train.batch import cast, require_finite


@dataclass(frozen=True, kw_only=True)
class ParticleOptions(RunOptions):
    """Settings of a fit to particles."""

    channels: int = 16
    """Channels of the radial functions of the field."""
    width: int = 64
    """Width of the hidden layers."""
    depth: int = 2
    """Number of hidden layers of the network of the weights."""
    n_radial: int = 24
    """Gaussian radial functions that the field sees."""
    alignment: bool = True
    """Permute and rotate samples towards their base draws in flow matching."""
    matching_steps: int = 4000
    """Updates of the flow matching; 0 leaves it out."""
    matching_batch: int = 256
    """Pairs per update of the flow matching."""
    matching_lr: float = 2e-3
    """Learning rate of the flow matching (Adam, cosine decay to zero)."""
    tuning_steps: int = 1000
    """Updates of the mixture of likelihood and reverse Kullback-Leibler divergence."""
    tuning_batch: int = 128
    """Samples, and as many base draws, per update of the mixture."""
    tuning_lr: float = 5e-4
    """Learning rate of the mixture (Adam, cosine decay to zero)."""
    energy_weight: float = 0.5
    """Part of the reverse divergence in the mixture, between 0 (likelihood alone) and 1."""
    n_steps: int = 8
    """Constant integration steps in the mixture."""
    error_penalty: float = 30.0
    """Weight of the solver's squared error in the mixture: without it the fit exploits the error
    and collapses. An error e of the log-density gains e and costs this weight times e^2, so that
    no more than 1 / (4 weight) nats can be gained."""
    ceiling: float | None = None
    """Reduced energy above which the reverse divergence is softened."""
    n_evaluate: int = 2000
    """Samples of an evaluation of the effective sample size."""
    evaluations: int = 8
    """Evaluations during the mixture, by an adaptive solve."""
    compile: bool = False
    """Compile the field with torch.compile in training: some three times the speed, after a
    minute or two."""

    def __post_init__(self) -> None:
        if not 0 <= self.energy_weight <= 1:
            raise ValueError(f"energy_weight must be in [0, 1]; got {self.energy_weight}")
        if min(self.matching_steps, self.tuning_steps) < 0 or not (
            self.matching_steps or self.tuning_steps
        ):
            raise ValueError(
                "matching_steps and tuning_steps must not be negative, nor both 0; got "
                f"{self.matching_steps} and {self.tuning_steps}"
            )


class AlignedPairs:
    """Source of pairs (z, x) of base draws and samples, the sample aligned to the draw.

    Args:
        base: of the flow.
        x: samples (M, N d) of zero mean.
        aligned: whether to align.
    """

    def __init__(
        self, base: MeanFreeGaussian, x: Float[Tensor, "n dim"], aligned: bool = True
    ) -> None:
        self.base, self.x, self.aligned = base, x, aligned

    @property
    def device(self) -> torch.device:
        """Where the samples live."""
        return self.x.device

    def placed(self, device: torch.device, dtype: torch.dtype) -> AlignedPairs:
        """The same samples on a device, in ``dtype``."""
        return AlignedPairs(self.base, cast(self.x, device, dtype), self.aligned)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw ``n`` pairs."""
        rows = torch.randint(len(self.x), (n,), generator=generator, device=self.x.device)
        x, z = self.x[rows], self.base.sample(n, generator).to(self.x)
        if self.aligned:
            shape = (n, self.base.n_particles, self.base.space_dim)
            x = align(x.view(shape), z.view(shape)).flatten(1)
        return z, x


def fit_particles(
    x: Float[Tensor, "n dim"],
    n_particles: int,
    energy: Energy | None = None,
    kT: float = 1.0,
    **options: Any,
) -> ContinuousFlow:
    """Fit an equivariant flow to samples of identical particles, and to their energy.

    Flow matching between base draws and aligned samples brings the flow near. Then half the
    likelihood of the samples and half the reverse Kullback-Leibler divergence to the energy,
    through a few constant steps with a penalty on the solver's error: the likelihood covers
    every mode, the energy takes away what lies between them.

    Args:
        x: samples (M, N d), particle by particle; their means are dropped.
        n_particles: N.
        energy: ``energy(x)``, (B, N d) to (B,), that no translation, rotation, reflection or
            permutation changes; None fits the samples alone.
        kT: thermal energy, in the unit of the energy.
        options: fields of `ParticleOptions`.

    Returns:
        The flow in eval mode with ``history`` of the last stage; of the evaluations there, the
        weights of the lowest bound of the free energy.

    Raises:
        DataError: too few samples, or values that are not finite.
        ValueError: an option is out of range.
        TypeError: an unknown option.

    Source: Köhler, Klein, Noé, ICML 2020, arXiv:2006.02425; Klein, Krämer, Noé, NeurIPS 2023,
        arXiv:2306.15030.
    """
    settings = ParticleOptions(**options)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] % n_particles:
        raise DataError(
            f"x must be at least two samples (M, {n_particles} d); got {tuple(x.shape)}"
        )
    require_finite(x, "x")
    space_dim = x.shape[1] // n_particles
    flow = particle_flow(n_particles, space_dim, scale_of(x, n_particles), settings)
    x = flow.base.centred(x)
    if settings.matching_steps:
        flow = _fit(
            settings,
            "matching",
            FlowMatching(flow),
            AlignedPairs(flow.base, x, settings.alignment),
            steps=settings.matching_steps,
            batch_size=settings.matching_batch,
            lr=settings.matching_lr,
            clip=10.0,
        )
    if settings.tuning_steps and not getattr(flow, "interrupted", False):
        flow = tune(flow, x, energy, kT, settings)
    return flow


def tune(
    flow: ContinuousFlow,
    x: Float[Tensor, "n dim"] | None,
    energy: Energy | None,
    kT: float,
    settings: ParticleOptions,
) -> ContinuousFlow:
    """The second stage of `fit_particles` for a flow of any origin; arguments as there.

    The parameters of ``flow`` are trained in place; to keep it as it is, give a deep copy.

    Without samples the reverse divergence stands alone, without an energy the likelihood. From
    the energy alone, an untrained `particle_flow` finds what its base reaches, if wells are not
    far apart.
    """
    objectives: dict[str, nn.Module] = {}
    sources: dict[str, Source] = {}
    weights: dict[str, float] = {}
    part = settings.energy_weight if x is not None else 1.0
    if x is not None and (energy is None or part < 1):
        objectives["samples"] = MaximumLikelihood(
            flow, settings.n_steps, error_penalty=settings.error_penalty
        )
        sources["samples"] = Samples(x)
        weights["samples"] = 1.0 if energy is None else 1 - part
    if energy is not None and part > 0:
        objectives["energy"] = ReverseKL(
            flow, energy, kT, settings.n_steps, "bosh3", settings.error_penalty, settings.ceiling
        )
        sources["energy"] = EnergySampler(flow.base.sample)
        weights["energy"] = part
    if not objectives:
        raise ValueError("samples or an energy must be given")
    if isinstance(flow.field, ParticleField):
        flow.field.compiled = settings.compile
    evaluate = None
    if energy is not None:
        evaluate = WeightsOfSamples(energy, kT, settings.n_evaluate, settings.seed)
    return _fit(
        settings,
        "tuning",
        Mixture(objectives, weights),
        Joint(sources),
        evaluate,
        steps=settings.tuning_steps,
        batch_size=settings.tuning_batch,
        lr=settings.tuning_lr,
        clip=1.0,
        ema=0.99,
        eval_every=max(1, settings.tuning_steps // settings.evaluations),
    )


def particle_flow(
    n_particles: int, space_dim: int, scale: float, settings: ParticleOptions
) -> ContinuousFlow:
    """An untrained flow of N particles in d dimensions.

    Args:
        n_particles: N.
        space_dim: d.
        scale: root mean square distance of a particle's coordinate from the mean, about; the
            density of the base has this width.
        settings: of the field.
    """
    field = ParticleField(
        n_particles,
        space_dim,
        scale * math.sqrt(2 * space_dim),  # root mean square distance of a pair
        settings.channels,
        settings.width,
        settings.depth,
        settings.n_radial,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    return ContinuousFlow(field, MeanFreeGaussian(n_particles, space_dim, scale), "exact")


def scale_of(x: Float[Tensor, "n dim"], n_particles: int) -> float:
    """Standard deviation of the orthonormal mean-free coordinates of samples (M, N d)."""
    q = x.unflatten(1, (n_particles, -1)).double()
    square = (q - q.mean(1, keepdim=True)).square().sum((1, 2)).mean()
    scale = math.sqrt(float(square) / ((n_particles - 1) * q.shape[2]))
    if scale == 0:
        raise DataError("all particles of all samples are at one point")
    return scale


def _fit(
    settings: ParticleOptions,
    stage: str,
    objective: nn.Module,
    source: Source,
    evaluate: WeightsOfSamples | None = None,
    **how: Any,
) -> ContinuousFlow:
    """One stage, from its checkpoint where there is one to go on from."""
    out = None if settings.out is None else Path(settings.out) / stage
    trainer = Trainer(**{**settings.run_settings, "out": out}, warmup=how["steps"] // 50, **how)
    resume = settings.resume and out is not None and (out / "checkpoint.pt").is_file()
    return as_flow(trainer.fit(objective, source, evaluate, resume=resume))
