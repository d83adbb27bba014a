"""Planar densities: normalised, drawn as they are evaluated, entropies of the literature."""

import math

import pytest
import torch

from sciflow.systems import TOYS

# Published with the generators' own noise: 40k and 12k Monte-Carlo points, one standard error.
PUBLISHED = {
    "8gaussians": (2.837, 0.005),
    "checkerboard": (math.log(32), 1e-9),
    "moons": (2.394, 0.004),
    "circles": (3.270, 0.007),
    "swissroll": (2.675, 0.007),
    "2spirals": (2.641, 0.006),
}


def test_every_density_has_a_truth():
    assert set(TOYS) == set(PUBLISHED)


@pytest.mark.parametrize("name", TOYS)
def test_density_integrates_to_one(name):
    toy = TOYS[name]
    n = math.ceil(3 * toy.reach / toy.grain)
    if name == "checkerboard":
        n = 64
    step = 2 * toy.reach / n
    line = -toy.reach + step * (torch.arange(n) + 0.5)
    total = float(toy.log_prob(torch.cartesian_prod(line, line)).exp().sum()) * step**2
    assert total == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("name", TOYS)
def test_samples_have_the_entropy(name):
    """Mean of -log p of samples against the quadrature, and both against the literature."""
    toy, n = TOYS[name], 4000
    x = toy.sample(n, torch.Generator("cpu").manual_seed(1))
    assert x.shape == (n, 2) and float(x.abs().max()) < toy.reach
    log_p, entropy = toy.log_prob(x), toy.entropy()
    error = float(log_p.std()) / math.sqrt(n)
    assert abs(float(-log_p.mean()) - entropy) < 5 * error + 1e-9
    value, published_error = PUBLISHED[name]
    assert abs(entropy - value) < 4 * published_error


@pytest.mark.parametrize("name", TOYS)
def test_samples_fill_the_density(name):
    """Counts in a coarse grid against probabilities by quadrature: chi-squared."""
    toy, n, cells, fine = TOYS[name], 4000, 8, 6 if name != "2spirals" else 14
    x = toy.sample(n, torch.Generator("cpu").manual_seed(2))
    width = 2 * toy.reach / cells
    index = ((x + toy.reach) / width).floor().long()
    counts = torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2)
    step = width / fine
    line = -toy.reach + step * (torch.arange(cells * fine) + 0.5)
    p = toy.log_prob(torch.cartesian_prod(line, line)).exp() * step**2
    p = p.reshape(cells, fine, cells, fine).sum((1, 3)).flatten()
    seen = n * p > 8
    chi = ((counts - n * p).square() / (n * p))[seen].sum()
    k = int(seen.sum())
    assert abs(float(chi) - k) < 6 * math.sqrt(2 * k)
    assert int(counts[p < 1e-7].sum()) == 0


def test_density_of_the_board_is_flat():
    board = TOYS["checkerboard"]
    x = torch.tensor([[1.0, 1.0], [1.0, 3.0], [-3.0, -3.0], [5.0, 1.0]])
    inside = board.log_prob(x)
    assert inside.exp().tolist() == pytest.approx([1 / 32, 0, 1 / 32, 0])
