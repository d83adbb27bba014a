"""Every Lagrangian of the table against a closed form: velocity, action, end covariance.

A new row of the table joins by a case in ``CASES``; ``pytest --log-cli-level=INFO`` prints the
figures.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from sciflow import Snapshots, wlf
from sciflow.am import LAGRANGIANS
from sciflow.shapes import Tensor
from sciflow.systems import GaussianTransport

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClosedForm:
    """Samples at both ends of [start, end], and the truth in between."""

    snapshots: Snapshots
    sample: Callable[[float, int], Tensor]
    velocity: Callable[[float, Tensor], Tensor]
    action: float
    end_cov: Tensor


def normal(n: int, dim: int, seed: int) -> Tensor:
    """Quasi-random normal points: their moments are exact to far below the tolerances."""
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    u = engine.draw(n, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
    return torch.special.ndtri(u)


def optimal_transport(dim: int, n: int) -> ClosedForm:
    """Gaussian to Gaussian over the times 1 to 3, so that units of time matter."""
    start, duration = 1.0, 2.0
    factor = torch.randn(dim, dim, generator=torch.Generator().manual_seed(5)) / dim**0.5
    mean, cov = torch.ones(dim), factor @ factor.T + 0.3 * torch.eye(dim)
    truth = GaussianTransport(torch.zeros(dim), torch.eye(dim), mean, cov)
    x = normal(n, dim, 0)
    y = mean + normal(n, dim, 100) @ torch.linalg.cholesky(cov).T

    def sample(t: float, size: int) -> Tensor:
        return truth.sample((t - start) / duration, size, torch.Generator().manual_seed(1))

    return ClosedForm(
        Snapshots([x, y], [start, start + duration]),
        sample,
        lambda t, x: truth.velocity((t - start) / duration, x) / duration,
        truth.kinetic_action / duration,
        cov,
    )


CASES = {"ot": optimal_transport}


def check(name: str, dim: int, n: int, steps: int, **options):
    case = CASES[name](dim, n)
    model = wlf.fit(
        case.snapshots, lagrangian=name, steps=steps, device="cpu", progress=False, **options
    )
    start, end = (float(t) for t in case.snapshots.times)
    error = size = 0.0
    for t in torch.linspace(start, end, 11).tolist():
        x = case.sample(t, 4000)
        v = case.velocity(t, x)
        error += float((model.velocity(t, x) - v).square().sum())
        size += float(v.square().sum())
    relative = (error / size) ** 0.5
    moved = model.trajectories(normal(4096, dim, 9), case.snapshots.times).x[-1]
    action = model.action()
    cov_error = float((moved.T.cov() - case.end_cov).norm() / case.end_cov.norm())
    figures = {
        "velocity": relative,
        "rollout": action.rollout / case.action - 1,
        "dual": action.dual / case.action - 1,
        "covariance": cov_error,
    }
    logger.info("%s in %d dimensions: %s", name, dim, figures)
    assert figures["velocity"] <= 0.05, figures
    assert abs(figures["rollout"]) <= 0.02, figures
    assert abs(figures["dual"]) <= 0.02, figures
    assert figures["covariance"] <= 0.03, figures


def test_every_lagrangian_has_a_case():
    assert set(CASES) == set(LAGRANGIANS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", ["learned", "geodesic"])
def test_closed_form_2d(name, path):
    check(name, dim=2, n=1024, steps=1000, path=path)


@pytest.mark.parametrize("name", CASES)
def test_closed_form_5d(name):
    check(name, dim=5, n=4096, steps=1000, pool=1024)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dim", "n"), [(2, 2048), (5, 8192)])
def test_closed_form_with_default_settings(name, dim, n):
    check(name, dim=dim, n=n, steps=2000)
