"""Mutual information against the Gaussian closed form, within measured standard errors."""

import math

import pytest
import torch

from sciflow.metrics import mutual_information, mutual_information_matrix


def repeated(estimate, repeats=8):
    """Mean over independent draws, and its standard error."""
    values = torch.tensor([estimate() for _ in range(repeats)])
    return values.mean().item(), values.std().item() / math.sqrt(repeats)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.parametrize("k", [3, 5])
def test_gaussian(rho, k, generator):
    def estimate():
        x, noise = torch.randn(2, 1000, generator=generator)
        return mutual_information(x, rho * x + math.sqrt(1 - rho**2) * noise, k)

    mean, error = repeated(estimate)
    exact = -math.log(1 - rho**2) / 2
    assert error < 0.02
    # Kraskov's figure 4 shows a systematic error below 0.01 at this size.
    assert abs(mean - exact) < 3 * error + 0.01


def test_gaussian_vectors(generator):
    """I of two pairs of coordinates is the sum, whatever the rotation of each vector."""
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    correlations = torch.tensor([0.8, 0.5])
    exact = -0.5 * torch.log(1 - correlations.square()).sum().item()

    def estimate():
        x, noise = torch.randn(2, 2000, 2, generator=generator)
        y = correlations * x + (1 - correlations.square()).sqrt() * noise
        return mutual_information(x @ turn, y @ turn.T)

    mean, error = repeated(estimate)
    assert error < 0.02
    assert abs(mean - exact) < 3 * error + 0.02


def test_invariance(generator):
    x, noise = torch.randn(2, 2000, generator=generator)
    y = x + 0.5 * noise
    value = mutual_information(x, y)
    assert mutual_information(y, x) == pytest.approx(value, abs=1e-12)
    assert mutual_information(-1e6 * x + 3, 1e-6 * y) == pytest.approx(value, abs=1e-9)
    order = torch.randperm(2000, generator=generator)
    assert mutual_information(x[order], y[order]) == pytest.approx(value, abs=1e-12)
    # A smooth bijection keeps I; the estimate moves by less than its spread (0.02 at this size).
    assert mutual_information(x.sinh(), y) == pytest.approx(value, abs=0.05)
    assert value > 0.7
    assert abs(mutual_information(x, y[order])) < 0.05


def test_angles_have_no_cut(generator):
    angle = 2 * math.pi * torch.rand(2000, generator=generator)
    follows = angle + 0.2 * torch.randn(2000, generator=generator)
    circle = [torch.stack([a.cos(), a.sin()], 1) for a in (angle, follows)]
    # Uniform angle and a wrapped normal: ln 2 pi minus the entropy of the noise.
    exact = math.log(2 * math.pi) - 0.5 * math.log(2 * math.pi * math.e * 0.04)
    assert mutual_information(*circle) == pytest.approx(exact, abs=0.08)


def test_matrix(generator):
    x = torch.randn(500, 2, generator=generator)
    y = torch.stack([x[:, 1], torch.randn(500, generator=generator)], 1)
    y = y + 0.3 * torch.randn(500, 2, generator=generator)
    table = mutual_information_matrix(x, y)
    assert table.shape == (2, 2)
    assert table[1, 0] > 0.8 and table.flatten()[[0, 1, 3]].abs().max() < 0.15
    assert table[1, 0].item() == mutual_information(x[:, 1], y[:, 0])
    assert mutual_information(x.cpu().numpy(), y.cpu().numpy()) > 0.5


def test_refused(generator):
    x = torch.randn(20, generator=generator)
    with pytest.raises(ValueError, match="y has 19 samples where x has 20"):
        mutual_information(x, x[1:])
    for k in (0, 20):
        with pytest.raises(ValueError, match=f"k is {k}; expected between 1 and 19"):
            mutual_information(x, x, k)
    with pytest.raises(ValueError, match="y has a constant column, 0"):
        mutual_information(x, torch.ones(20))
    with pytest.raises(ValueError, match="x has 1 values that are not finite"):
        mutual_information(torch.cat([x, torch.tensor([math.nan])]), torch.arange(21.0))
    with pytest.raises(ValueError, match="more than k = 3 copies"):
        mutual_information(x.sign(), x.sign().roll(1), 3)
