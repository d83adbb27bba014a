"""Fits in one call: against known densities, honest about their solver, resumable, refusing."""

import logging
import math

import numpy as np
import pytest
import torch

from sciflow import cnf
from sciflow.cnf.recipe import TightSolve
from sciflow.systems import TOYS, DoubleWell
from sciflow.train import Samples, Trainer

SMALL = {"width": 16, "depth": 2, "progress": False, "device": "cpu", "dtype": "float64"}
QUICK = {**SMALL, "matching_steps": 300, "likelihood_steps": 10, "n_steps": 3}

logger = logging.getLogger(__name__)


def correlated(dim, n, generator):
    """Samples of a Gaussian of unequal and correlated coordinates, and its distribution."""
    root = torch.randn(dim, dim, generator=generator) / math.sqrt(dim)
    cov = root @ root.T + 0.3 * torch.eye(dim)
    law = torch.distributions.MultivariateNormal(torch.linspace(-2, 2, dim), cov)
    z = torch.randn(n, dim, generator=generator)
    return law.mean + z @ torch.linalg.cholesky(cov).T, law


def test_fit_of_a_gaussian_in_two_dimensions(generator):
    x, law = correlated(2, 4000, generator)
    flow = cnf.fit_samples(x, **QUICK)
    fresh = law.mean + torch.randn(2000, 2, generator=generator) @ law.scale_tril.T
    with torch.no_grad():
        kl = float((law.log_prob(fresh) - flow.log_prob(fresh)).mean())
    assert kl < 0.02  # 0.01 d
    assert flow.history.series("eval/solver_gap")[1][-1] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 10, 50])
def test_gaussian_to_gaussian(dim, generator):
    """Mean log-likelihood within 0.01 d nats of the truth, on fresh samples, by a tight solve."""
    x, law = correlated(dim, 40_000, generator)
    flow = cnf.fit_samples(
        x, width=64 if dim < 20 else 128, matching_steps=4000, likelihood_steps=200, n_steps=4,
        coupling="independent", progress=False, device="cpu",
    )  # fmt: skip
    fresh = law.mean + torch.randn(1000, dim, generator=generator) @ law.scale_tril.T
    exact = cnf.ContinuousFlow(
        flow.field, flow.base, "exact", shift=flow.shift, scale=flow.scale, rtol=1e-7, atol=1e-7
    ).double()
    with torch.no_grad():
        gap = law.log_prob(fresh) - exact.log_prob(fresh)
    logger.info("d = %d: %.4f +- %.4f nats", dim, gap.mean(), gap.std() / math.sqrt(len(gap)))
    assert abs(float(gap.mean())) < 0.01 * dim


def test_fit_of_a_conditional_density(generator):
    """x ~ N(c, (1/2)^2): the flow at a new context has this mean and spread."""
    c = 4 * torch.rand(3000, 1, generator=generator) - 2
    x = c + 0.5 * torch.randn(3000, 1, generator=generator)
    flow = cnf.fit_samples(x, c, **{**QUICK, "matching_steps": 600})
    for value in (-1.0, 0.7):
        draw = flow.sample(2000, torch.tensor([value]), generator)
        assert float(draw.mean()) == pytest.approx(value, abs=0.12)
        assert float(draw.std()) == pytest.approx(0.5, abs=0.1)


def test_fit_of_an_angle(generator):
    """Von Mises around the seam of the circle: a flow of the line would split it in two."""
    law = torch.distributions.VonMises(torch.tensor(math.pi), torch.tensor(4.0))
    x = law.sample((3000, 1)).rad2deg() % 360
    flow = cnf.fit_samples(x, periods={0: 360.0}, **{**QUICK, "matching_steps": 800})
    draw = flow.sample(1000, generator=generator)
    assert float(draw.min()) >= flow.shift - 180 and float(draw.max()) < flow.shift + 180
    grid = torch.linspace(0, 360, 181)[:-1, None]
    with torch.no_grad():
        p = flow.log_prob(grid).exp() * 180 / math.pi
    truth = law.log_prob(grid[:, 0].deg2rad()).exp()
    assert float((p - truth).abs().mean()) < 0.03


def test_fit_of_an_energy_alone():
    """A stiff and a soft spring: the bound comes down to the free energy in closed form."""
    k = torch.tensor([4.0, 0.5])
    kT = 0.8
    flow = cnf.fit_energy(
        lambda x: 0.5 * (k.to(x) * x.square()).sum(1), 2, kT, likelihood_steps=100,
        likelihood_lr=1e-2, likelihood_batch=128, n_steps=3, n_evaluate=500, **SMALL,
    )  # fmt: skip
    exact = -0.5 * float((2 * math.pi * kT / k).log().sum())
    bound = min(flow.history.series("eval/free_energy_bound")[1])
    assert exact - 0.02 < bound < exact + 0.03
    assert flow.history.series("eval/ess")[1][-1] > 0.8


@pytest.mark.slow
def test_fit_of_an_energy_with_samples_of_one_side():
    """Mixture of samples and energy on a double well: both sides, at the exact free energy."""
    well = DoubleWell()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, well.n_dim, generator=generator).abs()
    flow = cnf.fit_energy(
        well.potential, well.n_dim, 1.0, x, matching_steps=1000, likelihood_steps=600,
        progress=False, device="cpu", dtype="float64", energy_weight=0.7,
    )  # fmt: skip
    x, log_p = flow.sample_with_log_prob(4000)
    log_weight = -well.potential(x) - log_p
    free_energy = -float(log_weight.detach().logsumexp(0)) + math.log(4000)
    logger.info("free energy %.4f, exact %.4f", free_energy, well.configurational_free_energy(1.0))
    assert abs(free_energy - well.configurational_free_energy(1.0)) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8gaussians", "moons"])
