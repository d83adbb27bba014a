"""Boltzmann generators: a flow beside an energy makes weighted samples and free energies.

Noé, Olsson, Köhler, Wu, "Boltzmann generators", Science 365, eaaw1147 (2019). A sample x of a
flow of density rho has the weight e^(-E(x) / kT) / rho(x); with it every average is that of the
Boltzmann distribution, however wrong the flow. How wrong it is shows in the effective sample
size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sciflow.cnf.model import ContinuousFlow
from sciflow.cnf.reverse_kl import Energy, checked_energy
from sciflow.metrics import Estimate, bar, ess, reweight
from sciflow.shapes import Float, Tensor


class WeightedSamples(NamedTuple):
    """Samples of a flow, and what the Boltzmann distribution thinks of them.

    Attributes:
        x: samples (n, d).
        energy: their energies (n,), in the unit of the energy.
        log_weight: -E / kT - ln rho, (n,); the weights are not normalised.
        kT: thermal energy.
    """

    x: Float[Tensor, "n dim"]
    energy: Float[Tensor, " n"]
    log_weight: Float[Tensor, " n"]
    kT: float

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Weights that sum to one, in float64."""
        return self.log_weight.double().softmax(0)

    @property
    def ess(self) -> float:
        """Effective share of the samples (Kish), between 1/n and 1."""
        return float(ess(self.log_weight)) / len(self.log_weight)

    def free_energy(self, generator: torch.Generator) -> Estimate:
        """-kT ln of the integral of exp(-E / kT), by reweighting; ``error`` by the bootstrap."""
        return reweight(self.log_weight, generator, self.kT)

    def mean(self, values: Float[Tensor, " n"]) -> tuple[float, float]:
        """Boltzmann average of ``values`` at the samples, and its standard error.

        The error is that of a ratio of averages, to first order; below some 100 effective
        samples do not trust it.
        """
        w = self.weights
        mean = float((w * values.to(w)).sum())
        error = float((w * (values.to(w) - mean)).square().sum().sqrt())
        return mean, error

    def resample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Draw ``n`` unweighted samples, with repetition."""
        w = self.weights.to(generator.device)
        rows = torch.multinomial(w, n, replacement=True, generator=generator)
        return self.x[rows.to(self.x.device)]


class BoltzmannGenerator:
    """A flow that proposes, and an energy that decides.

    Figures are only as good as the solve: final ones deserve a flow in float64 with a tight
    solver, ``flow.double().with_solver(rtol=1e-7, atol=1e-7)``.

    Args:
        flow: continuous flow, or whatever else has its ``log_prob`` and ``sample_with_log_prob``.
        energy: ``energy(x)``, (B, d) to (B,); infinite where there is no state.
        kT: thermal energy, in the unit of the energy.
        chunk: samples moved at once.

    Raises:
        ValueError: a number is not positive.

    Example:
        >>> from sciflow import cnf
        >>> flow = cnf.ContinuousFlow(cnf.VelocityMLP(2))
        >>> generator = torch.Generator().manual_seed(0)
        >>> drawn = BoltzmannGenerator(flow, lambda x: x.square().sum(1) / 2).sample(9, generator)
        >>> round(drawn.ess, 3)
        1.0
    """

    def __init__(
        self, flow: ContinuousFlow, energy: Energy, kT: float = 1.0, chunk: int = 4096
    ) -> None:
        if not (math.isfinite(kT) and kT > 0):
            raise ValueError(f"kT must be positive and finite, got {kT}")
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self.flow, self.energy, self.kT, self.chunk = flow, energy, float(kT), chunk

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> WeightedSamples:
        """Draw ``n`` samples of the flow, with their weights."""
        if n < 1:
            raise ValueError(f"n is {n}; expected at least 1")
        parts = []
        for size in self._sizes(n):
            x, log_p = self.flow.sample_with_log_prob(size, generator=generator)
            parts.append(self._weighted(x, log_p))
        return self._joined(parts)

    @torch.no_grad()
    def weigh(self, x: Float[Tensor, "n dim"]) -> WeightedSamples:
        """Samples of another origin, with their weights as if the flow had made them."""
        parts = [self._weighted(part, self.flow.log_prob(part)) for part in x.split(self.chunk)]
        return self._joined(parts)

    def bridge(self, n: int, x: Float[Tensor, "m dim"], generator: torch.Generator) -> Estimate:
        """Free energy from ``n`` samples of the flow and others of the Boltzmann density.

        Bennett's acceptance ratio between the normalised density of the flow and the energy:
        where both kinds of samples exist it has the least error.

        Args:
            n: samples of the flow.
            x: samples of exp(-E / kT) that the flow was not trained on, (m, d); they count as
                independent, so thin a Markov chain.
            generator: source of the flow's samples.
        """
        forward, backward = self.sample(n, generator), self.weigh(x)
        return bar(-forward.log_weight, backward.log_weight, self.kT)

    def _weighted(self, x: Tensor, log_p: Tensor) -> WeightedSamples:
        energy = checked_energy(self.energy, x)
        return WeightedSamples(x, energy, -energy / self.kT - log_p, self.kT)

    def _joined(self, parts: list[WeightedSamples]) -> WeightedSamples:
        x, energy, log_weight, _ = zip(*parts, strict=True)
        return WeightedSamples(torch.cat(x), torch.cat(energy), torch.cat(log_weight), self.kT)

    def _sizes(self, n: int) -> list[int]:
        whole, rest = divmod(n, self.chunk)
        return [self.chunk] * whole + ([rest] if rest else [])
