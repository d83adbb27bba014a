"""The fields a flow can be made of: one table, and a field with its context filled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sciflow.cnf.equivariant import ParticleField
from sciflow.cnf.velocity import VelocityMLP
from sciflow.shapes import Tensor

VectorField = Callable[..., Tensor]

#: name in a saved flow -> class; a new one is a line here and has ``config``.
FIELDS: dict[str, type[nn.Module]] = {"mlp": VelocityMLP, "particles": ParticleField}


class Bound:
    """A conditional field at a given context (B, c): a field of time and position alone."""

    def __init__(self, field: Any, context: Tensor) -> None:
        self.field, self.context = field, context
        if hasattr(field, "value_and_divergence"):
            self.value_and_divergence = self._value_and_divergence

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        """Velocity (B, d)."""
        return self.field(t, x, self.context)

    def _value_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.field.value_and_divergence(t, x, self.context)
