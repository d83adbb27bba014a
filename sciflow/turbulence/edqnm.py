"""Decays by the eddy-damped quasi-normal Markovian closure: any Reynolds number in no time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sciflow.shapes import Float, Tensor
from sciflow.turbulence.edqnm_triads import PER_OCTAVE, triads
from sciflow.turbulence.navier_stokes import STRETCHING
from sciflow.turbulence.runs import DecayRun
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

_RATIO = 2 ** (1 / PER_OCTAVE)


@dataclass(frozen=True, kw_only=True)
class Closure:
    """One decay to be computed.

    Attributes:
        spectrum: E(kappa) at the start.
        nu: kinematic viscosity.
        box: side of the box: wavenumbers begin at half of 2 pi / box.
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
        ratio = self.k_max / (math.pi / self.box)
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
    rows: list[_Row] = []
    dt = None
    while True:
        c = shells.exchange(u, t)
        rows.append(shells.moments(u, t, c))
        if float((k0 / rows[-1].k).log().min()) >= float(levels[-1]):
            break
        dt = shells.time_step(rows[-1], dt)
        u = shells.advance(u, t, dt, c)
        t = t + dt
    return [_run(case, shells, rows, j, levels) for j, case in enumerate(cases)]


@dataclass(frozen=True)
class _Row:
    """Statistics of all cases at one step; shapes (B,), the spectrum (N, B)."""

    t: Tensor
    k: Tensor
    eps: Tensor
    palinstrophy: Tensor
    production: Tensor
    u: Tensor


class _Shells:
    """Shells and exchange of a batch of cases; arrays are (shells, cases)."""

    def __init__(self, cases: Sequence[Closure], damping: float) -> None:
        sizes = torch.tensor([case.n_shells for case in cases])
        self.n = n = int(sizes.max())
        self.damping = damping
        self.nu = torch.tensor([case.nu for case in cases], dtype=torch.float64)
        self.gaussian = torch.tensor([case.gaussian for case in cases])
        # The upper edge of the last shell is exactly k_max.
        top = torch.tensor([case.k_max for case in cases], dtype=torch.float64)
        first = top * _RATIO ** (0.5 - sizes.double())
        number = torch.arange(n, dtype=torch.float64)
        self.kappa = first * _RATIO ** number[:, None]
        self.width = self.kappa * (_RATIO**0.5 - _RATIO**-0.5)
        self.mask = (torch.arange(n)[:, None] < sizes).double()
        self.here = self.mask.bool()
        self.triads = triads(n)
        self.scale = first**6
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

    def transfer(self, u: Tensor, c: Tensor) -> Tensor:
        """Energy that the exchange brings to each shell, (N, B)."""
        f = u / (self.kappa**2 * self.width)
        return torch.einsum("ijb,jb->ib", c, f) - c.sum(1) * f

    def moments(self, u: Tensor, t: Tensor, c: Tensor) -> _Row:
        """Statistics of shell energies at ``t``."""
        square = self.kappa**2
        growth = 2 * self.nu * (square * self.transfer(u, c)).sum(0)
        eps = 2 * self.nu * (square * u).sum(0)
        return _Row(t, u.sum(0), eps, (square**2 * u).sum(0), growth, u)

    def time_step(self, row: _Row, last: Tensor | None) -> Tensor:
        """A step that follows the large scales and the dissipation; the rest is implicit."""
        mean = (self.kappa * row.u).sum(0) / row.k
        change = (row.production - 4 * self.nu**2 * row.palinstrophy).abs()
        dt = torch.minimum(0.04 * row.k / row.eps, 0.25 / (mean * row.k.sqrt()))
        dt = torch.minimum(dt, 0.1 * row.eps / change)
        return dt if last is None else torch.minimum(dt, 1.3 * last)

    def advance(self, u: Tensor, t: Tensor, dt: Tensor, c: Tensor) -> Tensor:
        """Shell energies after ``dt``; ``c`` is the exchange at the start."""
        half = self._back(self._factor(self._matrix(c), dt / 2), u)
        A = self._matrix(self.exchange(half, t + dt / 2))
        gamma = 1 - math.sqrt(0.5)
        # Alexander's SDIRK of order two; both stages share one factorisation.
        factors = self._factor(A, gamma * dt)
        a = self._back(factors, u)
        slope = torch.einsum("bij,jb->ib", A, a)
        out = self._back(factors, u + (1 - gamma) * dt * slope)
        return out.clamp_min(0.0)

    def _matrix(self, c: Tensor) -> Tensor:
        """A of du/dt = A u, (B, N, N)."""
        measure = 1 / (self.kappa**2 * self.width)
        A = c * measure
        loss = c.sum(0) * measure + 2 * self.nu * self.kappa**2
        return A.permute(2, 0, 1) - torch.diag_embed(loss.T)

    def _factor(self, A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.n, dtype=A.dtype)
        return torch.linalg.lu_factor(eye - dt[:, None, None] * A)

    def _back(self, factors: tuple[Tensor, Tensor], u: Tensor) -> Tensor:
        return torch.linalg.lu_solve(*factors, u.T[..., None])[..., 0].T


def _run(
    case: Closure, shells: _Shells, rows: list[_Row], j: int, levels: Float[Tensor, " levels"]
) -> DecayRun:
    """The record of case ``j`` at even steps of tau."""
    from scipy.interpolate import CubicHermiteSpline, CubicSpline

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

    return DecayRun(
        t=torch.from_numpy(at),
        k=k[0] * torch.exp(-levels),
        eps=moved(eps.log()).exp(),
        nu=case.nu,
        skewness=moved(skewness),
        palinstrophy=moved(palinstrophy.log()).exp(),
        integral_scale=moved(scale),
        kappa=kappa,
        spectrum=moved(E.clamp_min(1e-300).log()).exp(),
        box=case.box,
        k_max=case.k_max,
        name=case.name,
        source="closure",
        balance=balance,
    )
