"""Fields and base of particle systems: symmetries, divergences and the volume they refer to."""

import itertools
import math

import pytest
import torch

from sciflow import cnf
from sciflow.cnf.particles_alignment import align
from sciflow.cnf.particles_fit import AlignedPairs
from sciflow.integrators import exact_divergence
from sciflow.systems import DoubleWellParticles, MeanFree

SIZES = [(2, 1), (2, 3), (4, 2), (6, 3)]


def field_of(n, d, length=1.3):
    """A field that does move: its last layer starts at zero otherwise."""
    field = cnf.ParticleField(n, d, length, channels=5, width=12, n_radial=8)
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(field.weight.last.weight, std=0.3, generator=generator)
    return field


def flow_of(n, d):
    flow = cnf.ContinuousFlow(field_of(n, d), cnf.MeanFreeGaussian(n, d, 0.9))
    return flow.with_solver("rk4", n_steps=8)  # constant steps know no frame either


def moves(x, generator):
    """A translation, a rotation, a reflection and a permutation of configurations (B, N, d)."""
    n, d = x.shape[1:]
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    mirror = torch.eye(d)
    mirror[0, 0] = -1
    order = torch.randperm(n, generator=generator)
    return {
        "translation": (lambda x: x + 0.7, lambda v: v),
        "rotation": (lambda x: x @ turn, lambda v: v @ turn),
        "reflection": (lambda x: x @ mirror, lambda v: v @ mirror),
        "permutation": (lambda x: x[:, order], lambda v: v[:, order]),
    }


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_equivariance(n, d, generator):
    field = field_of(n, d)
    x = torch.randn(9, n, d, generator=generator)
    t = torch.rand(9, generator=generator)
    v, divergence = field.value_and_divergence(t, x.flatten(1))
    assert v.abs().max() > 0.03
    assert torch.allclose(field(t, x.flatten(1)), v, rtol=1e-12, atol=1e-12)
    assert v.unflatten(1, (n, d)).sum(1).abs().max() < 1e-10
    for name, (of_x, of_v) in moves(x, generator).items():
        w, other = field.value_and_divergence(t, of_x(x).flatten(1))
        expected = of_v(v.unflatten(1, (n, d))).flatten(1)
        assert (w - expected).abs().max() < 1e-10 * (1 + v.abs().max()), name
        assert (other - divergence).abs().max() < 1e-10 * (1 + divergence.abs().max()), name


@pytest.mark.parametrize(("n", "d"), SIZES)
def test_divergence_against_the_jacobian(n, d, generator):
    field = field_of(n, d)
    x = torch.randn(5, n * d, generator=generator)
    for t in (torch.tensor(0.3), torch.rand(5, generator=generator)):
        _, divergence = field.value_and_divergence(t, x)
        _, trace = exact_divergence(lambda t, x: field(t, x), t, x)
        assert (divergence - trace).abs().max() < 1e-8
        full = torch.stack(
            [
                torch.autograd.functional.jacobian(lambda y, s=s: field(s, y[None])[0], one)
                for one, s in zip(x, t.expand(5), strict=True)
            ]
        )
        assert (divergence - full.diagonal(dim1=1, dim2=2).sum(1)).abs().max() < 1e-8


def test_divergence_is_that_of_the_subspace(generator):
    """The volume of mean-free coordinates changes at the rate the field reports."""
    field, free = field_of(4, 2), MeanFree(DoubleWellParticles())
    z = torch.randn(3, 6, generator=generator)

    def inner(z):
        return free.from_particles(field(torch.tensor(0.6), free.to_particles(z)))

    _, divergence = field.value_and_divergence(torch.tensor(0.6), free.to_particles(z))
    for row, one in zip(divergence, z, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda y: inner(y[None])[0], one)
        assert abs(float(jacobian.trace() - row)) < 1e-8


