"""The one trainer: draw a batch, move the parameters, average, evaluate, record, checkpoint."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sciflow.errors import DataError, TrainingError
from sciflow.train.average import Average
from sciflow.train.batch import cast, map_batch
from sciflow.train.checkpoint import load_into, load_state, probe, save_state
from sciflow.train.engine import Engine
from sciflow.train.gradient import NonFiniteError
from sciflow.train.history import FitResult, History
from sciflow.train.interrupt import Interrupts, StopTraining
from sciflow.train.log import LOGGERS, Logger
from sciflow.train.objective import Loss, check_loss, model_of
from sciflow.train.settings import DTYPES, Settings
from sciflow.train.sources import Source
from sciflow.train.update import make_stepper

logger = logging.getLogger(__name__)

Evaluate = Callable[[nn.Module], float | Mapping[str, float]]

_CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, kw_only=True)
class Trainer(Settings):
    """Fits an objective to samples of a source; its fields are those of `Settings`."""

    def fit(
        self,
        objective: nn.Module,
        source: Source,
        evaluate: Evaluate | None = None,
        resume: bool = False,
    ) -> FitResult:
        """Train ``objective`` in place and return a copy of its model.

        The objective is moved to the device and dtype of the trainer and stays there, with the
        last weights. Ctrl-C ends the run after the step under way, with a checkpoint in ``out``.

        Args:
            objective: see `sciflow.train.Objective`.
            source: see `sciflow.train.Source`.
            evaluate: figure(s) of merit of a model, called every ``eval_every`` steps on the
                averaged weights in eval mode, with gradients enabled. Bare floats are ``value``.
                It ends the training by raising `StopTraining`.
            resume: continue from the checkpoint in ``out``; on one CPU the result is that of a
                run without interruption, bit for bit.

        Raises:
            TrainingError: the loss or gradient is not finite (nothing was updated by that step),
                or ``out`` cannot be written.
            DataError: the checkpoint belongs to another model or other settings.
            ValueError: nothing to train, groups that do not fit, a batch that cannot be shared.
        """
        if resume and self.out is None:
            raise ValueError("resume=True needs a trainer with a folder `out`")
        return _Run(self, objective, source, evaluate).go(resume)


class _Run:
    """The moving parts of one call of ``fit``."""

    def __init__(
        self,
        trainer: Trainer,
        objective: nn.Module,
        source: Source,
        evaluate: Evaluate | None,
    ) -> None:
        self.trainer, self.objective, self.evaluate = trainer, objective, evaluate
        self.engine = Engine.start(trainer.device)
        self.device, self.dtype = self.engine.device, DTYPES[trainer.dtype]
        objective._apply(self._cast)
        objective.train()
        self.engine.broadcast_(objective)
        placed = getattr(source, "placed", None)
        self.source: Source = placed(self.device, self.dtype) if placed else source
        self.model = model_of(objective)
        self.has_buffers = any(True for _ in objective.buffers())

        compiled = torch.compile(objective) if trainer.compile else objective

        def forward(batch: Any) -> Loss:
            return check_loss(compiled(batch), objective)

        self.stepper = make_stepper(
            trainer.update,
            objective,
            forward,
            trainer.lr,
            trainer.weight_decay,
            trainer.clip,
            self.engine,
        )
        self.per_rank = bool(getattr(source, "per_rank", False))
        if self.per_rank and trainer.batch_size % self.engine.world:
            raise ValueError(
                f"batch_size = {trainer.batch_size} is not a multiple of the "
                f"{self.engine.world} processes that share it"
            )
        rank = self.engine.rank
        # Without per_rank every process draws the same whole batch and keeps its slice, so that
        # the number of processes does not change the samples.
        stream = (0, rank) if self.per_rank and rank else ()
        home = getattr(self.source, "device", self.device)
        self.generator = self.engine.generator(trainer.seed, home, *stream)
        self.own_generator: torch.Generator | None = None
        if hasattr(objective, "generator"):
            self.own_generator = self.engine.generator(trainer.seed, self.device, 1, rank)

        self.average = Average(self.model, trainer.ema) if trainer.ema else None
        self.history = History()
        self.step = 0
        self.pending: dict[str, float] | None = None  # the row of the last step, until logged
        self.best: dict[str, Any] | None = None
        self.seconds, self.start = 0.0, time.perf_counter()
        self.phase = "between"  # "between" steps, "drawing" or "updating"
        self.marks = self._mark()
        self.path = None if trainer.out is None else Path(trainer.out) / _CHECKPOINT
        self.saved: Path | None = None  # the last checkpoint known to be good
        self.saved_step = 0
        self.changed = False  # since the last checkpoint
        self.buffers: list[tuple[torch.Tensor, int]] = []
        self.logger: Logger | None = None
        if self.path is not None and trainer.log is not None and self.engine.is_main:
            self.logger = LOGGERS[trainer.log](self.path.parent)
        self.interrupts = Interrupts()

    def _cast(self, x: torch.Tensor) -> torch.Tensor:
        return cast(x, self.device, self.dtype)

    def go(self, resume: bool) -> FitResult:
        """Prepare, run to the last step or an interrupt, and report."""
        interrupted, stopped = False, None
        self._prepare(resume)
        self.start = time.perf_counter() - self.seconds
        before = getattr(self.objective, "generator", None)
        if self.own_generator is not None:
            self.objective.generator = self.own_generator  # type: ignore[assignment]
        try:
            try:
                with self.interrupts, self._progress() as bar:
                    self._loop(bar)
            except KeyboardInterrupt:
                interrupted = True
                self._keep()
            except StopTraining as stop:
                stopped = str(stop)
        except NonFiniteError as error:
            where = f"; last good checkpoint: {self.saved}" if self.saved else ""
            raise TrainingError(
                f"training stopped at step {error.step}, before its update: {error}{where}",
                error.step,
                self.saved,
            ) from error
        finally:
            if self.own_generator is not None:
                self.objective.generator = before  # type: ignore[assignment]
            if self.logger is not None:
                self.logger.close()
        self.seconds = time.perf_counter() - self.start
        model = copy.deepcopy(self._candidate())
        model.zero_grad(set_to_none=True)
        if self.best is not None:
            model.load_state_dict(self.best["weights"])
        best_step = self.best["step"] if self.best is not None else self.step
        return FitResult(
            model.eval(), self.history, best_step, self.seconds, interrupted, self.saved, stopped
        )

    def _loop(self, bar: Any) -> None:
        trainer = self.trainer
        while True:
            self._record(bar)
            if self.step >= trainer.steps:
                break
            if self.changed and self.step % trainer.checkpoint_every == 0:
                self._save()
            with self.interrupts.held():
                self._advance()
        if self.changed:
            self._save()

    def _advance(self) -> None:
        """One update, counted from the moment its batch is drawn."""
        trainer, k = self.trainer, self.step
        self.marks = self._mark()
        self.buffers = self._versions()
        self.phase = "drawing"
        n = trainer.batch_size // (self.engine.world if self.per_rank else 1)
        batch = self.source.sample(n, self.generator)
        if not self.per_rank:
            batch = self.engine.shard(batch)
        batch = map_batch(self._cast, batch)
        loss = self.stepper.step(batch, k, trainer.rate(k), self._begin)
        if self.average is not None:
            self.average.update(k)
        self.step, self.changed = k + 1, True
        if self._due(trainer.log_every) or self.step == 1 or self._evaluates():
            self.stepper.check()
            self.pending = {"loss": float(loss.value.detach())}
            self.pending.update((name, float(v.detach())) for name, v in loss.metrics.items())
        self.phase = "between"

    def _begin(self) -> None:
        self.phase = "updating"

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.trainer.steps

    def _evaluates(self) -> bool:
        return self.evaluate is not None and self._due(self.trainer.eval_every)

    def _record(self, bar: Any) -> None:
        """Evaluate and log what is pending; an interrupt in between repeats it on resuming."""
        if self.pending is None:
            return
        row, best = dict(self.pending), self.best
        if self._evaluates():
            figures = self._figures()
            row.update((f"eval/{name}", value) for name, value in figures.items())
            best = self._better(figures)
        with self.interrupts.held():
            self.phase = "updating"
            self.best, self.pending, self.changed = best, None, True
            self.history.append(self.step, row)
            if self.logger is not None:
                try:
                    self.logger.write(self.history)
                except OSError as error:
                    raise self._unwritable(error) from error
            if bar is not None:
                bar.set_postfix_str(_said(row), refresh=False)
                bar.update(self.step - bar.n)
            self.phase = "between"

    def _candidate(self) -> nn.Module:
        """The model to evaluate and return: averaged where an average is kept."""
        return self.model if self.average is None else self.average.module

    def _figures(self) -> dict[str, float]:
        """What ``evaluate`` says of the model, the same on every process."""
        if self.evaluate is None:
            return {}
        try:
            figures = self.evaluate(self._candidate().eval())
        finally:
            self.objective.train()
        if not isinstance(figures, Mapping):
            figures = {"value": figures}
        values = torch.tensor([float(v) for v in figures.values()], dtype=torch.float64)
        if self.engine.world > 1:
            values = values.to(self.device)
            self.engine.mean_([values])
        return dict(zip(figures, values.tolist(), strict=True))

    def _better(self, figures: dict[str, float]) -> dict[str, Any] | None:
        """The best weights so far; a figure that is NaN is never the best."""
        name = self.trainer.best or next(iter(figures), "")
        if name not in figures:
            known = ", ".join(figures) or "none"
            raise ValueError(f"best = {name!r} is no figure of evaluate, which gave {known}")
        sign = 1 if self.trainer.best_mode == "min" else -1
        least = math.inf if self.best is None else sign * self.best["value"]
        if not sign * figures[name] < least:
            return self.best
        weights = copy.deepcopy(self._candidate().state_dict())
        return {"step": self.step, "value": figures[name], "weights": weights}

    def _progress(self) -> Any:
        trainer = self.trainer
        if not (trainer.progress and self.engine.is_main):
            return contextlib.nullcontext()
        from tqdm.auto import tqdm  # slow to import in a notebook, and not always wanted

        # disable=None shows a bar in terminals and notebooks, and none in log files.
        return tqdm(total=trainer.steps, initial=self.step, unit="step", disable=None)

    def _mark(self) -> dict[str, Any]:
        """All that a draw changes in this process."""
        own, state = self.own_generator, getattr(self.source, "state_dict", None)
        return {
            "generator": self.generator.get_state(),
            "own_generator": None if own is None else own.get_state(),
            "source": None if state is None else state(),
        }

    def _rewind(self, marks: dict[str, Any]) -> None:
        """Undo the draws made since ``marks``."""
        self.generator.set_state(marks["generator"])
        if self.own_generator is not None:
            self.own_generator.set_state(marks["own_generator"])
        if marks["source"] is not None:
            self.source.load_state_dict(marks["source"])  # type: ignore[attr-defined]

    def _versions(self) -> list[tuple[torch.Tensor, int]]:
        """The buffers of the objective, and how often each was written to."""
        return [(x, x._version) for x in self.objective.buffers()] if self.has_buffers else []

    def _untouched(self) -> bool:
        """Whether the state between two steps is still there, or was brought back."""
        if self.phase == "drawing":
            self._rewind(self.marks)
            now = self._versions()
            # A batch norm that was cut off has its mean moved already.
            return len(now) == len(self.buffers) and all(
                x is y and n == m for (x, n), (y, m) in zip(now, self.buffers, strict=True)
            )
        return self.phase == "between"

    def _keep(self) -> None:
        """After Ctrl-C: write what can be resumed exactly, and say where it is."""
        # In the middle of an update there is nothing consistent to write; with several processes
        # the others may have stopped at another step. The last checkpoint stands.
        if self._untouched() and self.engine.world == 1:
            self._save()
        if self.saved is None:
            logger.warning("interrupted at step %d of %d", self.step, self.trainer.steps)
        else:
            logger.warning(
                "interrupted at step %d of %d; resume from step %d in %s",
                self.step,
                self.trainer.steps,
                self.saved_step,
                self.saved,
            )

    def _unwritable(self, error: OSError) -> TrainingError:
        folder = Path(self.trainer.out or ".")
        saved = f"; last good checkpoint: {self.saved}" if self.saved else ""
        return TrainingError(
            f"cannot write to the folder {folder}: {error}{saved}", self.step, self.saved
        )

    def _prepare(self, resume: bool) -> None:
        """Resume, or make sure before the first step that a checkpoint can be written."""
        if self.path is None:
            return
        saved = None
        if self.path.is_file():
            if resume:
                saved = load_state(self.path)
            elif self.engine.is_main:
                logger.warning("replacing the earlier run in %s", self.path.parent)
        elif resume and self.engine.is_main:
            logger.warning("no checkpoint in %s: starting afresh", self.path.parent)
        # Parameters, their average, the best ones, two moments of Adam.
        weights = (*self.objective.parameters(), *self.objective.buffers())
        size = 65536 + 5 * sum(x.numel() * x.element_size() for x in weights)
        if self.engine.is_main:
            try:
                probe(self.path.parent, size)
            except OSError as error:
                raise self._unwritable(error) from error
        if saved is not None:
            self._load(saved)
            return
        self._save()
        if self.engine.is_main:
            try:
                load_state(self.path)
            except DataError as error:
                raise TypeError(
                    "the state_dict of the source, update or objective must hold only tensors "
                    f"and plain values: {error}"
                ) from error

    def _save(self) -> None:
        """Write the checkpoint of the moment between two steps."""
        if self.path is None:
            return
        self.stepper.check()
        ranks = self.engine.gather(self._mark())
        if self.engine.is_main:
            seconds = time.perf_counter() - self.start if self.step else 0.0
            state = {
                "settings": self.trainer.settings(),
                "device": self.device.type,
                "step": self.step,
                "seconds": seconds,
                "objective": self.objective.state_dict(),
                "average": None if self.average is None else self.average.module.state_dict(),
                "stepper": self.stepper.state_dict(),
                "history": self.history.state_dict(),
                "pending": self.pending,
                "best": self.best,
                "ranks": ranks,
            }
            try:
                save_state(self.path, state)
            except OSError as error:
                raise self._unwritable(error) from error
        self.saved, self.saved_step, self.changed = self.path, self.step, False

    def _load(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            DataError: it was written with other settings, or for another objective.
        """
        own, saved = self.trainer.settings(), state["settings"]
        own["device type"], saved["device type"] = self.device.type, state["device"]
        differ = [
            f"{name} was {saved.get(name)!r}, is {own.get(name)!r}"
            for name in {**saved, **own}
            if saved.get(name) != own.get(name)
        ]
        if state["step"] > self.trainer.steps:
            differ.append(f"it has made {state['step']} steps, steps is {self.trainer.steps}")
        ranks, world = state["ranks"], self.engine.world
        if len(ranks) != world and (self.per_rank or self.own_generator is not None):
            differ.append(f"it was written by {len(ranks)} processes, this run has {world}")
        if differ:
            raise DataError(f"cannot resume from {self.path}: {'; '.join(differ)}")
        load_into(self.objective, state["objective"], str(self.path))
        if self.average is not None:
            load_into(self.average.module, state["average"], str(self.path))
        self.stepper.load_state_dict(state["stepper"])
        self.history.load_state_dict(state["history"])
        self.step, self.pending, self.seconds = state["step"], state["pending"], state["seconds"]
        self.best = state["best"]
        self._rewind(ranks[self.engine.rank if len(ranks) == world else 0])
        self.saved, self.saved_step = self.path, self.step


def _said(row: Mapping[str, float]) -> str:
    """What a progress bar says: the loss, with its standard error where the objective knows it."""
    if "error" in row:
        return f"loss {row['loss']:.6f} +- {row['error']:.1g}"
    return f"loss {row['loss']:.4g}"
