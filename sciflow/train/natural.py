"""Natural-gradient updates: steps of equal size in the model's density, not in its parameters.

The metric is the Fisher information of a density q, ``F = E[o o^T]`` with ``o = grad log q``
centred, estimated from per-sample gradients (`torch.func`). Under torchrun every process brings
its share of the samples, and all make the same step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from sciflow.shapes import Float, Tensor
from sciflow.train.engine import Engine
from sciflow.train.objective import Loss

# A dense Fisher matrix of more parameters than this is slower than it is worth.
LARGEST = 4096


class Direction(NamedTuple):
    """The gradient of a loss in a form that natural-gradient updates use.

    The gradient is ``mean_i residual_i grad log q(x_i)`` plus that of ``surrogate``, both averaged
    over processes.

    Attributes:
        loss: value and metrics to log; its graph is not used.
        residual: (B,), detached.
        surrogate: scalar whose gradient is the part that is no such mean; None if there is none.
    """

    loss: Loss
    residual: Float[Tensor, "batch"]
    surrogate: Float[Tensor, ""] | None = None


class NaturalObjective(Protocol):
    """What these updates ask of an objective, besides being an ``nn.Module``.

    Its trainable parameters are those of ``model``.
    """

    model: nn.Module

    def direction(self, batch: Any) -> Direction:
        """The gradient at a batch."""
        ...

    def log_density(self, params: dict[str, Tensor], sample: Tensor) -> Float[Tensor, ""]:
        """The log q of one sample, as a function of the parameters of ``model`` by name."""
        ...


class NaturalUpdate:
    """Per-sample gradients, the schedule, and the bounded step: common to all.

    Args:
        lr: rate at the start.
        delay: steps after which the rate has halved: lr / (1 + k / delay); infinity leaves its
            decay to the trainer.
        damping: added to the eigenvalues of the metric.
        trust: largest Euclidean length of a step, at the start.
        trust_delay: steps after which it has halved: trust / (1 + k / trust_delay).

    Raises:
        ValueError: a setting that is not positive, or, besides ``delay`` and ``trust_delay``, not
            finite.
    """

    def __init__(
        self, lr: float, delay: float, damping: float, trust: float, trust_delay: float
    ) -> None:
        for name, value in (("delay", delay), ("trust_delay", trust_delay)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, value in (("lr", lr), ("damping", damping), ("trust", trust)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        self.lr, self.delay, self.damping = lr, delay, damping
        self.trust, self.trust_delay = trust, trust_delay
        self.scale, self.steps = 1.0, 0

    def gradients(self, objective: Any, batch: Tensor) -> list[Float[Tensor, "batch ..."]]:
        """Gradients of log q of each sample, by parameter; zero where one is not finite."""
        params = {n: p.detach() for n, p in trainable(objective).items()}
        grads = torch.func.vmap(torch.func.grad(objective.log_density), (None, 0))(params, batch)
        found = [grads[name] for name in params]
        # Sums: one pass over the largest arrays of a step.
        bad = ~torch.isfinite(torch.stack([g.flatten(1).sum(1) for g in found]).sum(0))
        if bool(bad.any()):
            for g in found:
                g[bad] = 0.0
        return found

    def rows(self, objective: Any, batch: Tensor) -> Float[Tensor, "batch param"]:
        """Gradients of log q, centred over all processes, over the root of their number."""
        engine = Engine.start(str(batch.device))
        found = self.gradients(objective, batch)
        rows = torch.cat([g.flatten(1) for g in found], 1)
        mean = rows.mean(0)
        engine.mean_([mean])
        return rows.sub_(mean).mul_((len(rows) * engine.world) ** -0.5)

    def move(self, objective: Any, direction: Tensor) -> float:
        """Step along ``direction`` at the rate of the schedule, no further than is trusted.

        Returns:
            Euclidean length of the step.
        """
        step = self.scale * self.lr / (1 + self.steps / self.delay) * direction
        norm = float(step.norm())
        # A bound that does not fall let wave functions of beryllium and boron end wrong.
        longest = self.trust / (1 + self.steps / self.trust_delay)
        if norm > longest:
            step, norm = step * (longest / norm), longest
        self.steps += 1
        params = list(trainable(objective).values())
        with torch.no_grad():
            for p, part in zip(params, step.split([p.numel() for p in params]), strict=True):
                p.add_(part.view_as(p).to(p))
        return norm


def trainable(objective: Any) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {n: p for n, p in objective.model.named_parameters() if p.requires_grad}


def surrogate_gradients(objective: Any, direction: Direction) -> list[Tensor]:
    """Gradient of the surrogate by parameter, of this process; zeros where there is none."""
    params = list(trainable(objective).values())
    if direction.surrogate is None:
        return [torch.zeros_like(p) for p in params]
    parts = torch.autograd.grad(direction.surrogate, params, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, parts, strict=True)]


def loss_of(direction: Direction, norm: float) -> Loss:
    """The loss before the step, with the length of the step among its metrics."""
    value = direction.loss.value.detach()
    return Loss(value, {**direction.loss.metrics, "step_norm": value.new_tensor(norm)})


class Spring(NaturalUpdate):
    """Subsampled projected-increment natural gradient descent (SPRING), by the Gram of a batch.

    Goldshlager, Abrahamsen and Lin, J. Comput. Phys. 516, 113351 (2024), arXiv:2401.10190, eq. 28:
    the step d that comes closest to ``mu`` times the last among those that
    ``|O d + residual|^2 + damping |d - mu d_last|^2`` makes small. Cost: B^2 P + B^3.

    Args:
        lr: rate at the start.
        delay: steps after which the rate has halved: lr / (1 + k / delay).
        damping: added to the eigenvalues of the Gram matrix.
        momentum: mu, in [0, 1).
        trust: largest Euclidean length of a step, at the start.
        trust_delay: steps after which it has halved: trust / (1 + k / trust_delay).

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        lr: float = 0.1,
        delay: float = 500.0,
        damping: float = 4e-3,
        momentum: float = 0.95,
        trust: float = 0.3,
        trust_delay: float = 100.0,
    ) -> None:
        super().__init__(lr, delay, damping, trust, trust_delay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.momentum = momentum
        self.last: Tensor | None = None

    def step(self, objective: Any, batch: Tensor) -> Loss:
        """One update; the loss is that before it.

        Raises:
            ValueError: the gradient has a part that lies outside the rows of the batch.
        """
        direction = objective.direction(batch)
        if direction.surrogate is not None:
            raise ValueError(
                "Spring needs a gradient that is a mean of residuals times grad log q, which this "
                "objective does not have; take DampedFisher"
            )
        engine = Engine.start(str(batch.device))
        rows = engine.concat(self.rows(objective, batch))
        residual = engine.concat(direction.residual).double()
        n = len(rows)
        before = rows.new_zeros(rows.shape[1]) if self.last is None else self.last
        before = self.momentum * before.to(rows)
        target = -residual / n**0.5 - (rows @ before).double()
        solved = torch.cholesky_solve(target[:, None], self._factor(rows))[:, 0]
        self.last = before + rows.mT @ solved.to(rows)
        return loss_of(direction, self.move(objective, self.last))

    def _factor(self, rows: Float[Tensor, "batch param"]) -> Float[Tensor, "batch batch"]:
        """Cholesky factor of the damped Gram matrix, in double precision."""

        def damped(gram: Tensor) -> Tensor:
            gram.diagonal().add_(self.damping)
            gram += 1.0 / len(rows)  # rows are centred: this fixes their null direction
            return gram

        found, failed = torch.linalg.cholesky_ex(damped((rows @ rows.mT).double()))
        if bool(failed):  # a few huge rows, whose rounding exceeds the damping
            exact = rows.double()
            found = torch.linalg.cholesky(damped(exact @ exact.mT))
        return found

    def state_dict(self) -> dict[str, Any]:
        """The last direction and the number of steps."""
        return {"last": self.last, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.last, self.steps = state["last"], state["steps"]


class DampedFisher(NaturalUpdate):
    """Natural gradient by a dense Fisher matrix, averaged over steps; takes any gradient.

    Args:
        lr: rate at the start.
        delay: steps after which the rate has halved: lr / (1 + k / delay).
        damping: added to the eigenvalues of the Fisher matrix.
        memory: decay of the average of the Fisher matrix per step, in [0, 1).
        refresh: steps between factorisations, which cost P^3 / 3; the first ten steps have one
            each.
        trust: largest Euclidean length of a step, at the start.
        trust_delay: steps after which it has halved: trust / (1 + k / trust_delay).

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        lr: float = 0.1,
        delay: float = 500.0,
        damping: float = 4e-3,
        memory: float = 0.95,
        refresh: int = 10,
        trust: float = 0.3,
        trust_delay: float = 100.0,
    ) -> None:
        super().__init__(lr, delay, damping, trust, trust_delay)
        if not 0 <= memory < 1:
            raise ValueError(f"memory must be in [0, 1), got {memory}")
        if refresh < 1:
            raise ValueError(f"refresh must be at least 1, got {refresh}")
        self.memory, self.refresh = memory, refresh
        self.fisher: Tensor | None = None
        self.factor: Tensor | None = None

    def step(self, objective: Any, batch: Tensor) -> Loss:
        """One update; the loss is that before it.

        Raises:
            ValueError: there are more parameters than a dense matrix is good for.
        """
        size = sum(p.numel() for p in trainable(objective).values())
        if size > LARGEST:
            raise ValueError(
                f"a dense Fisher matrix of {size} parameters is too large (at most {LARGEST}); "
                "take KroneckerFisher"
            )
        engine = Engine.start(str(batch.device))
        direction = objective.direction(batch)
        rows = self.rows(objective, batch)
        weight = engine.world / (len(rows) * engine.world) ** 0.5
        gradient = rows.mT @ (direction.residual.to(rows) * weight)
        gradient += torch.cat([g.flatten() for g in surrogate_gradients(objective, direction)])
        new = engine.world * (rows.mT @ rows)
        engine.mean_([new, gradient])
        keep = min(self.memory, self.steps / (self.steps + 1))  # an even average at the start
        self.fisher = new if self.fisher is None else self.fisher.to(new).lerp_(new, 1 - keep)
        if self.factor is None or self.steps < 10 or self.steps % self.refresh == 0:
            damped = self.fisher.to(torch.float64, copy=True)
            damped.diagonal().add_(self.damping)
            self.factor = torch.linalg.cholesky(damped)
        self.factor = self.factor.to(gradient.device)
        solved = torch.cholesky_solve(gradient.double()[:, None], self.factor)[:, 0]
        return loss_of(direction, self.move(objective, -solved))

    def state_dict(self) -> dict[str, Any]:
        """The averaged matrix, its factor in use, and the number of steps."""
        # Copies: the average is updated in place.
        fisher = None if self.fisher is None else self.fisher.clone()
        return {"fisher": fisher, "factor": self.factor, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self.fisher, self.factor = state["fisher"], state["factor"]
        self.steps = state["steps"]
