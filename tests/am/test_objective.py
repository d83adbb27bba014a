"""Both estimators of the dual objective against each other and against the exact potential."""

import pytest
import torch

from sciflow import Snapshots
from sciflow.am import Action, Lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.objective import ActionMatching
from sciflow.am.scale import Scale
from sciflow.am.source import CoupledSnapshots
from sciflow.am.times import Times
from sciflow.systems import GaussianTransport


def small(generator, dtype, dim=2):
    scale = Scale(center=(0.0,) * dim, length=1.0, start=0.0, duration=1.0)
    return ActionPotential(scale, width=8, depth=2, generator=generator).to(dtype)


def test_estimators_agree_in_value_and_gradient(generator, dtype):
    model = small(generator, dtype)
    snapshots = Snapshots(
        [torch.randn(300, 2), torch.randn(300, 2) + 1, torch.randn(300, 2) + 2], [0.0, 0.4, 1.0]
    )
    source = CoupledSnapshots(snapshots)
    figures = {}
    for name in ("dual", "pathwise"):
        objective = ActionMatching(model, Lagrangian(), estimator=name)
        rows = []
        for _ in range(200):
            model.zero_grad()
            loss = objective(source.sample(1000, generator)).value
            loss.backward()
            grads = torch.cat([p.grad.flatten() for p in model.parameters()])
            rows.append(torch.cat([loss.detach()[None], grads]))
        figures[name] = torch.stack(rows)
    gap = figures["dual"].mean(0) - figures["pathwise"].mean(0)
    spread = sum(f.var(0) for f in figures.values()) / 200
    z = gap.abs() / spread.sqrt().clamp(min=1e-12)
    assert float(z.max()) < 5.0
    # and the reason for the second one
    assert float(figures["pathwise"][:, 0].std()) < 0.5 * float(figures["dual"][:, 0].std())


class ExactPotential(ActionPotential):
    """The potential of optimal transport between Gaussians, as a model."""

    def __init__(self, truth):
        super().__init__(Scale(center=(0.0, 0.0), length=1.0, start=0.0, duration=1.0))
        self.truth = truth

    def forward(self, t, x):
        return self.truth.potential(t, x)

    def derivatives(self, t, x, create_graph):
        with torch.enable_grad():
            t, x = t.detach().requires_grad_(), x.detach().requires_grad_()
            s = self(t, x)
            s_t, velocity = torch.autograd.grad(s.sum(), (t, x), create_graph=True)
        return s, s_t, velocity


@pytest.mark.parametrize("estimator", ["dual", "pathwise"])
def test_loss_of_the_exact_potential_is_minus_the_action(generator, estimator):
    """The certificate of action matching: loss + kinetic action = 0 at the optimum."""
    truth = GaussianTransport(
        torch.zeros(2),
        torch.eye(2),
        torch.tensor([1.0, 0.5]),
        torch.diag(torch.tensor([2.0, 0.5])),
    )
    x = torch.randn(4000, 2, generator=generator)
    pair_source = CoupledSnapshots(
        Snapshots([x, truth.map(x)], [0.0, 1.0]), couplings=[_identity(4000)]
    )
    objective = ActionMatching(ExactPotential(truth), Lagrangian(), estimator=estimator)
    values = torch.stack(
        [objective(pair_source.sample(100, generator)).value.detach() for _ in range(20)]
    )
    error = float(values.std() / len(values) ** 0.5)
    # 4000 points stand for the Gaussian: their own action, half the mean squared displacement
    action = 0.5 * float((truth.map(x) - x).square().sum(1).mean())
    assert abs(float(values.mean()) + action) < 5 * error
    assert abs(action - truth.kinetic_action) < 0.1


def _identity(n):
    from sciflow.am.coupling import Coupling

    return Coupling(
        torch.arange(n), torch.arange(n), torch.full((n,), 1 / n), torch.ones(n), torch.ones(n)
    )


def test_unknown_estimator(generator, dtype, unchecked):
    with pytest.raises(ValueError, match="estimator must be"):
        ActionMatching(small(generator, dtype), Lagrangian(), estimator="other")


def test_hamiltonian_is_the_sum_of_its_terms(generator):
    lagrangian = Lagrangian(0.3, 0.5, potential=lambda t, x: t * x.square().sum(1))
    t, x, s, s_t = torch.rand(5), torch.randn(5, 2), torch.randn(5), torch.randn(5)
    v, laplacian = torch.randn(5, 2), torch.randn(5)
    expected = torch.stack(
        [
            s_t[i]
            + 0.5 * v[i] @ v[i]
            + 0.15 * s[i] ** 2
            + 0.125 * laplacian[i]
            + t[i] * (x[i] @ x[i])
            for i in range(5)
        ]
    )
    found = lagrangian.hamiltonian(t, x, s, s_t, v, laplacian)
    torch.testing.assert_close(found, expected)


