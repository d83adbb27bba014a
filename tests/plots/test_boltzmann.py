"""Histograms of weighted samples: what is drawn is what the weights say."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sciflow import plots


def heights(ax, name):
    for patch in ax.patches:
        if patch.get_label() == name:
            return patch.get_data()
    raise AssertionError(f"nothing is drawn as {name}")


def test_weights_move_the_histogram(generator):
    """Wide draws weighted to the standard normal lie on its density; unweighted ones do not."""
    x = 1.5 * torch.randn(100_000, generator=generator)
    log_weight = -0.5 * x**2 + 0.5 * (x / 1.5) ** 2
    r = torch.linspace(-4, 4, 101)
    density = torch.exp(-0.5 * r**2) / (2 * torch.pi) ** 0.5
    truth = torch.randn(50_000, generator=generator)
    ax = Figure().subplots()
    plots.weighted_histogram(x, log_weight, ax, truth, (r, density), bins=30, label="x / nm")
    assert ax.get_xlabel() == "x / nm"
    off = {}
    for name in ("flow", "flow, reweighted", "long Markov chains"):
        values, edges, _ = heights(ax, name)
        middle = (edges[1:] + edges[:-1]) / 2
        exact = np.exp(-0.5 * middle**2) / np.sqrt(2 * np.pi)
        off[name] = np.abs(values - exact).max()
    assert off["flow, reweighted"] < 0.02
    assert off["long Markov chains"] < 0.02
    assert off["flow"] > 0.05


def test_several_values_of_a_sample(generator):
    x = torch.randn(2000, 3, generator=generator)
    ax = plots.weighted_histogram(x, torch.zeros(2000), Figure().subplots())
    one, two = (heights(ax, name)[0] for name in ("flow", "flow, reweighted"))
    assert np.allclose(one, two)


def test_refused(unchecked):
    ax = Figure().subplots()
    with pytest.raises(ValueError, match="log_weight"):
        plots.weighted_histogram(torch.zeros(3), torch.zeros(4), ax)
    with pytest.raises(ValueError, match="finite"):
        plots.weighted_histogram(torch.full((3,), torch.nan), torch.zeros(3), ax)
