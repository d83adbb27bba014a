"""From spectra as they were measured to the energies of shells."""

from __future__ import annotations

import math

import torch

from sciflow.errors import DataError
from sciflow.shapes import Bool, Float, Tensor
from sciflow.turbulence.shell_grid import PER_OCTAVE, RATIO, ShellGrid

# Kolmogorov lengths per wavenumber of the last shell where nothing else cuts the spectrum.
_RESOLVED = 3.0
# Part of its maximum below which a spectrum is not told from 0.
_FLOOR = 1e-28
# Part of the given k or eps below which a spectrum does not hold it; bins of low wavenumbers are
# coarse, and a measured tail may be missing.
_FAR = 0.67
# Largest power of kappa by which a spectrum is bent to its k and eps.
_TILT = 0.6


def grid_of(
    lowest: float, nu: Float[Tensor, ""], box: Float[Tensor, ""] | None, k_max: float
) -> ShellGrid:
    """Shells of one decay up to ``k_max``: from the wavenumber of the box, or ``lowest``.

    Raises:
        DataError: there is no room for four shells.
    """
    bottom = lowest / RATIO**0.5 if box is None else 2 * math.pi / float(box)
    size = round(PER_OCTAVE * math.log2(k_max / bottom))
    if size < 4:
        raise DataError(f"k_max = {k_max:g} leaves no room for shells above {bottom:g}")
    top = torch.tensor([k_max], dtype=torch.float64, device=nu.device)
    return ShellGrid(top, torch.tensor([size], device=nu.device), nu[None])


def resolved_grid(
    kappa: Float[Tensor, " shells"],
    E: Float[Tensor, " shells"],
    nu: Float[Tensor, ""],
    box: Float[Tensor, ""] | None,
) -> ShellGrid:
    """Shells of one decay that hold all the dissipation of a spectrum, also when it has grown."""
    k = torch.trapezoid(E, kappa)
    mean = torch.trapezoid(kappa * E, kappa) / k
    # What the large scales can feed: k^1.5 / L, with L about 1 / kappa.
    rate = torch.maximum(2 * nu * torch.trapezoid(kappa**2 * E, kappa), 0.3 * k**1.5 * mean)
    top = max(float(kappa[-1]) * RATIO**0.5, _RESOLVED * float((rate / nu**3) ** 0.25))
    return grid_of(float(kappa[0]), nu, box, top)


def shell_energies(
    grid: ShellGrid, kappa: Float[Tensor, " given"], E: Float[Tensor, "*rows given"]
) -> Float[Tensor, "*rows shells"]:
    """E between its wavenumbers as a power law, times the widths of the shells of one decay.

    Below the first wavenumber goes the power law of the first two, of 0 to 4; beyond the last an
    exponential in kappa with the slope of the last octave.
    """
    log_E = (E + _FLOOR * E.detach().amax(-1, keepdim=True)).log()
    x, at = kappa.log(), grid.kappa[:, 0].log()
    i = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    part = ((at - x[i - 1]) / (x[i] - x[i - 1])).clamp(0.0, 1.0)
    out = log_E[..., i - 1] + part * (log_E[..., i] - log_E[..., i - 1])
    first = ((log_E[..., 1] - log_E[..., 0]) / (x[1] - x[0])).clamp(0.0, 4.0)
    out = out + first[..., None] * (at - x[0]).clamp_max(0.0)
    j = min(int(torch.searchsorted(kappa, kappa[-1] / 2)), len(kappa) - 2)
    fall = ((log_E[..., -1] - log_E[..., j]) / (kappa[-1] - kappa[j])).clamp_max(0.0)
    beyond = (grid.kappa[:, 0] - kappa[-1]).clamp_min(0.0)
    return (out + fall[..., None] * beyond).exp() * grid.width[:, 0]


def held(
    grid: ShellGrid,
    u: Float[Tensor, "*rows shells"],
    k: Float[Tensor, "*rows"] | None,
    eps: Float[Tensor, "*rows"] | None,
) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """Energy and dissipation of the shells in units of those given; 1 where there are none."""
    sum_k = u.sum(-1)
    rate = 2 * grid.nu[0] * (grid.kappa[:, 0] ** 2 * u).sum(-1)
    one = torch.ones_like(sum_k)
    return (one if k is None else sum_k / k), (one if eps is None else rate / eps)


def belongs(ratio: Float[Tensor, "*rows"]) -> Bool[Tensor, "*rows"]:
    """Whether the shells and a given value can be of the same spectrum."""
    return (ratio > _FAR) & (ratio < 1 / _FAR)


def tilted(
    grid: ShellGrid,
    u: Float[Tensor, "*rows shells"],
    k: Float[Tensor, "*rows"] | None,
    eps: Float[Tensor, "*rows"] | None,
) -> Float[Tensor, "*rows shells"]:
    """Energies times a kappa^b, with a and b such that they have the energy and dissipation.

    Shells and the bins of a simulation hold a spectrum a little differently: b is small.

    Raises:
        DataError: k or eps do not belong to the spectrum.
    """
    kappa = grid.kappa[:, 0]
    log, sum_k = kappa.log(), u.sum(-1)
    for name, ratio in zip(("k0", "eps0"), held(grid, u, k, eps), strict=True):
        if not bool(belongs(ratio).all()):
            worst = float(ratio[~belongs(ratio)].reshape(-1)[0])
            raise DataError(
                f"spectrum: it holds {worst:.2f} times {name}; are they in the same units, and E "
                "per wavenumber?"
            )
    energy = sum_k if k is None else k
    if eps is not None:
        wanted = (eps / (2 * grid.nu[0] * energy)).log()
        b = torch.zeros_like(wanted)
        for _ in range(30):
            v = u * (b[..., None] * log).exp()
            low, high = v.sum(-1), (kappa**2 * v).sum(-1)
            slope = (kappa**2 * v * log).sum(-1) / high - (v * log).sum(-1) / low
            b = b - ((high / low).log() - wanted) / slope
        if not (b.abs() < _TILT).all():
            raise DataError("spectrum: k0 and eps0 do not both belong to it")
        u = u * (b[..., None] * log).exp()
    return u * (energy / u.sum(-1))[..., None]