def test_gradients_of_the_divergence(generator):
    """Training differentiates the closed form: against the same by automatic differentiation."""
    field = field_of(4, 2)
    x = torch.randn(6, 8, generator=generator)
    t = torch.tensor(0.4)
    figures = []
    for rule in (field.value_and_divergence, lambda t, x: exact_divergence(field.forward, t, x)):
        point = x.clone().requires_grad_()
        value, divergence = rule(t, point)
        loss = (value**2).sum() + (divergence**2).sum()
        inputs = [point, *field.parameters()]
        figures.append(torch.autograd.grad(loss, inputs, allow_unused=True))
    for ours, theirs in zip(*figures, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_four_particles_are_told_apart(generator):
    """Two clusters of the same distances, arranged differently, must not move alike."""
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    kite = square.clone()
    kite[2] += 1e-2
    field = field_of(4, 2)
    v = field(torch.tensor(0.5), torch.stack([square, kite]).flatten(1))
    assert (v[0] - v[1]).abs().max() > 1e-6


def test_base_is_normalised():
    """Of two particles in one dimension the subspace is the line (z, -z) / sqrt(2)."""
    base = cnf.MeanFreeGaussian(2, 1, 0.7)
    z = torch.linspace(-8, 8, 4001)
    x = torch.stack([z, -z], 1) / math.sqrt(2)
    total = torch.trapezoid(base.log_prob(x).exp(), z)
    assert float(total) == pytest.approx(1, abs=1e-10)


def test_base_samples(generator):
    base = cnf.MeanFreeGaussian(4, 2, 0.7)
    z = base.sample(20_000, generator)
    assert z.unflatten(1, (4, 2)).mean(1).abs().max() < 1e-12
    square = z.square().sum(1) / 0.49
    # chi^2 of (N - 1) d = 6 degrees of freedom: mean 6, variance 12.
    assert abs(float(square.mean()) - 6) < 5 * math.sqrt(12 / 20_000)
    free = MeanFree(DoubleWellParticles()).from_particles(z)
    gaussian = torch.distributions.Normal(torch.zeros(6), 0.7).log_prob(free).sum(1)
    assert torch.allclose(base.log_prob(z), gaussian)
    assert torch.allclose(base.log_prob(z + 3.0), gaussian)


def test_density_of_a_flow_is_invariant(generator):
    flow = flow_of(4, 2)
    x = flow.sample(6, generator=generator)
    assert x.unflatten(1, (4, 2)).mean(1).abs().max() < 1e-10
    with torch.no_grad():
        log_p = flow.log_prob(x)
        for name, (of_x, _) in moves(x.unflatten(1, (4, 2)), generator).items():
            moved = of_x(x.unflatten(1, (4, 2))).flatten(1)
            assert (flow.log_prob(moved) - log_p).abs().max() < 1e-10, name


def test_density_of_a_flow_integrates_to_one(generator):
    """Two particles on a line again, now moved."""
    flow = flow_of(2, 1).with_solver("rk4", n_steps=30)
    z = torch.linspace(-14, 14, 561)
    x = torch.stack([z, -z], 1) / math.sqrt(2)
    with torch.no_grad():
        total = torch.trapezoid(flow.log_prob(x).exp(), z)
    assert float(total) == pytest.approx(1, abs=1e-5)


def test_saved_and_loaded(tmp_path, generator):
    flow = flow_of(3, 2)
    flow.save(tmp_path / "flow.safetensors")
    again = cnf.load(tmp_path / "flow.safetensors").double()
    x = flow.sample(5, generator=generator)
    assert torch.equal(again.log_prob(x), flow.log_prob(x))


@pytest.mark.parametrize("n", [3, 4])
def test_alignment_finds_the_best_of_all(n, generator):
    to = torch.randn(5, n, 2, generator=generator)
    x = torch.randn(5, n, 2, generator=generator)
    aligned = align(x, to)
    # Rotations on a fine grid, both handednesses, all permutations.
    angle = torch.linspace(0, 2 * math.pi, 2001)[:-1]
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    turns = torch.cat([turn, turn * torch.tensor([1.0, -1.0])])
    for row, own, target in zip(x, aligned, to, strict=True):
        best = min(
            float((row[list(order)] @ turns - target).square().sum((1, 2)).min())
            for order in itertools.permutations(range(n))
        )
        found = float((own - target).square().sum())
        assert found <= best + 1e-12
        assert found == pytest.approx(best, rel=1e-4)


@pytest.mark.parametrize(("n", "d"), [(4, 2), (7, 3)])
def test_alignment_is_a_symmetry_and_comes_closer(n, d, generator):
    to = torch.randn(8, n, d, generator=generator)
    x = torch.randn(8, n, d, generator=generator)
    aligned = align(x, to)

    def distances(x):
        return torch.cdist(x, x).flatten(1).sort(1).values

    assert torch.allclose(distances(aligned), distances(x), atol=1e-10)
    gain = (x - to).square().sum((1, 2)) - (aligned - to).square().sum((1, 2))
    assert (gain > 0).all()
    # A hidden symmetry is found again where the start is near it.
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    near = align(x @ turn, x)
    assert torch.allclose(near, x, atol=1e-10)


def test_pairs(generator):
    base = cnf.MeanFreeGaussian(4, 2)
    x = base.sample(50, generator)
    far, near = (AlignedPairs(base, x, aligned) for aligned in (False, True))
    z, y = near.sample(200, generator)
    assert (y - z).square().sum(1).mean() < 0.5 * sum(
        float((b - a).square().sum(1).mean()) for a, b in [far.sample(200, generator)]
    )


def test_refused(unchecked):
    with pytest.raises(ValueError, match="at least 2 particles and 1 dimension; got 1, 2"):
        cnf.ParticleField(1, 2)
    with pytest.raises(ValueError, match="at least 2 particles and 1 dimension; got 1, 2"):
        cnf.MeanFreeGaussian(1, 2)
    with pytest.raises(ValueError, match="length must be positive"):
        cnf.ParticleField(4, 2, length=0.0)
    with pytest.raises(ValueError, match="channels is 0"):
        cnf.ParticleField(4, 2, channels=0)
    with pytest.raises(ValueError, match="scale must be positive"):
        cnf.MeanFreeGaussian(4, 2, -1.0)
    with pytest.raises(ValueError, match=r"x has shape \(3, 7\); expected \(B, 8\)"):
        cnf.ParticleField(4, 2)(torch.tensor(0.0), torch.zeros(3, 7))
    with pytest.raises(ValueError, match=r"z has shape \(3, 7\); expected \(B, 8\)"):
        cnf.MeanFreeGaussian(4, 2).log_prob(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="one shape"):
        align(torch.zeros(1, 4, 2), torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r"\(M, 4 d\); got \(10, 7\)"):
        cnf.fit_particles(torch.zeros(10, 7), 4)
    with pytest.raises(ValueError, match="x"):
        cnf.fit_particles(torch.full((10, 8), torch.nan), 4)
    with pytest.raises(ValueError, match="energy_weight"):
        cnf.fit_particles(torch.randn(10, 8), 4, energy_weight=2.0)
