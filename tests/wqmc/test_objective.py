"""Gradients in the metrics against their definitions, written out another way."""

import pytest
import torch

from sciflow.wqmc import METRICS, Molecule, Psiformer
from sciflow.wqmc.objective import VELOCITIES, GroundStateEnergy, clip_to_median


@pytest.fixture
def problem():
    psi = Psiformer(Molecule("He"), 1, 4, 1).double()
    return psi, torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0))


def gradient(psi, value):
    parts = torch.autograd.grad(value, list(psi.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(psi.parameters(), parts, strict=True)
        ]
    )


def test_clip():
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 1000.0])
    reach = 5 * float((values - 2).abs().mean())
    assert clip_to_median(values)[-1] == min(1000.0, 2 + reach)
    assert torch.equal(clip_to_median(values)[:4], values[:4])


def test_fisher_rao_is_the_covariance_with_the_local_energy(problem):
    psi, x = problem
    objective = GroundStateEnergy(psi)
    found = objective.direction(x)
    expected = (found.residual * 2 * psi.log_psi(x)).mean()
    assert torch.allclose(gradient(psi, objective(x).value), gradient(psi, expected))
    assert found.surrogate is None and abs(float(found.residual.mean())) < 1e-12


def test_wasserstein_moves_the_score_along_the_force(problem):
    """The gradient of E <tanh(grad E_loc), grad log q>, by a difference of log q along it."""
    psi, x = problem
    objective = GroundStateEnergy(psi, "wasserstein")
    from sciflow.wqmc.physics import local_energy_gradient

    local, force = local_energy_gradient(psi.log_psi, objective.potential, x)
    size = local.score.flatten(1).norm(dim=1)
    kept = size < size.median() + 5 * (size - size.median()).abs().mean()
    h, v = 1e-5, torch.tanh(force[kept])
    along = (psi.log_psi(x[kept] + h * v) - psi.log_psi(x[kept] - h * v)) / h  # 2 log|psi|
    got, truth = gradient(psi, objective(x).value), gradient(psi, along.mean())
    assert (got - truth).norm() < 1e-6 * truth.norm()


def test_joint_is_the_sum(problem):
    psi, x = problem
    parts = {name: gradient(psi, GroundStateEnergy(psi, name)(x).value) for name in METRICS}
    assert torch.allclose(parts["joint"], parts["fisher-rao"] + parts["wasserstein"])


def test_velocities():
    force = torch.tensor([[[0.1, -0.2, 0.0]], [[30.0, -40.0, 0.0]]])
    assert torch.equal(VELOCITIES["l2"](force), force)
    assert torch.equal(VELOCITIES["sign"](force), force.sign())
    clipped = VELOCITIES["clip"](force)
    assert torch.equal(clipped[0], force[0])
    assert float(clipped[1].norm()) == pytest.approx(3**0.5)
