"""Where a fit starts: normal modes of a Hessian or of samples, and the layers around them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from sciflow.nct.latent import Latent
from sciflow.nct.layers import (
    AffineCoupling,
    CanonicalLayer,
    Leapfrog,
    Linear,
    Reorder,
    Scale,
    SplineCoupling,
    SplineMap,
    Unrolled,
)
from sciflow.shapes import Float, Tensor

#: Least curvature that a start takes, as a share of the largest.
LEAST_CURVATURE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Which layers stand between the chart and the oscillators."""

    coupling: Literal["spline", "affine"] = "spline"
    """Kind of the couplings of coordinates that are no angles."""
    couplings: int = 4
    """Number of those couplings; 0 leaves the linear map and single-coordinate splines."""
    space: Literal["sites", "modes"] = "sites"
    """What the couplings act on: the scaled coordinates themselves ("sites": local interactions
    in given coordinates) or their normal modes ("modes": correlated coordinates of molecules)."""
    torsion_first: bool = False
    """Whether the couplings of angles see other angles alone, so that what an angle becomes does
    not depend on stiff coordinates; those depend on the angles all the same."""
    splines: bool = True
    """Whether each coordinate has a spline of its own too."""
    width: int = 64
    """Width of the hidden layers."""
    depth: int = 2
    """Number of hidden layers."""
    bins: int = 8
    """Bins of a coupling's splines; splines of single coordinates have twice as many."""
    bound: float = 5.0
    """Splines on the line cover so many standard deviations of the best Gaussian to either side,
    and go on straight beyond: more for a long tail, such as that of ln r near r = 0."""
    harmonics: int = 2
    """Multiples of an angle that the networks see."""
    shears: int = 0
    """Learned kicks and drifts in phase space next to the oscillators; for strict fits without
    angles, whose momenta then need not be linear in those of the system."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("coupling", self.coupling, ("spline", "affine")),
            ("space", self.space, ("sites", "modes")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        for name, number in (("couplings", self.couplings), ("shears", self.shears)):
            if number < 0:
                raise ValueError(f"{name} must not be negative; got {number}")
        if not (math.isfinite(self.bound) and self.bound > 0):
            raise ValueError(f"bound must be positive and finite; got {self.bound}")


class Modes(NamedTuple):
    """Normal modes of the coordinates without a period, q = center + basis Q.

    Attributes:
        center: (m,) where they are zero.
        basis: (m, m) a mode in each column, of unit reduced mass.
        omega: (m,) angular frequencies.
    """

    center: Float[Tensor, " dim"]
    basis: Float[Tensor, "dim dim"]
    omega: Float[Tensor, " dim"]

    def spread(self, kT: float) -> Float[Tensor, " dim"]:
        """Thermal standard deviation of each coordinate."""
        return (self.basis * (math.sqrt(kT) / self.omega)).square().sum(1).sqrt()


def hessian_modes(
    energy: Callable[[Tensor], Tensor],
    start: Float[Tensor, " dim"],
    metric: Callable[[Tensor], Tensor],
    line: Float[Tensor, " m"] | Tensor,
) -> tuple[Float[Tensor, " dim"], Modes]:
    """Nearest minimum of an energy, and the normal modes there.

    Args:
        energy: of (1, n) coordinates, shape (1,).
        start: (n,) where the search begins.
        metric: inverse mass metric (1, n, n) at (1, n) coordinates.
        line: indices of the coordinates without a period, of which the modes are.

    Returns:
        The minimum (n,), and the modes. A direction of negative curvature gets a frequency from
        its size, one of none a low one: it is a start, which the fit improves.

    Raises:
        ValueError: the energy is not finite, or has no minimum that the search finds.
    """
    x = start.detach().clone()[None].requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = energy(x).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    x = x.detach()
    if not bool(torch.isfinite(x).all()) or not bool(torch.isfinite(energy(x)).all()):
        raise ValueError(
            f"no minimum of the potential was found from start = {start.tolist()}: give another"
        )
    full = torch.autograd.functional.hessian(lambda y: energy(y[None])[0], x[0]).detach()
    curvature = full[line][:, line]
    factor = torch.linalg.cholesky(metric(x)[0][line][:, line].detach())
    values, vectors = torch.linalg.eigh(factor.T @ curvature @ factor)
    values = values.abs().clamp(min=float(values.abs().max()) * LEAST_CURVATURE)
    return x[0], Modes(x[0, line], factor @ vectors, values.sqrt())


def sample_modes(x: Float[Tensor, "n m"], metric: Float[Tensor, "m m"], kT: float) -> Modes:
    """Quasi-harmonic modes: those whose thermal covariance is that of samples.

    Args:
        x: (N, m) samples of the coordinates without a period.
        metric: (m, m) mean inverse mass metric.
        kT: thermal energy.

    Raises:
        ValueError: a combination of the coordinates does not vary.
    """
    center = x.mean(0)
    covariance = (x - center).T @ (x - center) / len(x)
    factor = torch.linalg.cholesky(metric)
    inside = torch.linalg.solve(factor, torch.linalg.solve(factor, covariance).T)
    values, vectors = torch.linalg.eigh(inside)
    if not float(values[0]) > 1e-12 * float(values[-1]):
        raise ValueError(
            f"the samples do not vary in some direction of their {len(values)} coordinates "
            f"(least and largest variance {float(values[0]):.3g}, {float(values[-1]):.3g}): take "
            "more of them, or a chart without that direction"
        )
    order = values.argsort(descending=True)
    return Modes(center, factor @ vectors[:, order], (kT / values[order]).sqrt())


def build_layers(
    periods: Sequence[float],
    modes: Modes,
    kT: float,
    shape: Architecture,
    unroll: bool,
    generator: torch.Generator,
) -> tuple[list[CanonicalLayer], Latent]:
    """Layers whose start is the linear map to ``modes``, and the latent system of that start.

    Args:
        periods: of the chart's coordinates.
        modes: of those without a period.
        kT: thermal energy.
        shape: which layers.
        unroll: whether angles are opened at their cut and become oscillators.
        generator: source of the initial weights.
    """
    n = len(periods)
    line = [i for i, period in enumerate(periods) if math.isinf(period)]
    angles = [i for i in range(n) if i not in line]
    net: dict[str, Any] = {
        "width": shape.width,
        "depth": shape.depth,
        "harmonics": shape.harmonics,
    }
    spline: dict[str, Any] = {
        "n_bins": shape.bins,
        "bound": shape.bound,
        "generator": generator,
    }
    layers: list[CanonicalLayer] = []
    rest = torch.eye(len(line), dtype=modes.basis.dtype)
    if line:
        spread = modes.spread(kT)
        scale = Scale(n, line).double()
        scale.set_units(modes.center, spread)
        layers.append(scale)
        rest = modes.basis / spread[:, None]
        if shape.splines and shape.space == "sites":
            layers.append(SplineMap(line, n_bins=2 * shape.bins, bound=shape.bound))
        if angles:
            layers.append(AffineCoupling(periods, line, angles, **net, generator=generator))
        if shape.space == "modes":
            whiten, unit = Linear(n, line).double(), math.sqrt(kT) / modes.omega
            whiten.set_modes(torch.zeros_like(modes.center), rest * unit)
            layers.append(whiten)
            rest = torch.diag(1 / unit)
            if shape.splines:
                layers.append(SplineMap(line, n_bins=2 * shape.bins, bound=shape.bound))
    for i in range(shape.couplings):
        moved = line[i % 2 :: 2]
        if not moved or len(moved) == n:
            continue
        if shape.coupling == "affine":
            layers.append(AffineCoupling(periods, moved, **net, generator=generator))
        else:
            layers.append(SplineCoupling(periods, moved, **net, **spline))
    for period in sorted({periods[i] for i in angles}):
        alike = [i for i in angles if periods[i] == period]
        layers.append(SplineMap(alike, period, n_bins=2 * shape.bins))
        # Of two angles it is enough to move one, given the other, which stays its own function.
        for i in range(min(shape.couplings, 2, max(1, len(alike) - 1))):
            moved = alike[i::2]
            given = [k for k in angles if k not in moved] if shape.torsion_first else None
            if moved and len(moved) < n and given != []:
                layers.append(SplineCoupling(periods, moved, given, **net, **spline))
    latent = list(periods)
    order = line
    if unroll:
        for period in sorted({periods[i] for i in angles}):
            layers.append(Unrolled([i for i in angles if periods[i] == period], period))
        latent, order = [math.inf] * n, list(range(n))
    elif angles:
        # rotors, whose frequency is zero, come before the oscillators
        layers.append(Reorder([*angles, *line]))
        latent = [periods[i] for i in (*angles, *line)]
    oscillators = [i for i, period in enumerate(latent) if math.isinf(period)]
    if shape.shears:
        if len(oscillators) < n:
            raise ValueError("shears are for oscillators alone; this system has a rotor")
        layers.append(Leapfrog(n, shape.shears, shape.width, shape.depth, generator))
    if oscillators:
        basis = torch.eye(len(oscillators), dtype=modes.basis.dtype)
        places = torch.tensor([order.index(i) for i in line], dtype=torch.long)
        basis[places[:, None], places] = rest
        last = Linear(n, oscillators).double()
        last.set_modes(torch.zeros(len(oscillators), dtype=basis.dtype), basis)
        layers.append(last)
        omega = torch.full((len(oscillators),), math.sqrt(kT), dtype=basis.dtype)
        omega[places] = modes.omega
    else:
        omega = modes.omega
    system = Latent(latent, kT).double()
    with torch.no_grad():
        system.log_omega.copy_(omega.log())
    return layers, system


@torch.no_grad()
def start_circles(layers: Sequence[CanonicalLayer], xi: Float[Tensor, "n dim"]) -> None:
    """Start the splines of angles from the distributions of samples ``xi`` on their circles."""
    for layer in layers:
        if isinstance(layer, SplineMap) and layer.circular:
            for row, i in enumerate(layer.columns.index.tolist()):
                layer.set_distribution(row, xi[:, i])
