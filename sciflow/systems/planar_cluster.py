"""Four particles in the plane, exactly: the partition function by quadrature and convolution.

With two of the particles at a distance r, the others at y and z see the same weight g of both,
and each other through K(y - z). The integral over y and z is a convolution on a plane, so that a
Fourier transform per r is all it takes:

    Z = 1/4 integral of 2 pi r e^(-u(r)/kT) [ integral of g_r (K * g_r) ] dr.

The factor 1/4 = N^(-d/2) turns the volume of relative positions into that of the mean-free
subspace (see `MeanFree`). The integrand over Z is the density of the distance of a pair.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from sciflow.shapes import Float, Tensor
from sciflow.systems.base import positive
from sciflow.systems.particles import DoubleWellParticles

# A pair this many kT above its minimum has no weight in float64.
_NEVER = 90.0


class PlanarCluster(NamedTuple):
    """Exact answers of a cluster.

    Attributes:
        free_energy: -kT ln of the integral of exp(-V / kT) over the mean-free subspace.
        mean_energy: average of V.
        r: distances (R,), equally spaced.
        density: probability density of the distance of a pair at ``r``, (R,).
    """

    free_energy: float
    mean_energy: float
    r: Float[Tensor, " r"]
    density: Float[Tensor, " r"]


def planar_cluster(
    system: DoubleWellParticles, kT: float = 1.0, spacing: float = 0.12
) -> PlanarCluster:
    """Solve four particles in two dimensions with any double well of their distances.

    Args:
        system: the particles.
        kT: thermal energy, in the unit of the potential.
        spacing: of the grids, in the unit of length. The error falls faster than any power of it
            where pairs cannot meet, as its square where they can.

    Raises:
        ValueError: not four particles in the plane, or a number is not positive.
    """
    if (system.n_particles, system.dim) != (4, 2):
        raise ValueError(
            f"expected 4 particles in 2 dimensions; got {system.n_particles} in {system.dim}"
        )
    positive(kT=kT, spacing=spacing)
    r, weight = _weights(system, kT, spacing)
    log_z = _log_integral(r, weight, spacing)
    step = 1e-3 * kT
    # V = -d ln Z / d beta, by differences of fourth order in beta.
    betas = [1 / kT + k * step / kT**2 for k in (-2, -1, 1, 2)]
    logs = [_log_integral(*_weights(system, 1 / beta, spacing), spacing) for beta in betas]
    slope = (logs[0] - 8 * logs[1] + 8 * logs[2] - logs[3]) / (12 * step / kT**2)
    density = (weight - weight.logsumexp(0)).exp() / spacing
    return PlanarCluster(-kT * log_z, -slope, r, density)


def _log_integral(r: Tensor, weight: Tensor, spacing: float) -> float:
    return float(weight.logsumexp(0)) + math.log(spacing) - math.log(4)


def _weights(system: DoubleWellParticles, kT: float, h: float) -> tuple[Tensor, Tensor]:
    """Distances, and the logarithm of the integrand of Z there."""

    def energy(square: Tensor) -> Tensor:
        return system._pair(square) / kT

    r = h * torch.arange(1, 4096, dtype=torch.float64, device="cpu")
    u = energy(r.square())
    least = float(u.min())
    r = r[: int((u < least + _NEVER).nonzero().max()) + 1]
    n = math.ceil((1.5 * float(r[-1])) / h)
    axis = h * torch.arange(-n, n + 1, dtype=torch.float64, device="cpu")
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    size = 2 * len(axis)
    lag = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device="cpu") * h
    kernel = torch.exp(least - energy(lag[:, None].square() + lag.square()))
    transform = torch.fft.rfft2(kernel)
    values = []
    for distance in r:
        pair = [energy((x + side * distance / 2).square() + y.square()) for side in (-1, 1)]
        g = torch.exp(2 * least - pair[0] - pair[1])
        both = torch.fft.irfft2(transform * torch.fft.rfft2(g, (size, size)), (size, size))
        values.append((g * both[: len(axis), : len(axis)]).sum())
    inner = torch.stack(values).clamp(min=torch.finfo(torch.float64).tiny).log()
    log_ring = (2 * math.pi * r).log() - energy(r.square())
    return r, log_ring + inner + 4 * math.log(h) - 5 * least
