"""Populations that grow: simulated gene network and a mixture in ten dimensions.

Against the balanced flow on the same cells, from the cells of the first time.
"""

import logging

import numpy as np
import pytest
import torch

from sciflow import Snapshots, wlf
from sciflow.metrics import wasserstein1

logger = logging.getLogger(__name__)


def growing_cells(data_dir, name: str) -> Snapshots:
    """Cells by time; their numbers are the masses."""
    table = np.loadtxt(data_dir / "singlecell" / "deepruot" / name, delimiter=",", skiprows=1)
    times = np.unique(table[:, 0])
    parts = [table[table[:, 0] == t, 1:] for t in times]
    return Snapshots(parts, times, masses=[len(x) for x in parts])


@pytest.mark.parametrize("name", ["simulation_gene_data.csv", "gaussian_10d.csv"])
def test_growth_is_found_with_its_masses(data_dir, name):
    cells = growing_cells(data_dir, name)
    options = {"steps": 600, "device": "cpu", "progress": False}
    free = wlf.fit(cells, "uot", growth_penalty=1.0, **options)
    balanced = wlf.fit(cells, "ot", **options)
    x0, t = cells.samples[0], cells.times
    moved, kept = free.trajectories(x0, t), balanced.trajectories(x0, t)
    for k in range(1, len(cells)):
        truth = float(cells.masses[k] / cells.masses[0])
        mass = float(moved.log_weight[k].exp().mean()) / truth - 1
        weighted = wasserstein1(moved.x[k], cells.samples[k], moved.log_weight[k].softmax(0))
        even = wasserstein1(kept.x[k], cells.samples[k])
        logger.info("%s t%d: mass %+.4f, W1 %.3f, balanced %.3f", name, k, mass, weighted, even)
        assert abs(mass) <= 0.03
        assert weighted < even


def test_growth_is_where_the_growing_mode_is(data_dir):
    """Of the gene network the branch of high x2 divides; the other one keeps its numbers."""
    cells = growing_cells(data_dir, "simulation_gene_data.csv")
    options = {"steps": 600, "device": "cpu", "progress": False}
    model = wlf.fit(cells, "uot", growth_penalty=1.0, **options)
    last = cells.samples[-1]
    growth = model.growth(float(cells.times[-1]), last)
    high = last[:, 1] > 1.0
    before = cells.samples[-2][:, 1] > 1.0
    # what the numbers say: cells of the branch, later over earlier
    counted = torch.log(high.sum() / before.sum())
    assert float(growth[high].mean()) == pytest.approx(float(counted), rel=0.25)
    assert float(growth[high].mean()) > 2 * float(growth[~high].mean())
