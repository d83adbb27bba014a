"""How parameters move: an optimiser, named groups with signs, L-BFGS, or a user's own update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sciflow.train.engine import Engine
from sciflow.train.gradient import OPTIMIZERS, GradientStepper, NonFiniteError, copy_loss, explain
from sciflow.train.objective import Loss

UPDATES = (*OPTIMIZERS, "lbfgs")


@dataclass(frozen=True)
class ParamGroup:
    """Parameters with a rate and a sign of their own; several make a min-max game (by Adam).

    Attributes:
        name: attribute of the objective, dotted for deeper ones: a submodule or a parameter.
        lr: learning rate; None takes the rate of the trainer.
        maximize: climb the loss instead of descending it.
        weight_decay: None takes that of the trainer.
        betas: decay rates of Adam's two moments; games often need a smaller first one.
        every: move only at the first of every so many steps, while the other groups run ahead.
    """

    name: str
    lr: float | None = None
    maximize: bool = False
    weight_decay: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every of group {self.name!r} must be at least 1, got {self.every}")


@runtime_checkable
class Update(Protocol):
    """A user's own way to move parameters, for instance a natural gradient.

    Where the object has a ``scale`` attribute, the trainer sets it before each step to the factor
    of the warm-up and decay, in [0, 1]; ``state_dict()`` goes into the checkpoint and comes back
    by ``load_state_dict``. A step that yields a loss or a parameter that is not finite is undone.
    Under torchrun ``batch`` is the share of this process, and the object averages what it
    estimates from it by ``Engine.start().mean_([...])``.
    """

    def step(self, objective: nn.Module, batch: Any) -> Loss:
        """Make one update and return the loss before it."""
        ...


@runtime_checkable
class Stepper(Protocol):
    """One step of a run as the trainer drives it."""

    def step(self, batch: Any, k: int, factor: float, begin: Callable[[], None]) -> Loss:
        """Make update ``k`` (counted from 0) at the learning rate times ``factor``.

        ``begin`` is called just before anything that lasts is changed.

        Raises:
            NonFiniteError: the loss or gradient is not finite; nothing was moved.
        """
        ...

    def check(self) -> None:
        """Raise a NonFiniteError that was found on the device but not yet read."""
        ...

    def state_dict(self) -> Any:
        """What later steps depend on besides the parameters."""
        ...

    def load_state_dict(self, state: Any) -> None:
        """Continue from ``state_dict``."""
        ...


class WholeStepper:
    """An `Update` object, which makes a step in one piece; a bad step is undone."""

    def __init__(self, update: Update, objective: nn.Module, engine: Engine) -> None:
        self.update, self.objective, self.engine = update, objective, engine
        self.params = [p for p in objective.parameters() if p.requires_grad]

    def step(self, batch: Any, k: int, factor: float, begin: Callable[[], None]) -> Loss:
        """The step of the object, then the check of what it did."""
        before = [p.detach().clone() for p in self.params]
        if hasattr(self.update, "scale"):
            self.update.scale = factor
        begin()
        try:
            loss = self.update.step(self.objective, batch)
            if not isinstance(loss, Loss):
                kind, name = type(loss).__name__, type(self.update).__name__
                raise TypeError(f"{name}.step must return a Loss, got {kind}")
            if self.engine.world > 1:
                loss = copy_loss(loss)
                self.engine.mean_([loss.value, *loss.metrics.values()])
            sizes = [float(p.detach().norm()) for p in self.params]
            if not (math.isfinite(loss.value.item()) and math.isfinite(sum(sizes))):
                metrics = {key: float(v.detach()) for key, v in loss.metrics.items()}
                raise NonFiniteError(explain(loss.value.item(), metrics, {}), k + 1)
        except BaseException:
            with torch.no_grad():
                for p, old in zip(self.params, before, strict=True):
                    p.copy_(old)
            raise
        return loss

    def check(self) -> None:
        """Nothing is deferred."""

    def state_dict(self) -> Any:
        """State of the object, where it has one."""
        return self.update.state_dict() if hasattr(self.update, "state_dict") else None

    def load_state_dict(self, state: Any) -> None:
        """Continue from ``state_dict``."""
        if state is not None and hasattr(self.update, "load_state_dict"):
            self.update.load_state_dict(state)


class LBFGS:
    """Limited-memory BFGS with a strong-Wolfe line search, on one batch per step.

    It suits a fixed batch (all data, or the same base draws): curvature is a difference of
    gradients, which resampling drowns in noise. Its natural rate is 1.

    Args:
        params: what moves.
        forward: the objective, possibly compiled.
        lr: length of the first trial step of each line search, in units of the direction.
        engine: the processes of the run.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        forward: Callable[[Any], Loss],
        lr: float,
        engine: Engine,
    ) -> None:
        self.params, self.forward, self.lr, self.engine = params, forward, lr, engine
        self.scale = 1.0
        self.optimizer = torch.optim.LBFGS(params, lr=lr, line_search_fn="strong_wolfe")

    def step(self, objective: nn.Module, batch: Any) -> Loss:
        """Up to 20 iterations on ``batch``; the loss is that before them."""
        losses: list[Loss] = []

        def closure() -> Tensor:
            for p in self.params:
                p.grad = None
            loss = self.forward(batch)
            loss.value.backward()
            loss = copy_loss(loss)
            grads = [p.grad for p in self.params if p.grad is not None]
            self.engine.mean_([*grads, loss.value, *loss.metrics.values()])
            losses.append(loss)
            return loss.value

        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * self.scale
        self.optimizer.step(closure)
        return losses[0]

    def state_dict(self) -> Any:
        """State of the optimiser: the curvature pairs and the last step."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Continue from ``state_dict``."""
        self.optimizer.load_state_dict(state)


