"""Particle clusters against tabulated minima, a loop over pairs and their invariances."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize

from sciflow.systems import DoubleWellParticles, LennardJones, MeanFree

GOLDEN = (1 + math.sqrt(5)) / 2
CLUSTERS = [DoubleWellParticles(), LennardJones(), LennardJones.reduced(5)]


def icosahedron():
    """Twelve corners at distance one from a thirteenth point in the centre."""
    corners = [
        corner[shift:] + corner[:shift]
        for a, b in itertools.product((1, -1), (GOLDEN, -GOLDEN))
        for corner in [(0, a, b)]
        for shift in range(3)
    ]
    points = torch.tensor([(0, 0, 0), *corners], dtype=torch.float64)
    return points / math.hypot(1, GOLDEN)


def bipyramid(n):
    """A ring of n - 2 and two poles."""
    angle = 2 * math.pi * torch.arange(n - 2) / (n - 2)
    ring = 0.8 * torch.stack([angle.cos(), angle.sin(), 0 * angle], 1)
    poles = torch.tensor([[0.0, 0.0, 0.7], [0.0, 0.0, -0.7]])
    return torch.cat([ring, poles])


@pytest.mark.parametrize(
    ("start", "energy"),
    [
        (icosahedron(), -44.326801),
        (bipyramid(5), -9.103852),
        (bipyramid(6), -12.712062),
        (bipyramid(7), -16.505384),
    ],
    ids=["LJ13", "LJ5", "LJ6", "LJ7"],
)
def test_tabulated_minima(start, energy):
    """The Cambridge Cluster Database, in units of epsilon; the unit of length cannot matter."""
    n = len(start)
    for cluster in (LennardJones.reduced(n), LennardJones(n, trap=0.0)):

        def value_and_slope(x, cluster=cluster):
            q = torch.tensor(x)[None]
            return cluster.potential(q).item(), -cluster.force(q)[0].cpu().numpy()

        first = 1.1 * cluster.r_min * start.double().flatten().cpu().numpy()
        found = minimize(value_and_slope, first, jac=True, tol=1e-12)
        assert found.fun == pytest.approx(energy, abs=1e-6)


def test_pair_conventions(generator):
    pair = torch.zeros(1, 6)
    pair[0, 3] = 2 ** (1 / 6)
    assert LennardJones.reduced(2).potential(pair).item() == pytest.approx(-1)
    pair[0, 3] = 1.0
    assert LennardJones.reduced(2).potential(pair).item() == pytest.approx(0, abs=1e-12)
    # The trap of the literature pulls both half a unit: 2 * (1/2)^2 / 2.
    assert LennardJones(2).potential(pair).item() == pytest.approx(-1 + 0.25)
    line = torch.tensor([[0.0, 0.0, 4.0 + math.sqrt(4 / 1.8), 0.0]])
    two = DoubleWellParticles(2)
    assert two.potential(line).item() == pytest.approx(-(4**2) / (4 * 0.9))
    assert two.force(line).abs().max() < 1e-10
    assert DoubleWellParticles(2, a=0.5).potential(line).item() == pytest.approx(
        two.potential(line).item() + 0.5 * math.sqrt(4 / 1.8)
    )


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_loop_over_pairs(cluster, generator):
    q = 2 * torch.randn(3, cluster.n_dim, generator=generator)
    x = q.reshape(3, cluster.n_particles, cluster.dim)
    total = torch.zeros(3)
    lengths = []
    for i, j in itertools.combinations(range(cluster.n_particles), 2):
        d = (x[:, i] - x[:, j]).norm(dim=1)
        lengths.append(d)
        if isinstance(cluster, DoubleWellParticles):
            total += -4 * (d - 4) ** 2 + 0.9 * (d - 4) ** 4
        else:
            total += (cluster.r_min / d) ** 12 - 2 * (cluster.r_min / d) ** 6
    if isinstance(cluster, LennardJones):
        total += cluster.trap / 2 * (x - x.mean(1, keepdim=True)).square().sum((1, 2))
    assert torch.allclose(cluster.potential(q), total, rtol=1e-10)
    assert torch.allclose(cluster.distances(q), torch.stack(lengths, 1))


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_invariances(cluster, generator):
    q = 2 * torch.randn(5, cluster.n_dim, generator=generator)
    x = q.reshape(5, cluster.n_particles, cluster.dim)
    turn = torch.linalg.qr(torch.randn(cluster.dim, cluster.dim, generator=generator))[0]
    order = torch.randperm(cluster.n_particles, generator=generator)
    energy = cluster.potential(q)
    for moved in (x @ turn, x + 3.0, x[:, order], -x):
        assert torch.allclose(cluster.potential(moved.flatten(1)), energy, rtol=1e-9)
    force = cluster.force(q).reshape_as(x)
    scale = force.abs().max()
    assert force.sum(1).abs().max() < 1e-10 * scale
    turned = cluster.force((x @ turn).flatten(1)).reshape_as(x)
    assert torch.allclose(turned, force @ turn, atol=1e-9 * scale.item())


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_mean_free_coordinates_are_an_isometry(cluster, generator):
    free = MeanFree(cluster)
    assert free.n_dim == cluster.n_dim - cluster.dim
    q = 2 * torch.randn(4, cluster.n_dim, generator=generator)
    z = free.from_particles(q)
    centred = cluster.remove_mean(q)
    assert torch.allclose(free.to_particles(z), centred, atol=1e-12)
    assert torch.allclose(z.square().sum(1), centred.square().sum(1))
    assert torch.allclose(free.from_particles(free.to_particles(z)), z, atol=1e-12)
    assert torch.allclose(free.potential(z), cluster.potential(q), rtol=1e-10)
    assert torch.allclose(free.from_particles(cluster.force(q)), free.force(z), rtol=1e-8)
    assert torch.equal(free.masses, torch.full((free.n_dim,), cluster.mass))


def test_mean_free_partition_function_of_a_pair():
    """Of two particles the free coordinate is their distance over sqrt(2), in any dimension."""
    free = MeanFree(DoubleWellParticles(2, 2))
    axis = torch.linspace(-7, 7, 561)
    energy = free.potential(torch.cartesian_prod(axis, axis))
    grid = torch.logsumexp(-energy, 0).item() + 2 * math.log(14 / 560)

    def weight(r):
        stretch = math.sqrt(2) * r - 4
        return 2 * math.pi * r * math.exp(4 * stretch**2 - 0.9 * stretch**4)

    # The tip at the origin, where the distance has a kink, costs the grid a few digits.
    assert grid == pytest.approx(math.log(quad(weight, 0, 7, limit=200)[0]), abs=1e-5)


def test_refused(unchecked):
    with pytest.raises(ValueError, match="n_particles is 1 and dim 3"):
        LennardJones(1)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        LennardJones(epsilon=-1.0)
    with pytest.raises(ValueError, match="trap must be finite and not negative"):
        LennardJones(trap=-1.0)
    with pytest.raises(ValueError, match="c must be positive"):
        DoubleWellParticles(c=0.0)
    with pytest.raises(ValueError, match=r"q has shape \(1, 9\); expected \(B, 8\)"):
        DoubleWellParticles().potential(torch.zeros(1, 9))
