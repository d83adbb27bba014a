"""Symplectic methods as data: the fractions of a step by which momenta and positions move."""

from __future__ import annotations

from typing import NamedTuple

import torch

from sciflow.integrators.rungekutta import Time
from sciflow.shapes import Tensor


class Splitting(NamedTuple):
    """Kick, drift, kick, ..., drift, kick; each list of fractions sums to one and is a palindrome.

    A palindrome makes the method its own inverse: a step of ``-h`` undoes a step of ``h``.
    """

    order: int
    kicks: tuple[float, ...]
    drifts: tuple[float, ...]


# Yoshida, Phys. Lett. A 150, 262 (1990): three leapfrog steps whose cubic errors cancel.
_OUTER = 1 / (2 - 2 ** (1 / 3))
_INNER = 1 - 2 * _OUTER

SPLITTINGS: dict[str, Splitting] = {
    "leapfrog": Splitting(2, (0.5, 0.5), (1.0,)),
    "yoshida4": Splitting(
        4,
        (_OUTER / 2, (_OUTER + _INNER) / 2, (_OUTER + _INNER) / 2, _OUTER / 2),
        (_OUTER, _INNER, _OUTER),
    ),
}


def kick(p: Tensor, force: Tensor, h: Time) -> Tensor:
    """``p + h force``."""
    return torch.add(p, force, alpha=h) if isinstance(h, float) else p + h * force


def moved(q: Tensor, p: Tensor, h: Time, mass: float | Tensor) -> Tensor:
    """``q + h p / m``."""
    if isinstance(h, float) and not isinstance(mass, Tensor):
        return torch.add(q, p, alpha=h / mass)
    return q + h * (p / mass)
