"""Leave-one-out on the embryoid-body subset: W1 beside its floor and its baselines, 3 seeds."""

import torch

from sciflow import wlf
from sciflow.data import path, read_cells


def run(device: str) -> dict:
    """Scores of the flow with its default settings, and of the rows it has to beat."""
    torch.set_num_threads(1)
    cells = read_cells(path("embryoid-body-subset"), n_dims=5).snapshots()
    result = wlf.evaluate(cells, seeds=(0, 1, 2), device=device, progress=False)
    tables = {}
    for row in result.rows:
        name = "mean of t1 to t3" if row.time is None else f"held-out t = {row.time:g}"
        tables.setdefault(name, {})[row.method] = {
            "W1": row.w1,
            "std": row.w1_std,
            "energy": row.energy,
            "n": row.n_predicted,
            "s_per_fit": row.seconds,
        }
    first = result.rows[0]
    conditions = {"start": first.start, "scaler": first.scaler, "seeds": [0, 1, 2]}
    return {"conditions": conditions, "settings": result.settings, "tables": tables}
