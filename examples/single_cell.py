"""A whole study of a single-cell time course: score, fit, predict, growth, plots.

Launch:
    python examples/single_cell.py cells.h5ad --time-key day --out runs/cells
    CUDA_VISIBLE_DEVICES= python examples/single_cell.py cells.h5ad    # on the CPU, beside a GPU
    torchrun --nproc_per_node=2 examples/single_cell.py cells.h5ad --out runs/cells
    python examples/single_cell.py --out runs/simulated        # simulated cells, no file needed

The pages to open are OUT/scores.png (how well held-out times are predicted, against simple
baselines) and OUT/flow.png (trajectories, stream, growth, potential, marginals and mass in time);
the numbers are in OUT/scores.csv. Cells and model go to OUT/fitted.h5ad (or .csv, as they came)
and OUT/fitted.safetensors.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from sciflow import plots, wlf
from sciflow.bridges.files import write_fit
from sciflow.data import Cells, read_cells
from sciflow.systems import GeneNetwork
from sciflow.train import Engine, Snapshots


@dataclass
class Study:
    """Settings of the study."""

    cells: tyro.conf.Positional[Path | None] = None
    """Cells as .h5ad, .npz or .csv; simulated ones by default."""
    out: Path = Path("runs/single_cell")
    """Folder that is written."""
    time_key: str | None = None
    """Where the times are; None takes what is called time, day ..."""
    n_dims: int = 5
    """Number of principal components."""
    lagrangian: str = "uot"
    """What the flow minimises; "uot" lets cells multiply and die, "ot" does not."""
    reach: float = 3.0
    """How far mass travels at most, in units of the spread of all cells: beyond, it is cheaper to
    die here and be born there. Counts where cells multiply and die."""
    counts: bool = True
    """Take the numbers of cells for the size of the population, where the file says nothing."""
    seeds: int = 1
    """Fits for each held-out time."""
    steps: int = 1000
    """Updates per fit."""


def load(study: Study) -> tuple[Snapshots, Cells | None]:
    """Snapshots with masses, and the cells of the file they came from."""
    if study.cells is None:
        return GeneNetwork().simulate(300, seed=0).snapshots, None
    cells = read_cells(study.cells, time_key=study.time_key, n_dims=study.n_dims)
    return cells.snapshots("counts" if study.counts else "file"), cells


def main(study: Study) -> None:
    snapshots, cells = load(study)
    is_main = Engine.start().is_main
    options = {"lagrangian": study.lagrangian, "steps": study.steps, "progress": is_main}
    if "uot" in study.lagrangian:
        spread = float(torch.cat(snapshots.samples).var(0).sum().sqrt())
        options["growth_penalty"] = (math.pi / (study.reach * spread)) ** 2
    # Without whitening, scores and penalty are in the units of the components.
    scores = wlf.evaluate(snapshots, seeds=range(study.seeds), whiten=False, **options)
    model = wlf.fit(snapshots, **options).cpu()
    if not is_main:
        return
    print(scores.table())
    scores.save(study.out)
    if cells is None:
        model.save(study.out / "fitted.safetensors")
    else:
        suffix = cells.path.suffix
        write_fit(cells, model, study.out / f"fitted{suffix}", {"door": "wlf", **options})
    draw_scores(scores).savefig(study.out / "scores.png", dpi=150)
    draw_flow(snapshots, model).savefig(study.out / "flow.png", dpi=150)
    print(f"action {model.action().rollout:.3f}; figures: {study.out}/scores.png, flow.png")


def draw_scores(scores: wlf.Evaluation) -> Figure:
    """W1 against the floor, and one prediction over the cells it was to meet."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    floor = {row.time: row.w1 for row in scores.rows if row.method == "sampling floor"}
    shown = [
        plots.ScoreRow(row.method, row.time, row.w1, floor[row.time], row.w1_std)
        for row in scores.rows
        if row.time is not None and row.method != "sampling floor"
    ]
    plots.scores(shown, left)
    fold = scores.folds[len(scores.folds) // 2]
    plots.predicted_against_held_out(fold.predicted, fold.held_out, right, weights=fold.weight)
    return figure


def draw_flow(snapshots: Snapshots, model: wlf.ActionPotential) -> Figure:
    """Trajectories, stream, growth, potential, one coordinate and the mass in time."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    first, last = (float(t) for t in snapshots.times[[0, -1]])
    t = torch.linspace(first, last, 33, dtype=torch.float64)
    paths = model.trajectories(snapshots.samples[0], t)
    x = torch.cat(snapshots.samples)
    when = snapshots.times.repeat_interleave(torch.tensor(snapshots.sizes))
    plots.trajectories(paths.t, paths.x, axes[0], background=snapshots)
    plots.stream(x, model.velocity(when, x), axes[1], color=when)
    plots.growth(x, model.growth(when, x), axes[2])
    middle = (first + last) / 2
    plots.landscape(x, model.potential(middle, x), axes[3])
    axes[3].set_title(f"t = {middle:g}", fontsize="medium")
    plots.marginals_over_time(t, paths.x, snapshots, axes[4], weights=paths.weights)
    if snapshots.masses is not None:
        plots.mass_over_time(t, paths.mass, snapshots, axes[5])
    else:
        axes[5].set_axis_off()
    return figure


if __name__ == "__main__":
    main(tyro.cli(Study))
