"""At which times action matching looks: evenly, or more often where the loss varies more."""

from __future__ import annotations

from typing import Any

import torch

from sciflow.shapes import Float, Tensor

_KNOTS = 100
_DECAY = 0.99  # of the running moments of the loss, per batch
_FLOOR = 0.01  # share of evenly drawn times


class Times:
    """Low-discrepancy times in [0, 1]: Kronecker's sequence of sqrt(2) from a random start.

    With ``adaptive`` the density of the times follows the standard deviation of the loss, as
    measured so far on a grid of knots, mixed with one hundredth of the uniform density; the loss
    of a time is divided by its density, so that its mean stays the same (importance sampling,
    section 3 of the action-matching paper's code for images).

    Args:
        adaptive: whether the density is learned.
    """

    def __init__(self, adaptive: bool = False) -> None:
        self.adaptive = adaptive
        self._moments = torch.zeros(3, _KNOTS, dtype=torch.float64)  # weight, loss, loss^2
        self._cumulative = torch.linspace(0.0, 1.0, _KNOTS + 1, dtype=torch.float64)

    def draw(
        self, n: int, start: Float[Tensor, "1"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """``n`` times and the density they are drawn with, from a start in [0, 1)."""
        steps = torch.arange(n, device=start.device, dtype=torch.float64)
        u = (start + steps * 2**0.5) % 1.0
        if not self.adaptive:
            return u, torch.ones_like(u)
        cumulative = self._cumulative.to(u.device)
        cell = (torch.searchsorted(cumulative, u, right=True) - 1).clamp(0, _KNOTS - 1)
        share = cumulative[cell + 1] - cumulative[cell]
        t = (cell + (u - cumulative[cell]) / share) / _KNOTS
        return t.clamp(0.0, 1.0), share * _KNOTS

    def learn(self, t: Float[Tensor, "n"], loss: Float[Tensor, "n"]) -> None:
        """Note the losses found at times ``t``, each before the division by its density."""
        if not self.adaptive:
            return
        t, loss = t.detach().double().cpu(), loss.detach().double().cpu()
        cell = (t * _KNOTS).long().clamp(0, _KNOTS - 1)
        found = torch.zeros_like(self._moments)
        for row, value in zip(found, (torch.ones_like(loss), loss, loss.square()), strict=True):
            row.index_add_(0, cell, value)
        self._moments = _DECAY * self._moments + found
        seen = self._moments[0] > 0
        if not bool(seen.all()):
            return
        weight, first, second = self._moments
        spread = (second / weight - (first / weight).square()).clamp(min=0).sqrt()
        density = spread / spread.sum().clamp(min=1e-300) + _FLOOR / _KNOTS
        self._cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), density.cumsum(0)])
        self._cumulative = self._cumulative / self._cumulative[-1].clone()

    def state_dict(self) -> dict[str, Any]:
        """What has been learned."""
        return {"moments": self._moments, "cumulative": self._cumulative}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self._moments, self._cumulative = state["moments"], state["cumulative"]
