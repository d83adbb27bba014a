"""The Lagrangians of action matching and Wasserstein Lagrangian flows: one table.

A curve of measures ``rho_t`` moves with velocity ``v = grad s`` and grows at rate
``g = growth_penalty * s``, both from one potential ``s(t, x)``. A Lagrangian enters the dual
objective through its Hamiltonian (Neklyudov et al., arXiv:2310.10649, table 1 and eq. 14), the
sample path through the energy that its paths minimise, and the rollout through its noise and its
growth. A new Lagrangian is one entry of ``LAGRANGIANS`` and one case in
``tests/contracts/test_lagrangians.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from sciflow.am.landscapes import DataDensity, MeanMotion, Metric, SmoothMean
from sciflow.am.scale import Scale
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots

Potential = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Lagrangian:
    """``L = g(x) |v|^2 / 2 + growth^2 / (2 growth_penalty) - U(t, x)``, with noise ``sigma dW``.

    Attributes:
        growth_penalty: lambda; growth costs the less the larger it is. Mass moves no farther than
            ``pi / sqrt(lambda)``: beyond, it is cheaper to vanish and to be born. In 1 / length^2;
            None conserves mass.
        sigma: noise of the motion, in length / sqrt(time); 0 for none.
        potential: ``U(t, x)`` for t (batch,) and x (batch, dim), giving (batch,), in units of
            length^2 / time^2 (energy per mass); None for none. A wall is a negative U.
        metric: factor ``g`` of the kinetic energy of single paths, which bends them to where it
            is small: ``DataDensity()``, or a function of x (batch, dim) giving (batch,); None for
            one. The velocity field is then the gradient field that moves
            the curve of densities so found.
        mean: ``SmoothMean()``, the uniform acceleration that makes the mean of the population
            move smoothly through all snapshots, ``U = - <a(t), x>``; None for none.

    Raises:
        ValueError: a number is out of range.
    """

    growth_penalty: float | None = None
    sigma: float = 0.0
    potential: Potential | None = None
    metric: Metric | None = None
    mean: SmoothMean | MeanMotion | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise ValueError(f"sigma must be a finite number, at least 0; got {self.sigma}")
        penalty = self.growth_penalty
        if penalty is not None and not (math.isfinite(penalty) and penalty > 0):
            raise ValueError(f"growth_penalty must be positive and finite, or None; got {penalty}")

    @property
    def bends(self) -> bool:
        """Whether its paths have no closed form, so that a network must find them."""
        return self.potential is not None or self.metric is not None

    def hamiltonian(
        self,
        t: Float[Tensor, "batch"],
        x: Float[Tensor, "batch dim"],
        s: Float[Tensor, "batch"],
        s_t: Float[Tensor, "batch"],
        velocity: Float[Tensor, "batch dim"],
        laplacian: Float[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """``d_t s + |grad s|^2/2 + lambda s^2/2 + sigma^2/2 laplace s + U``: zero at the optimum.

        Args:
            t: times.
            x: positions.
            s: potential at (t, x).
            s_t: its time derivative.
            velocity: its gradient.
            laplacian: its Laplacian; None leaves the noise out (the path's velocity holds it).
        """
        value = s_t + 0.5 * velocity.square().sum(-1)
        if self.growth_penalty is not None:
            value = value + 0.5 * self.growth_penalty * s.square()
        if laplacian is not None:
            value = value + 0.5 * self.sigma**2 * laplacian
        return value + self.energy(t, x)

    def energy(
        self, t: Float[Tensor, "batch"], x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch"]:
        """Potential energy ``U(t, x)`` of all terms."""
        value = x.new_zeros(len(x))
        if self.potential is not None:
            value = value + self.potential(t, x)
        if isinstance(self.mean, MeanMotion):
            value = value - (self.mean.acceleration(t) * x).sum(-1)
        return value

    def inside(self, scale: Scale, snapshots: Snapshots) -> Lagrangian:
        """The same Lagrangian in the units of a network, its parts fitted to what it may see.

        Args:
            scale: units of the data.
            snapshots: the visible snapshots, in the units of the network.
        """
        length, duration = scale.length, scale.duration
        penalty = self.growth_penalty
        return Lagrangian(
            growth_penalty=None if penalty is None else penalty * length**2,
            sigma=self.sigma * math.sqrt(duration) / length,
            potential=None if self.potential is None else _rescaled(self.potential, scale),
            metric=_inner_metric(self.metric, scale, snapshots),
            mean=self.mean.fitted(snapshots) if isinstance(self.mean, SmoothMean) else self.mean,
        )


def _of_the_user(t: Tensor, x: Tensor) -> Tensor:
    """Stands in the table where the user's own potential energy goes."""
    raise ValueError("this Lagrangian needs potential=U, a function U(t, x)")


LAGRANGIANS: dict[str, Lagrangian] = {
    "ot": Lagrangian(),
    "sb": Lagrangian(sigma=0.1),
    "uot": Lagrangian(growth_penalty=0.1),
    "sb+uot": Lagrangian(sigma=0.1, growth_penalty=0.1),
    "potential": Lagrangian(potential=_of_the_user),
    "obstacle": Lagrangian(potential=_of_the_user),
    "density": Lagrangian(metric=DataDensity()),
    "smooth-mean": Lagrangian(mean=SmoothMean()),
    "density+smooth-mean": Lagrangian(metric=DataDensity(), mean=SmoothMean()),
}


def find_lagrangian(
    lagrangian: str | Lagrangian,
    sigma: float | None = None,
    growth_penalty: float | None = None,
    potential: Potential | None = None,
) -> Lagrangian:
    """The Lagrangian of this name, or the one given, with these numbers in place of its own.

    Raises:
        ValueError: the table has no such name, a number is out of range, or it is one that this
            Lagrangian does not have.
    """
    name = lagrangian if isinstance(lagrangian, str) else "this Lagrangian"
    if isinstance(lagrangian, str):
        if lagrangian not in LAGRANGIANS:
            raise ValueError(
                f"lagrangian must be one of {sorted(LAGRANGIANS)} or a Lagrangian; "
                f"got {lagrangian!r}"
            )
        lagrangian = LAGRANGIANS[lagrangian]
        if lagrangian.potential is _of_the_user and potential is None:
            raise ValueError(f"lagrangian={name!r} needs potential=U, a function U(t, x)")
    given = {"sigma": sigma, "growth_penalty": growth_penalty}
    for field, value in given.items():
        if value is not None and not getattr(lagrangian, field):
            raise ValueError(f"{name} has no {field}; got {field}={value}")
    changes = {field: value for field, value in given.items() if value is not None}
    if potential is not None:
        changes["potential"] = potential  # type: ignore[assignment]
    return replace(lagrangian, **changes)  # type: ignore[arg-type]


def describe(lagrangian: Lagrangian) -> str:
    """Name in the table, or the terms it has."""
    for name, row in LAGRANGIANS.items():
        if row == lagrangian:
            return name
    terms = [f.name for f in fields(lagrangian) if getattr(lagrangian, f.name)]
    return " + ".join(terms) or "ot"


def _inner_metric(metric: Metric | None, scale: Scale, snapshots: Snapshots) -> Metric | None:
    if metric is None:
        return None
    if isinstance(metric, DataDensity):
        return metric.fitted(snapshots)
    return lambda x: metric(x.new_tensor(scale.center) + scale.length * x)


def _rescaled(potential: Potential, scale: Scale) -> Potential:
    """A potential energy of the user, for time and positions in the units of a network."""

    def inner(t: Tensor, x: Tensor) -> Tensor:
        center = x.new_tensor(scale.center)
        outer = potential(scale.start + scale.duration * t, center + scale.length * x)
        return outer * (scale.duration / scale.length) ** 2

    return inner