def test_terms_of_noise_and_growth_agree_between_estimators(generator, dtype):
    """By parts along bridges and travelling masses; and by the dual, with its Laplacian."""
    lagrangian = Lagrangian(growth_penalty=0.5, sigma=0.6)
    parts = [torch.randn(200, 2) * 0.5, torch.randn(200, 2) * 0.5 + 1]
    source = CoupledSnapshots(
        Snapshots(parts, [0.0, 1.0], masses=[1.0, 1.7]), lagrangian=lagrangian
    )
    model = small(generator, dtype)
    for weight in (None, lambda t: 1 + t.square()):
        values = {}
        for name in ("dual", "pathwise"):
            objective = ActionMatching(model, lagrangian, estimator=name, weight=weight)
            draws = [float(objective(source.sample(1000, generator)).value) for _ in range(40)]
            values[name] = torch.tensor(draws)
        gap = values["dual"].mean() - values["pathwise"].mean()
        error = sum(v.var() for v in values.values()) / 40
        # the bridge is cut a thousandth of its time before its end
        assert abs(float(gap)) < 5 * float(error) ** 0.5 + 2e-3


def test_hutchinson_agrees_with_the_exact_laplacian(generator, dtype):
    model = small(generator, dtype, dim=12)
    objective = ActionMatching(model, Lagrangian(sigma=1.0), estimator="dual")
    objective.generator = generator
    x = torch.randn(1, 12).expand(1000, 12).clone().requires_grad_()
    t = torch.full((1000,), 0.3)
    velocity = model.derivatives(t, x, create_graph=True)[2]
    estimate = objective._laplacian(x, velocity)
    one = x[:1].detach()
    jacobian = torch.autograd.functional.jacobian(
        lambda z: model.derivatives(t[:1], z, create_graph=True)[2][0], one
    )
    error = float(estimate.std()) / 1000**0.5
    assert abs(float(estimate.mean() - jacobian[:, 0].trace())) < 5 * error


def test_certificate_is_the_error_of_the_velocity(generator):
    """Loss plus exact action is half the mean squared error of the velocity: of any potential."""
    truth = GaussianTransport(
        torch.zeros(2),
        torch.eye(2),
        torch.tensor([1.0, 0.5]),
        torch.diag(torch.tensor([2.0, 0.5])),
    )
    x = torch.randn(4000, 2, generator=generator)
    source = CoupledSnapshots(
        Snapshots([x, truth.map(x)], [0.0, 1.0]), couplings=[_identity(4000)]
    )
    model = small(generator, x.dtype)
    batch = source.sample(20000, generator)
    objective = ActionMatching(model, Lagrangian())
    point = objective.path(batch)
    _, _, velocity = model.derivatives(batch.t, point.x, create_graph=False)
    action = 0.5 * float(point.velocity.square().sum(1).mean())
    half_error = 0.5 * float((velocity - point.velocity).square().sum(1).mean())
    dual = -float(objective(batch).value)
    assert Action(0.0, dual).certificate(action) == pytest.approx(half_error, rel=1e-9)


def test_adaptive_times_keep_the_mean_and_lower_the_variance(generator):
    """The loss is large near t = 1 only: times gather there, and the mean stays the same."""
    times = Times(adaptive=True)
    loss = lambda t: (
        torch.exp(-((t - 0.9) ** 2) / 0.002) * torch.randn(len(t), generator=generator).abs()
    )
    for _ in range(200):
        t, _ = times.draw(500, torch.rand(1, generator=generator))
        times.learn(t, loss(t))
    figures = {}
    for name, sampler in (("adaptive", times), ("even", Times())):
        means = []
        for _ in range(300):
            t, density = sampler.draw(200, torch.rand(1, generator=generator))
            means.append((loss(t) / density).mean())
        figures[name] = torch.stack(means)
    error = sum(f.var() for f in figures.values()) / 300
    gap = float(figures["adaptive"].mean() - figures["even"].mean())
    assert abs(gap) < 5 * float(error) ** 0.5
    assert float(figures["adaptive"].std()) < 0.6 * float(figures["even"].std())
    copy = Times(adaptive=True)
    copy.load_state_dict(times.state_dict())
    start = torch.rand(1, generator=generator)
    assert torch.equal(copy.draw(9, start)[0], times.draw(9, start)[0])
