"""The physics example, short and at length; ``--log-cli-level=INFO`` prints the figures."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import torch

logger = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parents[2] / "examples" / "hydrogen.py"
    spec = importlib.util.spec_from_file_location("hydrogen_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_short_fit_of_hydrogen_moves_the_density(example):
    """Half a turn: moved samples are far nearer to fresh ones than those that stayed."""
    study = example.Study(steps=250, width=48, lr=5e-3, batch_size=256)
    case = example.CASES["hydrogen"]
    model = example.fit(case, study, seed=0)
    x = case.sample(0.0, 2000, 1)
    half = case.end / 2
    moved = model.trajectories(x, torch.tensor([0.0, half]), n_steps=20).x[-1]
    fresh = case.sample(half, 2000, 2)
    gaps = [case.distance(y, fresh) for y in (moved, x, case.sample(half, 2000, 3))]
    logger.info("hydrogen, short: moved %.1e, unmoved %.1e, fresh %.1e", *gaps)
    assert gaps[0] < 0.1 * gaps[1]


def test_protocol_of_the_paper_is_biased(example):
    """A set against itself, a perfect prediction there, does not score zero."""
    case = example.CASES["hydrogen"]
    x = case.sample(0.0, 1000, 1)
    biased = case.distance(x, x)
    # of the U-statistic: -2 (k(0) - mean of k over pairs) / n
    kernel = 3 * torch.exp(-1e-4 * torch.cdist(x, x).square())
    n = len(x)
    expected = -2 * (3 - (kernel.sum() - 3 * n) / (n * (n - 1))) / n
    assert biased == pytest.approx(float(expected), rel=1e-6)
    assert -6e-3 < biased < -2e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hydrogen", "oscillator"])
def test_moved_samples_are_as_good_as_fresh_ones(example, name):
    scores, _ = example.measure(example.Study(case=name))
    logger.info("%s\n%s", name, scores.table())
    excess, error = scores.excess
    if name == "hydrogen":
        assert excess <= 2 * error
        assert float(scores.velocity.mean()) < 0.05
        # the gradient field has the least kinetic energy of all that move the density
        assert scores.kinetic[0] < scores.kinetic[1]
    else:
        # nodes: the exact velocity itself, in constant steps, does not reach the floor
        assert float(scores.model.mean()) <= 2 * float(scores.exact.mean()) + 2 * error
        assert float(scores.velocity.mean()) < 0.1
