"""Figures of flows show the flow's own numbers."""

import math

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sciflow import cnf, plots


@pytest.fixture
def ax():
    figure, ax = plt.subplots(layout="constrained")
    yield ax
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture
def flow(generator):
    field = cnf.VelocityMLP(2, 8, 1, generator=generator)
    torch.nn.init.normal_(field.last.weight, std=0.5, generator=generator)
    return cnf.ContinuousFlow(field, shift=[1.0, -2.0])


def test_density_shows_the_density(ax, flow):
    assert plots.density(flow, ax, bounds=(-3, 5, -6, 2), grid=20, labels=["a", "b"]) is ax
    (image,) = ax.images
    xs = -3 + 0.4 * (np.arange(20) + 0.5)
    ys = -6 + 0.4 * (np.arange(20) + 0.5)
    with torch.no_grad():
        expected = flow.log_prob(torch.tensor([[xs[4], ys[11]]])).exp()
    assert image.get_array()[11, 4] == pytest.approx(float(expected[0]), rel=1e-4)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")


def test_flow_lines_run_from_base_to_data(ax, flow, device):
    assert plots.flow_lines(flow, ax, n=7, seed=3) is ax
    lines, start, end = ax.collections[:3]
    z = flow.base.sample(7, torch.Generator(device).manual_seed(3))
    with torch.no_grad():
        x = flow.to_data(z)
    assert np.allclose(start.get_offsets(), (z + flow.shift).cpu())
    assert np.allclose(end.get_offsets(), x.cpu(), atol=1e-4)
    assert len(lines.get_segments()) == 7 * 40


def test_samples_over_time_are_the_same_samples(ax, flow, device):
    assert plots.samples_over_time(flow, ax, times=(0.5, 1.0), n=9) is ax
    half, last = ax.child_axes
    assert (half.get_title(), last.get_title()) == ("t = 0.5", "t = 1")
    z = flow.base.sample(9, torch.Generator(device).manual_seed(0))
    with torch.no_grad():
        x = flow.to_data(z)
    assert np.allclose(last.collections[0].get_offsets(), x.cpu(), atol=1e-4)
    assert half.get_xlim() == last.get_xlim()


def test_bad_arguments_are_named(ax, flow):
    with pytest.raises(ValueError, match="times must be two or more, ascending"):
        plots.samples_over_time(flow, ax, times=(0.0, 1.5))
    with pytest.raises(ValueError, match="flow must have 2 dimensions"):
        plots.density(cnf.ContinuousFlow(cnf.VelocityMLP(3, 8, 1)), ax)
    with pytest.raises(ValueError, match="dims must be columns of x"):
        plots.flow_lines(flow, ax, n=3, dims=(0, 2))


def test_density_of_a_periodic_flow_repeats(ax, generator):
    field = cnf.VelocityMLP(2, 8, 1, periodic=(0,), generator=generator)
    flow = cnf.ContinuousFlow(field, periods={0: 2 * math.pi})
    plots.density(flow, ax, bounds=(-2 * math.pi, 2 * math.pi, -3, 3), grid=16)
    values = np.asarray(ax.images[0].get_array())
    assert np.allclose(values[:, :8], values[:, 8:], rtol=1e-3)
