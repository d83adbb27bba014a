"""Velocity fields that a simulation starts from: random ones of a given spectrum, Taylor-Green."""

from __future__ import annotations

import math

import numpy as np
import torch

from sciflow.shapes import Complex, Tensor
from sciflow.turbulence.navier_stokes import NavierStokes
from sciflow.turbulence.spectra import Spectrum


def random_field(
    flow: NavierStokes, spectrum: Spectrum, seed: int
) -> Complex[Tensor, "1 3 kx ky kz"]:
    """Gaussian solenoidal velocity whose every shell has exactly the energy of the spectrum.

    White noise in space, made solenoidal and scaled shell by shell. Each plane of the cube has a
    random stream of its own, so that a seed means the same field however the cube is cut.

    Args:
        flow: the equations, with the modes that they keep.
        spectrum: E(kappa), (shells,) to (shells,); energy per mass and wavenumber.
        seed: of the noise.

    Raises:
        ValueError: the spectrum is negative or not finite at a wavenumber of the box, or zero at
            all.
    """
    fourier = flow.fourier
    wanted = spectrum(flow.kappa) * (2 * math.pi / flow.box)
    if not torch.isfinite(wanted).all() or (wanted < 0).any() or not (wanted > 0).any():
        raise ValueError("spectrum must be finite and not negative, and positive somewhere")
    planes = []
    for plane in fourier.planes:
        state = int(np.random.SeedSequence([seed, plane]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(state)
        plane_of = torch.randn(3, fourier.n, fourier.n, generator=generator, dtype=torch.float32)
        planes.append(plane_of)
    noise = torch.stack(planes, 1).to(fourier.device, fourier.dtype)[None]
    u = flow.project(fourier.to_spectral(noise))
    have = flow.moments(u, torch.zeros_like(u)).spectrum[0]
    scale = torch.zeros(flow.n_shells + 2, dtype=torch.float64)
    scale[1:-1] = torch.where(have > 0, wanted / have.clamp_min(1e-300), 0.0).sqrt()
    return u * scale.to(fourier.device, fourier.dtype)[flow.shell].view(flow.square.shape)


def taylor_green(flow: NavierStokes) -> Complex[Tensor, "1 3 kx ky kz"]:
    """The Taylor-Green vortex of unit velocity: (sin x cos y, -cos x sin y, 0) cos z.

    Source: Brachet et al., J. Fluid Mech. 130, 411 (1983), equation 1.1, theta = 0.
    """
    x, y, z = (2 * math.pi * line for line in flow.fourier.coordinates())
    u = torch.sin(x) * torch.cos(y) * torch.cos(z)
    v = -torch.cos(x) * torch.sin(y) * torch.cos(z)
    field = torch.stack([u, v, torch.zeros_like(u)])[None].to(flow.fourier.dtype)
    return flow.project(flow.fourier.to_spectral(field))
