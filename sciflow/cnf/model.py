"""The continuous normalizing flow: a base density moved by a field, with its exact density."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.distributions import Distribution, constraints

from sciflow.cnf.base import Base, StandardBase, TorchBase, check_periodic, is_foreign
from sciflow.cnf.fields import Bound, VectorField
from sciflow.cnf.uncertainty import LogLikelihood, rate
from sciflow.integrators import WithLogDensity, integrate
from sciflow.shapes import Float, Tensor
from sciflow.train import History
from sciflow.train.batch import require_finite

Trace = Literal["exact", "hutchinson"]


class ContinuousFlow(nn.Module, Distribution):
    """A density that a vector field makes of a base density.

    In coordinates y of the flow, ``dy/dt = f(t, y)`` carries a draw of the base at t = 0 to a
    sample at t = 1, and ``log p(y(1)) = log base(y(0)) - integral of div f dt`` (Chen et al.,
    NeurIPS 2018, eq. 8; Grathwohl et al., ICLR 2019). Data are ``x = shift + scale y``. The flow
    is a module with parameters and a `torch.distributions.Distribution`; tensors come and go in
    the device and dtype of its parameters.

    Args:
        field: module ``field(t, y) -> v`` with y (B, d) and t () or (B,); optionally with
            ``value_and_divergence(t, y) -> (v, div)``, which the exact trace then uses. A
            conditional flow calls both with ``context`` (B, c) as a third argument.
        base: density of the latent variables: a `Base`, a distribution of torch over vectors, or
            None for the standard normal (uniform in periodic coordinates).
        trace: ``"exact"``: its own rule, or d vector-Jacobian products; ``"hutchinson"``:
            unbiased with one Rademacher probe per solve, for fields of many dimensions.
        dim: number of coordinates, where neither field nor base has ``dim``.
        periods: period of each periodic coordinate by its index, in units of the data. The flow
            sees it as an angle; the field must have the period 2 pi in it.
        shift: origin of the data, (d,) or a number; for a periodic coordinate the middle of its
            interval.
        scale: unit of the data, (d,) or a number, positive; of no effect on periodic coordinates.
        method: method of `sciflow.integrate`.
        rtol: relative tolerance of the adaptive methods.
        atol: absolute tolerance, in units of y.
        n_steps: constant steps instead of adaptive ones.

    Raises:
        TypeError: the field is not callable.
        ValueError: sizes disagree or a number is out of range.

    Example:
        >>> from sciflow import cnf
        >>> flow = cnf.ContinuousFlow(cnf.VelocityMLP(2))
        >>> x, log_p = flow.sample_with_log_prob(5)
        >>> flow.log_prob(x).shape
        torch.Size([5])
    """

    has_rsample = True
    arg_constraints: dict[str, Any] = {}
    base: Any
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        field: VectorField,
        base: Base | Distribution | None = None,
        trace: Trace = "exact",
        *,
        dim: int | None = None,
        periods: dict[int, float] | None = None,
        shift: Float[Tensor, " dim"] | Sequence[float] | float = 0.0,
        scale: Float[Tensor, " dim"] | Sequence[float] | float = 1.0,
        method: str = "dopri5",
        rtol: float = 1e-5,
        atol: float = 1e-5,
        n_steps: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if not callable(field):
            raise TypeError(f"field must be callable, f(t, x); got {type(field).__name__}")
        if trace not in ("exact", "hutchinson"):
            raise ValueError(f"trace must be 'exact' or 'hutchinson'; got {trace!r}")
        base = TorchBase(base) if is_foreign(base) else base
        known = {
            "field": getattr(field, "dim", None),
            "base": getattr(base, "dim", None),
            "dim": dim,
        }
        sizes = {name: size for name, size in known.items() if size is not None}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"field, base and dim must agree on one size; got {sizes or 'none'}")
        self.dim = next(iter(sizes.values()))
        self.periods = {int(i): float(p) for i, p in (periods or {}).items()}
        self.periodic = check_periodic(self.dim, self.periods)
        if any(not 0 < p < math.inf for p in self.periods.values()):
            raise ValueError(f"periods must be positive; got {self.periods}")
        self.field = field
        self.base = base if base is not None else StandardBase(self.dim, self.periodic)
        self.trace = trace
        self.set_solver(method, rtol, atol, n_steps)
        self.register_buffer("shift", self._per_coordinate(shift, "shift"))
        scale = self._per_coordinate(scale, "scale")
        for i, period in self.periods.items():
            scale[i] = period / (2 * math.pi)
        if not bool((scale > 0).all()):
            raise ValueError(f"scale must be positive; got {scale.tolist()}")
        self.register_buffer("scale", scale)
        self.history: History | None = None
        self.interrupted = False
        self._stream: torch.Generator | None = None
        Distribution.__init__(self, event_shape=torch.Size([self.dim]), validate_args=False)

    # --- density and samples -----------------------------------------------------------------

    def log_prob(
        self,
        x: Float[Tensor, "*batch dim"],
        context: Float[Tensor, "*any c"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Log-density of data, in nats per volume of the data.

        Where no gradient is wanted, call it under ``torch.no_grad()``: a graph holds every
        evaluation of the solve, and without one the memory is that of some pieces of the batch.

        Args:
            x: data (..., d).
            context: of a conditional flow, (c,) for all or (..., c).
            generator: source of the probe of the Hutchinson trace; by default the flow's own.

        Raises:
            ValueError: ``x`` or ``context`` has another shape or is not finite.
            IntegrationError: a sample could not be integrated to the end.
        """
        y = self._inward(x)
        z, log_det = self._move(y, 1.0, 0.0, self._context(context, x), generator)
        log_p = self.base.log_prob(z) + log_det - self.scale.log().sum()
        return log_p.reshape(x.shape[:-1])

    def sample_with_log_prob(
        self,
        sample_shape: int | Sequence[int] = (),
        context: Float[Tensor, "*any c"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "*n dim"], Float[Tensor, "*n"]]:
        """Samples and their log-densities in one pass; gradients flow where they are enabled.

        Where none is wanted, call it under ``torch.no_grad()``, as for `log_prob`.

        Args:
            sample_shape: number of samples, or a shape of them.
            context: (c,) for all samples, or one per sample, (..., c).
            generator: source of the base draws; by default the flow's own.
        """
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        generator = self._generator(generator)
        z = self.base.sample(shape.numel(), generator).to(self.shift)
        log_p = self.base.log_prob(z)
        like = z.reshape(*shape, self.dim)
        y, log_det = self._move(z, 0.0, 1.0, self._context(context, like), generator)
        x = self.to_data_units(y).reshape(like.shape)
        return x, (log_p - log_det - self.scale.log().sum()).reshape(shape)

    def rsample(
        self,
        sample_shape: int | Sequence[int] = (),
        context: Float[Tensor, "*any c"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n dim"]:
        """Samples through which gradients reach the parameters; arguments as those above."""
        shape = torch.Size([sample_shape] if isinstance(sample_shape, int) else sample_shape)
        z = self.base.sample(shape.numel(), self._generator(generator)).to(self.shift)
        return self.to_data(z.reshape(*shape, self.dim), context)

    @torch.no_grad()
    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        context: Float[Tensor, "*any c"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n dim"]:
        """Samples; arguments as those of `sample_with_log_prob`."""
        return self.rsample(sample_shape, context, generator)

    def to_data(
        self, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*any c"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Data that the flow makes of latent variables ``z`` (..., d)."""
        y = self._checked(z, "z").reshape(-1, self.dim)
        t = torch.tensor([0.0, 1.0], dtype=torch.float64)
        y = self._solve(y, t, self._context(context, z))[-1]
        return self.to_data_units(y).reshape(z.shape)

    def to_latent(
        self, x: Float[Tensor, "*batch dim"], context: Float[Tensor, "*any c"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Latent variables of data ``x`` (..., d): the inverse of `to_data`."""
        t = torch.tensor([1.0, 0.0], dtype=torch.float64)
        z = self._solve(self._inward(x), t, self._context(context, x))[-1]
        return self.wrapped(z).reshape(x.shape)

    def to_data_with_log_prob(
        self, z: Float[Tensor, "batch dim"], context: Float[Tensor, "*any c"] | None = None
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Data of latent variables ``z`` (B, d), and their log-densities (B,), in one pass."""
        y = self._checked(z, "z")
        moved, log_det = self._move(y, 0.0, 1.0, self._context(context, z), None)
        log_p = self.base.log_prob(y) - log_det - self.scale.log().sum()
        return self.to_data_units(moved), log_p

    def path(
        self,
        z: Float[Tensor, "batch dim"],
        t: Float[Tensor, " time"],
        context: Float[Tensor, "*any c"] | None = None,
    ) -> Float[Tensor, "time batch dim"]:
        """Where latent variables ``z`` (B, d) are at the times ``t`` (T,) from 0 to 1.

        In units of the data; periodic coordinates are not wrapped, so that paths have no jumps.
        """
        y = self._checked(z, "z")
        return self.shift + self.scale * self._solve(y, t.double(), self._context(context, z))

    @torch.no_grad()
    def log_likelihood(
        self,
        x: Float[Tensor, "batch dim"],
        context: Float[Tensor, "*any c"] | None = None,
        probes: int = 8,
        generator: torch.Generator | None = None,
    ) -> LogLikelihood:
        """Log-densities with the errors of the trace and of the integration.

        Args:
            x: data (B, d).
            context: of a conditional flow.
            probes: probes of the Hutchinson trace, at least 2; the value is their mean.
            generator: source of the probes.

        Raises:
            ValueError: as `log_prob`, or fewer than 2 probes for the Hutchinson trace.
        """
        return rate(self, x, context, probes, self._generator(generator))

    # --- the interface of torch.distributions ------------------------------------------------

    @property
    def support(self) -> Any:
        """All real vectors, within one period in periodic coordinates."""
        if not self.periodic:
            return constraints.real_vector
        reach = torch.full_like(self.scale, math.inf)
        for i, period in self.periods.items():
            reach[i] = period / 2
        return constraints.independent(
            constraints.interval(self.shift - reach, self.shift + reach), 1
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        """The flow itself for the empty batch shape; a flow has no batch of its own."""
        if tuple(batch_shape):
            raise NotImplementedError("a flow has an empty batch shape; a context takes its place")
        return self

    # --- for objectives, which integrate by themselves ------------------------------------------

    def field_at(self, context: Tensor | None) -> Any:
        """The field ``f(t, y)`` at a context (B, c) or without one."""
        return self.field if context is None else Bound(self.field, context)

    def to_unit(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Data in the coordinates y of the flow, unchecked."""
        return self.wrapped((x - self.shift) / self.scale)

    def to_data_units(self, y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Coordinates y of the flow in units of the data: the inverse of `to_unit`."""
        return self.shift + self.scale * self.wrapped(y)

    def wrapped(self, y: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Coordinates y with angles brought to [-pi, pi)."""
        if not self.periodic:
            return y
        angle = torch.zeros(self.dim, dtype=torch.bool, device=y.device)
        angle[list(self.periodic)] = True
        return torch.where(angle, (y + math.pi) % (2 * math.pi) - math.pi, y)

    # --- solver, files -------------------------------------------------------------------------

    def set_solver(
        self,
        method: str = "dopri5",
        rtol: float = 1e-5,
        atol: float = 1e-5,
        n_steps: int | None = None,
    ) -> None:
        """Choose how the flow is integrated; arguments as those of the class."""
        if n_steps is not None and n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {n_steps}")
        self.method, self.rtol, self.atol, self.n_steps = method, rtol, atol, n_steps

    def with_solver(
        self,
        method: str = "dopri5",
        rtol: float = 1e-5,
        atol: float = 1e-5,
        n_steps: int | None = None,
    ) -> ContinuousFlow:
        """The same flow, of the same parameters, integrated in another way."""
        other = copy.copy(self)
        other.set_solver(method, rtol, atol, n_steps)
        return other

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the flow as safetensors with what it is built from.

        Raises:
            TypeError: field or base is none of sciflow's; `sciflow.train.save_model` writes
                their weights.
        """
        from sciflow.cnf.files import save

        save(self, path, extra)

    # --- inside ----------------------------------------------------------------------------------

    def _move(
        self,
        y: Float[Tensor, "batch dim"],
        start: float,
        end: float,
        context: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Points moved from one end to the other, and the integral of div f dt on the way."""
        moving = WithLogDensity(self.field_at(context), self.trace)
        generator = self._generator(generator) if self.trace == "hutchinson" else None
        t = torch.tensor([start, end], dtype=torch.float64)
        state = (y, y.new_zeros(len(y)))
        moved, change = integrate(moving, state, t, generator=generator, **self._options()).y
        return moved[-1], -change[-1]

    def _solve(self, y: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        return integrate(self.field_at(context), y, t, **self._options()).y

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"method": self.method, "rtol": self.rtol, "atol": self.atol}
        return options | {"dt": None if self.n_steps is None else 1 / self.n_steps, "dense": False}

    def _generator(self, generator: torch.Generator | None) -> torch.Generator:
        """The one given, or the flow's own: seeded once, so that it goes on from call to call."""
        if generator is not None:
            return generator
        if self._stream is None or self._stream.device != self.shift.device:
            self._stream = torch.Generator(self.shift.device).manual_seed(0)
        return self._stream

    def _per_coordinate(self, value: Any, name: str) -> Tensor:
        tensor = torch.as_tensor(value, dtype=torch.get_default_dtype()).detach().clone()
        if tensor.ndim > 1 or (tensor.ndim == 1 and len(tensor) != self.dim):
            raise ValueError(
                f"{name} must be a number or have shape ({self.dim},); got {tuple(tensor.shape)}"
            )
        require_finite(tensor, name)
        return tensor.expand(self.dim).clone()

    def _checked(self, x: Tensor, name: str) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"{name} must have shape (..., {self.dim}); got {tuple(x.shape)}")
        require_finite(x, name)
        return x.to(self.shift)

    def _context(self, context: Tensor | None, x: Tensor) -> Tensor | None:
        """Context as (B, c) for points (..., d)."""
        if context is None:
            return None
        require_finite(context, "context")
        if context.ndim < 1 or context.shape[:-1] not in ((), x.shape[:-1]):
            raise ValueError(
                f"context must have shape (c,) or (*{tuple(x.shape[:-1])}, c); "
                f"got {tuple(context.shape)}"
            )
        full = context.to(self.shift).expand(*x.shape[:-1], context.shape[-1])
        return full.reshape(-1, context.shape[-1])

    def _inward(self, x: Tensor) -> Tensor:
        return self.to_unit(self._checked(x, "x")).reshape(-1, self.dim)
