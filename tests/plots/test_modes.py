"""Figures of modes: what is drawn, and what is refused."""

import pytest
import torch
from matplotlib.figure import Figure

from sciflow import plots


@pytest.fixture
def ax():
    return Figure().subplots()


def test_spectrum(ax, unchecked):
    values = torch.tensor([0.5, 1.0, 2.0])
    assert plots.spectrum(values, ax, exact=values + 0.1, unit="rad/ps") is ax
    exact, learned = ax.get_lines()
    assert learned.get_ydata().tolist() == [0.5, 1.0, 2.0]
    assert exact.get_xdata().tolist() == [1, 2, 3]
    assert ax.get_ylabel() == "angular frequency [rad/ps]"
    with pytest.raises(ValueError, match="exact has 2 values; expected 3"):
        plots.spectrum(values, ax, exact=values[:2])


def test_shapes_take_the_sign_of_the_exact_ones(ax, unchecked):
    shapes = torch.linalg.qr(torch.randn(5, 5))[0]
    assert plots.mode_shapes(-shapes, ax, exact=shapes, n=2) is ax
    drawn = ax.get_lines()
    torch.testing.assert_close(torch.as_tensor(drawn[1].get_ydata()), shapes[0])
    with pytest.raises(ValueError, match="n must be between 1 and 5; got 6"):
        plots.mode_shapes(shapes, ax, n=6)
    with pytest.raises(ValueError, match="exact has shape"):
        plots.mode_shapes(shapes, ax, exact=shapes[:2])


def test_latent(ax, unchecked):
    Q = torch.randn(50, 3)
    assert plots.latent(Q, ax, dims=(0, 2), color=Q[:, 1], label="energy") is ax
    assert ax.get_ylabel() == "$Q_{3}$"
    assert ax.collections[0].get_offsets().shape == (50, 2)
    with pytest.raises(ValueError, match="color has 2 values; expected 50"):
        plots.latent(Q, ax, color=torch.zeros(2))
    with pytest.raises(ValueError, match="dims must be columns of Q"):
        plots.latent(Q, ax, dims=(0, 3))
