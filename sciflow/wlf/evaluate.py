"""Leave-one-out evaluation: how well a flow predicts a time point it was not shown."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from sciflow.am import ActionPotential, Lagrangian
from sciflow.errors import DataError
from sciflow.metrics import energy_distance, sampling_floor, wasserstein1
from sciflow.shapes import Float, Tensor
from sciflow.train import Snapshots
from sciflow.wlf.baselines import transport_midpoint
from sciflow.wlf.recipe import FitOptions, fit

logger = logging.getLogger(__name__)

FLOOR, PREVIOUS, MIDPOINT = "sampling floor", "previous marginal", "exact-OT midpoint"
START = "real cells of the previous time point"


@dataclass(frozen=True)
class Row:
    """Score of one method on one held-out time point, or its mean over them.

    Attributes:
        time: the held-out time; None for the mean.
        method: name of the method.
        w1: W1 between prediction and held-out cells (exact, Euclidean), in scaled units; mean over
            the seeds.
        w1_std: standard deviation of w1 over the seeds; 0 where the method has no randomness.
        energy: energy distance (unbiased, may be slightly negative); mean over the seeds.
        n_predicted: number of points compared.
        n_held_out: number of held-out cells they are compared with.
        seeds: seeds of the runs averaged.
        start: cells the prediction starts from.
        scaler: what the scaler was fitted on.
        seconds: mean wall time of one fit; 0 where nothing is fitted.
    """

    time: float | None
    method: str
    w1: float
    w1_std: float
    energy: float
    n_predicted: int
    n_held_out: int
    seeds: tuple[int, ...]
    start: str
    scaler: str
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Fold:
    """One held-out time point, in scaled units, with what the first seed predicted for it."""

    index: int
    time: float
    held_out: Float[Tensor, "n dim"]
    predicted: Float[Tensor, "m dim"]
    model: ActionPotential = field(repr=False)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of all held-out time points.

    Attributes:
        rows: one per method and held-out time, then the means.
        folds: what was held out and what was predicted, for plots.
        settings: settings of the fits.
    """

    rows: tuple[Row, ...]
    folds: tuple[Fold, ...]
    settings: dict[str, Any]

    def row(self, method: str, time: float | None = None) -> Row:
        """The row of a method at a held-out time; the mean over them by default.

        Raises:
            KeyError: there is no such row.
        """
        for row in self.rows:
            if row.method == method and row.time == time:
                return row
        raise KeyError(f"no row for {method!r} at {time}")

    @property
    def ours(self) -> str:
        """Name of the method that was fitted."""
        return self.rows[-1].method

    def table(self) -> str:
        """The rows as aligned text."""
        head = ("held-out t", "method", "W1", "std", "energy dist.", "n", "n held out", "s/fit")
        lines = [head]
        for r in self.rows:
            when = "mean" if r.time is None else f"{r.time:g}"
            cells = (f"{r.w1:.3f}", f"{r.w1_std:.3f}", f"{r.energy:.3f}", str(r.n_predicted))
            lines.append((when, r.method, *cells, str(r.n_held_out), f"{r.seconds:.0f}"))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [
            "  ".join(c.ljust(w) if i == 1 else c.rjust(w) for i, (c, w) in columns)
            for columns in (list(enumerate(zip(line, widths, strict=True))) for line in lines)
        ]
        first = self.rows[0]
        text.append("")
        text.append(f"seeds: {', '.join(map(str, self.rows[-1].seeds))}; start: {first.start}")
        text.append(f"scaler: {first.scaler}")
        return "\n".join(text)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``scores.csv`` and ``scores.json`` (with the settings) into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) for row in self.rows]
        table = folder / "scores.csv"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            for row in rows:
                seeds = " ".join(map(str, row["seeds"]))
                when = "mean" if row["time"] is None else row["time"]
                writer.writerow({**row, "seeds": seeds, "time": when})
        document = folder / "scores.json"
        document.write_text(json.dumps({"settings": self.settings, "rows": rows}, indent=1))
        return [table, document]


def evaluate(
    snapshots: Snapshots,
    hold_out: Literal["each"] | Iterable[int] = "each",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    whiten: bool = True,
    lagrangian: str | Lagrangian = "ot",
    **options: Any,
) -> Evaluation:
    """Leave out one time point at a time and predict it from the real cells before it.

    Scaler, couplings and networks see the remaining time points only. Four rows per time point:
    the sampling floor (half of the held-out cells against the other half: what a perfect
    prediction of that size would score), the previous marginal unchanged, the midpoint under
    exact optimal transport between the neighbours, and the flow, averaged over the seeds.

    Args:
        snapshots: cells at three or more times.
        hold_out: indices of interior time points, or ``"each"`` of them.
        seeds: one fit per time point for each.
        whiten: scale each coordinate to unit variance over the remaining cells; otherwise the
            coordinates stay as they are, and the scores are in their units.
        lagrangian: as in ``fit``.
        options: fields of ``FitOptions``; ``out`` gets one folder per fit.

    Raises:
        DataError: fewer than three time points, or a time point that has no neighbour before or
            after.
        ValueError: no seeds, or an option out of range.
    """
    indices = _interior(snapshots, hold_out)
    if not seeds:
        raise ValueError("seeds must name at least one seed")
    settings = FitOptions(**options)
    name = f"flow ({lagrangian})" if isinstance(lagrangian, str) else "flow (own Lagrangian)"
    rows: list[Row] = []
    folds = []
    for k in indices:
        fold_rows, fold = _evaluate_fold(snapshots, k, seeds, whiten, lagrangian, name, settings)
        rows += fold_rows
        folds.append(fold)
    rows += [_mean([r for r in rows if r.method == m]) for m in (FLOOR, PREVIOUS, MIDPOINT, name)]
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    described = {**plain, "lagrangian": str(lagrangian), "whiten": whiten, "seeds": list(seeds)}
    del described["seed"]
    return Evaluation(tuple(rows), tuple(folds), described)


