"""Figures of ground states show what they are given."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sciflow import plots, wqmc
from sciflow.train import History


@pytest.fixture
def history():
    history = History()
    for k in range(40):
        history.append(10 * k, {"energy": -2.9 + 0.5 * 0.9**k, "error": 0.004})
    return history


def test_energy_trace(history):
    ax = plots.energy_trace({"a": history, "b": history}, -2.9, Figure().subplots(), window=4)
    steps, above = ax.lines[0].get_data()
    assert steps[0] == 15 and len(steps) == 37 and ax.get_yscale() == "symlog"
    assert above[0] == pytest.approx(500 * (1 + 0.9 + 0.81 + 0.729) / 4)
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(above[0] + 4 / 2)  # the mean of four rows
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="window must be at least 1"):
        plots.energy_trace(history, -2.9, window=0)


def test_dissociation(history):
    psi = wqmc.FermiNet(wqmc.Molecule("H2"), 1, 4, 1)
    measured = wqmc.Evaluation(-1.1, 0.01, 0.1, 100, 3.0, 0, 0.5, 0.1)
    results = [wqmc.GroundState(psi, measured, history)] * 2
    ax = plots.dissociation([1.0, 2.0], results, {"FCI": [-1.2, -1.1]}, Figure().subplots())
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [-1.2, -1.1])
    shown = np.asarray(ax.containers[0][0].get_ydata(), dtype=float)
    np.testing.assert_allclose(shown, [-1.1, -1.1])
    with pytest.raises(ValueError, match="lengths has 2 entries, FCI has 1"):
        plots.dissociation([1.0, 2.0], results, {"FCI": [-1.2]})


def test_electron_density():
    edges = (torch.arange(4.0), torch.arange(3.0), torch.arange(6.0))
    value = torch.rand(3, 2, 5) + 0.1
    found = wqmc.Density(edges, value, value)
    ax = plots.electron_density(found, Figure().subplots())
    shown = np.asarray(ax.collections[0].get_array()).reshape(3, 5)
    np.testing.assert_allclose(shown, value.mean(1).numpy())
