"""Populations that move, diffuse, divide and die.

A population with velocity v, noise sigma and net growth rate g obeys

    d rho / dt = -div(v rho) + sigma^2/2 laplace(rho) + g rho.

It is simulated by weighted particles (the Feynman-Kac formula): dX = v dt + sigma dW and
d log w / dt = g(t, X). The mean weight is then the size of the population relative to its
start, and particles accepted in proportion to their weight are independent draws of its cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sciflow.integrators import SDE, integrate
from sciflow.shapes import Bool, Float, Tensor

_MAX_POPULATIONS = 100


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The same weighted particles at several times.

    Attributes:
        t: times, shape (T,).
        x: positions, shape (T, N, d).
        log_weight: logarithm of the weights, shape (T, N); zero at the first time.
    """

    t: Float[Tensor, " times"]
    x: Float[Tensor, "times batch dim"]
    log_weight: Float[Tensor, "times batch"]

    @property
    def mass(self) -> Float[Tensor, " times"]:
        """Size of the population relative to the first time, shape (T,)."""
        return self.log_weight.exp().mean(1)

    @property
    def mass_error(self) -> Float[Tensor, " times"]:
        """Standard error of ``mass``, shape (T,)."""
        return self.log_weight.exp().std(1) / math.sqrt(self.log_weight.shape[1])


def propagate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    growth: Callable[[Tensor, Tensor], Tensor],
    noise: float,
    x0: Float[Tensor, "batch dim"],
    t: Float[Tensor, " times"],
    dt: float,
    generator: torch.Generator,
) -> Ensemble:
    """Move weighted particles by Heun's method, of weak order 2 for additive noise.

    Args:
        velocity: (t (), x (N, d)) -> (N, d).
        growth: (t (), x (N, d)) -> (N,), net birth rate.
        noise: sigma, in units of x per square root of time.
        x0: particles at ``t[0]``, shape (N, d).
        t: output times, ascending, shape (T,).
        dt: largest step.
        generator: source of the noise.

    Returns:
        The particles at each output time, with weights one at ``t[0]``.
    """
    start = (x0, x0.new_zeros(x0.shape[0]))
    if len(t) == 1:
        return Ensemble(t, x0[None], start[1][None])
    field = SDE(lambda time, y: (velocity(time, y[0]), growth(time, y[0])), (noise, 0.0))
    solution = integrate(field, start, t, method="heun_strat", dt=dt, generator=generator)
    return Ensemble(t, *solution.y)


def accept(
    log_weight: Float[Tensor, " batch"], bound: float, generator: torch.Generator
) -> Bool[Tensor, " batch"]:
    """Choose particles with probability w / exp(bound), so that the chosen follow w.

    Unlike resampling, this repeats no particle: the chosen ones are independent draws.

    Args:
        log_weight: shape (N,).
        bound: an upper bound of the log-weights.
        generator: source of the draws, on the device of ``log_weight``.

    Returns:
        True where chosen, shape (N,).

    Raises:
        ValueError: ``bound`` is exceeded, which would bias the draws.
    """
    highest = float(log_weight.max())
    if highest > bound + 1e-6 * (1 + abs(bound)):
        raise ValueError(f"bound must exceed every log-weight; got {bound} below {highest}")
    draws = torch.rand(
        log_weight.shape, generator=generator, dtype=log_weight.dtype, device=generator.device
    )
    return draws.to(log_weight.device).log() < log_weight - bound


def draw_independently(
    follow: Callable[[Tensor], Ensemble],
    t: Float[Tensor, " 1"],
    n: int,
    fastest: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, " 1"], Float[Tensor, " 1"]]:
    """Draw ``n`` independent cells of a population of its own at the one time ``t``.

    Args:
        follow: simulates a new population from time 0 to the times given.
        t: shape (1,).
        n: cells to draw.
        fastest: an upper bound of the growth rate.
        generator: source of the draws.

    Returns:
        Cells (n, d), the size of the population relative to time 0 (1,) and its standard error
        (1,). The size is the mean of one population of fixed size, hence without bias however
        many populations the cells took.

    Raises:
        ValueError: few cells outgrow all others by so much that the draws do not come to n.
    """
    bound = fastest * float(t)
    population = follow(t)
    cells = population.x[0][accept(population.log_weight[0], bound, generator)]
    for _ in range(_MAX_POPULATIONS):
        if len(cells) >= n:
            break
        more = follow(t)
        chosen = accept(more.log_weight[0], bound, generator)
        cells = torch.cat([cells, more.x[0][chosen]])
    else:
        raise ValueError(
            f"growth is too uneven at t={float(t)}: {_MAX_POPULATIONS} populations of "
            f"{population.x.shape[1]} gave {len(cells)} of n={n} cells; make the ensemble larger"
        )
    return cells[:n], population.mass, population.mass_error
