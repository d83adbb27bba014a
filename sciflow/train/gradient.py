"""A step by a torch optimiser that stops before a bad update, without waiting for the GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sciflow.train.engine import Engine
from sciflow.train.objective import Loss

# name -> (class, its arguments besides lr and weight_decay); every one has a fused kernel
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}
# devices on which reading a number waits for all the work that was queued
DEFERRED = ("cuda",)


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is not finite, met before the update was made.

    Attributes:
        step: the update it belongs to, counted from 1.
    """

    def __init__(self, what: str, step: int) -> None:
        super().__init__(what)
        self.step = step


class GradientStepper:
    """Backward pass, mean over processes, check, clip, and a torch optimiser.

    Args:
        forward: the objective, possibly compiled.
        groups: parameter groups for the optimiser.
        every: for each group, at every how many steps it moves.
        names: name of every parameter in the groups, in order.
        kind: key of ``OPTIMIZERS``.
        clip: largest norm of the gradient of each group; None does not clip.
        engine: the processes of the run.
    """

    def __init__(
        self,
        forward: Callable[[Any], Loss],
        groups: list[dict[str, Any]],
        every: list[int],
        names: list[str],
        kind: str,
        clip: float | None,
        engine: Engine,
    ) -> None:
        self.forward, self.every, self.clip, self.engine = forward, every, clip, engine
        self.rates = [group["lr"] for group in groups]
        self.params = [p for group in groups for p in group["params"]]
        self.names = names
        cls, options = OPTIMIZERS[kind]
        real = all(p.is_floating_point() for p in self.params)
        fused = real and engine.device.type in ("cpu", "cuda")
        self.optimizer = cls(groups, fused=fused or None, **options)  # type: ignore[call-arg]
        # Reading a number from the GPU makes it wait for us at every step. The fused optimisers
        # skip an update by a flag on the device (`found_inf`): the flag stays up from the first
        # bad step on, which freezes the parameters, and is read when something is logged.
        self.deferred = fused and engine.device.type in DEFERRED
        self._flag: _Flag | None = None

    def step(self, batch: Any, k: int, factor: float, begin: Callable[[], None]) -> Loss:
        """Gradients, the same on every process, then the optimiser."""
        for p in self.params:
            p.grad = None
        loss = self.forward(batch)
        loss.value.backward()
        grads = {
            n: p.grad for n, p in zip(self.names, self.params, strict=True) if p.grad is not None
        }
        if not grads:
            raise ValueError("the loss depends on none of the parameters to be trained")
        if self.engine.world > 1:
            loss = copy_loss(loss)
            self.engine.mean_([*grads.values(), loss.value, *loss.metrics.values()])
        # torch offers the norms of many tensors in one call only under this name.
        norms = torch.stack(torch._foreach_norm(list(grads.values())))
        if self.deferred:
            self._raise_flag(loss, list(grads), norms, k)
        elif not (math.isfinite(loss.value.item()) and math.isfinite(norms.max().item())):
            metrics = {key: float(v.detach()) for key, v in loss.metrics.items()}
            sizes = dict(zip(grads, norms.tolist(), strict=True))
            raise NonFiniteError(explain(loss.value.item(), metrics, sizes), k + 1)
        begin()
        for group, rate, every in zip(
            self.optimizer.param_groups, self.rates, self.every, strict=True
        ):
            group["lr"] = rate * factor
            if every > 1 and k % every:
                for p in group["params"]:
                    p.grad = None
            elif self.clip is not None:
                # Each group by itself: the players of a game have gradients of unlike size.
                nn.utils.clip_grad_norm_(group["params"], self.clip)
        self.optimizer.step()
        return loss

    def _raise_flag(self, loss: Loss, names: list[str], norms: Tensor, k: int) -> None:
        scalars = [
            v.detach().to(loss.value).reshape(1) for v in (loss.value, *loss.metrics.values())
        ]
        values = torch.cat([*scalars, norms])
        labels = (tuple(loss.metrics), tuple(names))
        if self._flag is not None and self._flag.labels != labels:
            self.check()
            self._flag = None
        if self._flag is None:
            self._flag = _Flag(labels, values)
            self.optimizer.found_inf = self._flag.up  # type: ignore[attr-defined]
        self._flag.note(values, k + 1)

    def check(self) -> None:
        """Read the flag; this waits for the device."""
        if self._flag is not None and bool(self._flag.up):
            metrics, names = self._flag.labels
            value, *rest = self._flag.values.tolist()
            raise NonFiniteError(
                explain(
                    value,
                    dict(zip(metrics, rest, strict=False)),
                    dict(zip(names, rest[len(metrics) :], strict=True)),
                ),
                int(self._flag.step),
            )

    def state_dict(self) -> Any:
        """State of the optimiser."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Continue from ``state_dict``."""
        self.optimizer.load_state_dict(state)


class _Flag:
    """The first step at which a loss or gradient was not finite, noted without reading it."""

    def __init__(self, labels: tuple[tuple[str, ...], tuple[str, ...]], values: Tensor) -> None:
        self.labels = labels
        self.up = torch.zeros((), device=values.device, dtype=torch.float32)
        self.step = torch.zeros((), device=values.device, dtype=torch.int64)
        self.values = torch.zeros_like(values)

    def note(self, values: Tensor, step: int) -> None:
        """Raise the flag if the loss or a gradient norm among ``values`` is not finite."""
        finite = torch.isfinite(values)
        # A metric may be anything; the loss and the gradient may not.
        bad = ~(finite[0] & finite[1 + len(self.labels[0]) :].all())
        first = bad & (self.up == 0)
        self.values = torch.where(first, values, self.values)
        self.step = torch.where(first, step, self.step)
        self.up.copy_(torch.maximum(self.up, bad.to(self.up.dtype)))


def explain(value: float, metrics: Mapping[str, float], norms: Mapping[str, float]) -> str:
    """Which term of the loss, or which gradient, is not finite."""
    if not math.isfinite(value):
        terms = [f"{name} is {v}" for name, v in metrics.items() if not math.isfinite(v)]
        return f"the loss is {value}" + (f": {', '.join(terms)}" if terms else "")
    names = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"the gradient of {', '.join(names[:3])}{more} is not finite"
    return "the update made a parameter that is not finite"


def copy_loss(loss: Loss) -> Loss:
    """A detached loss whose tensors can be overwritten by a mean: none is an integer."""
    metrics = {name: v.detach().to(loss.value, copy=True) for name, v in loss.metrics.items()}
    return Loss(loss.value.detach().clone(), metrics)
