"""The base density of particle systems: a Gaussian without a centre of mass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sciflow.shapes import Float, Tensor


class MeanFreeGaussian(nn.Module):
    """Independent Gaussian particles, seen from their mean: a base that symmetries leave alone.

    A configuration is x (B, N d) of zero mean. The density refers to the volume of that subspace
    of (N - 1) d dimensions, as that of `sciflow.systems.MeanFree` does; a mean that is not zero
    is dropped. A `ParticleField` keeps the mean where it is, so that the same holds for the
    density of their flow.

    Args:
        n_particles: N, at least 2.
        space_dim: d.
        scale: standard deviation of an orthonormal coordinate, in the unit of x.

    Raises:
        ValueError: a number is out of range.

    Source: Köhler, Klein, Noé, ICML 2020, arXiv:2006.02425, section 5.1.
    """

    place: Tensor

    def __init__(self, n_particles: int, space_dim: int, scale: float = 1.0) -> None:
        super().__init__()
        if n_particles < 2 or space_dim < 1:
            raise ValueError(
                f"expected at least 2 particles and 1 dimension; got {n_particles}, {space_dim}"
            )
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be positive and finite, got {scale}")
        self.n_particles, self.space_dim, self.scale = n_particles, space_dim, float(scale)
        self.dim = n_particles * space_dim
        # It carries device and dtype, which a density without parameters has not.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """What it is built from."""
        return {
            "n_particles": self.n_particles,
            "space_dim": self.space_dim,
            "scale": self.scale,
        }

    def log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log-density of ``z`` without its mean, (B, N d) to (B,).

        Raises:
            ValueError: ``z`` has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(f"z has shape {tuple(z.shape)}; expected (B, {self.dim})")
        free = (self.n_particles - 1) * self.space_dim
        square = self.centred(z).square().sum(1) / self.scale**2
        return -0.5 * square - free * math.log(self.scale * math.sqrt(2 * math.pi))

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n dim"]:
        """Draw ``n`` configurations of zero mean."""
        place = self.place
        z = torch.randn(
            (n, self.dim), generator=generator, dtype=place.dtype, device=generator.device
        )
        return self.scale * self.centred(z.to(place.device))

    def centred(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The configurations ``z`` (B, N d) moved to zero mean."""
        x = z.unflatten(1, (self.n_particles, self.space_dim))
        return (x - x.mean(1, keepdim=True)).flatten(1)
