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
    """Velocity field of ``n_particles`` in ``dim`` dimensions, a configuration being (B, N d).

    Radial functions f(d_ij, t) of F channels are learned by a first network. A second one turns
    f_ij, their sums over the neighbours of i and of j, over the common neighbours k (of
    f_ik f_kj) and over all pairs, and time into the weight w_ij. For up to four particles this
    describes the configuration completely.

    Args:
        n_particles: N, at least 2.
        dim: d.
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
        dim: int,
        length: float = 1.0,
        channels: int = 16,
        width: int = 64,
        depth: int = 2,
        n_radial: int = 24,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if n_particles < 2 or dim < 1:
            raise ValueError(
                f"n_particles is {n_particles} and dim {dim}; expected at least 2 and 1"
            )
        if not (math.isfinite(length) and length > 0):
            raise ValueError(f"length must be positive and finite, got {length}")
        if channels < 1 or n_radial < 2:
            raise ValueError(
                f"channels is {channels} and n_radial {n_radial}; expected at least 1 and 2"
            )
        self.n_particles, self.dim, self.length = n_particles, dim, float(length)
        n_time = 1 + 2 * _HARMONICS
        self.radial = MLP(n_radial + 1 + n_time, channels, width, 1, generator=generator)
        self.weight = MLP(
            5 * channels + n_time, 1, width, depth, generator=generator, zero=True
        )
        self._spacing = _FAR / (n_radial - 1)
        self.register_buffer("centers", torch.linspace(0.0, _FAR, n_radial))
        # Place of the pair {i, j} in the list of pairs, and the ordered pairs without i = j.
        first, second = torch.triu_indices(n_particles, n_particles, 1)
        place = torch.zeros(n_particles, n_particles, dtype=torch.long)
        place[first, second] = place[second, first] = torch.arange(len(first))
        others = ~torch.eye(n_particles, dtype=torch.bool)
        i, j = others.nonzero(as_tuple=True)
        tables = {"_first": first, "_second": second, "_place": place, "_i": i, "_j": j}
        for name, table in {**tables, "_others": others}.items():
            self.register_buffer(name, table, persistent=False)

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
        if x.ndim != 2 or x.shape[1] != n * self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, {n * self.dim})")
        q = x.unflatten(1, (n, self.dim)) / self.length
        lines = q[:, :, None] - q[:, None]  # r_ij = q_i - q_j, (B, N, N, d)
        clock = _time_features(t, x)

        # Functions of a pair, and their derivative with respect to half the squared distance:
        # moving i along r_ij changes r_ik^2 / 2 by r_ik . r_ij.
        square = lines[:, self._first, self._second].square().sum(-1)
        pair, slope = self._pair_functions(square, clock, tangent)
        matrix = self._matrix(pair)  # A_ij, (B, N, N, F), zero where i = j
        around = matrix.sum(2)
        features = [
            pair[:, self._place[self._i, self._j]],
            around[:, self._i],
            around[:, self._j],
            torch.einsum("bikf,bkjf->bijf", matrix, matrix)[:, self._i, self._j],
            pair.sum(1, keepdim=True).expand(-1, n * m, -1),
            clock[:, None].expand(-1, n * m, -1),
        ]
        inputs = torch.cat(features, -1)
        edges = lines[:, self._i, self._j].unflatten(1, (n, m))
        if not tangent:
            weight = self.weight(inputs).unflatten(1, (n, m))
            return self._velocity(weight, edges), x.new_zeros(len(x))

        slopes = self._matrix(slope)
        cosine = torch.einsum("bikd,bijd->bikj", lines, lines)
        moved = torch.einsum("bikf,bikj->bijf", slopes, cosine)[:, self._i, self._j]
        own = slope[:, self._place[self._i, self._j]] * square[
            :, self._place[self._i, self._j], None
        ]
        common = torch.einsum("bikf,bikj,bkjf->bijf", slopes, cosine, matrix)
        tangents = [
            own,
            moved,
            own,
            common[:, self._i, self._j],
            moved,
            torch.zeros_like(features[-1]),
        ]
        weight, along = self.weight.along(inputs, torch.cat(tangents, -1))
        divergence = (self.dim * weight + along).sum((1, 2))
        return self._velocity(weight.unflatten(1, (n, m)), edges), divergence

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
        """Values of the pairs (B, P, F) as symmetric matrices (B, N, N, F) of zero diagonal."""
        return pair[:, self._place] * self._others[:, :, None]

    def _velocity(self, weight: Tensor, edges: Tensor) -> Tensor:
        v = (weight * edges).sum(2)
        return self.length * (v - v.mean(1, keepdim=True)).flatten(1)


def _time_features(t: Tensor, x: Tensor) -> Tensor:
    """Time and its harmonics, (B, n_time)."""
    t = t.to(x).expand(len(x))[:, None]
    angle = math.pi * t * torch.arange(1, _HARMONICS + 1, dtype=x.dtype, device=x.device)
    return torch.cat([2 * t - 1, angle.sin(), angle.cos()], -1)
