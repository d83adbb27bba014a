"""Networks that see some coordinates, angles by their cosines and sines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from sciflow.nn import MLP
from sciflow.nn.mlp import Pullback
from sciflow.shapes import Float, Tensor


class Conditioner(nn.Module):
    """A network of coordinates, each a number or an angle; its output starts at zero.

    Args:
        periods: of each coordinate; infinity where it is a number.
        n_out: number of outputs.
        width: width of the hidden layers.
        depth: number of hidden layers.
        harmonics: how many multiples of an angle are seen.
        generator: source of the initial weights.
    """

    numbers: Tensor
    angles: Tensor
    waves: Tensor

    def __init__(
        self,
        periods: Sequence[float],
        n_out: int,
        width: int,
        depth: int,
        harmonics: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        numbers = [i for i, period in enumerate(periods) if math.isinf(period)]
        angles = [i for i, period in enumerate(periods) if not math.isinf(period)]
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long), persistent=False)
        self.register_buffer("angles", torch.tensor(angles, dtype=torch.long), persistent=False)
        # wave numbers 2 pi k / period, (angles, harmonics)
        waves = [[2 * math.pi * k / periods[i] for k in range(1, harmonics + 1)] for i in angles]
        self.register_buffer(
            "waves", torch.tensor(waves).reshape(len(angles), harmonics), persistent=False
        )
        n_in = len(numbers) + 2 * harmonics * len(angles)
        self.net = MLP(n_in, n_out, width, depth, generator=generator, zero=True)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch out"]:
        """Output of the network."""
        return self.net(self._features(x)[0])

    def pullback(
        self, x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch out"], Pullback]:
        """Output, and the function that carries its cotangents back to the coordinates."""
        features, cos, sin = self._features(x)
        y, pull = self.net.pullback(features)
        if not len(self.angles):
            return y, pull

        def pull_to_coordinates(cotangent: Tensor) -> Tensor:
            n = len(self.numbers)
            along_numbers, waves = pull(cotangent).tensor_split([n], dim=1)
            of_cos, of_sin = waves.reshape(len(x), 2, *self.waves.shape).unbind(1)
            along_angles = ((of_sin * cos - of_cos * sin) * self.waves).sum(-1)
            out = torch.zeros_like(x).index_copy(1, self.numbers, along_numbers)
            return out.index_copy(1, self.angles, along_angles)

        return y, pull_to_coordinates

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not len(self.angles):
            return x, x, x
        phase = x[:, self.angles, None] * self.waves
        cos, sin = phase.cos(), phase.sin()
        features = [x[:, self.numbers], cos.flatten(1), sin.flatten(1)]
        return torch.cat(features, 1), cos, sin
