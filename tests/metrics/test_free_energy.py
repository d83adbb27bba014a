"""Free-energy estimators on Gaussians, whose every moment is known."""

import math

import pytest
import torch

from sciflow.metrics import bar, reweight, stratified_bar, variational_bound


def gaussian_weights(n, deviation, dim, generator):
    """Log-weights of the target exp(-|x|^2/2) from N(0, deviation^2), and its -ln Z."""
    x = deviation * torch.randn(n, dim, generator=generator)
    square = x.square().sum(1)
    log_q = -square / (2 * deviation**2) - dim / 2 * math.log(2 * math.pi * deviation**2)
    return -square / 2 - log_q, -dim / 2 * math.log(2 * math.pi)


def test_reweighting(generator):
    deviation, dim, n, kT = 1.2, 3, 20_000, 2.5
    weights, exact = gaussian_weights(n, deviation, dim, generator)
    result = reweight(weights, generator, kT)
    assert abs(result.value - kT * exact) < 4 * result.error
    # E[w^2] / E[w]^2 per dimension is s^2 / sqrt(2 s^2 - 1).
    share = (math.sqrt(2 * deviation**2 - 1) / deviation**2) ** dim
    assert result.ess == pytest.approx(share, abs=0.01)
    assert result.error == pytest.approx(kT * math.sqrt((1 / share - 1) / n), rel=0.2)
    gap = dim * ((deviation**2 - 1) / 2 - math.log(deviation))
    bound = variational_bound(weights, kT)
    assert bound.value == pytest.approx(result.bound)
    assert abs(bound.value - kT * (exact + gap)) < 4 * bound.error
    spread = abs(deviation**2 - 1) / 2 * math.sqrt(2 * dim)
    assert bound.error == pytest.approx(kT * spread / math.sqrt(n), rel=0.1)
    assert bound.value > result.value


def test_exact_model_has_no_variance(generator):
    weights, exact = gaussian_weights(50, 1.0, 4, generator)
    result = reweight(weights, generator)
    assert result.value == pytest.approx(exact) and result.bound == pytest.approx(exact)
    assert result.error < 1e-12 and result.ess == pytest.approx(1)


def test_bootstrap_is_reproducible(device):
    weights = torch.randn(100, generator=torch.Generator(device).manual_seed(1))
    one, two = (reweight(weights, torch.Generator(device).manual_seed(2)) for _ in range(2))
    assert one == two
    half = reweight(torch.tensor([0.0, -math.inf]), torch.Generator(device).manual_seed(2))
    assert half.value == pytest.approx(math.log(2)) and half.ess == pytest.approx(0.5)
    assert half.bound == math.inf


def harmonic_work(n0, n1, k0, k1, generator, shift=0.0):
    """Work between k0 x^2 / 2 and k1 (x - shift)^2 / 2, and ln sqrt(k1 / k0)."""
    x0 = torch.randn(n0, generator=generator) / math.sqrt(k0)
    x1 = shift + torch.randn(n1, generator=generator) / math.sqrt(k1)

    def work(x):
        return k1 / 2 * (x - shift).square() - k0 / 2 * x.square()

    return work(x0), -work(x1), 0.5 * math.log(k1 / k0)


@pytest.mark.parametrize("sizes", [(1000, 1000), (3000, 300)])
def test_bar_and_its_error(sizes, generator):
    errors, deviations = [], []
    for _ in range(100):
        forward, backward, exact = harmonic_work(*sizes, 1.0, 8.0, generator, shift=1.0)
        result = bar(forward, backward)
        errors.append(result.error)
        deviations.append(result.value - exact)
    deviations, mean_error = torch.tensor(deviations), sum(errors) / 100
    assert abs(deviations.mean()) < 4 * mean_error / 10
    # The spread over 100 runs is known to 7 %.
    assert deviations.std().item() == pytest.approx(mean_error, rel=0.25)
    assert result.bound > result.value and 0 < result.ess < 1


def test_bar_symmetry_and_constants(generator):
    forward, backward, _ = harmonic_work(400, 700, 1.0, 3.0, generator)
    one, other = bar(forward, backward), bar(backward, forward)
    assert one.value == pytest.approx(-other.value, abs=1e-10)
    assert one.error == pytest.approx(other.error, abs=1e-10)
    raised = bar(forward + 1e4, backward - 1e4, 2.0)
    assert raised.value == pytest.approx(2 * (one.value + 1e4), rel=1e-11)
    # Constant work is the answer, without error.
    exact = bar(torch.full((5,), 0.7), torch.full((3,), -0.7))
    assert exact.value == pytest.approx(0.7, abs=1e-12) and exact.error < 1e-7


def test_bar_survives_poor_overlap_and_strata_repair_it(generator):
    stiff = [8.0**i for i in range(5)]
    far = bar(*harmonic_work(500, 500, stiff[0], stiff[-1], generator, 3.0)[:2])
    strata = [
        harmonic_work(500, 500, low, high, generator)[:2]
        for low, high in zip(stiff[:-1], stiff[1:], strict=True)
    ]
    ladder = stratified_bar(strata)
    assert math.isfinite(far.value) and far.error > 3 * ladder.error
    assert abs(ladder.value - 0.5 * math.log(stiff[-1])) < 4 * ladder.error
    parts = [bar(*stratum) for stratum in strata]
    assert ladder.value == pytest.approx(sum(part.value for part in parts))
    assert ladder.error**2 == pytest.approx(sum(part.error**2 for part in parts))
    assert ladder.ess == min(part.ess for part in parts)


def test_refused(generator):
    good = torch.zeros(3)
    for bad in (torch.zeros(1), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="log_weights has shape"):
            reweight(bad, generator)
        with pytest.raises(ValueError, match="backward has shape"):
            bar(good, bad)
    with pytest.raises(ValueError, match="log_weights has entries that are nan"):
        variational_bound(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="the bound is infinite"):
        variational_bound(torch.tensor([0.0, -math.inf]))
    with pytest.raises(ValueError, match="no weight is positive"):
        reweight(torch.full((2,), -math.inf), generator)
    with pytest.raises(ValueError, match="forward has entries that are infinite"):
        bar(torch.tensor([0.0, math.inf]), good)
    with pytest.raises(ValueError, match="kT must be positive and finite, got -1.0"):
        bar(good, good, -1.0)
    with pytest.raises(ValueError, match="n_bootstrap is 1"):
        reweight(good, generator, n_bootstrap=1)
    with pytest.raises(ValueError, match="strata is empty"):
        stratified_bar([])
