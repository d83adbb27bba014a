"""The learned path and the min-max objective."""

import pytest
import torch

from sciflow import Snapshots, wlf
from sciflow.am import Lagrangian
from sciflow.am.model import ActionPotential
from sciflow.am.path import Bend, ConditionalPath
from sciflow.am.scale import Scale
from sciflow.am.source import CoupledSnapshots
from sciflow.wlf.objective import WassersteinLagrangianFlow


@pytest.fixture
def batch(generator):
    parts = [torch.randn(30, 2, generator=generator) + k for k in range(3)]
    return CoupledSnapshots(Snapshots(parts, [0.0, 0.3, 1.0])).sample(64, generator)


STRAIGHT = ConditionalPath(Lagrangian())


@pytest.fixture
def bent(generator, dtype):
    bend = Bend(2, width=16, depth=2, generator=generator).to(dtype)
    for parameter in bend.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return ConditionalPath(Lagrangian(), bend)


@pytest.fixture
def model(generator, dtype):
    scale = Scale(center=(0.0, 0.0), length=1.0, start=0.0, duration=1.0)
    return ActionPotential(scale, width=16, depth=2, generator=generator).to(dtype)


def test_path_starts_as_the_geodesic(batch, dtype):
    path = ConditionalPath(Lagrangian(), Bend(2).to(dtype))
    torch.testing.assert_close(tuple(path(batch)), tuple(STRAIGHT(batch)))


def test_path_keeps_its_ends(batch, bent):
    torch.testing.assert_close(bent(batch._replace(t=batch.t_left)).x, batch.left)
    torch.testing.assert_close(bent(batch._replace(t=batch.t_right)).x, batch.right)
    assert float((bent(batch).x - STRAIGHT(batch).x).abs().max()) > 0.1


def test_path_velocity_is_its_time_derivative(batch, bent):
    step = 1e-6
    ahead, behind = (bent(batch._replace(t=batch.t + s)).x for s in (step, -step))
    torch.testing.assert_close(
        bent(batch).velocity, (ahead - behind) / (2 * step), atol=1e-7, rtol=1e-6
    )


def test_inner_moves_climb_the_hamiltonian_and_spare_the_snapshots(batch, model):
    game = WassersteinLagrangianFlow(model, Lagrangian(), STRAIGHT, "dual", inner_moves=5)
    x = STRAIGHT(batch).x
    moved = game._move(batch, x)

    def hamiltonian(points):
        s, s_t, v = model.derivatives(batch.t, points, create_graph=False)
        return Lagrangian().hamiltonian(batch.t, points, s, s_t, v)

    assert bool((hamiltonian(moved) >= hamiltonian(x) - 1e-12).all())
    u = (batch.t - batch.t_left) / (batch.t_right - batch.t_left)
    reach = 5 * 0.01 * (2 * u * (1 - u))[:, None]
    assert bool(((moved - x).abs() <= reach + 1e-12).all())
    at_knot = batch._replace(t=batch.t_left)
    torch.testing.assert_close(game._move(at_knot, batch.left), batch.left)


def test_inner_moves_need_the_dual_estimator(model, dtype):
    with pytest.raises(ValueError, match="dual"):
        WassersteinLagrangianFlow(model, Lagrangian(), STRAIGHT, inner_moves=1)


@pytest.mark.parametrize(
    "options",
    [
        {"path_steps": 300, "steps": 400},
        pytest.param({"path": "learned", "path_lr": 2e-3, "steps": 1500}, marks=pytest.mark.slow),
    ],
)
def test_physical_potential_bends_the_path(options):
    """Harmonic U = w^2 x^2 / 2: the least-action path between two points is known.

    With L = |v|^2 / 2 - U the Euler-Lagrange equation is x'' = -w^2 x; from x(0) = 1 to x(1) = 1
    it is cos(w (t - 1/2)) / cos(w / 2), which bulges outwards.
    """
    w = 1.5
    x = torch.tensor([[1.0, 0.0]]) + 0.05 * torch.randn(
        200, 2, generator=torch.Generator().manual_seed(0)
    )
    model = wlf.fit(
        Snapshots([x, x], [0.0, 1.0]),
        "potential",
        potential=lambda t, x: 0.5 * w**2 * x.square().sum(-1),
        device="cpu",
        progress=False,
        **options,
    )
    t = torch.linspace(0.0, 1.0, 5)
    mean = model.trajectories(x, t).x.mean(1)[:, 0]
    truth = torch.cos(w * (t - 0.5)) / torch.cos(torch.tensor(w / 2))
    # the bulge is 0.37 high; straight lines would miss it by all of that
    assert float((mean - truth).abs().max()) < 0.06


@pytest.mark.parametrize("options", [{}, {"estimator": "dual", "inner_moves": 1}])
def test_game_and_geodesic_agree_for_optimal_transport(options):
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    snapshots = Snapshots([x, 0.5 * x + 1.0], [0.0, 1.0])
    model = wlf.fit(snapshots, path="learned", steps=500, device="cpu", progress=False, **options)
    exact = 0.5 * float((0.5 * x + 1.0 - x).square().sum(1).mean())
    assert model.action().rollout == pytest.approx(exact, rel=0.05)


def test_refusals(unchecked):
    snapshots = Snapshots([torch.randn(9, 2), torch.randn(9, 2)], [0.0, 1.0])
    fit = lambda *a, **k: wlf.fit(snapshots, *a, device="cpu", progress=False, **k)
    with pytest.raises(ValueError, match="lagrangian must be one of.*'sb2'"):
        fit(lagrangian="sb2")
    with pytest.raises(ValueError, match="needs potential=U"):
        fit("potential")
    for name, numbers in (("sb", {"sigma": -0.1}), ("sb", {"sigma": float("nan")})):
        with pytest.raises(ValueError, match="sigma must be a finite number"):
            fit(name, **numbers)
    for value in (-1.0, 0.0, float("inf")):
        with pytest.raises(ValueError, match="growth_penalty must be positive"):
            fit("uot", growth_penalty=value)
    with pytest.raises(ValueError, match="ot has no sigma"):
        fit("ot", sigma=0.3)
    with pytest.raises(ValueError, match="sb has no growth_penalty"):
        fit("sb", growth_penalty=0.3)
    with pytest.raises(ValueError, match="path must be"):
        fit(path="geodesic")
    with pytest.raises(ValueError, match="no metric"):
        fit("density", path="learned")
    with pytest.raises(ValueError, match="inner_moves belong to the game"):
        fit(inner_moves=2)
    with pytest.raises(ValueError, match="coupling must be"):
        fit(coupling="exact")
    with pytest.raises(ValueError, match="time_sampling must be"):
        fit(time_sampling="random")


def test_growth_without_masses_says_what_it_assumes(caplog):
    x = torch.randn(60, 2)
    model = wlf.fit(
        Snapshots([x, x + 1], [0.0, 1.0]), "uot", steps=5, device="cpu", progress=False
    )
    assert "same mass at all times" in caplog.text
    assert model.growth_penalty == 0.1
