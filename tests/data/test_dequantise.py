"""Likelihoods in bits against closed forms, and pixels that survive the way there and back."""

import math

import pytest
import torch

from sciflow.data import Dequantiser, bits_per_dim
from sciflow.errors import DataError

BYTES = torch.arange(256, dtype=torch.uint8).reshape(16, 16)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, None])
def test_pixels_come_back(generator, alpha):
    dequantise = Dequantiser(alpha=alpha)
    y, _ = dequantise(BYTES, generator)
    assert dequantise.images(y).tolist() == BYTES.tolist()
    low, high = dequantise.intensities(torch.tensor([[-1e3, 1e3]]))[0].tolist()
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, None])
def test_volume_is_that_of_the_map(generator, alpha):
    """ln |det| against derivatives of the map written down once more."""
    dequantise = Dequantiser(levels=7, alpha=alpha)
    images = torch.randint(7, (5, 3), generator=generator)
    y, log_volume = dequantise(images, generator)
    # The place w = v + u in [0, levels) of each coordinate, by the inverse map.
    a = 0.0 if alpha is None else alpha
    w = 7 * (y if alpha is None else (torch.sigmoid(y) - a) / (1 - 2 * a))
    w = w.detach().requires_grad_()
    s = a + (1 - 2 * a) * w / 7
    again = s if alpha is None else torch.log(s / (1 - s))
    torch.testing.assert_close(again, y, rtol=1e-9, atol=1e-9)
    (slope,) = torch.autograd.grad(again.sum(), w)
    torch.testing.assert_close(log_volume, slope.log().sum(1), rtol=1e-8, atol=1e-8)
    assert bool((w.detach().floor() == images).all())


def test_uniform_images_cost_eight_bits(generator):
    """The exact density of y of a uniform v + u gives 8 bits for every image and every noise."""
    for alpha in (1e-6, 0.05):
        points = Dequantiser(alpha=alpha)(BYTES, generator)
        s = torch.sigmoid(points.y)
        # y = logit s, s uniform on (alpha, 1 - alpha)
        log_prob = (s.log() + torch.log1p(-s) - math.log(1 - 2 * alpha)).sum(1)
        bits = bits_per_dim(log_prob, points)
        torch.testing.assert_close(bits, torch.full((16,), 8.0), rtol=1e-9, atol=0)


def test_bound_on_the_entropy(generator):
    """A density even within each level attains the entropy of the pixels; any other is above.

    The pixels have two values with probabilities 1/4 and 3/4, entropy 0.8113 bits.
    """
    n, d = 20_000, 4
    images = (torch.rand(n, d, generator=generator) < 0.75).long()
    points = Dequantiser(levels=2, alpha=None)(images, generator)
    share = torch.where(points.y < 0.5, 0.25, 0.75)
    exact = bits_per_dim((share * 2).log().sum(1), points)
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    error = float(exact.std()) / math.sqrt(n)
    assert abs(float(exact.mean()) - entropy) < 5 * error
    # The density 2x in place of the two levels gives these the same probabilities, 1/4 and 3/4.
    sloped = bits_per_dim((2 * points.y).log().sum(1), points)

    # 1 - E[log2 2x] for x with density share, level by level: a closed form.
    def mean_log(a, b):
        return (b * math.log(2 * b) - b - (a * math.log(2 * a) - a if a else 0)) / (b - a)

    expected = 1 - (0.25 * mean_log(0.0, 0.5) + 0.75 * mean_log(0.5, 1.0)) / math.log(2)
    assert expected > entropy
    error = float(sloped.std()) / math.sqrt(n)
    assert abs(float(sloped.mean()) - expected) < 5 * error


def test_bad_input(generator):
    with pytest.raises(ValueError, match="levels must be at least 2"):
        Dequantiser(levels=1)
    with pytest.raises(ValueError, match="alpha must be between 0 and 0.5"):
        Dequantiser(alpha=0.5)
    dequantise = Dequantiser(levels=4)
    for value in (4.0, -1.0, 0.5, math.nan):
        images = torch.tensor([[0.0, 1.0], [2.0, value]])
        with pytest.raises(DataError, match="pixel 1 of image 1"):
            dequantise(images, generator)
    points = dequantise(torch.zeros(3, 2), generator)
    with pytest.raises(ValueError, match=r"shape \(2,\); expected \(3,\)"):
        bits_per_dim(torch.zeros(2), points)
