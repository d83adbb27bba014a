"""Figures of fitted flows: what is drawn is what the numbers say."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from sciflow import Snapshots, plots

mpl.use("agg")


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def cells(generator):
    return torch.randn(600, 3, generator=generator)


def test_stream_follows_the_velocity(ax, cells):
    """Rotation: each segment of a line is at a right angle to the radius."""
    v = torch.stack([-cells[:, 1], cells[:, 0], cells[:, 2]], 1)
    plots.stream(cells, v, ax, labels=["a", "b", "c"])
    lines = next(c for c in ax.collections if c.__class__.__name__ == "LineCollection")
    segments = np.array([s for s in lines.get_segments() if len(s) == 2])
    middle, step = segments.mean(1), segments[:, 1] - segments[:, 0]
    inner = (np.linalg.norm(middle, axis=1) > 0.4) & (np.linalg.norm(middle, axis=1) < 1.3)
    inner &= (step != 0).any(1)
    middle, step = middle[inner], step[inner]
    cosine = (middle * step).sum(1) / np.linalg.norm(middle, axis=1) / np.linalg.norm(step, axis=1)
    turning = middle[:, 0] * step[:, 1] - middle[:, 1] * step[:, 0]
    assert len(step) > 50
    assert np.abs(cosine).mean() < 0.15 and (turning > 0).mean() > 0.97
    assert ax.get_xlabel() == "a"


def test_growth_is_symmetric_about_zero(ax, cells):
    plots.growth(cells, cells[:, 0] + 0.5, ax, unit="1 / day")
    dots = ax.collections[0]
    assert dots.norm.vmin == -dots.norm.vmax
    assert len(dots.get_offsets()) == 600
    order = np.argsort(np.abs(cells[:, 0].numpy() + 0.5))
    np.testing.assert_array_equal(dots.get_array(), (cells[:, 0].numpy() + 0.5)[order])
    with pytest.raises(ValueError, match="finite"):
        plots.growth(cells, cells[:, 0] * torch.nan, ax)


def test_landscape_rises_where_the_potential_does(ax, cells):
    plots.landscape(cells, 2 * cells[:, 0], ax, unit="u")
    assert ax.figure.axes[-1].get_ylabel() == "potential (u)"
    field = ax.collections[0]
    levels, paths = field.levels, field.get_paths()
    middle = [p.vertices[:, 0].mean() for p in paths if len(p.vertices) > 10]
    assert len(levels) > 5 and np.all(np.diff(middle[1:-1]) > 0)


def test_marginals_over_time_are_weighted_quantiles(ax):
    x = torch.linspace(0, 1, 1001)[None, :, None].expand(2, -1, -1)
    weights = torch.stack([torch.ones(1001), (x[1, :, 0] > 0.5).double()])
    snapshots = Snapshots([torch.rand(50, 1), torch.rand(50, 1)], [0.0, 1.0])
    plots.marginals_over_time(torch.tensor([0.0, 1.0]), x, snapshots, ax, weights=weights)
    middle = ax.lines[0].get_ydata()
    np.testing.assert_allclose(middle, [0.5, 0.75], atol=0.01)


def test_mass_over_time(ax):
    snapshots = Snapshots([torch.rand(5, 1), torch.rand(5, 1)], [0.0, 1.0], [2.0, 3.0])
    plots.mass_over_time(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.4]), snapshots, ax)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1.0, 1.5])
    with pytest.raises(ValueError, match="masses"):
        bare = Snapshots([torch.rand(5, 1), torch.rand(5, 1)], [0.0, 1.0])
        plots.mass_over_time(torch.tensor([0.0]), torch.tensor([1.0]), bare, ax)
