"""Weights, free energies and chains of Boltzmann generators, where the answer is known."""

import math

import pytest
import torch
from torch import nn

from sciflow import cnf
from sciflow.systems import DoubleWell

KT = 0.7
WELL = DoubleWell(barrier=4.0, position=1.0, tilt=0.6, n_bath=1, bath=2.0)


class Stretch(nn.Module):
    """v = rate x + drift: carries a normal density to another one, in closed form."""

    def __init__(self, rate, drift=0.0):
        super().__init__()
        self.rate = nn.Parameter(torch.as_tensor(rate))
        self.drift, self.dim = drift, len(self.rate)

    def forward(self, t, x):
        return self.rate * x + self.drift

    def value_and_divergence(self, t, x):
        return self(t, x), self.rate.sum().expand(len(x))


def gaussian_flow(spread, drift=0.0):
    """Normal of the given standard deviations (and a shift)."""
    flow = cnf.ContinuousFlow(Stretch(torch.tensor(spread).log(), drift))
    return flow.with_solver("dopri8", 1e-9, 1e-9)


def well(x):
    return WELL.potential(x)


def harmonic(x):
    return (x**2 / torch.tensor([0.5, 2.0])).sum(1) / 2


def test_an_exact_flow(generator):
    """Weights are constant: the free energy has no error, and every sample counts."""
    flow = gaussian_flow([math.sqrt(0.5 * KT), math.sqrt(2.0 * KT)])
    drawn = cnf.BoltzmannGenerator(flow, harmonic, KT, chunk=300).sample(1000, generator)
    exact = -KT * math.log(2 * math.pi * KT)
    assert drawn.x.shape == (1000, 2)
    assert drawn.ess == pytest.approx(1, abs=1e-10)
    estimate = drawn.free_energy(generator)
    assert estimate.value == pytest.approx(exact, abs=1e-7)
    assert estimate.bound == pytest.approx(exact, abs=1e-7)
    assert estimate.error < 1e-7


def test_free_energies_of_a_double_well(generator):
    """Reweighting, Bennett's ratio and the ladder against quadrature."""
    exact = WELL.configurational_free_energy(KT)
    bg = cnf.BoltzmannGenerator(gaussian_flow([1.0, 0.7]), well, KT)
    drawn = bg.sample(20_000, generator)
    one = drawn.free_energy(generator)
    target = drawn.resample(2000, generator)  # independent up to repetitions, from other draws
    two = bg.bridge(20_000, target, generator)
    three = cnf.annealed_free_energy(bg, generator, n_chains=1024, n_strata=3, n_moves=2)
    four = cnf.annealed_free_energy(bg, generator, 1024, 3, 2, x=target[:500])
    for estimate in (one, two, three, four):
        assert 0 < estimate.error < 0.06
        assert abs(estimate.value - exact) < 5 * estimate.error
        assert estimate.bound > exact
    assert 0.1 < drawn.ess < 1


def test_the_ladder_where_reweighting_is_poor(generator):
    """A flow twice too wide in ten dimensions: the ladder has a smaller error for the samples."""
    dim = 10
    wide = gaussian_flow([2.0 * math.sqrt(KT)] * dim, drift=torch.full((dim,), 0.3))

    def energy(x):
        return x.square().sum(1) / 2

    exact = -KT * dim / 2 * math.log(2 * math.pi * KT)
    bg = cnf.BoltzmannGenerator(wide, energy, KT)
    options = {"n_chains": 512, "n_strata": 16, "n_moves": 3, "refreshment": 0.6}
    target = math.sqrt(KT) * torch.randn(512, dim, generator=generator)
    drawn = bg.sample(8192, generator)
    one = drawn.free_energy(generator)
    up = cnf.annealed_free_energy(bg, generator, **options)
    both = cnf.annealed_free_energy(bg, generator, x=target, **options)
    assert drawn.ess < 0.03
    assert up.ess > 3 * drawn.ess
    assert both.error < min(up.error, one.error)
    for estimate in (up, both):
        assert abs(estimate.value - exact) < 5 * estimate.error
        assert estimate.bound > exact


