"""Coupling point transformations: some coordinates move, by functions of others that stay.

With Q_b = f(q_b; theta(q_a)) and Q_a = q_a the momenta are P_b = p_b / f' and
P_a = p_a - (df/dq_a)^T P_b: one vector-Jacobian product of the network per layer and direction.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch

from sciflow.nct.layers.base import Partition, PointMap
from sciflow.nct.layers.conditioner import Conditioner
from sciflow.nn import make_spline, n_spline_parameters
from sciflow.shapes import Float, Tensor

#: Largest change of ln scale by one affine coupling.
LARGEST_LOG_SCALE = 2.0


class Coupling(PointMap):
    """What the couplings share: which coordinates move, and the network that sees the others.

    Args:
        periods: of all coordinates; infinity where one has none.
        moved: the coordinates that move: all with a period, or all without.
        given: those that the network sees; all others where not given.
        per_coordinate: number of outputs of the network for each coordinate that moves.
        width: width of the hidden layers.
        depth: number of hidden layers.
        harmonics: how many multiples of a given angle the network sees.
        generator: source of the initial weights.

    Raises:
        ValueError: a coordinate both moves and is given, or none is one of the two.
    """

    def __init__(
        self,
        periods: Sequence[float],
        moved: Sequence[int],
        given: Sequence[int] | None,
        per_coordinate: int,
        width: int,
        depth: int,
        harmonics: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        rest = [i for i in range(len(periods)) if i not in moved]
        given = rest if given is None else list(given)
        if not moved or not given or set(moved) & set(given):
            raise ValueError(
                f"moved {list(moved)} and given {given} must be apart, and neither empty"
            )
        kinds = {math.isinf(periods[i]) for i in moved}
        if len(kinds) > 1:
            raise ValueError(f"moved {list(moved)} mixes angles and numbers; use two couplings")
        self.config = {
            "periods": list(periods),
            "moved": list(moved),
            "given": given,
            "width": width,
            "depth": depth,
            "harmonics": harmonics,
        }
        self.parts = Partition(len(periods), moved, given)
        self.net = Conditioner(
            [periods[i] for i in given],
            per_coordinate * len(moved),
            width,
            depth,
            harmonics,
            generator,
        )

    @abstractmethod
    def _move(self, x: Tensor, raw: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        """Coordinates after the move (B, m), or before it, and ln of the derivatives."""

    @abstractmethod
    def _momenta(
        self, x: Tensor, raw: Tensor, p: Tensor, back: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates and momenta after the move (or before it), and the cotangent of ``raw``.

        The cotangent is that of f at the latent momenta, P_b^T df/draw.
        """

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Latent coordinates of physical ones, and ln |det dQ/dq|."""
        return self._coordinates(q, False)

    def coordinates_inverse(
        self, Q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Physical coordinates of latent ones, and ln |det dq/dQ|."""
        return self._coordinates(Q, True)

    def forward(
        self, q: Float[Tensor, "batch dim"], p: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Latent coordinates and momenta of physical ones."""
        return self._both(q, p, False)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Physical coordinates and momenta of latent ones."""
        return self._both(Q, P, True)

    def _coordinates(self, q: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        moved, given = self.parts.take(q)
        x, log_derivative = self._move(moved, self.net(given), back)
        return self.parts.put(q, x, given), log_derivative.sum(1)

    def _both(self, q: Tensor, p: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        moved, given = self.parts.take(q)
        p_moved, p_given = self.parts.take(p)
        raw, pull = self.net.pullback(given)
        x, momenta, cotangent = self._momenta(moved, raw, p_moved, back)
        kick = pull(cotangent)
        p_given = p_given + kick if back else p_given - kick
        return self.parts.put(q, x, given), self.parts.put(p, momenta, p_given)


class AffineCoupling(Coupling):
    """Q_b = q_b exp(s(q_a)) + t(q_a), with |s| at most `LARGEST_LOG_SCALE`; starts at q_b.

    Arguments as in `Coupling`.
    """

    def __init__(
        self,
        periods: Sequence[float],
        moved: Sequence[int],
        given: Sequence[int] | None = None,
        width: int = 64,
        depth: int = 2,
        harmonics: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(periods, moved, given, 2, width, depth, harmonics, generator)
        if not all(math.isinf(periods[i]) for i in moved):
            raise ValueError(f"moved {list(moved)} holds angles; expected numbers")

    def _move(self, x: Tensor, raw: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        raw_scale, t = raw.chunk(2, 1)
        s = LARGEST_LOG_SCALE * torch.tanh(raw_scale / LARGEST_LOG_SCALE)
        if back:
            return (x - t) * torch.exp(-s), -s
        return torch.addcmul(t, x, s.exp()), s

    def _momenta(
        self, x: Tensor, raw: Tensor, p: Tensor, back: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        raw_scale, t = raw.chunk(2, 1)
        bend = torch.tanh(raw_scale / LARGEST_LOG_SCALE)
        growth = (LARGEST_LOG_SCALE * bend).exp()
        # P d(q e^s + t)/ds = q p = (Q - t) P, and s is a bent raw scale
        if back:
            shifted = x - t
            cotangent = torch.cat([shifted * p * (1 - bend * bend), p], 1)
            return shifted / growth, p * growth, cotangent
        P = p / growth
        cotangent = torch.cat([x * p * (1 - bend * bend), P], 1)
        return torch.addcmul(t, x, growth), P, cotangent


class SplineCoupling(Coupling):
    """Q_b = spline(q_b; theta(q_a)), rational-quadratic, on the line or on the circle.

    Arguments as in `Coupling`, and:

    Args:
        n_bins: bins of each spline.
        bound: on the line the spline covers [-bound, bound], and goes on straight beyond.
    """

    def __init__(
        self,
        periods: Sequence[float],
        moved: Sequence[int],
        given: Sequence[int] | None = None,
        width: int = 64,
        depth: int = 2,
        harmonics: int = 2,
        n_bins: int = 8,
        bound: float = 5.0,
        generator: torch.Generator | None = None,
    ) -> None:
        moved_periods = {periods[i] for i in moved}
        if len(moved_periods) > 1:
            raise ValueError(f"moved {list(moved)} has periods {moved_periods}; expected one")
        period = moved_periods.pop() if moved_periods else math.inf
        circular = math.isfinite(period)
        number = n_spline_parameters(n_bins, circular)
        super().__init__(periods, moved, given, number, width, depth, harmonics, generator)
        self.config |= {"n_bins": n_bins, "bound": bound}
        self.circular, self.bound = circular, period / 2 if circular else bound

    def _move(self, x: Tensor, raw: Tensor, back: bool) -> tuple[Tensor, Tensor]:
        raw = raw.reshape(*x.shape, -1)
        spline = make_spline(raw, -self.bound, self.bound, self.circular)
        return spline.inverse(x) if back else spline(x)

    def _momenta(
        self, x: Tensor, raw: Tensor, p: Tensor, back: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        track = torch.is_grad_enabled() and (
            x.requires_grad or raw.requires_grad or p.requires_grad
        )
        with torch.enable_grad():
            if not track:
                x, raw, p = x.detach(), raw.detach(), p.detach()
            raw = raw if raw.requires_grad else raw.requires_grad_()
            moved, log_derivative = self._move(x, raw, back)
            momenta = p * torch.exp(-log_derivative)
            # At fixed q_b, dQ/draw; at fixed Q_b, dq/draw = -(dQ/draw) / f', and P = p / f'.
            (cotangent,) = torch.autograd.grad(
                moved, raw, -momenta if back else momenta, create_graph=track
            )
        if not track:
            return moved.detach(), momenta.detach(), cotangent
        return moved, momenta, cotangent