def _interior(snapshots: Snapshots, hold_out: Literal["each"] | Iterable[int]) -> list[int]:
    if len(snapshots) < 3:
        raise DataError(
            f"leaving one out needs at least three time points; there are {len(snapshots)}"
        )
    last = len(snapshots) - 1
    indices = list(range(1, last)) if hold_out == "each" else [int(k) for k in hold_out]
    if not indices:
        raise DataError("hold_out names no time point")
    for k in indices:
        if not 0 < k < last:
            raise DataError(
                f"hold_out must name interior time points 1 to {last - 1}, since a prediction "
                f"starts from the cells before it; got {k}"
            )
    return indices


def _evaluate_fold(
    snapshots: Snapshots,
    k: int,
    seeds: Sequence[int],
    whiten: bool,
    lagrangian: str | Lagrangian,
    name: str,
    settings: FitOptions,
) -> tuple[list[Row], Fold]:
    when = [float(t) for t in snapshots.times]
    visible = snapshots.without(k)
    scaled, scaler = _scaled(snapshots, visible, whiten)
    held_out, before, after = scaled.samples[k], scaled.samples[k - 1], scaled.samples[k + 1]
    shared: dict[str, Any] = {"time": when[k], "start": START, "scaler": scaler}
    rows = []

    def add(method: str, points: Tensor, weights: Tensor | None) -> None:
        w1 = wasserstein1(points, held_out, weights)
        energy = energy_distance(points, held_out, weights)
        sizes = (len(points), len(held_out))
        rows.append(
            Row(
                method=method,
                w1=w1,
                w1_std=0.0,
                energy=energy,
                n_predicted=sizes[0],
                n_held_out=sizes[1],
                seeds=(),
                **shared,
            )
        )

    generator = torch.Generator().manual_seed(seeds[0])
    half = len(held_out) // 2
    if half < 2:
        raise DataError(f"time point {k} (t = {when[k]:g}) has too few cells to be scored")
    floor = sampling_floor(held_out, generator)
    # Two halves of one sample have energy distance zero on average, by its being unbiased.
    rows.append(
        Row(
            method=FLOOR,
            w1=floor,
            w1_std=0.0,
            energy=0.0,
            n_predicted=half,
            n_held_out=half,
            seeds=(),
            **shared,
        )
    )
    add(PREVIOUS, before, None)
    fraction = (when[k] - when[k - 1]) / (when[k + 1] - when[k - 1])
    add(MIDPOINT, *transport_midpoint(before, after, fraction, settings.pool, generator))

    scores, first, seconds = [], None, 0.0
    span = torch.tensor([when[k - 1], when[k]], dtype=torch.float64)
    for seed in seeds:
        logger.info("held-out t = %g, seed %d", when[k], seed)
        fields = {**{f: getattr(settings, f) for f in settings.__dataclass_fields__}, "seed": seed}
        if settings.out is not None:
            fields["out"] = Path(settings.out) / f"without-{k}-seed-{seed}"
        began = time.perf_counter()
        model = fit(scaled, lagrangian, hold_out=(k,), **fields)
        if model.interrupted:  # a half-trained flow must not be scored
            raise KeyboardInterrupt
        seconds += time.perf_counter() - began
        predicted = model.trajectories(before.to(model.center.device), span).x[-1].cpu()
        scores.append((wasserstein1(predicted, held_out), energy_distance(predicted, held_out)))
        first = first or (predicted, model)
    assert first is not None
    w1, energy = torch.tensor(scores, dtype=torch.float64).unbind(1)
    rows.append(
        Row(
            method=name,
            w1=float(w1.mean()),
            w1_std=float(w1.std()) if len(seeds) > 1 else 0.0,
            energy=float(energy.mean()),
            n_predicted=len(before),
            n_held_out=len(held_out),
            seeds=tuple(seeds),
            seconds=seconds / len(seeds),
            **shared,
        )
    )
    return rows, Fold(k, when[k], held_out, *first)


def _scaled(snapshots: Snapshots, visible: Snapshots, whiten: bool) -> tuple[Snapshots, str]:
    """All snapshots in units taken from the visible ones alone."""
    if not whiten:
        return snapshots, "none"
    cells = torch.cat(visible.samples)
    center, spread = cells.mean(0), cells.std(0)
    flat = (spread == 0).nonzero().flatten().tolist()
    if flat:
        raise DataError(
            f"column {flat[0]} does not vary, so it cannot be whitened: drop it, or whiten=False"
        )
    text = f"mean and standard deviation of each coordinate over the {len(visible)} other times"
    return snapshots.map(lambda x: (x - center) / spread), text


def _mean(rows: list[Row]) -> Row:
    n = len(rows)
    return Row(
        time=None,
        method=rows[0].method,
        w1=sum(r.w1 for r in rows) / n,
        w1_std=(sum(r.w1_std**2 for r in rows)) ** 0.5 / n,
        energy=sum(r.energy for r in rows) / n,
        n_predicted=sum(r.n_predicted for r in rows),
        n_held_out=sum(r.n_held_out for r in rows),
        seeds=rows[0].seeds,
        start=rows[0].start,
        scaler=rows[0].scaler,
        seconds=sum(r.seconds for r in rows) / n,
    )
