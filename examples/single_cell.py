"""A whole study of a single-cell time course: score, fit, predict, plot.

Launch:
    python examples/single_cell.py cells.h5ad --out runs/cells
    torchrun --nproc_per_node=2 examples/single_cell.py cells.h5ad --out runs/cells
    python examples/single_cell.py --out runs/simulated        # simulated cells, no file needed

The page to open is runs/cells/scores.png; the numbers are in runs/cells/scores.csv.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import plots, wlf
from sciflow.data import read_cells
from sciflow.systems import GeneNetwork
from sciflow.train import Engine, Snapshots


@dataclass
class Study:
    """Settings of the study."""

    cells: tyro.conf.Positional[Path | None] = None
    """Cells as .h5ad, .npz or .csv; simulated ones by default."""
    out: Path = Path("runs/single_cell")
    """Folder that is written."""
    n_dims: int = 5
    """Number of principal components."""
    steps: int = 1000
    """Updates per fit."""


def load(study: Study) -> Snapshots:
    if study.cells is None:
        return GeneNetwork().simulate(300, seed=0).snapshots
    return read_cells(study.cells, n_dims=study.n_dims).snapshots()


def main(study: Study) -> None:
    cells = load(study)
    options = {"steps": study.steps, "progress": Engine.start().is_main}
    scores = wlf.evaluate(cells, seeds=(0,), **options)
    model = wlf.fit(cells, **options)
    if not Engine.start().is_main:
        return
    print(scores.table())
    scores.save(study.out)
    model.save(study.out / "model.safetensors")

    t = torch.linspace(float(cells.times[0]), float(cells.times[-1]), 33, dtype=torch.float64)
    paths = model.trajectories(cells.samples[0], t)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    plots.trajectories(paths.t, paths.x, left, background=cells)
    fold = scores.folds[len(scores.folds) // 2]
    plots.predicted_against_held_out(fold.predicted, fold.held_out, right)
    figure.savefig(study.out / "scores.png", dpi=150)
    print(f"kinetic action {model.action().rollout:.3f}; figure: {study.out / 'scores.png'}")


if __name__ == "__main__":
    main(tyro.cli(Study))
