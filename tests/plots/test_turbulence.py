"""Figures of decays show what they are given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sciflow import plots, turbulence


@pytest.fixture(scope="module")
def run():
    return turbulence.decays("test")[0]


@pytest.fixture(scope="module")
def forecast(run):
    return turbulence.pretrained().forecast(run.k[0], run.eps[0], run.nu, run.t, box=run.box)


def test_decay(run, forecast):
    ax = plots.decay(run, forecast, {"other": (run.t, run.k)}, "k", Figure().subplots())
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["90 % band", "forecast", "other", run.name]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), forecast.k.detach().numpy())
    assert ax.get_yscale() == "log"
    with pytest.raises(ValueError, match="give a run, a forecast or both"):
        plots.decay()


def test_spectra_and_exponents(run, forecast):
    ax = plots.energy_spectra(run, 4, Figure().subplots())
    assert len(ax.lines) == 4
    np.testing.assert_allclose(ax.lines[0].get_ydata(), run.spectrum[0].numpy()[: len(
        ax.lines[0].get_ydata())])  # fmt: skip
    ax = plots.local_exponent([run], forecast, Figure().subplots())
    np.testing.assert_allclose(ax.lines[2].get_ydata(), run.C2.numpy())
    with pytest.raises(ValueError, match="no spectrum"):
        plots.energy_spectra(turbulence.DecayRun(t=[0, 1], k=[1, 0.5], eps=[0.6, 0.4], nu=1.0,
                                                 check="ignore"))  # fmt: skip
