"""The differentiating-cell simulator against an independent implementation and exact results."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciflow.systems import GeneNetwork, population
from sciflow.systems.fixed_points import jacobian
from sciflow.systems.population import propagate


def hill(z, n, threshold):
    z = np.maximum(z, 0)
    return z**n / (threshold**n + z**n)


def velocity_numpy(g, t, x):
    """The five-gene equations written out once more, for one cell."""
    a, b, s, c, d = x
    open_ = 1 - hill(s, g.signal_hill, g.threshold)
    ha, hb = hill(a, g.hill, g.threshold), hill(b, g.hill, g.threshold)
    signal = 1 / (1 + np.exp((t - g.commitment) / g.signal_width))
    return g.rate * np.array(
        [
            open_ * (g.self_activation * ha + g.basal * (1 - hb)) - a,
            open_ * (g.self_activation * hb + g.basal * (1 - ha)) - b,
            signal - s,
            ha - c,
            hb - d,
        ]
    )


@pytest.fixture(scope="module")
def data():
    torch.set_default_dtype(torch.float64)
    return GeneNetwork().simulate(1000, seed=5, ensemble=8192)


def test_velocity_agrees_with_the_equations_written_out(generator, device):
    g = GeneNetwork(rate=1.7, hill=3.0, self_activation=0.6, basal=1.2, threshold=0.45)
    x = torch.rand(50, 5, generator=generator, device=device) * 2 - 0.3
    for t in (0.0, 0.9, 4.0):
        expected = np.stack([velocity_numpy(g, t, row) for row in x.cpu().numpy()])
        assert np.allclose(g.velocity(t, x).cpu().numpy(), expected, atol=1e-13)
    times = torch.linspace(0, 3, 50)
    rows = torch.cat([g.velocity(float(t), row[None]) for t, row in zip(times, x, strict=True)])
    assert torch.allclose(g.velocity(times, x), rows)


def test_velocity_is_the_derivative_of_the_deterministic_flow(generator, device):
    g = GeneNetwork(noise=0.0)
    x0 = torch.tensor([[0.5, 0.3, 0.8, 0.2, 0.1], [0.1, 1.2, 0.3, 0.0, 0.6]])
    t, h = 1.3, 1e-4
    times = torch.tensor([0.0, t - h, t, t + h])
    run = propagate(g.velocity, g.growth, 0.0, x0, times, 1 / 512, generator)
    slope = (run.x[3] - run.x[1]) / (2 * h)
    assert torch.allclose(slope, g.velocity(t, run.x[2]), rtol=1e-5, atol=1e-6)
    for i, start in enumerate(x0.cpu().numpy()):
        exact = solve_ivp(
            lambda s, y: velocity_numpy(g, s, y), (0, t), start, rtol=1e-11, atol=1e-12
        )
        assert np.allclose(run.x[2, i].cpu().numpy(), exact.y[:, -1], atol=1e-6)


def test_heun_is_of_second_order_without_noise(generator):
    g = GeneNetwork(noise=0.0)
    x0 = torch.tensor([[0.5, 0.3, 0.8, 0.2, 0.1]])
    times = torch.tensor([0.0, 2.0])
    ends = [
        propagate(g.velocity, g.growth, 0.0, x0, times, dt, generator)
        for dt in (1 / 8, 1 / 16, 1 / 32)
    ]
    for read in (lambda e: e.x[1, 0], lambda e: e.log_weight[1]):
        first, second = (read(ends[i]) - read(ends[i + 1]) for i in (0, 1))
        assert 3.3 < float(first.norm() / second.norm()) < 4.7


def test_deeper_cascades_follow_their_level_above(generator, device):
    g = GeneNetwork(cascade=3)
    assert g.dim == len(g.genes) == 9
    x = torch.rand(4, 9, generator=generator, device=device)
    v = g.velocity(0.5, x)
    expected = g.rate * (torch.as_tensor(hill(x[:, 4].cpu().numpy(), 4, 0.5)).to(x) - x[:, 6])
    assert torch.allclose(v[:, 6], expected)
    short = GeneNetwork().velocity(0.5, x[:, :5].contiguous())
    assert torch.allclose(v[:, :5], short)


def test_jacobian_agrees_with_finite_differences(generator, device):
    g = GeneNetwork()
    x = torch.rand(6, 5, generator=generator, device=device) + 0.1
    exact = jacobian(lambda y: g.velocity(0.7, y), x)
    h = 1e-6
    for i in range(5):
        step = torch.zeros(5).index_fill(0, torch.tensor([i]), h)
        column = (g.velocity(0.7, x + step) - g.velocity(0.7, x - step)) / (2 * h)
        assert torch.allclose(exact[:, :, i], column, atol=1e-7)


def test_one_progenitor_state_becomes_two_fates():
    g = GeneNetwork()
    for t, n_points, n_stable in ((0.0, 1, 1), (1.0, 3, 2), (4.0, 3, 2)):
        points = g.fixed_points(t)
        assert len(points.x) == n_points
        assert int(points.stable.sum()) == n_stable
        assert float(g.velocity(t, points.x).abs().max()) < 1e-10
        for x, stable in zip(points.x.cpu().numpy(), points.stable.tolist(), strict=True):
            numeric = np.stack(
                [
                    (velocity_numpy(g, t, x + e) - velocity_numpy(g, t, x - e)) / 2e-6
                    for e in 1e-6 * np.eye(5)
                ],
                axis=1,
            )
            assert stable == (np.linalg.eigvals(numeric).real.max() < 0)
    early, late = g.fixed_points(0.0), g.fixed_points(4.0)
    assert g.lineage(early.x).tolist() == [0]
    assert sorted(g.lineage(late.x[late.stable]).tolist()) == [1, 2]


def test_small_kicks_grow_at_the_unstable_state_and_die_at_the_stable_one():
    g = GeneNetwork()
    late = g.fixed_points(4.0)
    frozen = lambda s, y: velocity_numpy(g, 4.0, y)
    for x, stable in zip(late.x.cpu().numpy(), late.stable.tolist(), strict=True):
        kick = 1e-4 * np.array([1.0, -1.0, 0, 0, 0])
        end = solve_ivp(frozen, (0, 10), x + kick, rtol=1e-10, atol=1e-12).y[:, -1]
        distance = np.linalg.norm(end - x) / np.linalg.norm(kick)
        assert distance < 0.01 if stable else distance > 2


def test_noise_strength_is_the_short_time_variance(generator, device):
    g = GeneNetwork(noise=0.3)
    x0 = torch.tensor([[0.2, 0.4, 0.9, 0.1, 0.1]]).expand(40_000, 5).contiguous()
    time = 1e-3
    times = torch.tensor([0.0, time])
    run = propagate(g.velocity, g.growth, g.noise, x0, times, 1e-3, generator)
    variance = (run.x[1] - x0).var(0)
    standard_error = 0.09 * time * (2 / 40_000) ** 0.5
    assert ((variance - 0.09 * time).abs() < 4 * standard_error).all()
    assert torch.equal(g.diffusion(0.0, x0), torch.full_like(x0, 0.3))


def test_progenitors_are_stationary(generator):
    """Linear theory of the noise gives the day-0 covariance; the frozen dynamics keeps it."""
    g = GeneNetwork(noise=0.01, commitment=50.0)
    mean, covariance = g.initial
    x0 = g.progenitors(20_000, generator)
    assert torch.allclose(x0.T.cov(), covariance.to(x0), atol=2e-6)
    run = propagate(g.velocity, g.growth, g.noise, x0, torch.tensor([0.0, 3.0]), 0.05, generator)
    assert torch.allclose(run.x[1].mean(0), mean.to(x0), atol=3e-4)
    assert torch.allclose(run.x[1].T.cov(), covariance.to(x0), rtol=0.08, atol=2e-6)


def test_masses_agree_with_a_branching_population(data):
    """Cells that divide and die one by one, in numpy, with the Euler-Maruyama method."""
    g = GeneNetwork()
    rng = np.random.default_rng(1)
    mean, covariance = (part.cpu().numpy() for part in g.initial)
    n, dt = 4000, 0.02
    x = rng.multivariate_normal(mean, covariance, n)
    sizes = [1.0]
    for step in range(200):
        v = velocity_numpy(g, step * dt, x.T).T
        fate = rng.random(len(x))
        divide = fate < g.birth * hill(x[:, 0], g.hill, g.threshold) * dt
        die = fate > 1 - g.death * dt
        x = x + v * dt + g.noise * dt**0.5 * rng.standard_normal(x.shape)
        x = np.concatenate([x[~die], x[divide]])
        if (step + 1) % 50 == 0:
            sizes.append(len(x) / n)
    masses, errors = data.snapshots.masses.cpu().numpy(), data.mass_error.cpu().numpy()
    assert masses[0] == 1
    # Variance of the branching size: that of the weights, for cells that grow at different rates,
    # and that of births and deaths, which for constant rates is below (birth + death) t M^2 / n.
    for k in range(1, 5):
        chance = np.sqrt((g.birth + g.death) * k * sizes[k] ** 2 / n)
        uneven = errors[k] * np.sqrt(8192 / n)
        assert abs(masses[k] - sizes[k]) < 3 * np.sqrt(errors[k] ** 2 + chance**2 + uneven**2)
    assert errors[4] < 0.02 * masses[4]
    assert masses[4] > 1.8
    assert np.all(np.diff(masses[1:]) > 0)
    # The cells drawn carry the same mixture of lineages as the population that divided.
    labels = g.lineage(torch.as_tensor(x)).bincount(minlength=3).cpu().numpy() / len(x)
    drawn = data.lineages[4].bincount(minlength=3).cpu().numpy() / 1000
    assert np.abs(labels - drawn).max() < 4 * np.sqrt(0.25 / 1000 + 1 / n)


def test_masses_of_uniform_growth_are_exponential():
    g = GeneNetwork(birth=0.0, death=0.25)
    data = g.simulate(20, (0.0, 2.0), ensemble=64)
    assert torch.allclose(data.snapshots.masses, torch.tensor([1.0, np.exp(-0.5)]))
    assert torch.allclose(data.mass_error, torch.zeros(2), atol=1e-12)


def test_mean_expression_obeys_the_continuity_equation(data):
    """d/dt of M E[x] equals M E[v + g x]: velocity and growth are those of the population."""
    g, run = GeneNetwork(), data.ensemble
    h = 0.05
    late = torch.tensor([1.5 - h, 1.5, 1.5 + h])
    follow = g.population(
        g.progenitors(20_000, torch.Generator(run.x.device).manual_seed(3)),
        late,
        h,
        torch.Generator(run.x.device).manual_seed(4),
    )
    weight = follow.log_weight.exp()[..., None]
    flow = (weight * follow.x)[2] - (weight * follow.x)[0]
    x = follow.x[1]
    rate = weight[1] * (g.velocity(1.5, x) + g.growth(1.5, x)[:, None] * x)
    difference = flow / (2 * h) - rate
    error = difference.std(0) / 20_000**0.5
    assert (difference.mean(0).abs() < 4 * error + 2e-3).all()
    assert float(rate.mean(0).abs().max()) > 0.3


def test_snapshots_at_different_times_are_independent(data):
    """Cells in the same row of successive times are unrelated; followed cells are related."""

    def correlation(x, y):
        return float(torch.corrcoef(torch.stack([x, y]))[0, 1])

    separate = correlation(data.snapshots.samples[2][:, 0], data.snapshots.samples[3][:, 0])
    followed = correlation(data.ensemble.x[2, :, 0], data.ensemble.x[3, :, 0])
    assert abs(separate) < 4 / 1000**0.5
    assert followed > 0.6
    for x in data.snapshots.samples:
        assert len(torch.unique(x, dim=0)) == 1000


def test_cells_commit_in_a_tree(data):
    labels = [x.bincount(minlength=3) / len(x) for x in data.lineages]
    assert float(labels[0][0]) > 0.98
    assert float(labels[4][0]) < 0.1
    assert float(labels[4][1]) > 0.6
    assert float(labels[4][2]) > 0.12
    assert float(torch.stack([x.abs().max() for x in data.snapshots.samples]).max()) < 3


def test_the_same_seed_gives_the_same_numbers():
    g = GeneNetwork()
    first, again, other = (g.simulate(30, (0.0, 1.0), seed=s, ensemble=64) for s in (1, 1, 2))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.snapshots.samples, again.snapshots.samples, strict=True)
    )
    assert torch.equal(first.snapshots.masses, again.snapshots.masses)
    assert torch.equal(first.ensemble.x, again.ensemble.x)
    assert not torch.equal(first.snapshots.samples[1], other.snapshots.samples[1])
    made = torch.Generator("cpu").manual_seed(1)
    drawn = g.simulate(30, (0.0, 1.0), generator=made, ensemble=64)
    assert torch.equal(first.snapshots.samples[1], drawn.snapshots.samples[1])


def test_more_cells_than_the_ensemble_holds_come_from_more_populations():
    data = GeneNetwork().simulate(150, (2.5, 3.0), ensemble=150)
    assert data.snapshots.samples[0].shape == (150, 5)
    assert len(torch.unique(data.snapshots.samples[0], dim=0)) == 150
    assert data.ensemble.t.tolist() == [2.5, 3.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate", 0.0),
        ("threshold", -1.0),
        ("signal_width", 0.0),
        ("noise", -0.1),
        ("birth", -1.0),
        ("death", float("nan")),
        ("hill", 0.5),
        ("cascade", -1),
        ("commitment", float("inf")),
    ],
)
def test_a_bad_parameter_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        GeneNetwork(**{name: value})


def test_bad_arguments_of_simulate_are_named(monkeypatch):
    monkeypatch.setattr(population, "_MAX_POPULATIONS", 5)
    g = GeneNetwork()
    for kwargs, name in (
        ({"n": 0}, "n must"),
        ({"n": 5, "times": (1.0, 1.0)}, "times"),
        ({"n": 5, "times": (-1.0, 1.0)}, "times"),
        ({"n": 5, "times": (1.0,)}, "times"),
        ({"n": 5, "times": (0.0, float("nan"))}, "times"),
        ({"n": 5, "dt": 0.0}, "dt"),
        ({"n": 5, "ensemble": 1}, "ensemble"),
    ):
        with pytest.raises(ValueError, match=name):
            g.simulate(**kwargs)
    with pytest.raises(ValueError, match="x must have 5 columns"):
        g.velocity(0.0, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="commitment"):
        GeneNetwork(commitment=-5.0).simulate(5)
    with pytest.raises(ValueError, match="growth is too uneven"):
        GeneNetwork(birth=40.0).simulate(50, (2.0, 3.0), ensemble=16, dt=1.0)
