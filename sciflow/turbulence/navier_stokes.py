"""Incompressible Navier-Stokes equations in a periodic cube, by Fourier modes."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch

from sciflow.shapes import Complex, Float, Tensor
from sciflow.turbulence.fourier import Fourier

Truncation = Literal["sphere", "cube"]

#: Of the isotropic relation between skewness S and vortex stretching: d eps / dt of the latter is
#: 7 / (3 sqrt 15) S eps^1.5 nu^-0.5.
STRETCHING = 7 / (3 * math.sqrt(15))


class Moments(NamedTuple):
    """Statistics of B velocity fields, in float64.

    Attributes:
        k: kinetic energy per mass <u.u>/2, shape (B,).
        eps: dissipation rate 2 nu sum kappa^2 E, shape (B,).
        palinstrophy: sum kappa^4 E, half the mean square of the curl of the vorticity, (B,).
        production: 2 nu sum kappa^2 T, the rate at which stretching raises eps, (B,).
        integral_scale: 3 pi / (4 k) sum E / kappa, shape (B,).
        spectrum: energy E of shells of width 2 pi / box around kappa = 1, 2, ..., (B, shells).
        transfer: energy T that the nonlinear term brings to each shell, (B, shells).
    """

    k: Tensor
    eps: Tensor
    palinstrophy: Tensor
    production: Tensor
    integral_scale: Tensor
    spectrum: Tensor
    transfer: Tensor


class NavierStokes:
    """du/dt = P(u x w) - nu kappa^2 u for the coefficients u of a solenoidal velocity, w its curl.

    The rotational form with the products of the retained modes free of aliasing (2/3 rule). Time
    steps are the classical Runge-Kutta method of order four, with the viscous term exact.

    Args:
        fourier: transforms of the cube.
        nu: kinematic viscosity, length^2 / time.
        box: side of the cube.
        truncation: modes kept: the "sphere" of radius (n / 3) 2 pi / box, or the "cube" of that
            half side.

    Source: Canuto, Hussaini, Quarteroni, Zang, Spectral Methods (2007), chapter 3; Rogallo,
        NASA TM-81315 (1981) for the exact viscous factor.
    """

    def __init__(
        self,
        fourier: Fourier,
        nu: float,
        box: float = 2 * math.pi,
        truncation: Truncation = "sphere",
    ) -> None:
        self.fourier, self.nu, self.box = fourier, nu, box
        unit = 2 * math.pi / box
        x, y, z = fourier.wavenumbers()
        self.k_x, self.k_y, self.k_z = x * unit, y * unit, z * unit
        square = x**2 + y**2 + z**2
        edge = (fourier.n - 1) // 3
        if truncation == "sphere":
            kept = square <= (edge + 0.5) ** 2
        elif truncation == "cube":
            kept = (x.abs() <= edge) & (y.abs() <= edge) & (z <= edge)
        else:
            raise ValueError(f"truncation must be 'sphere' or 'cube'; got {truncation!r}")
        kept = kept & (square > 0)
        self.k_max = edge * unit
        self.kept = kept.to(fourier.dtype)
        self.square = square * unit**2
        self._inverse = torch.where(kept, 1 / self.square.clamp_min(unit**2), 0.0)
        shells = square.sqrt().round().long()
        self.n_shells = edge if truncation == "sphere" else int(math.sqrt(3) * edge + 0.5)
        self.shell = shells.clamp_max(self.n_shells + 1).flatten()
        # Coefficients with k_z > 0 stand for their conjugates at -k_z too.
        self.weight = (kept * torch.where(z > 0, 2.0, 1.0)).double()
        self.kappa = torch.arange(1, self.n_shells + 1, dtype=torch.float64) * unit

    def project(
        self, f: Complex[Tensor, "batch 3 kx ky kz"]
    ) -> Complex[Tensor, "batch 3 kx ky kz"]:
        """Solenoidal part of the retained modes."""
        dot = self.k_x * f[:, 0]
        dot += self.k_y * f[:, 1]
        dot += self.k_z * f[:, 2]
        dot *= self._inverse
        f = f * self.kept
        f[:, 0] -= self.k_x * dot
        f[:, 1] -= self.k_y * dot
        f[:, 2] -= self.k_z * dot
        return f

    def curl(self, u: Complex[Tensor, "batch 3 kx ky kz"]) -> Complex[Tensor, "batch 3 kx ky kz"]:
        """Coefficients of the vorticity."""
        a, b, c = u.unbind(1)
        w = torch.stack(
            [
                self.k_y * c - self.k_z * b,
                self.k_z * a - self.k_x * c,
                self.k_x * b - self.k_y * a,
            ],
            1,
        )
        return w.mul_(1j)

    def advection(
        self, u: Complex[Tensor, "batch 3 kx ky kz"]
    ) -> tuple[Complex[Tensor, "batch 3 kx ky kz"], Float[Tensor, " batch"]]:
        """The nonlinear term P(u x w), and the largest |u_x| + |u_y| + |u_z| of each field."""
        v = self.fourier.to_physical(u)
        w = self.fourier.to_physical(self.curl(u))
        speed = v.abs().sum(1).amax((1, 2, 3))
        f = self.fourier.to_spectral(_cross(v, w))
        return self.project(f), self.fourier.largest(speed)

    def step(
        self,
        u: Complex[Tensor, "batch 3 kx ky kz"],
        first: Complex[Tensor, "batch 3 kx ky kz"],
        dt: float,
    ) -> Complex[Tensor, "batch 3 kx ky kz"]:
        """The coefficients after ``dt``; ``first`` is the nonlinear term of ``u``."""
        half = torch.exp(self.square * (-self.nu * dt / 2))
        start = u * half
        a = torch.addcmul(start, first, half, value=dt / 2)
        b, _ = self.advection(a)
        c, _ = self.advection(torch.add(start, b, alpha=dt / 2))
        # From here on everything is carried to the end of the step.
        end = start * half
        d, _ = self.advection(torch.addcmul(end, c, half, value=dt))
        b += c
        end += (dt / 6) * d
        end.addcmul_(b, half, value=dt / 3)
        return end.addcmul_(first, half * half, value=dt / 6)

    def moments(
        self,
        u: Complex[Tensor, "batch 3 kx ky kz"],
        first: Complex[Tensor, "batch 3 kx ky kz"],
    ) -> Moments:
        """Statistics of ``u``, with its nonlinear term ``first``."""
        energy = (u.real.square() + u.imag.square()).sum(1) / 2
        transfer = (u.real * first.real + u.imag * first.imag).sum(1)
        square = self.square.double()
        both = torch.stack([energy, transfer]).double() * self.weight
        fourth = both[0] * square * square
        sums = torch.stack([both[0], both[0] * square, fourth, both[1] * square])
        sums = sums.sum((-3, -2, -1))
        batch = len(u)
        flat = both.reshape(2 * batch, -1)
        shells = flat.new_zeros(2 * batch, self.n_shells + 2).index_add_(1, self.shell, flat)
        packed = self.fourier.total(torch.cat([sums.flatten(), shells.flatten()])).cpu()
        k, omega, palinstrophy, growth = packed[: 4 * batch].view(4, batch)
        spectrum, exchanged = packed[4 * batch :].view(2, batch, -1)[..., 1:-1]
        scale = (3 * math.pi / 4) * (spectrum / self.kappa).sum(1) / k
        return Moments(
            k=k,
            eps=2 * self.nu * omega,
            palinstrophy=palinstrophy,
            production=2 * self.nu * growth,
            integral_scale=scale,
            spectrum=spectrum,
            transfer=exchanged,
        )


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """The product a x b along axis 1, by components: a tenth of the time of torch.linalg.cross."""
    out = torch.empty_like(a)
    for i in range(3):
        j, l = (i + 1) % 3, (i + 2) % 3
        torch.mul(a[:, j], b[:, l], out=out[:, i]).addcmul_(a[:, l], b[:, j], value=-1)
    return out
