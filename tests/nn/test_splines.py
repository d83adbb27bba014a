"""Splines against their definition: knots, derivatives by two other ways, round trips."""

import math

import pytest
import torch

from sciflow.nn import Spline, make_spline, n_spline_parameters, wrap

LINE, CIRCLE = (-3.0, 2.0, False), (-math.pi, math.pi, True)


def random_spline(ends, generator, shape=(5,), n_bins=6, scale=1.0):
    size = n_spline_parameters(n_bins, ends[2])
    return make_spline(scale * torch.randn(*shape, size, generator=generator), *ends)


@pytest.mark.parametrize("ends", [LINE, CIRCLE])
def test_zero_parameters_are_the_identity(ends, dtype):
    spline = make_spline(torch.zeros(n_spline_parameters(4, ends[2])), *ends)
    x = torch.linspace(-8, 8, 101)
    expected = wrap(x, ends[0], ends[1] - ends[0]) if ends[2] else x
    for act in (spline, spline.inverse):
        y, log_derivative = act(x)
        tolerance = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(y, expected, atol=tolerance, rtol=tolerance)
        assert float(log_derivative.abs().max()) < tolerance


@pytest.mark.parametrize("ends", [LINE, CIRCLE])
def test_knots_are_met_with_their_slopes(ends, generator):
    spline = random_spline(ends, generator)
    for k in range(6):
        y, log_derivative = spline(spline.x[:, k])
        torch.testing.assert_close(y, spline.y[:, k])
        torch.testing.assert_close(log_derivative.exp(), spline.slopes[:, k])
    assert bool((spline.x.diff() > 0).all())
    assert bool((spline.y.diff() > 0).all())


@pytest.mark.parametrize("ends", [LINE, CIRCLE])
@pytest.mark.parametrize("inverse", [False, True])
def test_derivative_by_autograd_and_by_differences(ends, inverse, generator):
    spline = random_spline(ends, generator)
    act = spline.inverse if inverse else spline
    x = (6 * torch.rand(200, 5, generator=generator) - 3).requires_grad_()
    y, log_derivative = act(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_derivative.exp(), slope, atol=1e-11, rtol=1e-11)
    step = 1e-6
    rise = act(x.detach() + step)[0] - act(x.detach() - step)[0]
    if ends[2]:  # one of the two may lie beyond the cut
        rise = wrap(rise, -math.pi, 2 * math.pi)
    # A knot between the two points, where the second derivative jumps, costs step * jump.
    torch.testing.assert_close(slope, rise / (2 * step), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ends", [LINE, CIRCLE])
def test_round_trip_far_beyond_the_knots_too(ends, generator):
    spline = random_spline(ends, generator, scale=2.0)
    x = 20 * torch.randn(500, 5, generator=generator)
    y, up = spline(x)
    back, down = spline.inverse(y)
    expected = wrap(x, ends[0], ends[1] - ends[0]) if ends[2] else x
    torch.testing.assert_close(back, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(up, -down, atol=1e-9, rtol=1e-9)


def test_round_trip_in_single_precision(generator):
    spline = random_spline(LINE, generator)
    spline = Spline(spline.x.float(), spline.y.float(), spline.raw_slopes.float())
    x = 2 * torch.randn(2000, 5, generator=generator).float()
    y, log_derivative = spline(x)
    error = (spline.inverse(y)[0] - x).abs()
    # A rounding error of y is one of x over the derivative, whatever the algorithm.
    assert float((error * log_derivative.exp().clamp(max=1)).max()) < 1e-5


def test_second_derivatives_and_parameters_by_differences(generator):
    raw = torch.randn(3, n_spline_parameters(5), generator=generator)
    x = torch.tensor([-2.9, 0.3, 4.0])

    def run(raw, x):
        y, log_derivative = make_spline(raw, -3.0, 3.0)(x)
        back, log_inverse = make_spline(raw, -3.0, 3.0).inverse(x)
        return y, log_derivative, back, log_inverse

    inputs = (raw.requires_grad_(), x.requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_circle_is_smooth_across_its_cut(generator):
    spline = random_spline(CIRCLE, generator)
    left, slope_left = spline(torch.full((5,), math.pi - 1e-9))
    right, slope_right = spline(torch.full((5,), -math.pi + 1e-9))
    torch.testing.assert_close(torch.cos(left), torch.cos(right), atol=1e-7, rtol=0)
    torch.testing.assert_close(torch.sin(left), torch.sin(right), atol=1e-7, rtol=0)
    torch.testing.assert_close(slope_left, slope_right, atol=1e-6, rtol=0)
    whole = torch.randn(40, 5, generator=generator)
    torch.testing.assert_close(spline(whole + 4 * math.pi)[0], spline(whole)[0])


def test_density_of_a_mapped_circle_integrates_to_one(generator):
    """The derivative is that of a map of the circle onto itself: its mean is exactly 1."""
    spline = random_spline(CIRCLE, generator, shape=(), n_bins=5)
    cells = 200_000
    x = -math.pi + 2 * math.pi * (torch.arange(cells) + 0.5) / cells
    assert float(spline(x)[1].exp().mean()) == pytest.approx(1.0, abs=1e-7)


def test_one_spline_for_all_or_one_for_each(generator):
    raw = torch.randn(7, n_spline_parameters(4), generator=generator)
    x = torch.randn(30, 7, generator=generator)
    together = make_spline(raw, -2.0, 2.0)(x)[0]
    alone = torch.stack([make_spline(raw[i], -2.0, 2.0)(x[:, i])[0] for i in range(7)], 1)
    torch.testing.assert_close(together, alone)
    each = make_spline(raw.expand(30, 7, -1), -2.0, 2.0)(x)[0]
    torch.testing.assert_close(together, each)


def test_refused():
    with pytest.raises(ValueError, match=r"parameters has 12 entries .* expected 3 K \+ 1"):
        make_spline(torch.zeros(12), 0.0, 1.0)
    with pytest.raises(ValueError, match="13 entries .* expected 3 K, K >= 2"):
        make_spline(torch.zeros(13), 0.0, 1.0, circular=True)
    with pytest.raises(ValueError, match="high must be above low"):
        make_spline(torch.zeros(13), 1.0, 1.0)
    with pytest.raises(ValueError, match="n_bins must be at least 2"):
        n_spline_parameters(1)
