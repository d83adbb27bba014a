"""Decays by the eddy-damped quasi-normal Markovian closure: any Reynolds number in no time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from sciflow.shapes import Float, Tensor
from sciflow.turbulence.edqnm_triads import triads
from sciflow.turbulence.navier_stokes import STRETCHING
from sciflow.turbulence.runs import DecayRun
from sciflow.turbulence.shell_grid import PER_OCTAVE, ShellGrid, ShellMoments
from sciflow.turbulence.spectra import Spectrum

logger = logging.getLogger(__name__)

#: Constant of the eddy damping; energy fluxes of own simulations at 64^3 and 96^3 give .42-.43.
DAMPING = 0.425

#: Values of tau at which a decay is recorded, closer where the start still acts.
LEVELS = torch.cat(
    [
        torch.tensor([0.0, 0.02, 0.05], dtype=torch.float64),
        0.1 + 0.05 * torch.arange(6, dtype=torch.float64),
        0.4 + 0.1 * torch.arange(37, dtype=torch.float64),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Closure:
    """One decay to be computed.

    Attributes:
        spectrum: E(kappa) at the start.
        nu: kinematic viscosity.
        box: side of the box: wavenumbers begin at 2 pi / box. (Confined spectra, simulated at
            64^3, end at C_eps2 of 1.35 to 1.45; so does this closure, where one that begins at
            half of that wavenumber has 1.54 to 1.58.)
        k_max: wavenumber at which the spectrum is cut; the dissipation that lies beyond is
            missing, as in a simulation of that resolution.
        gaussian: whether the start has no skewness yet, as random fields do not.
        name: of the run.
    """

    spectrum: Spectrum
    nu: float
    box: float = 2 * math.pi
    k_max: float = 21.0
    gaussian: bool = True
    name: str = ""

    @property
    def n_shells(self) -> int:
        """Shells between the box and the cut."""
        ratio = self.k_max / (2 * math.pi / self.box)
        return max(4, round(PER_OCTAVE * math.log2(ratio)))


def closure(
    cases: Sequence[Closure],
    levels: Float[Tensor, " levels"] = LEVELS,
    damping: float = DAMPING,
) -> list[DecayRun]:
    """Decays of the closure, many at a time.

    The energy u_i of shells of ratio 2^(1/4) obeys du_i/dt = sum_j c_ij (f_j - f_i) - 2 nu
    kappa_i^2 u_i with f = E / kappa^2 and c symmetric: exchange conserves the energy to rounding.
    Time steps are implicit in f (L-stable, second order), c is that of the middle of the step.

    Args:
        cases: decays to compute; those of about the same number of shells should come together.
        levels: increasing values of tau = ln(k_0 / k) of the records, from 0.
        damping: constant lambda of the eddy damping lambda sqrt(int kappa^2 E) + nu kappa^2.

    Returns:
        One run for each case, with everything that `simulate` gives.

    Raises:
        ValueError: no case, or a spectrum without energy.

    Source: Orszag, J. Fluid Mech. 41, 363 (1970); Lesieur, Turbulence in Fluids, chapter 7;
        Andre and Lesieur, J. Fluid Mech. 81, 187 (1977) for the damping.
    """
    if not cases:
        raise ValueError("cases must name at least one decay")
    shells = _Shells(cases, damping)
    u, t = shells.start, torch.zeros(len(cases), dtype=torch.float64)
    k0 = u.sum(0)
    rows: list[ShellMoments] = []
    dt = None
    while True:
        c = shells.exchange(u, t)
        rows.append(shells.moments(u, t, c))
        if float((k0 / rows[-1].k).log().min()) >= float(levels[-1]):
            break
        dt = shells.time_step(rows[-1], dt)
        middle = t + dt / 2
        u = shells.advance(u, dt, c, partial(shells.exchange, t=middle))
        t = t + dt
    return [_run(case, shells, rows, j, levels) for j, case in enumerate(cases)]


class _Shells(ShellGrid):
    """Shells and exchange of a batch of cases; arrays are (shells, cases)."""

    def __init__(self, cases: Sequence[Closure], damping: float) -> None:
        # The upper edge of the last shell is exactly k_max.
        super().__init__(
            torch.tensor([case.k_max for case in cases], dtype=torch.float64),
            torch.tensor([case.n_shells for case in cases]),
            torch.tensor([case.nu for case in cases], dtype=torch.float64),
        )
        self.damping = damping
        self.gaussian = torch.tensor([case.gaussian for case in cases])
        self.triads = triads(self.n)
        self.scale = self.first**6
        self.start = torch.stack(
            [
                case.spectrum(self.kappa[:, j]) * self.width[:, j] * self.mask[:, j]
                for j, case in enumerate(cases)
            ],
            1,
        )
        if not (torch.isfinite(self.start).all() and (self.start.sum(0) > 0).all()):
            raise ValueError("a spectrum is not finite, or has no energy below k_max")

    def exchange(self, u: Tensor, t: Tensor) -> Tensor:
        """The symmetric matrix c of each case, (N, N, B), with zero diagonal."""
        square = self.kappa**2 * u
        strain = self.damping * (square.cumsum(0) - square / 2).clamp_min(0).sqrt()
        rate = strain + self.nu * self.kappa**2
        i, j, l, weight = self.triads
        total = rate[i] + rate[j]
        total += rate[l]
        theta = 1 / total
        if self.gaussian.any():
            # Triple correlations of a Gaussian start build up with time.
            theta = torch.where(self.gaussian, -torch.expm1(-total * t) * theta, theta)
        theta *= (u / self.width)[l]
        theta *= weight[:, None]
        c = u.new_zeros(self.n * self.n, u.shape[1])
        c.index_add_(0, i * self.n + j, theta)
        c = c.view(self.n, self.n, -1) * (self.scale * self.mask[:, None] * self.mask)
        return c + c.transpose(0, 1)


def _run(
    case: Closure,
    shells: _Shells,
    rows: list[ShellMoments],
    j: int,
    levels: Float[Tensor, " levels"],
) -> DecayRun:
    """The record of case ``j`` at even steps of tau."""
    from scipy.interpolate import CubicHermiteSpline, CubicSpline, PchipInterpolator

    here = shells.here[:, j]
    t = torch.stack([row.t[j] for row in rows]).numpy()
    k = torch.stack([row.k[j] for row in rows])
    eps = torch.stack([row.eps[j] for row in rows])
    growth = torch.stack([row.production[j] for row in rows])
    palinstrophy = torch.stack([row.palinstrophy[j] for row in rows])
    u = torch.stack([row.u[here, j] for row in rows])
    kappa, width = shells.kappa[here, j], shells.width[here, j]
    skewness = growth / (STRETCHING * eps**1.5 * case.nu**-0.5)
    E = u / width
    scale = (3 * math.pi / 4) * (u / kappa).sum(1) / k
    fallen = (k[0] / k).log().numpy()
    lost = CubicSpline(t, eps.numpy()).antiderivative()(t)
    gap = (k[0] - k).numpy() - lost
    balance = float(np.abs(gap[1:] / np.maximum(lost[1:], 0.05 * float(k[0]))).max())
    at = CubicHermiteSpline(fallen, t, (k / eps).numpy())(levels.numpy())

    def moved(value: Tensor) -> Tensor:
        return torch.from_numpy(CubicSpline(t, value.numpy())(at))

    # Without overshoot: a shell that fills at the start rises by hundreds of decades.
    steep = PchipInterpolator(t, E.clamp_min(1e-300).log().numpy())
    return DecayRun(
        t=torch.from_numpy(at),
        k=k[0] * torch.exp(-levels),
        eps=moved(eps.log()).exp(),
        nu=case.nu,
        skewness=moved(skewness),
        palinstrophy=moved(palinstrophy.log()).exp(),
        integral_scale=moved(scale),
        kappa=kappa,
        spectrum=torch.from_numpy(np.exp(steep(at))),
        box=case.box,
        k_max=case.k_max,
        name=case.name,
        source="closure",
        balance=balance,
    )
