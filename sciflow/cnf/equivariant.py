"""A field for identical particles that knows no place, direction or order, with its divergence.

Particle i moves along the lines to the others, v_i = sum_j w_ij (x_i - x_j), with weights that
depend on distances alone; then the mean velocity is taken off. Such a field is equivariant under
translations, rotations, reflections and permutations, and its divergence is

    sum over i, j of  d w_ij + (x_i - x_j) . grad_i w_ij,

so that each weight needs a single directional derivative, "particle i moves along x_i - x_j". The
mean costs nothing: where a translation changes nothing, tr(P J) = tr(J) for the projection P.
The weights see the pair, the neighbourhoods of both ends, the common neighbours, and the whole
cluster, all as sums over pair functions whose directional derivatives are closed. One forward
tangent of the network therefore gives the exact divergence at twice the price of the field.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from sciflow.nn import MLP
from sciflow.shapes import Float, Tensor

#: Harmonics of time that the networks see.
_HARMONICS = 3
#: Distance, in units of the length of a field, below which radial functions become flat.
_SOFT = 0.1
#: Distance up to which they are resolved.
_FAR = 3.0


class ParticleField(nn.Module):
    """Velocity field of ``n_particles`` in ``space_dim`` dimensions, a configuration being (B, N d).

    Radial functions f(d_ij, t) of F channels are learned by a first network. A second one turns
    f_ij, their sums over the neighbours of i and of j, over the common neighbours k (of
    f_ik f_kj) and over all pairs, and time into the weight w_ij. For up to four particles this
    describes the configuration completely.

    Args:
        n_particles: N, at least 2.
        space_dim: d.
        length: typical distance of a pair, in the unit of x; distances are resolved up to three
            times as far.
        channels: F.
        width: of the hidden layers of both networks.
        depth: number of hidden layers of the second network; the first has one.
        n_radial: Gaussian radial functions that the first network sees.
        generator: source of the initial weights; the field starts at zero.

    Raises:
        ValueError: a size is out of range.

    Source: the pairwise form is that of Köhler, Klein, Noé, ICML 2020, arXiv:2006.02425,
        section 5; there w_ij depends on d_ij and t alone.

    Example:
        >>> field = ParticleField(4, 2, length=4.0)
        >>> v, div = field.value_and_divergence(torch.tensor(0.5), torch.randn(10, 8))
        >>> v.shape, div.shape
        (torch.Size([10, 8]), torch.Size([10]))
    """

    def __init__(
        self,
        n_particles: int,
        space_dim: int,
        length: float = 1.0,
        channels: int = 16,
        width: int = 64,
        depth: int = 2,
        n_radial: int = 24,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if n_particles < 2 or space_dim < 1:
            raise ValueError(
                f"n_particles is {n_particles} and space_dim {space_dim}; expected at least 2 and 1"
            )
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"length must be positive and finite, got {length}")
        if channels < 1 or n_radial < 2:
            raise ValueError(
                f"channels is {channels} and n_radial {n_radial}; expected at least 1 and 2"
            )
        self.n_particles, self.space_dim, self.length = n_particles, space_dim, float(length)
        self.dim = n_particles * space_dim
        self.channels, self.width, self.depth, self.n_radial = channels, width, depth, n_radial
        n_time = 1 + 2 * _HARMONICS
        self.radial = MLP(n_radial + 1 + n_time, channels, width, 1, generator=generator)
        self.weight = MLP(
            5 * channels + n_time, 1, width, depth, generator=generator, zero=True
        )
        self._spacing = _FAR / (n_radial - 1)
        self.register_buffer("centers", torch.linspace(0.0, _FAR, n_radial))
        # Where in a list of pairs i < j, in that of edges i != j, and among all i, j things are.
        place = torch.full((n_particles, n_particles), n_particles * (n_particles - 1) // 2)
        first, second = torch.triu_indices(n_particles, n_particles, 1)
        place[first, second] = place[second, first] = torch.arange(len(first))
        i, j = (~torch.eye(n_particles, dtype=torch.bool)).nonzero(as_tuple=True)
        tables = {
            "_i": i,
            "_j": j,
            "_edges": i * n_particles + j,
            "_pairs": first * n_particles + second,
            "_place": place[i, j],
            "_place_or_none": place.flatten(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """What it is built from."""
        names = (
            *("n_particles", "space_dim", "length", "channels", "width", "depth", "n_radial"),
        )
        return {name: getattr(self, name) for name in names}

    def forward(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Velocity at time ``t``, () or (B,), and configurations ``x`` (B, N d)."""
        return self._evaluate(t, x, tangent=False)[0]

    def value_and_divergence(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Velocity (B, N d) and its exact divergence (B,)."""
        return self._evaluate(t, x, tangent=True)

    def _evaluate(self, t: Tensor, x: Tensor, tangent: bool) -> tuple[Tensor, Tensor]:
        n, m = self.n_particles, self.n_particles - 1
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {self.dim})")
        q = x.unflatten(1, (n, self.space_dim)) / self.length
        lines = (q[:, :, None] - q[:, None]).flatten(1, 2)  # r_ij = q_i - q_j, (B, N N, d)
        square = lines.index_select(1, self._pairs).square().sum(-1)
        clock = _time_features(t, x)
        pair, slope = self._pair_functions(square, clock, tangent)

        # Where i moves along r_ij, r_ik^2 / 2 changes by r_ik . r_ij: a derivative is r_ij times
        # a vector. Values and vectors of all sums over k come from one product of matrices.
        matrix = self._matrix(pair)  # f_ik, (B, F, N, N), zero where i = k
        rows = matrix[:, :, :, None]
        if tangent:
            vectors = lines.unflatten(1, (n, n)).transpose(2, 3)  # (B, i, d, k)
            rows = torch.cat([rows, self._matrix(slope)[:, :, :, None] * vectors[:, None]], 3)
        around = rows.sum(4)  # (B, F, N, 1 + d)
        shared = (rows.flatten(2, 3) @ matrix).unflatten(2, (n, -1))  # (B, F, i, 1 + d, j)
        shared = shared.permute(0, 2, 4, 1, 3).flatten(1, 2).index_select(1, self._edges)
        around = around.transpose(1, 2)  # (B, N, F, 1 + d)

        near = around.index_select(1, self._i)
        inputs = torch.cat(
            [
                pair.index_select(1, self._place),
                near[..., 0],
                around[..., 0].index_select(1, self._j),
                shared[..., 0],
                pair.sum(1, keepdim=True).expand(-1, n * m, -1),
                clock[:, None].expand(-1, n * m, -1),
            ],
            -1,
        )
        edges = lines.index_select(1, self._edges)
        if not tangent:
            return self._velocity(self.weight(inputs), edges), x.new_zeros(len(x))
        own = (slope * square[..., None]).index_select(1, self._place)
        moved = torch.einsum("befd,bed->bef", near[..., 1:], edges)
        common = torch.einsum("befd,bed->bef", shared[..., 1:], edges)
        still = x.new_zeros(()).expand(len(x), n * m, clock.shape[1])
        tangents = torch.cat([own, moved, own, common, moved, still], -1)
        weight, along = self.weight.along(inputs, tangents)
        return self._velocity(weight, edges), (self.space_dim * weight + along).sum((1, 2))

    def _pair_functions(
        self, square: Tensor, clock: Tensor, tangent: bool
    ) -> tuple[Tensor, Tensor]:
        """Values (B, P, F) of the radial network, and derivatives by half the squared distance."""
        # Rounded off at zero distance, where the distance itself has a kink.
        distance = (square + _SOFT**2).sqrt()[..., None]
        offset = (distance - self.centers) / self._spacing
        bell = torch.exp(-0.5 * offset.square())
        clock = clock[:, None].expand(-1, square.shape[1], -1)
        inputs = torch.cat([bell, distance, clock], -1)
        if not tangent:
            return self.radial(inputs), square
        slope = -offset * bell / (self._spacing * distance)
        slopes = torch.cat([slope, 1 / distance, torch.zeros_like(clock)], -1)
        return self.radial.along(inputs, slopes)

    def _matrix(self, pair: Tensor) -> Tensor:
        """Values of the pairs (B, P, F) as symmetric matrices (B, F, N, N) of zero diagonal."""
        n = self.n_particles
        full = nn.functional.pad(pair, (0, 0, 0, 1)).transpose(1, 2)
        return full.index_select(2, self._place_or_none).unflatten(2, (n, n))

    def _velocity(self, weight: Tensor, edges: Tensor) -> Tensor:
        v = (weight * edges).unflatten(1, (self.n_particles, -1)).sum(2)
        return self.length * (v - v.mean(1, keepdim=True)).flatten(1)


def _time_features(t: Tensor, x: Tensor) -> Tensor:
    """Time and its harmonics, (B, n_time)."""
    t = t.to(x).expand(len(x))[:, None]
    angle = math.pi * t * torch.arange(1, _HARMONICS + 1, dtype=x.dtype, device=x.device)
    return torch.cat([2 * t - 1, angle.sin(), angle.cos()], -1)
