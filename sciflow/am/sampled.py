"""Action matching from any sampler of a moving density ``q_t``: a simulation, a closed form.

Where snapshots are all there is, a path between them has to be chosen first. A sampler needs none:
this is action matching as it was published (Neklyudov et al., arXiv:2210.06662, algorithms 1, 3
and 4), and what it finds is the one flow of its kind, of least action, that moves ``q_t``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch

from sciflow.am.action import measure_action
from sciflow.am.lagrangians import Lagrangian, find_lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.objective import ActionMatching, TimeWeight
from sciflow.am.path import ConditionalPath, PathPoint
from sciflow.am.recipe import KINDS, FitOptions
from sciflow.am.scale import Scale
from sciflow.am.source import PathBatch
from sciflow.am.times import Times
from sciflow.errors import DataError
from sciflow.shapes import Float, Tensor

Sampler = Callable[[Tensor, torch.Generator], Tensor]
Mass = Callable[[Tensor], Tensor]

# Draws over all times that the units of the network are taken from.
_DRAWS = 4096


def fit_sampler(
    sample: Sampler,
    start: float,
    end: float,
    kind: Literal[
        "deterministic", "entropic", "unbalanced", "entropic+unbalanced"
    ] = "deterministic",
    *,
    mass: Mass | None = None,
    weight: TimeWeight | None = None,
    **options: Any,
) -> ActionPotential:
    """Fit the flow of a density that can be sampled at any time.

    Args:
        sample: ``sample(t, generator)`` draws one point at each of the times t (n,), float64 in
            the user's unit, giving (n, d). Draws at different times need not be related; where a
            generator in the same state gives points that move smoothly in time, the loss varies
            less.
        start: first time.
        end: last time, later.
        kind: which flow moves the density: with noise, with growth, with both or neither.
        mass: total mass at times (n,), giving (n,), positive; None for one. Counts where the flow
            may grow.
        weight: weight w of the times, scaled to [0, 1]: (n,) to (n,), differentiable. The loss
            at time t counts by w(t); where w is zero at an end, no samples of that end are
            compared, so that a density which degenerates there does no harm. None weighs evenly.
        options: fields of ``FitOptions`` but those of snapshots (coupling, pool, estimator).

    Returns:
        The fitted potential, with ``history`` and ``action()`` measured (of the weighted loss,
        where times are weighted).

    Raises:
        ValueError: the times are not in order, another kind, or an option out of range.
        DataError: the sampler gives another shape than (n, d), or values that are not finite.

    Example:
        >>> import torch
        >>> from sciflow import am
        >>> def ring(t, generator):
        ...     angle = t + 0.1 * torch.randn(len(t), generator=generator)
        ...     return torch.stack([angle.cos(), angle.sin()], 1)
        >>> model = am.fit_sampler(ring, 0.0, 1.0, steps=20, progress=False)
        >>> model.velocity(0.5, torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """
    if not start < end < float("inf"):
        raise ValueError(f"start must lie before end, both finite; got {start} and {end}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}; got {kind!r}")
    for name in ("coupling", "pool", "estimator"):
        if name in options:
            raise ValueError(f"{name} belongs to snapshots, which are coupled; there are none")
    settings = FitOptions(**options)
    row = find_lagrangian(KINDS[kind], settings.sigma, settings.growth_penalty)
    if mass is not None and row.growth_penalty is None:
        raise ValueError(f"a flow of kind {kind!r} conserves mass: take an unbalanced one")
    if settings.time_sampling not in ("even", "adaptive"):
        raise ValueError(
            f"time_sampling must be 'even' or 'adaptive'; got {settings.time_sampling!r}"
        )
    generator = torch.Generator().manual_seed(settings.seed)
    scale = _scale(sample, start, end, generator)
    source = SampledDensity(sample, scale, mass, Times(settings.time_sampling == "adaptive"))
    model = ActionPotential(
        scale, settings.width, settings.depth, generator, row.sigma, row.growth_penalty
    )
    objective = ActionMatching(
        model,
        _inside(row, scale),
        AsDrawn(),
        "dual",
        weight,
        source.times,
    )
    result = settings.trainer().fit(objective, source, resume=settings.resume)
    fitted = result.model
    assert isinstance(fitted, ActionPotential)
    fitted.history, fitted.interrupted = result.history, result.interrupted
    fitted.measured_action = measure_action(fitted, objective, source)
    return fitted


class AsDrawn(ConditionalPath):
    """The path of sampled densities: points as they were drawn, of unknown velocity."""

    def __init__(self) -> None:
        super().__init__(Lagrangian())

    def forward(self, batch: PathBatch) -> PathPoint:
        """The points of a batch with their mass."""
        x, mass = batch.left, batch.mass_left
        return PathPoint(x, torch.zeros_like(x), mass, torch.zeros_like(mass))


class SampledDensity:
    """Source of draws of a moving density at low-discrepancy times.

    The draws at the time itself, at the first and at the last start from the same state of the
    generator: their differences vary less, and each is distributed as it should be.

    Args:
        sample: see ``fit_sampler``.
        scale: units of the network.
        mass: see ``fit_sampler``; in the batches relative to that at the start.
        times: how times are drawn.
    """

    device = torch.device("cpu")

    def __init__(self, sample: Sampler, scale: Scale, mass: Mass | None, times: Times) -> None:
        self.draw, self.scale, self.times, self._mass = sample, scale, times, mass
        self._to: tuple[torch.device, torch.dtype] = (self.device, torch.float64)
        self.mass_first = 1.0

    @property
    def first(self) -> Float[Tensor, "n dim"]:
        """Draws at the first time."""
        generator = torch.Generator().manual_seed(2**31 + 1)
        return self._inside(torch.zeros(_DRAWS, dtype=torch.float64), generator)

    def placed(self, device: torch.device, dtype: torch.dtype) -> SampledDensity:
        """The same source with batches on a device, in ``dtype``."""
        other = copy.copy(self)
        other._to = (device, dtype)
        return other

    def state_dict(self) -> dict[str, Any]:
        """What the drawing of times has learned."""
        return self.times.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on drawing times as ``state_dict`` saw it."""
        self.times.load_state_dict(state)

    def sample(self, n: int, generator: torch.Generator) -> PathBatch:
        """Draw ``n`` points, each its own partner, and as many at both ends."""
        t, density = self.times.draw(n, torch.rand(1, generator=generator, dtype=torch.float64))
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        state = generator.get_state()
        points = []
        for when in (zero, one, t):
            generator.set_state(state)
            points.append(self._inside(when, generator))
        masses = [self._relative_mass(when) for when in (zero, one, t)]
        batch = PathBatch(
            t=t,
            density=density,
            t_left=t,
            t_right=t,
            left=points[2],
            right=points[2],
            mass_left=masses[2],
            mass_right=masses[2],
            noise=torch.zeros_like(points[2]),
            first=points[0],
            last=points[1],
            mass_first=masses[0],
            mass_last=masses[1],
        )
        return PathBatch(*(column.to(*self._to) for column in batch))

    def _inside(self, t: Tensor, generator: torch.Generator) -> Tensor:
        """Draws at times in [0, 1], in the units of the network."""
        scale = self.scale
        x = self.draw(scale.start + scale.duration * t, generator)
        if x.shape != (len(t), scale.dim):
            raise DataError(
                f"sample must give shape {(len(t), scale.dim)} for {len(t)} times; got "
                f"{tuple(x.shape)}"
            )
        if not bool(torch.isfinite(x).all()):
            raise DataError("sample gave values that are not finite")
        center = torch.tensor(scale.center, dtype=torch.float64)
        return (x.detach().to(self.device, torch.float64) - center) / scale.length

    def _relative_mass(self, t: Tensor) -> Tensor:
        if self._mass is None:
            return torch.ones_like(t)
        scale = self.scale
        mass = self._mass(
            torch.cat([t.new_tensor([scale.start]), scale.start + scale.duration * t])
        )
        if mass.shape != (len(t) + 1,) or not bool(((mass > 0) & torch.isfinite(mass)).all()):
            raise DataError("mass must give one positive finite number for each time")
        return mass[1:] / mass[0]


def _inside(row: Lagrangian, scale: Scale) -> Lagrangian:
    """Noise and growth in the units of the network."""
    penalty = row.growth_penalty
    return Lagrangian(
        growth_penalty=None if penalty is None else penalty * scale.length**2,
        sigma=row.sigma * scale.duration**0.5 / scale.length,
    )


def _scale(sample: Sampler, start: float, end: float, generator: torch.Generator) -> Scale:
    """Units in which draws over all times have mean zero and unit mean variance."""
    u = torch.rand(_DRAWS, generator=generator, dtype=torch.float64)
    x = sample(start + (end - start) * u, generator)
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) != _DRAWS:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"sample must give shape ({_DRAWS}, d) for {_DRAWS} times; got {got}")
    x = x.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(x).all()):
        raise DataError("sample gave values that are not finite")
    center = x.mean(0)
    length = float((x - center).square().mean().sqrt())
    if length == 0.0:
        raise DataError("all draws are the same point: there is nothing to move")
    return Scale(tuple(center.tolist()), length, start, end - start)
