"""Images as samples of a density: noise below the last bit, logits, and likelihoods in bits.

An image of whole numbers v has a probability, a model of continuous x a density. Uniform noise u
joins the two: the density of v + u, averaged over u, is the probability that the model gives to
v, and by Jensen's inequality

    -log2 P(v) <= E_u[-log2 p(v + u)],

so that what a model of v + u is scored with is a bound on the code length of the image itself.

Source: Theis, van den Oord, Bethge, ICLR 2016 (arXiv:1511.01844), section 3.1; Dinh,
Sohl-Dickstein, Bengio, ICLR 2017 (arXiv:1605.08803), section 4.1, for the logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sciflow.errors import DataError
from sciflow.shapes import Float, Shaped, Tensor


class Dequantised(NamedTuple):
    """Images as points of a continuous space.

    Attributes:
        y: (N, d) coordinates.
        log_volume: (N,) ln |det dy / d(v + u)|: with it a density of y is one of v + u.
    """

    y: Float[Tensor, "n dim"]
    log_volume: Float[Tensor, " n"]


@dataclass(frozen=True)
class Dequantiser:
    """Maps images of whole numbers to unbounded coordinates, and back.

    With x = (v + u) / levels the coordinates are y = logit(alpha + (1 - 2 alpha) x), or x itself.

    Attributes:
        levels: number of intensities; pixels are 0 to levels - 1.
        alpha: how far the ends are kept from 0 and 1 before the logit; None takes no logit.

    Raises:
        ValueError: fewer than two levels, or alpha not in (0, 1/2).
    """

    levels: int = 256
    alpha: float | None = 1e-6

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2; got {self.levels}")
        if self.alpha is not None and not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be between 0 and 0.5, or None; got {self.alpha}")

    def __call__(
        self, images: Shaped[Tensor, "n *shape"], generator: torch.Generator
    ) -> Dequantised:
        """Coordinates of images with fresh noise, in float64.

        Args:
            images: (N, ...) whole numbers.
            generator: source of the noise.

        Raises:
            DataError: a pixel is no whole number from 0 to levels - 1.
        """
        v = images.flatten(1).double()
        bad = (v < 0) | (v > self.levels - 1) | (v != v.floor())
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise DataError(
                f"images: pixel {column} of image {row} is {float(v[row, column]):g}; expected "
                f"whole numbers from 0 to {self.levels - 1}"
            )
        u = torch.rand(v.shape, generator=generator, dtype=v.dtype, device=generator.device)
        x = (v + u.to(v.device)) / self.levels
        if self.alpha is None:
            return Dequantised(x, x.new_full((len(x),), -x.shape[1] * math.log(self.levels)))
        s = self.alpha + (1 - 2 * self.alpha) * x
        slope = math.log((1 - 2 * self.alpha) / self.levels) - s.log() - torch.log1p(-s)
        return Dequantised(torch.logit(s), slope.sum(1))

    def intensities(self, y: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Brightness x of coordinates, cut to [0, 1]."""
        if self.alpha is not None:
            y = (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)
        return y.clamp(0, 1)

    def images(self, y: Float[Tensor, "n dim"]) -> Shaped[Tensor, "n dim"]:
        """Pixels of coordinates: whole numbers, the noise cut off."""
        whole = (self.intensities(y) * self.levels).floor().clamp(max=self.levels - 1)
        return whole.to(torch.uint8 if self.levels <= 256 else torch.int64)


def bits_per_dim(log_prob: Float[Tensor, " n"], points: Dequantised) -> Float[Tensor, " n"]:
    """Bound on the code length of each image, in bits per pixel.

    Args:
        log_prob: (N,) ln of a model's density of ``points.y`` [nats].
        points: the images with the noise that they were scored with.

    Raises:
        ValueError: another number of densities than of points.
    """
    if log_prob.shape != points.log_volume.shape:
        expected = tuple(points.log_volume.shape)
        raise ValueError(f"log_prob has shape {tuple(log_prob.shape)}; expected {expected}")
    log_density = log_prob.double() + points.log_volume
    return -log_density / (points.y.shape[1] * math.log(2))
