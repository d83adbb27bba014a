"""Figures of the shipped forecaster on decays that nothing was fitted to.

``python -m pytest -m slow tests/turbulence/test_bounds.py --log-cli-level=INFO --timeout=3000``
"""

import logging

import numpy as np
import pytest
import torch

from sciflow import turbulence
from sciflow.turbulence.readers import read_blastnet, read_comte_bellot
from sciflow.turbulence.scores import score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forecaster():
    return turbulence.pretrained()


@pytest.mark.parametrize(
    ("purpose", "start", "most", "calibrated", "oracle"),
    [
        ("test", 0.0, 0.03, 5.0, 1.5),
        ("test", 0.7, 0.012, 3.0, 1.5),
        ("beyond", 0.0, 0.10, 3.0, 1.0),
    ],
)
def test_errors(forecaster, purpose, start, most, calibrated, oracle):
    found = score(
        forecaster, turbulence.decays(purpose), start, trained_on=turbulence.decays("train")
    )
    ours = found.mean("sciflow")
    ratios = {name: found.mean(name) / ours for name in found.eps}
    logging.info(
        "%s from tau %.1f: eps %.4f, k %.4f; baselines over ours %s; coverage %.3f, width %.3f",
        purpose, start, ours, np.mean(found.k["sciflow"]),
        {name: round(x, 2) for name, x in ratios.items()}, found.coverage, found.width,
    )  # fmt: skip
    assert ours < most
    assert ratios["k-epsilon, calibrated"] > calibrated
    assert ratios["k-epsilon, oracle"] > oracle
    assert 0.8 < found.coverage < 0.98


def test_bands_widen_beyond(forecaster):
    inside, outside = (score(forecaster, turbulence.decays(p)).width for p in ("test", "beyond"))
    logging.info("half widths of ln eps: in range %.3f, beyond %.3f", inside, outside)
    assert outside > 2 * inside


def test_comte_bellot_and_corrsin(forecaster, data_dir):
    spectrum = read_comte_bellot(data_dir / "turbulence/cbc/fds_cbcdata.txt", 0)
    t = np.array([42.0, 98.0, 171.0]) * 5.08 / 1000
    with torch.no_grad():
        found = forecaster.forecast(783.5, 4740.0, 0.15, t, spectrum=spectrum)
    k = found.k[1:].numpy() / [255.7, 122.2] - 1
    eps = found.eps[1:].numpy() / [633.0, 174.0] - 1
    logging.info("stations 98 and 171: k %s, eps %s", k.round(3), eps.round(3))
    assert np.abs(k).max() < 0.08
    assert np.abs(eps).max() < 0.12


def test_blastnet(forecaster, data_dir):
    """A long decay in its box; its own k and eps differ by a tenth at first."""
    blast = read_blastnet(data_dir / "turbulence/blastnet_hit2048/decay_k_eps.csv").since(5)
    with torch.no_grad():
        found = forecaster.forecast(blast.k[0], blast.eps[0], blast.nu, blast.t, box=blast.box)
    k, eps = (found.k / blast.k - 1).abs().max(), (found.eps / blast.eps - 1).abs().max()
    held = (blast.k > found.k_low) & (blast.k < found.k_high)
    held &= (blast.eps > found.eps_low) & (blast.eps < found.eps_high)
    logging.info(
        "largest errors: k %.3f, eps %.3f; band holds %.2f", k, eps, held[1:].double().mean()
    )
    assert eps < 0.15
    assert held[1:].all()


def test_horizon():
    """Runs cut at tau = 1.5 teach what happens until 3.5."""

    def cut(runs):
        return [run.resample(tau=run.tau[run.tau <= 1.5 + 1e-9]) for run in runs]

    train = turbulence.decays("train", "closure")
    unseen = turbulence.decays("calibrate")
    short = turbulence.fit(
        cut(train), cut(unseen), horizon=(0.5, 1.5), steps=1500, batch_size=960, width=64,
        starts=16, progress=False,
    )  # fmt: skip
    tests = turbulence.decays("test")
    within = score(short, cut(tests)).mean("sciflow")
    to_the_end = score(short, tests).mean("sciflow")
    logging.info("fitted to tau 1.5: error to 1.5 %.4f, to 3.5 %.4f", within, to_the_end)
    assert to_the_end < 2 * within
    t = torch.cat([torch.zeros(1), torch.logspace(-1, 4.2, 60)]).double()
    found = short.forecast(1.0, 1.0, 1e-3, t)
    assert torch.isfinite(found.eps).all() and 1.3 < float(found.C2[-1]) < 2.1
