"""The model: its map, densities, dynamics and files, against closed forms and other ways."""

import math

import pytest
import torch

import sciflow
from sciflow import DataError, nct
from sciflow.nct.latent import Latent, base_draws
from sciflow.nct.layers import (
    AffineCoupling,
    HamiltonianFlow,
    Leapfrog,
    Linear,
    Reorder,
    Scale,
    SplineCoupling,
    SplineMap,
)
from sciflow.systems import HarmonicChain
from sciflow.systems.charts import PolarChart

LINE = [math.inf] * 4


def shaken(model, generator, size=0.2):
    with torch.no_grad():
        for x in model.parameters():
            x.add_(size * torch.randn(x.shape, generator=generator))
    return model


@pytest.fixture
def model(generator):
    """Layers of every kind of point map, far from their start; unequal masses."""
    layers = [
        Scale(4),
        SplineMap([0, 1, 2, 3], n_bins=6),
        AffineCoupling(LINE, [0, 2], width=16, generator=generator),
        SplineCoupling(LINE, [1, 3], width=16, generator=generator),
        Linear(4),
    ]
    mass = torch.tensor([1.0, 2.0, 0.5, 3.0])
    return shaken(nct.CanonicalTransformation(layers, Latent(LINE, 1.7), mass), generator)


@pytest.fixture
def polar(generator):
    periods = [math.inf, 2 * math.pi]
    layers = [
        Scale(2, [0]),
        SplineCoupling(periods, [0], width=16, generator=generator),
        SplineMap([1], 2 * math.pi),
        Reorder([1, 0]),
        Linear(2, [1]),
    ]
    latent = Latent([2 * math.pi, math.inf], 0.6)
    mass = torch.tensor([2.0, 2.0])
    return shaken(nct.CanonicalTransformation(layers, latent, mass, PolarChart()), generator)


@pytest.mark.parametrize("name", ["model", "polar"])
def test_whole_map_is_symplectic_and_invertible(name, request, generator):
    model = request.getfixturevalue(name)
    n = model.n_dim
    q, p = torch.randn(2, 3, n, generator=generator)
    eye, zero = torch.eye(n), torch.zeros(n, n)
    form = torch.cat([torch.cat([zero, eye], 1), torch.cat([-eye, zero], 1)])

    def act(y):
        return torch.cat(model.to_latent(y[None, :n], y[None, n:]), 1)[0]

    for i in range(3):
        m = torch.autograd.functional.jacobian(act, torch.cat([q[i], p[i]]))
        assert float((m.T @ form @ m - form).abs().max()) < 1e-10
    back = model.to_physical(*model.to_latent(q, p))
    torch.testing.assert_close(back[0], q, atol=1e-10, rtol=0)
    torch.testing.assert_close(back[1], p, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.modes(q), model.to_latent(q, p)[0].detach())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["model", "polar"])