def test_toys_come_near_their_entropy(name):
    toy = TOYS[name]
    x = toy.sample(50_000, torch.Generator().manual_seed(1))
    flow = cnf.fit_samples(x, progress=False, device="cpu")
    fresh = toy.sample(10_000, torch.Generator().manual_seed(2))
    tight = flow.double().with_solver("dopri8", 1e-7, 1e-7)
    with torch.no_grad():
        kl = float((toy.log_prob(fresh) - tight.log_prob(fresh)).mean())
    logger.info("%s: %.4f nats above the entropy", name, kl)
    assert kl < 0.04


def test_training_stops_where_its_solver_errs(generator):
    """Without the penalty, and with two steps for a field that needs many."""
    field = cnf.VelocityMLP(2, 16, 2, generator=generator)
    torch.nn.init.normal_(field.last.weight, std=3.0, generator=generator)
    flow = cnf.ContinuousFlow(field)
    x = torch.randn(500, 2, generator=generator)
    objective = cnf.MaximumLikelihood(flow, n_steps=2, error_penalty=0.0)
    trainer = Trainer(steps=10, eval_every=5, progress=False, dtype="float64", device="cpu")
    result = trainer.fit(objective, Samples(x), TightSolve(objective, (x[:100],), 0.05))
    assert "raise n_steps or error_penalty" in result.stopped
    assert result.history.step[-1] < 10


def test_resumed_fit_is_the_same_fit(tmp_path, generator):
    x, _ = correlated(2, 300, generator)
    options = {**QUICK, "matching_steps": 20, "likelihood_steps": 8}
    whole = cnf.fit_samples(x, **options)
    cnf.fit_samples(x, **options, out=tmp_path)
    again = cnf.fit_samples(x, **options, out=tmp_path, resume=True)
    with torch.no_grad():
        torch.testing.assert_close(again.log_prob(x), whole.log_prob(x), rtol=0, atol=0)


def test_held_out_samples_do_not_move_the_units(generator):
    """Of ten samples those three that choose the weights must have no say in shift and scale."""
    x, _ = correlated(2, 10, generator)
    options = {**SMALL, "matching_steps": 1, "likelihood_steps": 0, "coupling": "independent"}
    plain = cnf.fit_samples(x, validation=0.3, **options)
    unmoved = 0
    for row in range(len(x)):
        moved = x.clone()
        moved[row] += 7.0
        flow = cnf.fit_samples(moved, validation=0.3, **options)
        same = [torch.equal(getattr(flow, u), getattr(plain, u)) for u in ("shift", "scale")]
        assert same[0] == same[1]
        unmoved += all(same)
    assert unmoved == 3


def test_matching_alone_and_likelihood_alone(generator):
    x, _ = correlated(2, 200, generator)
    for steps in ((5, 0), (0, 3)):
        flow = cnf.fit_samples(
            x.numpy(force=True),
            **{**SMALL, "matching_steps": steps[0], "likelihood_steps": steps[1]},
        )
        assert bool(flow.log_prob(x).isfinite().all())


def test_many_dimensions_take_the_estimated_trace(generator):
    x, _ = correlated(12, 200, generator)
    flow = cnf.fit_samples(x, **{**QUICK, "matching_steps": 5, "likelihood_steps": 3})
    assert flow.trace == "hutchinson"
    assert float(flow.log_likelihood(x[:5], probes=4).trace_error.max()) > 0


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[0.0, math.nan], [1.0, 1.0]]), "x: nan at row 0, column 1"),
        (torch.zeros(1, 2), "x has 1 samples: a density needs at least 2"),
        (torch.eye(2), "x has 2 samples: two to fit and one held out make 3"),
        (torch.zeros(5), r"x must have shape \(N, d\); got \(5,\)"),
        (np.zeros((5, 2)), "column 0 of x has the same value in all samples"),
    ],
)
def test_bad_samples_are_named(x, message, unchecked):
    with pytest.raises(ValueError, match=message):
        cnf.fit_samples(x, **QUICK)


def test_bad_options_are_named(generator, unchecked):
    x, _ = correlated(2, 20, generator)
    fine = lambda x: x.square().sum(1)
    for call, message in (
        (lambda: cnf.fit_samples(x, x[:3], **QUICK), "context has 3 rows, x has 20"),
        (lambda: cnf.fit_samples(x, matching_steps=-1), "must not be negative"),
        (lambda: cnf.fit_samples(x, coupling="none"), "coupling must be"),
        (lambda: cnf.fit_samples(x, validation=1.0), "validation must be between"),
        (lambda: cnf.fit_energy(lambda x: x, 2, **QUICK), r"energy must return shape \(2,\)"),
        (lambda: cnf.fit_energy(fine, 3, samples=x, **QUICK), "n_dim is 3"),
        (lambda: cnf.fit_energy(fine, 2, kT=-1.0, **QUICK), "kT must be positive"),
        (lambda: cnf.fit_energy(fine, 2, energy_weight=2.0), "energy_weight must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="energy must be callable"):
        cnf.fit_energy(3.0, 2, **QUICK)
