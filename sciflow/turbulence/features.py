"""What the networks see of a decay at one time: numbers without units, by kind of knowledge."""

from __future__ import annotations

import math

import numpy as np
import torch

from sciflow.shapes import Float, Tensor
from sciflow.turbulence.navier_stokes import STRETCHING

#: Kinds of knowledge of the start besides k, eps and nu, and how many numbers tell it.
_ENERGY_LEVELS = (0.02, 0.08, 0.2, 0.35, 0.5, 0.65, 0.8, 0.93)
_DISSIPATION_LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
#: Points of a history, evenly spaced in the fall of ln k.
_POINTS = 5

# Of `surroundings`, row by row: the limits beyond which they do not matter, centre and width.
_LIMITS = torch.tensor(
    [[-5.0, -3.0, -1.6], [20.0, 1.5, 1.3], [5.0, -0.75, 0.0], [3.0, 1.5, 1.0]],
    dtype=torch.float64,
)

ENCODERS: dict[str, int] = {
    "bare": 0,
    "skewness": 3,
    "spectrum": len(_ENERGY_LEVELS) + len(_DISSIPATION_LEVELS),
    "both": 3 + len(_ENERGY_LEVELS) + len(_DISSIPATION_LEVELS),
    "history": 1 + 2 * _POINTS,
}


def surroundings(
    k: Float[Tensor, "*batch"],
    eps: Float[Tensor, "*batch"],
    nu: Float[Tensor, "*batch"],
    box: Float[Tensor, "*batch"] | None,
    k_max: Float[Tensor, "*batch"] | None,
) -> Float[Tensor, "*batch 3"]:
    """Logarithms of Re_T, 2 pi / box k^1.5 / eps, and k_max eta, which move with the decay.

    No box counts as one without end, no ``k_max`` as scales that are all resolved.
    """
    reynolds = (k**2 / (nu * eps)).log()
    confined = torch.full_like(reynolds, -20.0)
    if box is not None:
        confined = (2 * math.pi / box * k**1.5 / eps).log()
    cut = torch.full_like(reynolds, 20.0)
    if k_max is not None:
        cut = (k_max * (nu**3 / eps) ** 0.25).log()
    return torch.stack([reynolds, confined, cut], -1)


