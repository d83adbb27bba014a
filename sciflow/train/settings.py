"""The settings of a trainer: plain values that become flags on a command line."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sciflow.train.log import LOGGERS
from sciflow.train.update import UPDATES, ParamGroup, Update

DTYPES = {"float32": torch.float32, "float64": torch.float64}
# progress p in [0, 1) after the warm-up -> factor of the learning rate
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
    "linear": lambda p: 1 - p,
    "constant": lambda p: 1.0,
}
# What may differ between a run and its continuation: nothing that changes its numbers.
_FREE = {"out", "log", "progress", "checkpoint_every", "device"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; every field is keyword only and has a default.

    Attributes:
        steps: number of updates.
        batch_size: samples per update, over all processes together.
        lr: learning rate after the warm-up. 1e-3 is Adam's own; take 1 for "lbfgs".
        ema: decay of the running average of the weights per step; 0 keeps none. The average
            starts fast, by min(ema, (1 + k) / (10 + k)) at step k, so that it forgets the
            initial weights.
        seed: seed of all random numbers of the run, >= 0.
        device: "auto" (CUDA where there is one, else the CPU) or a torch device such as "cuda:1".
        dtype: "float32" or "float64": of the parameters, of the buffers and of every batch.
        out: folder of the checkpoint and the log; None writes nothing.
        log: "csv", "tensorboard" or None; it needs ``out``.
        compile: pass the objective through torch.compile; an `Update` object gets it as it is.
        warmup: steps over which the rate rises linearly from 0. None by default: Adam's bias
            correction is enough for small networks.
        decay: "cosine", "linear" (both to 0 at the last step) or "constant".
        clip: largest gradient norm, for each parameter group by itself; None does not clip, since
            the scale of a physical loss is its own.
        weight_decay: pull of the parameters to 0, in the sense of the optimiser. Of gradient
            updates only, as is ``clip``.
        update: "adam", "adamw", "sgd" (momentum 0.9), "lbfgs", several `ParamGroup`, or an
            `Update` object.
        eval_every: steps between evaluations; there is one at the last step too.
        best: name of the figure of ``evaluate`` by which the best weights are kept; None takes
            the first.
        best_mode: "min" or "max": which is better.
        log_every: steps between rows of the history.
        checkpoint_every: steps between checkpoints; one is written at the start and at the end.
        progress: show a progress bar where there is a terminal or a notebook.
    """

    steps: int = 2000
    batch_size: int = 256
    lr: float = 1e-3
    ema: float = 0.999
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    out: str | Path | None = None
    log: str | None = "csv"
    compile: bool = False
    warmup: int = 0
    decay: str = "cosine"
    clip: float | None = None
    weight_decay: float = 0.0
    update: str | Sequence[ParamGroup] | Update = "adam"
    eval_every: int = 200
    best: str | None = None
    best_mode: str = "min"
    log_every: int = 10
    checkpoint_every: int = 1000
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be positive and finite, got {self.lr}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        if not 0 <= self.warmup < self.steps:
            raise ValueError(f"warmup must be in [0, steps = {self.steps}), got {self.warmup}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive or None, got {self.clip}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        tables: dict[str, Any] = {"dtype": DTYPES, "decay": DECAYS, "best_mode": ("min", "max")}
        tables["log"] = (*LOGGERS, None)
        if isinstance(self.update, str):
            tables["update"] = UPDATES
        elif not isinstance(self.update, Update) and not (
            isinstance(self.update, Sequence)
            and self.update
            and all(isinstance(group, ParamGroup) for group in self.update)
        ):
            raise TypeError(
                "update must be a name, a sequence of ParamGroup or an object with "
                f"step(objective, batch); got {self.update!r}"
            )
        whole = self.update == "lbfgs" or isinstance(self.update, Update)
        if whole and (self.clip is not None or self.weight_decay):
            raise ValueError("clip and weight_decay are not for lbfgs or an Update object")
        for name, table in tables.items():
            if getattr(self, name) not in table:
                known = ", ".join(repr(key) for key in table)
                raise ValueError(f"{name} must be one of {known}; got {getattr(self, name)!r}")

    def rate(self, k: int) -> float:
        """Factor of the learning rate at update ``k``, counted from 0."""
        if k < self.warmup:
            return (k + 1) / (self.warmup + 1)
        return DECAYS[self.decay]((k - self.warmup) / (self.steps - self.warmup))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree on, as plain values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if not isinstance(self.update, str | Sequence):
            fields["update"] = type(self.update).__qualname__
        elif not isinstance(self.update, str):
            fields["update"] = "; ".join(repr(group) for group in self.update)
        if self.decay == "constant":
            del fields["steps"]  # nothing depends on it, so a run may be made longer
        return {name: value for name, value in fields.items() if name not in _FREE}
