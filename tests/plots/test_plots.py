"""Figures show the numbers they are given, on the axes they are given."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sciflow import plots
from sciflow.metrics import free_energy_surface
from sciflow.plots.style import CATEGORIES, time_colors
from sciflow.train import Snapshots
from sciflow.train.history import History


@pytest.fixture
def ax():
    figure, ax = plt.subplots(layout="constrained")
    yield ax
    figure.canvas.draw()
    plt.close(figure)


@pytest.fixture
def snapshots(generator, device):
    samples = [torch.randn(50 + k, 3, generator=generator, device=device) + k for k in range(3)]
    return Snapshots(samples, [0.0, 1.0, 4.0])


def points(artist):
    return np.asarray(artist.get_offsets())


def test_marginals_show_each_time_in_its_colour(ax, snapshots):
    assert plots.marginals(snapshots, ax, dims=(2, 0), labels=["a", "b", "c"], unit="day") is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c", "a")
    for drawn, sample, color in zip(
        ax.collections, snapshots.samples, time_colors([0, 1, 4]), strict=True
    ):
        assert np.allclose(points(drawn), sample[:, [2, 0]].cpu().numpy())
        assert np.allclose(drawn.get_facecolor()[0, :3], color[:3])
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "4"]
    assert legend.get_title().get_text() == "time (day)"


def test_a_legend_covers_no_data(ax, snapshots):
    plots.marginals(snapshots, ax)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_trajectories_draw_the_paths_by_time(ax, snapshots, generator, device):
    t = torch.tensor([0.0, 1.0, 3.0])
    x = torch.randn(3, 5, 3, generator=generator, device=device)
    plots.trajectories(t, x, ax, background=snapshots, unit="day")
    cells, lines = ax.collections[:3], ax.collections[3]
    assert [len(points(c)) for c in cells] == [50, 51, 52]
    segments = lines.get_segments()
    assert len(segments) == 5 * 2
    expected = x[:2, 3, :2].cpu().numpy()
    assert any(np.allclose(segment, expected) for segment in segments)
    assert np.allclose(lines.get_array()[:2], [0.5, 2.0])
    assert lines.get_clim() == (0.0, 3.0)
    assert ax.figure.axes[1].get_ylabel() == "time (day)"


def test_trajectories_draw_no_more_than_asked(ax, device):
    plots.trajectories(torch.arange(3.0), torch.rand(3, 100, 2, device=device), ax, n_max=10)
    assert len(ax.collections[0].get_segments()) == 20
    with pytest.raises(ValueError, match="two times"):
        plots.trajectories(torch.zeros(1), torch.zeros(1, 4, 2), ax)


def test_velocity_field_averages_over_squares(ax, generator, device):
    x = torch.rand(4000, 2, generator=generator, device=device)
    v = torch.stack([1 - 2 * x[:, 1], 2 * x[:, 0] - 1], 1)
    plots.velocity_field(x, v, ax, grid=10, unit="nm/ps")
    arrows = ax.collections[1]
    place = points(arrows)
    assert 90 <= len(place) <= 121
    drawn = np.stack([arrows.U, arrows.V], axis=1)
    assert np.allclose(drawn, np.stack([1 - 2 * place[:, 1], 2 * place[:, 0] - 1], 1), atol=1e-9)
    longest = np.hypot(*drawn.T).max()
    assert ax.get_title(loc="left") == f"longest arrow: {longest:.2g} nm/ps"


def test_velocity_field_leaves_out_squares_with_few_cells(ax):
    x = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 1.0]])
    plots.velocity_field(x, torch.ones(6, 2), ax)
    assert len(points(ax.collections[1])) == 1
    with pytest.raises(ValueError, match="min_cells"):
        plots.velocity_field(x, torch.ones(6, 2), ax, min_cells=6)


def test_scores_show_each_method_beside_the_floor(ax):
    rows = [
        plots.ScoreRow("ours", 2.0, 0.6, 0.4, 0.05),
        plots.ScoreRow("ours", 1.0, 0.5, 0.3),
        plots.ScoreRow("midpoint", 1.0, 0.8, 0.3),
        plots.ScoreRow("midpoint", 2.0, 0.9, 0.4),
    ]
    plots.scores(rows, ax, unit="day")
    heights = {
        (round(bar.get_x() + bar.get_width() / 2), bar.get_facecolor()[:3]): bar.get_height()
        for bar in ax.patches
    }
    ours, other = (matplotlib.colors.to_rgb(color) for color in CATEGORIES[:2])
    assert heights == {(0, ours): 0.5, (1, ours): 0.6, (0, other): 0.8, (1, other): 0.9}
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {"ours", "midpoint", "sampling floor"}
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2"]
    floors = {float(line.get_segments()[0][0][1]) for line in ax.collections if line.get_label()}
    assert {0.3, 0.4} <= floors
    with pytest.raises(ValueError, match="rows"):
        plots.scores([], ax)


def test_predicted_and_held_out_cells_are_both_shown(ax, generator, device):
    pred = torch.randn(30, 4, generator=generator, device=device)
    true = torch.randn(40, 4, generator=generator, device=device)
    plots.predicted_against_held_out(pred, true, ax, dims=(1, 3))
    held, guess = ax.collections
    assert np.allclose(points(held), true[:, [1, 3]].cpu().numpy())
    assert np.allclose(points(guess), pred[:, [1, 3]].cpu().numpy())
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["held out", "predicted"]
    assert ax.get_xlabel() == "coordinate 2"


def make_history():
    record = History()
    for i in range(300):
        row = {"loss": float(np.exp(-i / 30)), "grad": 1.0}
        record.append(i * 10, row | ({"eval/w1": 2.0} if i % 100 == 0 else {}))
    return record


def test_history_draws_the_loss_and_the_evaluations(ax):
    plots.history(make_history(), ax)
    faint, loss, evaluations = ax.lines
    assert len(faint.get_xdata()) == len(loss.get_xdata()) == 300
    assert list(evaluations.get_xdata()) == [0, 1000, 2000]
    assert ax.get_yscale() == "log"
    # A monotone curve is its own running median, away from the ends.
    assert np.allclose(loss.get_ydata()[10:-10], faint.get_ydata()[10:-10])


def test_history_of_one_column_on_a_linear_axis(ax):
    plots.history(make_history(), ax, columns=["grad"], window=1)
    assert ax.get_yscale() == "linear"
    assert ax.get_ylabel() == "grad"
    assert len(ax.lines) == 1
    with pytest.raises(KeyError, match="energy"):
        plots.history(make_history(), ax, columns=["energy"])
    with pytest.raises(ValueError, match="columns"):
        plots.history(History(), ax)
    with pytest.raises(ValueError, match="window"):
        plots.history(make_history(), ax, window=0)


def test_without_axes_the_current_ones_are_used(ax, snapshots):
    assert plots.marginals(snapshots) is ax


def test_bad_coordinates_are_named(ax, snapshots):
    with pytest.raises(ValueError, match=r"dims .* got \(0, 3\)"):
        plots.marginals(snapshots, ax, dims=(0, 3))
    with pytest.raises(ValueError, match="pred must be finite"):
        plots.predicted_against_held_out(torch.full((2, 2), float("nan")), torch.zeros(2, 2), ax)


def test_importing_the_plots_does_not_import_matplotlib():
    code = "import sys, sciflow.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_free_energy_of_a_line_with_its_error(ax, generator):
    x = torch.randn(4000, generator=generator)
    surface = free_energy_surface(x, 12, runs=torch.arange(4000) // 40, generator=generator)
    assert plots.free_energy(surface, ax, ["x"], name="data") is ax
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xdata(), surface.centers[0])
    shown = np.where(np.isfinite(surface.value), surface.value, np.nan)
    np.testing.assert_allclose(line.get_ydata(), shown)
    assert ax.get_xlabel() == "x" and ax.get_ylabel() == "free energy [kT]"
    plots.free_energy(surface, ax, ["x"], name="model")
    assert ax.lines[1].get_color() != ax.lines[0].get_color()


def test_free_energy_of_a_plane_in_degrees(ax, generator):
    angles = 2 * np.pi * (torch.rand(5000, 2, generator=generator) - 0.5)
    surface = free_energy_surface(angles, 8, periods=[2 * np.pi] * 2)
    plots.free_energy(surface, ax, ["phi", "psi"], degrees=True)
    (mesh,) = ax.collections
    np.testing.assert_allclose(mesh.get_array(), surface.value.T)
    assert ax.get_xlim() == (-180, 180) and ax.get_ylabel() == "psi [deg]"
    with pytest.raises(ValueError, match="highest must be positive"):
        plots.free_energy(surface, ax, highest=-1.0)


def test_mode_on_torsions(ax, generator):
    angles = torch.rand(300, 2, generator=generator)
    mode = 3.0 + 2.0 * torch.randn(300, generator=generator)
    plots.mode_on_torsions(angles, mode, ax, ["phi", "psi"], 1, angles[:5])
    frames, path = ax.collections
    np.testing.assert_allclose(points(frames), np.rad2deg(angles))
    np.testing.assert_allclose(frames.get_array(), (mode - mode.mean()) / mode.std())
    np.testing.assert_allclose(points(path), np.rad2deg(angles[:5]))
    with pytest.raises(ValueError, match="mode is constant"):
        plots.mode_on_torsions(angles, torch.ones(300), ax)
