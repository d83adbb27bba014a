"""Every layer of a canonical transformation: symplectic, invertible, and one map in two forms."""

import math

import pytest
import torch

from sciflow.nct.layers import (
    LAYERS,
    AffineCoupling,
    HamiltonianFlow,
    Leapfrog,
    Linear,
    PointMap,
    Reorder,
    Scale,
    SplineCoupling,
    SplineMap,
    Unrolled,
)

N = 5
LINE = [math.inf] * N
MIXED = [math.inf, 2 * math.pi, math.inf, 3.0, math.inf]
MAKE = {
    "Linear": lambda g: Linear(N),
    "Linear-some": lambda g: Linear(N, [0, 3]),
    "Scale": lambda g: Scale(N, [1, 2, 4]),
    "Reorder": lambda g: Reorder([3, 0, 4, 2, 1]),
    "AffineCoupling": lambda g: AffineCoupling(LINE, [0, 2, 4], width=16, generator=g),
    "AffineCoupling-angles": lambda g: AffineCoupling(MIXED, [0, 4], width=16, generator=g),
    "SplineCoupling": lambda g: SplineCoupling(LINE, [1, 3], width=16, generator=g),
    "SplineCoupling-given": lambda g: SplineCoupling(LINE, [1, 3], [0], width=16, generator=g),
    "SplineCoupling-circle": lambda g: SplineCoupling(MIXED, [1], width=16, generator=g),
    "SplineMap": lambda g: SplineMap([0, 2, 3]),
    "SplineMap-circle": lambda g: SplineMap([1], period=2 * math.pi),
    "Unrolled": lambda g: Unrolled([3], period=3.0),
    "Leapfrog": lambda g: Leapfrog(N, steps=3, width=16, generator=g),
    "HamiltonianFlow": lambda g: HamiltonianFlow(N, steps=5, width=16, generator=g),
    "HamiltonianFlow-4": lambda g: HamiltonianFlow(N, 3, "yoshida4", width=16, generator=g),
}


@pytest.fixture(params=MAKE)
def layer(request, generator):
    """The layer away from its start, as after a long training."""
    layer = MAKE[request.param](generator)
    with torch.no_grad():
        for x in layer.parameters():
            x.add_(0.3 * torch.randn(x.shape, generator=generator))
    return layer


@pytest.fixture
def points(generator):
    q = 0.8 * torch.randn(3, N, generator=generator)
    return q, torch.randn(3, N, generator=generator)


def test_every_layer_is_tried():
    assert {name.partition("-")[0] for name in MAKE} == set(LAYERS)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_symplectic(layer, points, direction):
    """M^T J M = J for the whole derivative M of the map, at each point."""
    act = getattr(layer, direction)
    zero, eye = torch.zeros(N, N), torch.eye(N)
    form = torch.cat([torch.cat([zero, eye], 1), torch.cat([-eye, zero], 1)])
    for q, p in zip(*points, strict=True):
        m = torch.autograd.functional.jacobian(
            lambda y: torch.cat(act(y[None, :N], y[None, N:]), 1)[0], torch.cat([q, p])
        )
        assert float((m.T @ form @ m - form).abs().max()) < 1e-10


@pytest.mark.parametrize("precise", [True, False])
def test_round_trip(layer, points, precise):
    if not precise:
        layer, points = layer.float(), [x.float() for x in points]
    back = layer.inverse(*layer(*points))
    error = max(float((x - y).detach().abs().max()) for x, y in zip(back, points, strict=True))
    assert error < (1e-10 if precise else 1e-4)


def test_coordinates_alone(layer, points):
    if not isinstance(layer, PointMap):
        pytest.skip("mixes coordinates with momenta")
    q, p = points
    Q, log_det = layer.coordinates(q)
    torch.testing.assert_close(layer(q, p)[0], Q)
    back, log_back = layer.coordinates_inverse(Q)
    torch.testing.assert_close(back, q, atol=1e-10, rtol=0)
    torch.testing.assert_close(log_back, -log_det, atol=1e-9, rtol=0)
    for i in range(len(q)):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: layer.coordinates(x[None])[0][0], q[i]
        )
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[i])


def test_training_sees_the_same_momenta(layer, points):
    """With and without a graph, and gradients of the momenta by finite differences."""
    with torch.no_grad():
        plain = layer.inverse(*points)
    tracked = layer.inverse(*points)
    for x, y in zip(plain, tracked, strict=True):
        torch.testing.assert_close(x, y)
        assert not x.requires_grad
    value = tracked[0].square().sum() + tracked[1].square().sum()
    weights = [x for x in layer.parameters() if x.requires_grad]
    if not weights:
        return
    gradients = torch.autograd.grad(value, weights)
    step = 1e-6
    directions = [torch.randn_like(x) for x in weights]
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for x, d in zip(weights, directions, strict=True):
                x.add_(sign * step * d)
            q, p = layer.inverse(*points)
            values.append(q.square().sum() + p.square().sum())
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    assert float((values[0] - values[1]) / (2 * step)) == pytest.approx(slope, rel=1e-5)


MOVES = ("Unrolled", "HamiltonianFlow", "Reorder")


@pytest.mark.parametrize("name", [name for name in MAKE if not name.startswith(MOVES)])
def test_identity_start(name, generator, points):
    layer = MAKE[name](generator)
    q, p = points
    Q, P = layer(q, p)
    torch.testing.assert_close(Q, q)
    torch.testing.assert_close(P, p)


def test_built_again_from_its_config(layer, points):
    other = LAYERS[type(layer).__name__](**layer.config)
    other.load_state_dict(layer.state_dict())
    for x, y in zip(other(*points), layer(*points), strict=True):
        assert torch.equal(x, y)


def test_refused(generator):
    with pytest.raises(ValueError, match="must be apart"):
        AffineCoupling(LINE, [0], [0, 1])
    with pytest.raises(ValueError, match="mixes angles and numbers"):
        AffineCoupling(MIXED, [0, 1])
    with pytest.raises(ValueError, match="holds angles"):
        AffineCoupling(MIXED, [1])
    with pytest.raises(ValueError, match="expected one"):
        SplineCoupling(MIXED, [1, 3])
    with pytest.raises(ValueError, match="method must be"):
        HamiltonianFlow(2, method="rk4")
    with pytest.raises(ValueError, match="permutation"):
        Reorder([0, 2])
    with pytest.raises(ValueError, match="steps must be"):
        Leapfrog(2, steps=0)
