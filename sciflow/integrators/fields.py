"""What moves. An ordinary differential equation is any callable ``f(t, y)``; here are the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciflow.integrators.divergence import (
    VectorField,
    exact_divergence,
    hutchinson_divergence,
    rademacher,
)
from sciflow.integrators.state import State
from sciflow.shapes import Tensor


@dataclass(frozen=True)
class SDE:
    """Stochastic differential equation ``dy = drift(t, y) dt + diffusion(t, y) dW``.

    The noise is diagonal: each element of the state has its own Wiener process. Whether the
    equation is read in the sense of Ito or of Stratonovich is decided by the method
    (``euler_maruyama``: Ito; ``heun_strat``: Stratonovich); for noise that does not depend on
    the state both are the same.

    Attributes:
        drift: ``drift(t, y)`` with the structure and shapes of the state; state per time.
        diffusion: a number, a nest of numbers with the structure of the state (0 for a leaf
            without noise), or a callable ``diffusion(t, y)`` that gives such a nest of tensors or
            numbers; state per square root of time.
    """

    drift: Callable[[Tensor, State], State]
    diffusion: Callable[[Tensor, State], State] | Any

    def __post_init__(self) -> None:
        if not callable(self.drift):
            raise TypeError(f"drift must be callable; got {type(self.drift).__name__}")


class WithLogDensity:
    """A vector field that carries the log-density of its samples along.

    The state is ``(x, logp)`` with x (batch, dim) and logp (batch,), and
    ``d logp / dt = -div f(t, x)`` (Chen et al., NeurIPS 2018, eq. 8).

    Args:
        f: vector field ``f(t, x)``, (batch, dim) to (batch, dim).
        trace: ``"exact"``, or ``"hutchinson"`` with one Rademacher probe per sample, drawn once
            and held fixed for the whole solve, so that the field stays an ODE.

    Raises:
        ValueError: ``trace`` is neither.

    Example:
        >>> import torch, sciflow
        >>> field = sciflow.WithLogDensity(lambda t, x: -x)
        >>> x, logp = torch.ones(3, 2), torch.zeros(3)
        >>> sol = sciflow.integrate(field, (x, logp), torch.tensor([0.0, 1.0]))
        >>> sol.y[1].shape
        torch.Size([2, 3])
    """

    #: The error norm sees x alone: an error of logp does not feed back into the solution.
    in_error_norm = (True, False)

    def __init__(self, f: VectorField, trace: Literal["exact", "hutchinson"] = "exact") -> None:
        if trace not in ("exact", "hutchinson"):
            raise ValueError(f"trace must be 'exact' or 'hutchinson'; got {trace!r}")
        self.f = f
        self.trace = trace
        self.probe: Tensor | None = None

    @property
    def needs_randomness(self) -> bool:
        """Whether a solve needs a seed or a generator."""
        return self.trace == "hutchinson"

    def prepared(self, y0: State, generator: torch.Generator | None) -> WithLogDensity:
        """This field with the probe of one solve; fields themselves hold no state."""
        if not isinstance(y0, tuple | list) or len(y0) != 2:
            raise TypeError(f"y0 of a WithLogDensity must be (x, logp); got {type(y0).__name__}")
        x, logp = y0
        if x.ndim != 2 or logp.shape != x.shape[:1]:
            raise ValueError(
                "y0 of a WithLogDensity must be x (batch, dim) and logp (batch,); "
                f"got {tuple(x.shape)} and {tuple(logp.shape)}"
            )
        field = WithLogDensity(self.f, self.trace)
        if generator is not None and self.needs_randomness:
            field.probe = rademacher(x, generator)
        return field

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Slope of ``(x, logp)``."""
        x = state[0]
        if self.trace == "exact":
            value, trace = exact_divergence(self.f, t, x)
        else:
            if self.probe is None:
                raise ValueError("a Hutchinson trace needs the probe that integrate() draws")
            value, trace = hutchinson_divergence(self.f, t, x, self.probe)
        return value, -trace