def test_averages(generator):
    """The part of the right well and its error, against quadrature on a grid."""
    bg = cnf.BoltzmannGenerator(gaussian_flow([1.0, 0.7]), well, KT)
    drawn = bg.sample(20_000, generator)
    line = torch.linspace(-4, 4, 8001)
    weight = torch.exp(-WELL.potential(torch.stack([line, 0 * line], 1)) / KT)
    exact = float(weight[line > 0].sum() / weight.sum())
    value, error = drawn.mean((drawn.x[:, 0] > 0).double())
    assert 0 < error < 0.01
    assert abs(value - exact) < 5 * error
    again = bg.weigh(drawn.x[:50])
    assert torch.allclose(again.log_weight, drawn.log_weight[:50], atol=1e-6)


@pytest.mark.parametrize("n_local", [0, 2])
def test_chains_are_exact(n_local, generator):
    """All chains start in one well; the flow's jumps bring the right populations."""
    bg = cnf.BoltzmannGenerator(gaussian_flow([1.1, 0.7]), well, KT)
    start = torch.tensor([[1.0, 0.0]]).expand(400, 2)
    chains = cnf.flow_chains(bg, start, 60, generator, n_local, step=0.1, n_leapfrog=5)
    assert chains.x.shape == (60, 400, 2)
    assert 0.1 < chains.acceptance < 0.9
    assert math.isnan(chains.local_acceptance) if not n_local else chains.local_acceptance > 0.8
    late = chains.x[20:]
    line = torch.linspace(-4, 4, 8001)
    weight = torch.exp(-WELL.potential(torch.stack([line, 0 * line], 1)) / KT)
    for function in (lambda x: (x > 0).double(), lambda x: x**2):
        exact = float((weight * function(line)).sum() / weight.sum())
        means = function(late[..., 0]).mean(0)
        assert abs(float(means.mean()) - exact) < 5 * float(means.std()) / 20
    spread = late[..., 1].square().mean(0)
    assert abs(float(spread.mean()) - KT / 2) < 5 * float(spread.std()) / 20


def test_a_wrong_flow_does_not_bias_the_chains(generator):
    """Jumps of a flow that knows one well only are mended by local moves, and stay exact."""
    bg = cnf.BoltzmannGenerator(gaussian_flow([0.5, 0.5], torch.tensor([1.0, 0.0])), harmonic, KT)
    start = bg.sample(400, generator).x
    chains = cnf.flow_chains(bg, start, 60, generator, 2, step=0.3, n_leapfrog=5)
    late = chains.x[20:]
    for i, force_constant in enumerate((2.0, 0.5)):
        for power, exact in ((1, 0.0), (2, KT / force_constant)):
            means = (late[..., i] ** power).mean(0)
            assert abs(float(means.mean()) - exact) < 5 * float(means.std()) / 20


def test_local_moves_keep_the_mean(generator):
    from sciflow.systems import DoubleWellParticles

    system = DoubleWellParticles()
    flow = cnf.ContinuousFlow(cnf.ParticleField(4, 2, 4.0), cnf.MeanFreeGaussian(4, 2, 2.1))
    bg = cnf.BoltzmannGenerator(flow, system.potential)
    start = bg.sample(20, generator).x
    chains = cnf.flow_chains(bg, start, 2, generator, 3, step=0.02)
    assert chains.x.unflatten(2, (4, 2)).mean(2).abs().max() < 1e-12


def test_refused(generator, unchecked):
    flow = gaussian_flow([1.0, 1.0])
    with pytest.raises(ValueError, match="kT must be positive"):
        cnf.BoltzmannGenerator(flow, well, 0.0)
    with pytest.raises(ValueError, match=r"energy must return shape \(3,\)"):
        cnf.BoltzmannGenerator(flow, lambda x: x).sample(3, generator)
    with pytest.raises(TypeError, match="energy must return a tensor"):
        cnf.BoltzmannGenerator(flow, lambda x: 1.0).sample(3, generator)
    with pytest.raises(ValueError, match="energy is NaN for 3 of 3"):
        cnf.BoltzmannGenerator(flow, lambda x: x[:, 0] * math.nan).sample(3, generator)
    bg = cnf.BoltzmannGenerator(flow, well)
    with pytest.raises(ValueError, match="n is 0"):
        bg.sample(0, generator)
    with pytest.raises(ValueError, match="n_sweeps is 0"):
        cnf.flow_chains(bg, torch.zeros(3, 2), 0, generator)
    with pytest.raises(ValueError, match="refreshment"):
        cnf.annealed_free_energy(bg, generator, refreshment=0.0)
    with pytest.raises(ValueError, match="n_chains is 1"):
        cnf.annealed_free_energy(bg, generator, n_chains=1)
