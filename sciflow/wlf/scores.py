"""Scores of predictions: rows, their table, and the files they go to."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sciflow.am import ActionPotential
from sciflow.errors import DataError
from sciflow.metrics import (
    covariance_trace_ratio,
    energy_distance,
    mmd,
    sampling_floor,
    wasserstein1,
    wasserstein2,
)
from sciflow.shapes import Float, Tensor


@dataclass(frozen=True)
class Row:
    """Score of one method on one held-out time point, or its mean over them.

    Attributes:
        time: the held-out time; None for the mean.
        method: name of the method.
        w1: W1 between prediction and held-out cells (exact, Euclidean), in scaled units; mean over
            the seeds.
        w1_std: standard deviation of w1 over the seeds; 0 where the method has no randomness. In
            the mean over times: of the mean of each seed.
        w2: W2 between them, likewise.
        energy: energy distance (unbiased, may be slightly negative); mean over the seeds.
        mmd: squared maximum mean discrepancy, Gaussian kernel of the median distance (unbiased).
        cov_ratio: total variance of the prediction over that of the held-out cells.
        mass_error: predicted mass over the true one, minus one; None where masses are unknown.
        n_predicted: number of points compared.
        n_held_out: number of held-out cells they are compared with.
        seeds: seeds of the runs averaged.
        start: cells the prediction starts from.
        scaler: what the scaler was fitted on.
        seconds: mean CPU time of one fit; 0 where nothing is fitted.
    """

    time: float | None
    method: str
    w1: float
    w1_std: float
    w2: float
    energy: float
    mmd: float
    cov_ratio: float
    mass_error: float | None
    n_predicted: int
    n_held_out: int
    seeds: tuple[int, ...]
    start: str
    scaler: str
    seconds: float = 0.0


_AVERAGED = ("w1", "w2", "energy", "mmd", "cov_ratio", "seconds")


@dataclass(frozen=True)
class Target:
    """What a prediction is compared with, and what all its rows say.

    Attributes:
        time: held-out time.
        cells: held-out cells, in scaled units.
        mass: their mass; None where it is unknown.
        start: cells the prediction starts from.
        scaler: what the scaler was fitted on.
    """

    time: float
    cells: Float[Tensor, "n dim"]
    mass: float | None
    start: str
    scaler: str

    def row(
        self,
        method: str,
        x: Float[Tensor, "m dim"],
        weight: Float[Tensor, "m"] | None = None,
        mass: float | None = None,
    ) -> Row:
        """Score of predicted points, with relative weights and total mass where they have any."""
        y = self.cells
        return Row(
            time=self.time,
            method=method,
            w1=wasserstein1(x, y, weight),
            w1_std=0.0,
            w2=wasserstein2(x, y, weight),
            energy=energy_distance(x, y, weight),
            mmd=mmd(x, y, a=weight),
            cov_ratio=covariance_trace_ratio(x, y, weight),
            mass_error=None if mass is None or self.mass is None else mass / self.mass - 1,
            n_predicted=len(x),
            n_held_out=len(y),
            seeds=(),
            start=self.start,
            scaler=self.scaler,
        )

    def floor(self, method: str, generator: torch.Generator) -> Row:
        """What a perfect prediction of half as many cells would score, against the other half."""
        half = len(self.cells) // 2
        if half < 2:
            raise DataError(f"t = {self.time:g} has too few cells to be scored")
        order = torch.randperm(len(self.cells), generator=generator)
        other = replace(self, cells=self.cells[order[half : 2 * half]])
        row = other.row(method, self.cells[order[:half]], None, self.mass)
        # W1 as a mean over splits; two halves of one sample have energy distance zero on average.
        return replace(row, w1=sampling_floor(self.cells, generator), energy=0.0, mmd=0.0)


def over_seeds(rows: list[Row], seeds: tuple[int, ...]) -> Row:
    """One row for the runs of several seeds on one time point."""
    row = _averaged(rows)
    w1 = torch.tensor([r.w1 for r in rows], dtype=torch.float64)
    return replace(row, w1_std=float(w1.std()) if len(rows) > 1 else 0.0, seeds=seeds)


def over_times(rows: list[Row]) -> Row:
    """One row for several held-out times."""
    row = replace(_averaged(rows), time=None)
    return replace(
        row,
        n_predicted=sum(r.n_predicted for r in rows),
        n_held_out=sum(r.n_held_out for r in rows),
        w1_std=sum(r.w1_std**2 for r in rows) ** 0.5 / len(rows),
    )


def _averaged(rows: list[Row]) -> Row:
    n = len(rows)
    means: dict[str, Any] = {name: sum(getattr(r, name) for r in rows) / n for name in _AVERAGED}
    errors = [r.mass_error for r in rows]
    # Errors of both signs must not cancel.
    known = [abs(e) for e in errors if e is not None]
    mass = None if len(known) < n else (errors[0] if n == 1 else sum(known) / n)
    return replace(rows[0], **means, mass_error=mass)


@dataclass(frozen=True, eq=False)
class Fold:
    """One held-out time point, in scaled units, with what the first seed predicted for it.

    Attributes:
        index: of the time point.
        time: the held-out time.
        held_out: its cells.
        predicted: predicted cells.
        model: of the first seed.
        weight: relative weights of the predicted cells; None where they are equal.
    """

    index: int
    time: float
    held_out: Float[Tensor, "n dim"]
    predicted: Float[Tensor, "m dim"]
    model: ActionPotential = field(repr=False)
    weight: Float[Tensor, "m"] | None = None


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
        head = (
            "held-out t", "method", "W1", "std", "W2", "energy", "MMD^2", "cov. ratio",
            "mass error", "n", "n held out", "s/fit",
        )  # fmt: skip
        lines: list[tuple[str, ...]] = [head]
        for r in self.rows:
            when = "mean" if r.time is None else f"{r.time:g}"
            mass = "-" if r.mass_error is None else f"{r.mass_error:.3f}"
            scores = [f"{v:.3f}" for v in (r.w1, r.w1_std, r.w2, r.energy, r.mmd, r.cov_ratio)]
            sizes = (str(r.n_predicted), str(r.n_held_out), f"{r.seconds:.0f}")
            lines.append((when, r.method, *scores, mass, *sizes))
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