def test_densities_of_both_readings(name, strict, request, generator):
    """ln rho(q, p) is ln rho(q) plus a normalised density of p, seen by its own samples."""
    model = request.getfixturevalue(name)
    model.strict = strict
    points = model.sample(40_000, seed=1)
    assert points.q.shape == points.p.shape == (40_000, model.n_dim)
    with torch.no_grad():
        joint, marginal = model.log_prob(*points), model.log_prob(points.q)
        # E over p ~ rho(p | q) of g(p) / rho(p | q) is 1 for a narrow Gaussian g.
        width = 0.3
        g = (
            -(
                (points.p.square() / width**2).sum(1)
                + model.n_dim * math.log(2 * math.pi * width**2)
            )
            / 2
        )
        ratio = (g - (joint - marginal)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert float(ratio.mean()) == pytest.approx(1, abs=5 * error)
    if not strict:
        spread = (points.p.square().mean(0) / (model.kT * model.mass) - 1).abs()
        assert float(spread.max()) < 5 * math.sqrt(2 / 40_000)


def test_density_of_coordinates_integrates_to_one(polar):
    axis = torch.linspace(-14, 14, 1401)
    grid = torch.cartesian_prod(axis, axis) + 0.003
    with torch.no_grad():
        mass = polar.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    # What is left is the tail outside and the bins of the spline.
    assert float(mass) == pytest.approx(1, abs=2e-3)


def test_mixing_layers_have_no_density_of_coordinates(generator):
    layers = [Leapfrog(2, generator=generator), HamiltonianFlow(2, generator=generator)]
    model = nct.CanonicalTransformation(
        layers, Latent([math.inf] * 2, 1.0), torch.ones(2), strict=True
    )
    shaken(model, generator)
    points = model.sample(5)
    assert torch.isfinite(model.log_prob(*points)).all()
    with pytest.raises(ValueError, match="mixes coordinates with momenta"):
        model.modes(points.q)


def test_linear_model_moves_as_the_chain_does(generator):
    chain = HarmonicChain(6, tuple(torch.linspace(1, 3, 6).tolist()))
    model = nct.fit_energy(
        chain.potential, 6, chain.masses, steps=0, linear_steps=0, progress=False
    )
    q, p = torch.randn(2, 3, 6, generator=generator)
    t = torch.linspace(0, 5, 6)
    moved = nct.evolve(model, q, p, t)
    field = sciflow.Hamiltonian(chain.potential, chain.masses)
    exact = sciflow.integrate(field, (q, p), t, method="yoshida4", dt=0.005).y
    torch.testing.assert_close(moved.q, exact[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(moved.p, exact[1], atol=1e-6, rtol=0)
    # and shapes are the normal modes, mass-weighted
    shapes = nct.mode_shapes(model) * chain.masses.sqrt()
    overlap = (shapes * chain.modes).sum(1).abs()
    torch.testing.assert_close(overlap, torch.ones(6), atol=1e-8, rtol=0)
    path = nct.interpolate(model, 2, n=5, width=1.5)
    expected = torch.linspace(-1.5, 1.5, 5)[:, None] / chain.frequencies[2]
    expected = expected * nct.mode_shapes(model)[2]
    torch.testing.assert_close(path, expected, atol=1e-7, rtol=0)


def test_rotor_turns_freely():
    latent = Latent([2 * math.pi, math.inf], 1.0)
    with torch.no_grad():
        latent.log_inertia.fill_(math.log(4.0))
    Q, P = torch.tensor([[3.0, 0.5]]), torch.tensor([[2.0, 0.0]])
    moved, momenta = latent.evolve(Q, P, torch.tensor([1.0]))
    assert float(moved[0, 0, 0]) == pytest.approx(3.5 - 2 * math.pi)
    assert float(moved[0, 0, 1]) == pytest.approx(0.5 * math.cos(1))
    assert float(momenta[0, 0, 0]) == 2.0


def test_latent_density_and_draws(generator):
    latent = shaken(Latent([2.0, math.inf, math.inf], 0.7), generator)
    z = base_draws(100_000, 3, generator, whiten=False)
    Q, P = latent.coordinates(z), latent.momenta(z)
    expected = torch.distributions.Normal(latent.center, math.sqrt(0.7) / latent.log_omega.exp())
    torch.testing.assert_close(
        latent.log_density(Q), expected.log_prob(Q[:, 1:]).sum(1) - math.log(2)
    )
    wide = torch.distributions.Normal(0.0, (0.7 * latent.inertia()).sqrt())
    torch.testing.assert_close(latent.log_density_momenta(P), wide.log_prob(P).sum(1))
    assert float(Q[:, 0].abs().max()) < 1
    assert float(Q[:, 0].detach().std()) == pytest.approx(2 / math.sqrt(12), rel=0.01)


def test_whitened_draws(generator):
    z = base_draws(101, 7, generator)
    assert z.shape == (101, 7)
    z = base_draws(100, 7, generator)
    torch.testing.assert_close(z.T @ z / 100, torch.eye(7), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(7), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["model", "polar"])
def test_save_and_load(name, request, tmp_path):
    model = request.getfixturevalue(name)
    model.save(tmp_path / "model.safetensors")
    other = nct.load(tmp_path / "model.safetensors")
    q, p = model.sample(4)
    assert torch.equal(other.log_prob(q, p), model.log_prob(q, p))
    assert torch.equal(other.frequencies, model.frequencies)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError):
        nct.load(path)


def test_units(model):
    with pytest.raises(ValueError, match="reduced units"):
        _ = model.frequencies.cm1
    model.units = "md"
    # 1 cm^-1 is 0.188365 rad/ps
    torch.testing.assert_close(model.frequencies.cm1 * 0.1883651567, model.frequencies + 0)
    assert type(model.frequencies + 1) is torch.Tensor


def test_refused(model, unchecked):
    with pytest.raises(ValueError, match=r"q has shape \(2, 3\); expected \(B, 4\)"):
        model.modes(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not fitted to a potential"):
        model.free_energy(10)
    with pytest.raises(ValueError, match="n must be"):
        model.sample(0)
    with pytest.raises(ValueError, match="mode must be between 0 and 3; got 4"):
        nct.interpolate(model, 4)
