"""What slow modes keep: against principal components, and by what they must leave as it was."""

import math

import pytest
import torch

from sciflow import nct
from sciflow.nct.latent import Latent
from sciflow.nct.layers import AffineCoupling, Linear, SplineMap
from sciflow.nct.natural import mean_kinetic, mode_gradients

LINE = [math.inf] * 6


@pytest.fixture
def samples(generator):
    """(400, 6) correlated numbers of very different widths."""
    mix = torch.randn(6, 6, generator=generator) * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    return torch.randn(400, 6, generator=generator) @ mix.T + torch.arange(6.0)


@pytest.fixture
def curved(generator):
    """A nonlinear model with frequencies far from one."""
    layers = [
        SplineMap(range(6)),
        AffineCoupling(LINE, [0, 2, 4], width=16, generator=generator),
        AffineCoupling(LINE, [1, 3, 5], width=16, generator=generator),
        Linear(6),
    ]
    model = nct.CanonicalTransformation(layers, Latent(LINE, 1.3), torch.linspace(0.5, 3.0, 6))
    with torch.no_grad():
        for x in model.parameters():
            x.add_(0.2 * torch.randn(x.shape, generator=generator))
        model.latent.log_omega.copy_(torch.linspace(-1.0, 2.0, 6))
    return model


@pytest.mark.parametrize("k", [0, 2, 5, 6])
def test_linear_modes_are_principal_components(samples, k):
    model = nct.fit_samples(samples, steps=0, progress=False)
    center = samples.mean(0)
    *_, axes = torch.linalg.svd(samples - center, full_matrices=False)
    expected = center + (samples - center) @ axes[:k].T @ axes[:k]
    torch.testing.assert_close(nct.compress(model, samples, k), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("fill", ["mean", "draw"])
@pytest.mark.parametrize("k", [0, 2, 6])
def test_kept_modes_stay(curved, generator, fill, k):
    q = torch.randn(1500, 6, generator=generator)  # more than one piece
    found = nct.compress(curved, q, k, fill, seed=3)
    before, after = curved.modes(q), curved.modes(found)
    torch.testing.assert_close(after[:, :k], before[:, :k], rtol=1e-7, atol=1e-7)
    rest = after[:, k:] - curved.latent.center[k:].detach()
    if fill == "mean":
        torch.testing.assert_close(rest, torch.zeros_like(rest), rtol=0, atol=1e-7)
    elif k < 6:
        variance = curved.kT / curved.frequencies[k:] ** 2
        excess = rest.square().mean(0) / variance - 1
        assert float(excess.abs().max()) < 5 * math.sqrt(2 / 1500)
        assert torch.equal(found, nct.compress(curved, q, k, fill, seed=3))
        assert not torch.equal(found, nct.compress(curved, q, k, fill, seed=4))
    if k == 6:
        torch.testing.assert_close(found, q, rtol=1e-7, atol=1e-7)


def test_bad_input(curved, unchecked):
    q = torch.zeros(2, 6)
    for k in (-1, 7):
        with pytest.raises(ValueError, match=f"n_modes must be between 0 and 6; got {k}"):
            nct.compress(curved, q, k)
    with pytest.raises(ValueError, match="fill must be 'mean' or 'draw'"):
        nct.compress(curved, q, 2, fill="median")
    with pytest.raises(ValueError, match=r"expected \(B, 6\)"):
        nct.compress(curved, torch.zeros(2, 5), 2)


def test_mean_kinetic_energy_point_by_point(curved, generator):
    """In sweeps of points and modes as from the gradient of one mode at a time."""
    Q = curved.modes(torch.randn(700, 6, generator=generator))
    gradients = mode_gradients(curved, Q) / curved.mass.sqrt()
    expected = torch.einsum("kbi,lbi->kl", gradients, gradients) / len(Q)
    torch.testing.assert_close(mean_kinetic(curved, Q), expected)


def test_natural_modes_of_many_dimensions(generator):
    """In 300 dimensions most points are beyond three deviations in one; half are used all the
    same, and the frequencies are those of the covariance."""
    spread = torch.linspace(0.1, 3.0, 300)
    q = torch.randn(1000, 300, generator=generator) * spread
    model = nct.fit_samples(q, steps=0, progress=False)
    exact = (1 / torch.linalg.eigvalsh(torch.cov(q.T, correction=0))).sqrt().flip(0)
    torch.testing.assert_close(model.frequencies + 0, exact)
