"""What moves. An ordinary differential equation is any callable ``f(t, y)``; here are the rest."""

from __future__ import annotations

import math
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

    Whether the equation is read in the sense of Ito or of Stratonovich is decided by the method
    (``euler_maruyama``: Ito; ``heun_strat`` and ``reversible_heun``: Stratonovich); for noise
    that does not depend on the state both are the same, and ``sra1`` is the method to take.

    Attributes:
        drift: ``drift(t, y)`` with the structure and shapes of the state; state per time.
        diffusion: a number, a nest of numbers with the structure of the state (0 for a leaf
            without noise), or a callable ``diffusion(t, y)`` that gives such a nest of tensors or
            numbers; state per square root of time.
        noise: ``"diagonal"``: each element of the state has its own Wiener process;
            ``"scalar"``: each sample has one, for all its elements and leaves; ``"matrix"``: the
            state is one tensor (..., dim), the diffusion (..., dim, m), and each sample has m.
    """

    drift: Callable[[Tensor, State], State]
    diffusion: Callable[[Tensor, State], State] | Any
    noise: Literal["diagonal", "scalar", "matrix"] = "diagonal"

    def __post_init__(self) -> None:
        if not callable(self.drift):
            raise TypeError(f"drift must be callable; got {type(self.drift).__name__}")
        if self.noise not in ("diagonal", "scalar", "matrix"):
            raise ValueError(f"noise must be 'diagonal', 'scalar' or 'matrix'; got {self.noise!r}")


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


class Hamiltonian:
    """A system of energy ``H = sum p**2 / 2m + U(q)``, if wished in contact with a heat bath.

    The state is ``(q, p)``, both (batch, ...). Without friction the equations are Hamilton's,
    ``dq = p/m dt`` and ``dp = -grad U dt``; with friction and temperature they are Langevin's,
    ``dp = (-grad U - friction p) dt + sqrt(2 m friction kT) dW``. Forces come from the potential
    by automatic differentiation, or from its own method ``force(q)`` where it has one.

    Args:
        potential: ``U(q)``, (batch, ...) to (batch,), an energy.
        mass: a number, or a tensor that broadcasts against q; positive.
        friction: rate of the bath, per time.
        kT: temperature of the bath, an energy.

    Raises:
        TypeError: ``potential`` is not callable.
        ValueError: a mass is not positive, or friction or temperature are negative.

    Example:
        >>> import torch, sciflow
        >>> spring = sciflow.Hamiltonian(lambda q: 0.5 * q.square().sum(1))
        >>> state, t = (torch.ones(3, 1), torch.zeros(3, 1)), torch.tensor([0.0, 1.0])
        >>> sol = sciflow.integrate(spring, state, t, method="leapfrog", dt=0.01)
        >>> bool((sol.y[0][-1] - torch.cos(t[-1])).abs().max() < 1e-4)
        True
    """

    needs_randomness = False

    def __init__(
        self,
        potential: Callable[[Tensor], Tensor],
        mass: float | Tensor = 1.0,
        friction: float = 0.0,
        kT: float = 0.0,
    ) -> None:
        if not callable(potential):
            raise TypeError(f"potential must be callable; got {type(potential).__name__}")
        if not bool((torch.as_tensor(mass) > 0).all()):
            raise ValueError(f"mass must be positive; got {mass}")
        for name, value in (("friction", friction), ("kT", kT)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number, not negative; got {value!r}")
        self.potential, self.mass = potential, mass
        self.friction, self.kT = float(friction), float(kT)
        self.tracked = True

    def prepared(self, y0: State, generator: torch.Generator | None = None) -> Hamiltonian:
        """This system for one solve: its forces keep a graph only where somebody asks for it."""
        if not isinstance(y0, tuple | list) or len(y0) != 2:
            raise TypeError(f"y0 of a Hamiltonian must be (q, p); got {type(y0).__name__}")
        q, p = y0
        if q.shape != p.shape or q.dtype != p.dtype or not q.is_floating_point():
            raise ValueError(
                "y0 of a Hamiltonian must be q and p of one shape and one real type; "
                f"got {tuple(q.shape)} {q.dtype} and {tuple(p.shape)} {p.dtype}"
            )
        value, *rest = self.about(q.detach())
        if not isinstance(value, Tensor) or value.shape != q.shape[: value.ndim]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"potential must give an energy per sample of {q.shape}; got {got}")
        field = Hamiltonian(self.potential, self.mass, self.friction, self.kT)
        field.tracked = any(
            isinstance(x, Tensor) and x.requires_grad for x in (q, p, value, *rest)
        )
        return field

    def velocity(self, p: Tensor) -> Tensor:
        """``p / m``."""
        return p / self.mass

    def force(self, q: Tensor) -> Tensor:
        """``-grad U``, of the shape of q; differentiable where gradients are enabled."""
        rule = getattr(self.potential, "force", None)
        if rule is not None:
            return rule(q)
        tracked = torch.is_grad_enabled() and (self.tracked or q.requires_grad)
        with torch.enable_grad():
            x = q if tracked and q.requires_grad else q.detach().requires_grad_()
            value = self.potential(x)
            (force,) = torch.autograd.grad(
                value, x, torch.full_like(value, -1.0), create_graph=tracked
            )
        return force

    def about(self, q: Tensor) -> list[Any]:
        """Values whose graphs hold all that this system depends on."""
        rule = getattr(self.potential, "force", None)
        return [self.potential(q), self.mass, *([] if rule is None else [rule(q)])]

    def energy(self, q: Tensor, p: Tensor) -> Tensor:
        """Kinetic plus potential energy, per sample."""
        value = self.potential(q)
        kinetic = 0.5 * p * self.velocity(p)
        return value + kinetic.reshape(*value.shape, -1).sum(-1)

    def __call__(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Hamilton's equations, for the methods of ordinary differential equations."""
        return self.velocity(state[1]), self.force(state[0])
