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

import functools
import math
from typing import Any

import torch
from torch import nn

from sciflow.cnf.pieces import in_pieces
from sciflow.shapes import Float, Tensor

_N_TIME = 8
#: Distance, in units of the length of a field, below which radial functions become flat.
_SOFT = 0.1
#: Distance up to which they are resolved.
_FAR = 3.0


class ParticleField(nn.Module):
    """Velocity field of N particles in d dimensions, a configuration being (B, N d).

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
        generator: source of the initial weights, None seeds one with 0; the field starts at zero.

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

    centers: Tensor
    _i: Tensor
    _j: Tensor
    _edges: Tensor
    _pairs: Tensor
    _place: Tensor
    _place_or_none: Tensor

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
                f"expected at least 2 particles and 1 dimension; got {n_particles}, {space_dim}"
            )
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"length must be positive and finite, got {length}")
        if channels < 1 or n_radial < 2:
            raise ValueError(
                f"channels is {channels} and n_radial {n_radial}; expected at least 1 and 2"
            )
        self.n_particles, self.space_dim, self.length = n_particles, space_dim, float(length)
        self.dim = n_particles * space_dim
        #: Compile the divergence where it is trained; many batch sizes would compile many times.
        self.compiled = False
        self.channels, self.width, self.depth, self.n_radial = channels, width, depth, n_radial
        generator = generator or torch.Generator().manual_seed(0)
        self.radial = _Network(n_radial + 1, channels, width, 1, generator)
        self.weight = _Network(5 * channels, 1, width, depth, generator)
        nn.init.zeros_(self.weight.last.weight)
        nn.init.zeros_(self.weight.last.bias)
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
        return in_pieces(self._plain, self._each, t, x)[0]

    def value_and_divergence(
        self, t: Float[Tensor, "*time"], x: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Velocity (B, N d) and its exact divergence (B,)."""
        if self.compiled and torch.is_grad_enabled():
            return _compiled()(self, t, x, tangent=True)
        return in_pieces(self._along, self._each, t, x)

    @property
    def _each(self) -> int:
        """Numbers that a configuration takes in the largest tensor of an evaluation."""
        n, channels = self.n_particles, self.channels
        sums = n * n * (1 + self.space_dim) * channels
        return max(sums, n * (n - 1) * max(5 * channels, self.width))

    def _plain(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(t, x, tangent=False)

    def _along(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._evaluate(t, x, tangent=True)

    def _evaluate(self, t: Tensor, x: Tensor, tangent: bool) -> tuple[Tensor, Tensor]:
        n, m = self.n_particles, self.n_particles - 1
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {self.dim})")
        q = x.unflatten(1, (n, self.space_dim)) / self.length
        lines = (q[:, :, None] - q[:, None]).flatten(1, 2)  # r_ij = q_i - q_j, (B, N N, d)
        square = lines.index_select(1, self._pairs).square().sum(-1)
        clock = _time_features(t.to(x))
        pair, slope = self._pair_functions(square, clock, tangent)

        # Where i moves along r_ij, r_ik^2 / 2 changes by r_ik . r_ij: a derivative is r_ij times
        # a vector. So every sum over k comes as a value and a vector, "rows" (1 + d) deep.
        matrix = self._matrix(pair)  # f_ik, (N, N, B, F), zero where i = k
        rows = matrix[:, :, None]
        if tangent:
            vectors = lines.permute(1, 2, 0).unflatten(0, (n, n))[..., None]  # (i, k, d, B, 1)
            rows = torch.cat([rows, self._matrix(slope)[:, :, None] * vectors], 2)
        around = rows.sum(1)  # (N, 1 + d, B, F)
        shared = rows[:, 0, None] * matrix[0, :, None]  # sum over k of f_ik f_kj, (i, j, ...)
        for k in range(1, n):
            shared = torch.addcmul(shared, rows[:, k, None], matrix[k, :, None])
        shared = shared.flatten(0, 1).index_select(0, self._edges)
        near = around.index_select(0, self._i)  # (E, 1 + d, B, F)

        inputs = torch.cat(
            [
                pair.index_select(0, self._place),
                near[:, 0],
                around[:, 0].index_select(0, self._j),
                shared[:, 0],
                pair.sum(0, keepdim=True).expand(n * m, -1, -1),
            ],
            -1,
        )
        edges = lines.index_select(1, self._edges)
        if not tangent:
            weight = self.weight(inputs, clock)
            return self._velocity(weight, edges), x.new_zeros(len(x))
        along = edges.permute(1, 2, 0)[..., None]  # (E, d, B, 1)
        own = (slope * square.T[..., None]).index_select(0, self._place)
        moved = (near[:, 1:] * along).sum(1)
        common = (shared[:, 1:] * along).sum(1)
        tangents = torch.cat([own, moved, own, common, moved], -1)
        weight, change = self.weight.along(inputs, tangents, clock)
        divergence = (self.space_dim * weight + change).sum((0, 2))
        return self._velocity(weight, edges), divergence

    def _pair_functions(
        self, square: Tensor, clock: Tensor, tangent: bool
    ) -> tuple[Tensor, Tensor]:
        """Values (P, B, F) of the radial network, and derivatives by half the squared distance."""
        # Rounded off at zero distance, where the distance itself has a kink.
        distance = (square.T + _SOFT**2).sqrt()[..., None]
        offset = (distance - self.centers) / self._spacing
        bell = torch.exp(-0.5 * offset.square())
        inputs = torch.cat([bell, distance], -1)
        if not tangent:
            return self.radial(inputs, clock), square
        slopes = torch.cat([-offset * bell / (self._spacing * distance), 1 / distance], -1)
        return self.radial.along(inputs, slopes, clock)

    def _matrix(self, pair: Tensor) -> Tensor:
        """Values of the pairs (P, B, F) as symmetric matrices (N, N, B, F) of zero diagonal."""
        n = self.n_particles
        full = nn.functional.pad(pair, (0, 0, 0, 0, 0, 1))
        return full.index_select(0, self._place_or_none).unflatten(0, (n, n))

    def _velocity(self, weight: Tensor, edges: Tensor) -> Tensor:
        v = (weight.transpose(0, 1) * edges).unflatten(1, (self.n_particles, -1)).sum(2)
        return self.length * (v - v.mean(1, keepdim=True)).flatten(1)


class _Network(nn.Module):
    """Hidden layers silu(W h + U c): features of each pair or edge h, a condition c of all."""

    def __init__(
        self, n_in: int, n_out: int, width: int, depth: int, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.condition = _linear(_N_TIME, depth * width, True, generator)
        sizes = [n_in, *[width] * depth]
        self.layers = nn.ModuleList(
            [_linear(a, b, False, generator) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        )
        self.last = _linear(width, n_out, True, generator)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """Outputs (E, B, n_out) of features (E, B, n_in) and conditions (1 or B, n_time)."""
        for layer, shift in zip(self.layers, self._shifts(c), strict=True):
            h = nn.functional.silu(layer(h) + shift)
        return self.last(h)

    def along(self, h: Tensor, dh: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, and their derivatives where the features change by ``dh``."""
        for layer, shift in zip(self.layers, self._shifts(c), strict=True):
            z = layer(h) + shift
            gate = torch.sigmoid(z)
            h = z * gate
            dh = layer(dh) * (gate + h * (1 - gate))
        return self.last(h), nn.functional.linear(dh, self.last.weight)

    def _shifts(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.condition(c).chunk(len(self.layers), -1)


def _time_features(t: Tensor) -> Tensor:
    """Time in [0, 1], a logarithm that resolves its end, and waves, (1 or B, n_time)."""
    t = t.reshape(-1, 1)
    waves = math.pi * t * torch.arange(1, 4, dtype=t.dtype, device=t.device)
    return torch.cat([t, -0.3 * (1.02 - t).log() - 0.5, waves.sin(), waves.cos()], 1)


def _linear(n_in: int, n_out: int, bias: bool, generator: torch.Generator | None) -> nn.Linear:
    """A layer with torch's usual weights, from a generator of its own."""
    layer = nn.Linear(n_in, n_out, bias=bias)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(n_in**-0.5), n_in**-0.5, generator=generator)
    return layer


@functools.cache
def _compiled() -> Any:
    # A function of the module, so that a copy of the field does not use the original's weights.
    return torch.compile(ParticleField._evaluate, dynamic=False)
