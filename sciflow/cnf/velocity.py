"""The standard field: a network with a closed-form divergence, time features and angles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from sciflow.cnf.base import check_periodic
from sciflow.cnf.pieces import in_pieces
from sciflow.nn import silu_layer_along
from sciflow.shapes import Float, Tensor

# Features of the time: t itself, a logarithm that resolves t = 1, and three waves.
_N_TIME = 8


class VelocityMLP(nn.Module):
    """Velocity ``v(t, x)`` as a network whose divergence is exact and cheap.

    Hidden layers ``h <- silu(W h + U c)``, from the second on added to h where ``residual``; c
    holds features of the time and the context and enters every layer. The divergence carries d
    tangents forward through the same layers in closed form: (1 + d) times the cost of the value,
    without a second differentiation in training.

    The flow has t = 0 at the base and t = 1 at the data, where fields change fastest: a feature
    log(1.02 - t) resolves it.

    Args:
        dim: number of coordinates d.
        width: width of the hidden layers.
        depth: number of hidden layers.
        n_context: number of features of the context, 0 for none.
        periodic: indices of coordinates that are angles in radians; the network sees their sines
            and cosines.
        harmonics: multiples of each angle that it sees.
        residual: add each hidden layer to the one before.
        plane_waves: number of plane waves of random direction among the features, for structures
            much thinner than the whole; none reach into periodic coordinates.
        wavelength: of these waves, in units of x; their wave vectors are normal of this scale.
        generator: source of the initial weights; None seeds one with 0.

    Raises:
        ValueError: a size is not positive, or an index out of range.
    """

    wave_vectors: Tensor
    unit: Tensor
    rates: Tensor

    def __init__(
        self,
        dim: int,
        width: int = 64,
        depth: int = 3,
        *,
        n_context: int = 0,
        periodic: Iterable[int] = (),
        harmonics: int = 3,
        residual: bool = False,
        plane_waves: int = 0,
        wavelength: float = 2.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("width", width), ("depth", depth), ("harmonics", harmonics)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1; got {size}")
        for name, size in (("n_context", n_context), ("plane_waves", plane_waves)):
            if size < 0:
                raise ValueError(f"{name} must not be negative; got {size}")
        if not wavelength > 0:
            raise ValueError(f"wavelength must be positive; got {wavelength}")
        self.periodic = check_periodic(dim, periodic)
        self.free = [i for i in range(dim) if i not in self.periodic]
        self.dim, self.width, self.depth, self.n_context = dim, width, depth, n_context
        self.harmonics, self.residual = harmonics, residual
        generator = generator or torch.Generator().manual_seed(0)
        # Wave vectors (d, waves): the harmonics of each angle, and random ones in the free space.
        multiples = torch.arange(1.0, harmonics + 1)
        vectors = [torch.zeros(dim, harmonics) for _ in self.periodic]
        for i, along in zip(self.periodic, vectors, strict=True):
            along[i] = multiples
        self.plane_waves, self.wavelength = plane_waves, wavelength
        if plane_waves:
            drawn = torch.randn(dim, plane_waves, generator=generator) * (2 * math.pi / wavelength)
            drawn[list(self.periodic)] = 0.0
            vectors.append(drawn)
        vectors.append(torch.zeros(dim, 0))
        self.register_buffer("wave_vectors", torch.cat(vectors, 1))
        n_features = len(self.free) + 2 * self.wave_vectors.shape[1]
        # Numbers that a sample takes in the largest tensor of the divergence.
        self._each = dim * max(width, n_features)

        def linear(n_in: int, n_out: int, bias: bool = False) -> nn.Linear:
            layer = nn.Linear(n_in, n_out, bias=bias)
            for parameter in layer.parameters():
                bound = n_in**-0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
            return layer

        self.condition = linear(_N_TIME + n_context, depth * width, bias=True)
        self.layers = nn.ModuleList(
            [linear(n_features, width), *(linear(width, width) for _ in range(depth - 1))]
        )
        self.last = linear(width, dim, bias=True)
        nn.init.zeros_(self.last.weight)  # the flow starts as the identity
        nn.init.zeros_(self.last.bias)
        unit = torch.eye(dim)[:, None, self.free]
        self.register_buffer("unit", unit, persistent=False)
        self.register_buffer("rates", math.pi * torch.arange(1.0, 4.0), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """What it is built from."""
        names = ("dim", "width", "depth", "n_context", "harmonics", "residual", "plane_waves",
                 "wavelength")  # fmt: skip
        return {name: getattr(self, name) for name in names} | {"periodic": list(self.periodic)}

    def forward(
        self,
        t: Float[Tensor, "*n"],
        x: Float[Tensor, "batch dim"],
        context: Float[Tensor, "batch c"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Velocity at times ``t``, () or (B,), and positions ``x`` (B, d)."""
        h, _ = self._features(x, slopes=False)
        for k, (layer, shift) in enumerate(
            zip(self.layers, self._shifts(t, context), strict=True)
        ):
            new = F.silu(layer(h) + shift)
            h = h + new if self.residual and k else new
        return self.last(h)

    def value_and_divergence(
        self,
        t: Float[Tensor, "*n"],
        x: Float[Tensor, "batch dim"],
        context: Float[Tensor, "batch c"] | None = None,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Velocity, and the trace of its Jacobian in x."""
        return in_pieces(self._along, self._each, t, x, context)

    def _along(self, t: Tensor, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tangents brought forward with the value."""
        h, dh = self._features(x, slopes=True)
        for k, (layer, shift) in enumerate(
            zip(self.layers, self._shifts(t, context), strict=True)
        ):
            new, dnew = silu_layer_along(h, dh, cast(nn.Linear, layer).weight, shift)
            h, dh = (h + new, dh + dnew) if self.residual and k else (new, dnew)
        # Row i of the last weights with tangent i: the diagonal of the Jacobian.
        return self.last(h), (dh @ self.last.weight[:, :, None]).sum((0, 2))

    def _features(self, x: Tensor, slopes: bool) -> tuple[Tensor, Tensor]:
        """What the network sees of x, (B, F), and its derivatives, (d, 1 or B, F)."""
        k = self.wave_vectors
        if not k.shape[1]:
            return x, self.unit
        phase = x @ k
        sin, cos = phase.sin(), phase.cos()
        features = torch.cat([x[:, self.free] if self.periodic else x, sin, cos], 1)
        if not slopes:
            return features, features
        k = k[:, None]
        unit = self.unit.expand(-1, len(x), -1)
        return features, torch.cat([unit, k * cos, -k * sin], 2)

    def _shifts(self, t: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        """What time and context add to each hidden layer, (1 or B, width) each."""
        if (context is None) != (self.n_context == 0):
            expected = f"(B, {self.n_context})" if self.n_context else "none"
            got = "none" if context is None else tuple(context.shape)
            raise ValueError(f"context must be {expected}; got {got}")
        t = t.reshape(-1, 1)
        waves = t * self.rates
        # Beyond t = 1, where solvers that overshoot go, the field stays what it was.
        end = -0.3 * (1.02 - t).clamp(min=0.02).log() - 0.5
        features = torch.cat([t, end, waves.sin(), waves.cos()], 1)
        if context is not None:
            features = torch.cat([features.expand(len(context), -1), context], 1)
        return self.condition(features).chunk(self.depth, 1)