def scaled(x: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """`surroundings` as a network sees them: of order one, flat where they do not matter."""
    low, high, center, width = _LIMITS.to(x)
    return (x.clamp(low, high) - center) / width


def of_skewness(
    k: Float[Tensor, " batch"],
    eps: Float[Tensor, " batch"],
    nu: Float[Tensor, " batch"],
    skewness: Float[Tensor, " batch"],
    palinstrophy: Float[Tensor, " batch"],
) -> Float[Tensor, "batch 3"]:
    """The slope of ln eps that vortex stretching and viscosity give, and their parts.

    -d ln eps / d tau = G - 7 / (3 sqrt 15) S sqrt(Re_T) with G = 4 nu^2 P k / eps^2, P the
    palinstrophy sum kappa^4 E.

    Source: Batchelor, The Theory of Homogeneous Turbulence (1953), equation 5.5.11 with 6.1.
    """
    reynolds = k**2 / (nu * eps)
    G = 4 * nu**2 * palinstrophy * k / eps**2
    slope = G - STRETCHING * skewness * reynolds.sqrt()
    size = (G / reynolds.sqrt()).clamp_min(1e-6).log()
    return torch.stack([torch.asinh(slope) / 1.5, size + 0.5, 4 * skewness - 1.5], -1)


def of_spectrum(
    k: Float[Tensor, " batch"],
    eps: Float[Tensor, " batch"],
    nu: Float[Tensor, " batch"],
    kappa: Float[Tensor, " shells"],
    spectrum: Float[Tensor, "batch shells"],
) -> Float[Tensor, "batch levels"]:
    """Wavenumbers below which given parts of the energy, and of the dissipation, lie.

    As ln(kappa k^1.5 / eps) and ln(kappa eta), about their usual values.
    """
    energy = _quantiles(kappa, spectrum, _ENERGY_LEVELS)
    loss = _quantiles(kappa, spectrum * kappa**2, _DISSIPATION_LEVELS)
    large = energy + (k**1.5 / eps).log()[:, None]
    small = loss + 0.25 * (nu**3 / eps).log()[:, None]
    return torch.cat([(large - 1.5) / 1.5, small + 1.5], 1)


def complete_spectrum(
    kappa: Float[Tensor, " shells"],
    spectrum: Float[Tensor, "batch shells"],
    eps: Float[Tensor, " batch"],
    nu: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, " more"], Float[Tensor, "batch more"]]:
    """A spectrum continued into the dissipation range where it misses dissipation.

    Beyond its last wavenumber E falls as kappa^(-5/3) exp(-beta eta kappa), with the beta between
    1 and 8 that makes 2 nu int kappa^2 E as near to ``eps`` as it can be. In turbulence beta is
    about 5 (Pope, Turbulent Flows, section 6.5.3).
    """
    eta = (nu**3 / eps) ** 0.25
    end = max(float(kappa[-1]) * 1.1, float((6.0 / eta).max()))
    tail = torch.logspace(0, math.log10(end / float(kappa[-1])), 25, dtype=torch.float64)[1:]
    more = kappa[-1] * tail
    long = torch.cat([kappa, more])
    have = 2 * nu * torch.trapezoid(kappa**2 * spectrum, kappa)
    slow, fast = torch.ones_like(eps), torch.full_like(eps, 8.0)

    def continued(beta: Tensor) -> Tensor:
        fall = torch.exp(-(beta * eta)[:, None] * (more - kappa[-1]))
        return torch.cat([spectrum, spectrum[:, -1:] * tail ** (-5 / 3) * fall], 1)

    for _ in range(40):
        middle = (slow + fast) / 2
        E = continued(middle)
        much = 2 * nu * torch.trapezoid(long**2 * E, long) > eps
        slow, fast = torch.where(much, middle, slow), torch.where(much, fast, middle)
    E = continued((slow + fast) / 2)
    # What lacks nothing stays as it came.
    lacks = (have < 0.98 * eps)[:, None]
    plain = torch.cat([spectrum, torch.zeros_like(E[:, len(kappa) :])], 1)
    return long, torch.where(lacks, E, plain)


def _quantiles(kappa: Tensor, density: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Places ln kappa at which the running integral of ``density`` reaches parts of the whole."""
    x = kappa.log()
    # Trapezoids over kappa; what lies below the first wavenumber is a triangle from zero.
    slabs = (density[:, 1:] + density[:, :-1]) / 2 * kappa.diff()
    first = density[:, :1] * kappa[0] / 2
    running = torch.cat([first, first + slabs.cumsum(1)], 1)
    share = running / running[:, -1:].clamp_min(1e-300)
    wanted = torch.tensor(levels, dtype=share.dtype).expand(len(share), -1).contiguous()
    i = torch.searchsorted(share.contiguous(), wanted).clamp(1, len(kappa) - 1)
    low, high = share.gather(1, i - 1), share.gather(1, i)
    part = ((wanted - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0)
    return x[i - 1] + part * (x[i] - x[i - 1])


def of_history(
    k: Float[Tensor, "batch points"], eps: Float[Tensor, "batch points"]
) -> Float[Tensor, "batch numbers"]:
    """A window that ends at the start: its length in tau, ln eps along it, and its slopes.

    The points are evenly spaced in ln k, the last of them is the start.
    """
    length = (k[:, 0] / k[:, -1]).log()
    rise = (eps[:, :-1] / eps[:, -1:]).log()
    points = k.shape[1] - 1
    slopes = eps.log().diff(dim=1) / (length / points)[:, None]
    return torch.cat([length[:, None], rise, torch.asinh(slopes) / 1.5], 1)


def history_window(
    k: Float[Tensor, " time"], eps: Float[Tensor, " time"], i: int, length: float
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Energies and dissipations of a history of ``length`` in tau that ends at row ``i``."""
    tau = (k[0] / k[: i + 1]).log().numpy()
    grid = np.linspace(max(0.0, tau[-1] - length), tau[-1], _POINTS + 1)
    # Straight lines, as a record of a few points does not bear more.
    at = np.interp(grid, tau, eps[: i + 1].log().numpy())
    return k[0] * torch.exp(-torch.from_numpy(grid)), torch.from_numpy(np.exp(at))
