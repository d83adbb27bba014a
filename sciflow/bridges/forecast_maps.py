"""The exporter of forecasts of turbulence: k and eps with bands at later times."""

from __future__ import annotations

import torch
from torch import nn

from sciflow.bridges.loops import Piece, Size, scan
from sciflow.bridges.maps import Map, Parts, Settings, Tensors
from sciflow.bridges.tracing import Later
from sciflow.integrators.rungekutta import rk_step
from sciflow.integrators.tableaus import TABLEAUS
from sciflow.shapes import Tensor
from sciflow.turbulence import Forecaster
from sciflow.turbulence.features import surroundings
from sciflow.turbulence.forecaster import TAU_MAX
from sciflow.turbulence.knowledge import Seen
from sciflow.turbulence.model import METHOD, tau_grid

_OUTPUTS = ("k", "eps", "k_low", "k_high", "eps_low", "eps_high", "C2")


class ForecastLoop(nn.Module):
    """The ensemble along the whole grid of tau, and what it says of one time of each decay.

    Args:
        model: the forecaster, without gradients.
    """

    tau: Tensor

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        self.register_buffer("tau", tau_grid(TAU_MAX))
        network, members = model.model, model.model.members

        def start(k: Tensor, eps: Tensor, nu: Tensor) -> Tensors:
            around = surroundings(k, eps, nu, None, None)
            known = k.new_zeros(members, len(k), 0)
            z = network.encode("bare", around.expand(members, -1, -1), known)
            y = torch.cat([z.new_zeros(*z.shape[:2], 2), z], -1)
            return y.transpose(0, 1).contiguous(), around

        def step(y: Tensor, around: Tensor, tau: Tensor, h: Tensor) -> Tensors:
            here = around.expand(members, -1, -1)

            def slopes(s: float | Tensor, leaves: list[Tensor]) -> list[Tensor]:
                return [network.slope(torch.as_tensor(s).to(leaves[0]), leaves[0], here)[1]]

            leaves = [y.transpose(0, 1)]
            (end,) = rk_step(slopes, TABLEAUS[METHOD], tau, h, leaves, None).y1
            return (end.transpose(0, 1).contiguous(),)

        def read(k: Tensor, eps: Tensor, nu: Tensor, t: Tensor, ys: Tensor) -> Tensors:
            y = ys.movedim(0, 2).movedim(0, 1)  # (B, M, steps, n) to (steps, M, B, n)
            wanted = (t * eps / k)[None]
            seen = Seen("bare", surroundings(k, eps, nu, None, None), k.new_zeros(len(k), 0))
            found = model.read_off(t[None], wanted, self.tau, y, k, eps, nu, seen)
            there = (t >= 0) & (y[-1, ..., 1].amin(0) >= wanted[0])
            values = (getattr(found, name)[0] for name in _OUTPUTS)
            return tuple(torch.where(there, x, torch.nan) for x in values)

        def states(n: int) -> Tensors:
            k, eps, nu, t = decays(n)
            y, _ = start(k, eps, nu)
            rise = torch.linspace(0, 5, len(self.tau)).to(y)
            ys = y.unsqueeze(2) + rise[:, None]
            return k, eps, nu, t, ys

        self.start = Piece(start, lambda n: decays(n)[:3])
        self.step = Piece(step, lambda n: (*start(*decays(n)[:3]), self.tau[0], self.tau[1]))
        self.read = Piece(read, states)

    def forward(self, k: Tensor, eps: Tensor, nu: Tensor, t: Tensor) -> Tensors:
        """Forecasts (B,) at times t (B,) after the start."""
        y, around = self.start(k, eps, nu)

        def body(
            y: Tensor, idle: Tensor, tau: Tensor, h: Tensor, size: Size, *rest: Tensor
        ) -> list[Tensor]:
            (end,) = self.step.graph(y, rest[0], tau, h, *rest[1:])
            return [end, idle.clone(), end.clone()]

        steps = [self.tau[:-1], self.tau.diff()]
        # The compiler of torch 2.13 stumbles over a loop with one output.
        start = [y, torch.zeros_like(k)]
        _, _, after = scan(body, start, steps, (around, *self.step.weights))
        ys = torch.cat([y[None], after]).movedim(0, 2)
        return self.read(k, eps, nu, t, ys)


def decays(n: int) -> Tensors:
    """Decays of moderate Reynolds numbers, and times."""
    ramp = torch.linspace(0.5, 1.5, n, dtype=torch.float64)
    return ramp, 1.2 * ramp.flip(0), 0.02 * ramp, ramp + 0.7


def forecast_maps(model: Forecaster, settings: Settings) -> Parts:
    """The forecast from k, eps and nu alone, without a box and with all scales resolved."""
    inputs = ("k0", "eps0", "nu", "t")
    note = "t: time after the start; not a number where no forecast goes; any consistent units"
    maps = {"forecast": Map(inputs, _OUTPUTS, Later(lambda: ForecastLoop(model)), decays, note)}
    return Parts(maps, settings.units or "reduced")
