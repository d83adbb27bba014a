"""Transport of cells: leave-one-out scores beside their floor and baselines, growth, and speed.

``SEEDS=5 python -m benchmarks single_cell`` takes that many seeds (3 unless said). Data sets that
are not at hand are named in the result and left out.
"""

import time
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.harness import conditions, seeds
from sciflow import Snapshots, wlf
from sciflow.am import ActionPotential, Lagrangian
from sciflow.am.path import Bend, ConditionalPath
from sciflow.am.scale import scale_of
from sciflow.am.source import CoupledSnapshots
from sciflow.data import path, read_cells
from sciflow.data.registry import find
from sciflow.metrics import wasserstein1
from sciflow.wlf.objective import WassersteinLagrangianFlow


class Study(NamedTuple):
    """Leave-one-out on one data set: principal components, whitened or in raw units."""

    dataset: str
    dims: int
    whiten: bool
    lagrangian: str

    @property
    def title(self) -> str:
        units = "whitened" if self.whiten else "raw units"
        return f"{self.dataset}, {self.dims} PCs, {units}"


BENT, SMOOTH = "density+smooth-mean", "smooth-mean"
STUDIES = (
    Study("embryoid-body-subset", 5, True, BENT),
    Study("embryoid-body-subset", 100, False, SMOOTH),
    Study("embryoid-body", 5, True, BENT),
    Study("cite", 5, True, BENT),
    Study("cite", 50, False, SMOOTH),
    Study("cite", 100, False, SMOOTH),
    Study("multi", 5, True, BENT),
    Study("multi", 50, False, SMOOTH),
    Study("multi", 100, False, SMOOTH),
)


def run(device: str) -> dict:
    """Scores of the flow, and of the rows it has to beat."""
    torch.set_num_threads(1)
    drawn = seeds()
    tables = {"seconds per step of the game, 512 wide, batch 512, 5-D": speed(device)}
    present = [study for study in STUDIES if find(study.dataset) is not None]
    about = conditions(device) | {
        "seeds": list(drawn),
        "not at hand": sorted({study.dataset for study in STUDIES if study not in present}),
    }
    settings = {}
    for study in present:
        result = evaluate(study, drawn, device)
        for row in result.rows:
            when = "mean" if row.time is None else f"held-out t = {row.time:g}"
            tables.setdefault(f"{study.title}, {when}", {})[row.method] = {
                "W1": row.w1,
                "std": row.w1_std,
                "W2": row.w2,
                "energy": row.energy,
                "MMD2": row.mmd,
                "cov_ratio": row.cov_ratio,
                "n": row.n_predicted,
                "cpu_s_per_fit": row.seconds,
            }
        settings[study.title] = result.settings
        about[study.title] = {"start": result.rows[0].start, "scaler": result.rows[0].scaler}
    for name in ("simulation-gene", "gaussian-10d"):
        if find(name) is not None:
            tables |= growth(np.loadtxt(path(name), delimiter=",", skiprows=1), name, device)
    return {"conditions": about, "settings": settings, "tables": tables}


def evaluate(study: Study, drawn: tuple[int, ...], device: str) -> wlf.Evaluation:
    """Each interior time left out in turn, predicted from the real cells before it."""
    return wlf.evaluate(
        read_cells(path(study.dataset), n_dims=study.dims).snapshots(),
        seeds=drawn,
        whiten=study.whiten,
        lagrangian=study.lagrangian,
        device=device,
        progress=False,
    )


def growth(table: np.ndarray, name: str, device: str) -> dict:
    """Cells of the first time moved to all others, with growth and without."""
    times = np.unique(table[:, 0])
    parts = [table[table[:, 0] == t, 1:] for t in times]
    cells = Snapshots(parts, times, masses=[len(x) for x in parts])
    rows: dict = {}
    for label, options in (("ot", {}), ("uot", {"growth_penalty": 1.0})):
        model = wlf.fit(cells, label, device=device, progress=False, **options)
        moved = model.trajectories(cells.samples[0].to(device), cells.times.to(device))
        for k in range(1, len(cells)):
            weight, mass = None, 1.0
            if moved.log_weight is not None:
                weight = moved.log_weight[k].softmax(0).cpu()
                mass = float(moved.log_weight[k].exp().mean())
            truth = len(parts[k]) / len(parts[0])
            rows.setdefault(f"{name}, t = {times[k]:g}", {})[label] = {
                "W1": wasserstein1(moved.x[k].cpu(), cells.samples[k], weight),
                "mass error": mass / truth - 1,
                "n": len(parts[k]),
            }
    return rows


def speed(device: str) -> dict:
    """CPU seconds (wall on an accelerator) of one step of the min-max game, by inner moves."""
    generator = torch.Generator().manual_seed(0)
    clouds = [torch.randn(550, 5, generator=generator) + k for k in range(5)]
    snapshots = Snapshots(clouds, range(5))
    scale = scale_of(snapshots)
    where = torch.device(device)
    source = CoupledSnapshots(scale.inside(snapshots)).placed(where, torch.float32)
    clock = time.process_time if device == "cpu" else time.perf_counter
    rows = {}
    for moves in (0, 2, 10):
        model = ActionPotential(scale, 512, 4, generator)
        bent = ConditionalPath(Lagrangian(), Bend(5, 512, 2, generator))
        game = WassersteinLagrangianFlow(model, Lagrangian(), bent, "dual", moves).to(where)
        optimizer = torch.optim.Adam(game.parameters(), 1e-4)
        taken = []
        for _ in range(8):
            began = clock()
            optimizer.zero_grad()
            game(source.sample(512, generator)).value.backward()
            optimizer.step()
            if device != "cpu":
                torch.cuda.synchronize()
            taken.append(clock() - began)
        rows[f"{moves} inner moves"] = {"s_min": min(taken), "s_median": sorted(taken)[4]}
    return rows
