"""How well a flow predicts cells it was not shown: held-out times, or other cells of all times."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch

from sciflow.am import ActionPotential, Lagrangian
from sciflow.am.lagrangians import describe, find_lagrangian
from sciflow.errors import DataError
from sciflow.shapes import Tensor
from sciflow.train import Snapshots
from sciflow.wlf.baselines import Interpolation
from sciflow.wlf.recipe import FitOptions, fit
from sciflow.wlf.scores import Evaluation, Fold, Row, Target, over_seeds, over_times

logger = logging.getLogger(__name__)

FLOOR, PREVIOUS, MIDPOINT = "sampling floor", "previous marginal", "exact-OT midpoint"
SPLINE, MIDPOINT_MEAN = "exact-OT spline", "midpoint + smooth mean"
SEEN = "training cells of that time"
START = "real cells of the previous visible time point"
START_TEST = "test cells of the previous time point"

HoldOut = Literal["each", "pairs", "none"] | Iterable[int | tuple[int, ...]]


def evaluate(
    snapshots: Snapshots,
    hold_out: HoldOut = "each",
    *,
    test: Snapshots | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    whiten: bool = True,
    lagrangian: str | Lagrangian = "ot",
    potential: Any = None,
    **options: Any,
) -> Evaluation:
    """Leave out time points and predict them from the real cells before them.

    Scaler, couplings and networks see the remaining time points only. Rows of each held-out time:
    the sampling floor (half of the held-out cells against the other half: what a perfect
    prediction of that size would score), the last visible marginal unchanged, interpolation under
    exact optimal transport (straight, along splines, and straight with a smooth motion of the
    mean; none of them is trained), and the flow, averaged over the seeds.

    With ``hold_out="none"`` the flow sees all times, and moves cells of ``test`` from each time
    to the next; the rows are then floor, previous marginal, training cells of that time, and flow.

    Args:
        snapshots: cells at three or more times.
        hold_out: ``"each"`` interior time point in turn, all ``"pairs"`` of them, ``"none"``, or
            indices of interior time points, a tuple for those left out together.
        test: other cells at the same times, for ``hold_out="none"``.
        seeds: one fit per fold for each.
        whiten: scale each coordinate to unit variance over the remaining cells; otherwise the
            coordinates stay as they are, and the scores are in their units.
        lagrangian: as in ``fit``; in the scaled units.
        potential: as in ``fit``.
        options: fields of ``FitOptions``; ``out`` gets one folder per fit.

    Raises:
        DataError: too few time points, or a time point that has no neighbour before or after.
        ValueError: no seeds, or an option out of range.
    """
    folds_of = _folds(snapshots, hold_out, test)
    if not seeds:
        raise ValueError("seeds must name at least one seed")
    settings = FitOptions(**options)
    row = find_lagrangian(lagrangian, settings.sigma, settings.growth_penalty, potential)
    named = lagrangian if isinstance(lagrangian, str) else describe(row)
    name = f"flow ({named})"
    rows: list[Row] = []
    folds: list[Fold] = []
    arguments = {"lagrangian": lagrangian, "potential": potential}
    for held in folds_of:
        visible = snapshots
        for k in sorted(held, reverse=True):
            visible = visible.without(k)
        whole = snapshots if test is None else test
        scaled, scaler = _scaled(whole, visible, whiten)
        shown = _scaled(visible, visible, whiten)[0]
        fits = [
            _fit(shown, seed, held, settings, arguments) for seed in seeds
        ]  # one fit predicts all times of its fold
        for k in held or range(1, len(snapshots)):
            fold_rows, fold = _score(scaled, scaler, shown, k, held, fits, name, tuple(seeds))
            rows += fold_rows
            folds.append(fold)
    methods = list(dict.fromkeys(r.method for r in rows))
    rows += [over_times([r for r in rows if r.method == m]) for m in methods]
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    described = {**plain, "lagrangian": named, "whiten": whiten, "seeds": list(seeds)}
    del described["seed"]
    return Evaluation(tuple(rows), tuple(folds), described)


def _fit(
    shown: Snapshots,
    seed: int,
    held: tuple[int, ...],
    settings: FitOptions,
    arguments: dict[str, Any],
) -> tuple[ActionPotential, float]:
    label = "-".join(map(str, held)) or "none"
    logger.info("without time points %s, seed %d", label, seed)
    out = None if settings.out is None else settings.out / f"without-{label}-seed-{seed}"
    fields = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    began = time.process_time()
    model = fit(shown, **arguments, **(fields | {"seed": seed, "out": out}))
    if model.interrupted:  # a half-trained flow must not be scored
        raise KeyboardInterrupt
    return model, time.process_time() - began


def _score(
    scaled: Snapshots,
    scaler: str,
    shown: Snapshots,
    k: int,
    held: tuple[int, ...],
    fits: list[tuple[ActionPotential, float]],
    name: str,
    seeds: tuple[int, ...],
) -> tuple[list[Row], Fold]:
    """Rows of one time point: baselines from the visible snapshots, then the fits."""
    when, masses = scaled.times, scaled.masses
    start = max(i for i in range(k) if i not in held)
    before = scaled.samples[start]
    mass = [None] * len(scaled) if masses is None else masses.tolist()
    label = START if held else START_TEST
    target = Target(float(when[k]), scaled.samples[k], mass[k], label, scaler)
    generator = torch.Generator().manual_seed(seeds[0])
    rows = [
        target.floor(FLOOR, generator),
        target.row(PREVIOUS, before, None, mass[start]),
    ]
    if held:
        lines = Interpolation(shown, float(when[k]), FitOptions().pool, generator)
        between = lines.mass()
        rows.append(target.row(MIDPOINT, *lines.midpoint(), between))
        rows.append(target.row(SPLINE, *lines.spline(), between))
        rows.append(target.row(MIDPOINT_MEAN, *lines.midpoint_with_mean(), between))
    else:
        rows.append(target.row(SEEN, shown.samples[k], None, mass[k]))
    span = when[[start, k]]
    ours, first = [], None
    for model, seconds in fits:
        moved = model.trajectories(before.to(model.center.device), span)
        x, weight, grown = moved.x[-1].cpu(), None, mass[start]
        if moved.log_weight is not None:
            log_weight = moved.log_weight[-1].cpu()
            weight = log_weight.softmax(0)
            # Weights are relative to the cells that the prediction starts from.
            grown = None if grown is None else grown * float(log_weight.exp().mean())
        ours.append(replace(target.row(name, x, weight, grown), seconds=seconds))
        first = first or Fold(k, float(when[k]), target.cells, x, model, weight)
    assert first is not None
    return [*rows, over_seeds(ours, seeds)], first


def _folds(
    snapshots: Snapshots, hold_out: HoldOut, test: Snapshots | None
) -> list[tuple[int, ...]]:
    """What each fit must not see; nothing for the protocol in which all times are seen."""
    if hold_out == "none":
        if test is None:
            raise ValueError('hold_out="none" needs test=..., other cells at the same times')
        if test.times.tolist() != snapshots.times.tolist() or test.dim != snapshots.dim:
            raise DataError("test must have the times and dimensions of the snapshots")
        return [()]
    if test is not None:
        raise ValueError('test cells are for hold_out="none"')
    last = len(snapshots) - 1
    if last < 2:
        raise DataError(
            f"leaving one out needs at least three time points; there are {len(snapshots)}"
        )
    if hold_out == "each":
        return [(k,) for k in range(1, last)]
    if hold_out == "pairs":
        if last < 3:
            raise DataError(
                f"leaving two out needs at least four time points; there are {len(snapshots)}"
            )
        return list(combinations(range(1, last), 2))
    if isinstance(hold_out, str):
        raise ValueError(f"hold_out must be 'each', 'pairs', 'none' or indices; got {hold_out!r}")
    folds = [tuple(sorted({*k})) if isinstance(k, tuple) else (int(k),) for k in hold_out]
    if not folds or not all(folds):
        raise DataError("hold_out names no time point")
    for k in (k for held in folds for k in held):
        if not 0 < k < last:
            raise DataError(
                f"hold_out must name interior time points 1 to {last - 1}, since a prediction "
                f"starts from the cells before it; got {k}"
            )
    return folds


def _scaled(whole: Snapshots, visible: Snapshots, whiten: bool) -> tuple[Snapshots, str]:
    """Snapshots in units taken from the visible ones alone."""
    if not whiten:
        return whole, "none"
    cells = torch.cat(visible.samples)
    center, spread = cells.mean(0), cells.std(0)
    flat = (spread == 0).nonzero().flatten().tolist()
    if flat:
        raise DataError(
            f"column {flat[0]} does not vary, so it cannot be whitened: drop it, or whiten=False"
        )
    text = f"mean and standard deviation of each coordinate over the {len(visible)} visible times"

    def scale(x: Tensor) -> Tensor:
        return (x - center) / spread

    return whole.map(scale), text
