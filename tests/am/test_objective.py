"""Both estimators of the dual objective against each other and against the exact potential."""

import pytest
import torch

from sciflow import Snapshots
from sciflow.am import Lagrangian
from sciflow.am.coupling import CoupledSnapshots
from sciflow.am.model import ActionPotential, Scale
from sciflow.am.objective import ActionMatching
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
        return torch.stack(
            [self.truth.potential(ti, xi[None])[0] for ti, xi in zip(t, x, strict=True)]
        )


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

    return Coupling(torch.arange(n), torch.arange(n), torch.full((n,), 1 / n))


def test_unknown_estimator(generator, dtype, unchecked):
    with pytest.raises(ValueError, match="estimator must be"):
        ActionMatching(small(generator, dtype), Lagrangian(), estimator="other")


def test_hamiltonian_is_the_sum_of_its_terms(generator):
    lagrangian = Lagrangian(potential=lambda t, x: t * x.square().sum(1))
    t, x, s_t, v = torch.rand(5), torch.randn(5, 2), torch.randn(5), torch.randn(5, 2)
    expected = torch.stack([s_t[i] + 0.5 * v[i] @ v[i] + t[i] * (x[i] @ x[i]) for i in range(5)])
    torch.testing.assert_close(lagrangian.hamiltonian(t, x, s_t, v), expected)