def make_stepper(
    update: str | Sequence[ParamGroup] | Update,
    objective: nn.Module,
    forward: Callable[[Any], Loss],
    lr: float,
    weight_decay: float,
    clip: float | None,
    engine: Engine,
) -> Stepper:
    """The stepper that ``update`` of a trainer asks for.

    Raises:
        ValueError: there is nothing to train, or the groups do not cover the trainable
            parameters of the objective exactly once.
    """
    named = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError(f"{type(objective).__name__} has no parameter that requires a gradient")
    if update == "lbfgs":
        quasi_newton = LBFGS(list(named.values()), forward, lr, engine)
        return WholeStepper(quasi_newton, objective, engine)
    if isinstance(update, str):
        one = {"params": list(named.values()), "lr": lr, "weight_decay": weight_decay}
        return GradientStepper(forward, [one], [1], list(named), update, clip, engine)
    if isinstance(update, Update):
        return WholeStepper(update, objective, engine)
    groups: list[dict[str, Any]] = []
    names: list[str] = []
    owner = dict.fromkeys(named, "")
    for group in update:
        own = [n for n in named if n == group.name or n.startswith(group.name + ".")]
        if not own:
            raise ValueError(f"group {group.name!r} names no trainable parameter of the objective")
        for name in own:
            if owner[name]:
                raise ValueError(f"{name} is in two groups: {owner[name]!r} and {group.name!r}")
            owner[name] = group.name
        decay = weight_decay if group.weight_decay is None else group.weight_decay
        groups.append(
            {
                "params": [named[name] for name in own],
                "lr": lr if group.lr is None else group.lr,
                "weight_decay": decay,
                "maximize": group.maximize,
                "betas": group.betas,
            }
        )
        names += own
    left = [name for name, group in owner.items() if not group]
    if left:
        raise ValueError(f"no group holds {', '.join(left)}: add one or set requires_grad False")
    return GradientStepper(
        forward, groups, [group.every for group in update], names, "adam", clip, engine
    )
