"""Charts of molecules against automatic differentiation, closed forms and rigid motion."""

import json
import math

import pytest
import torch

from sciflow.systems.charts import (
    Chart,
    EckartFrame,
    InternalCoordinates,
    ZMatrix,
    build_zmatrix,
)
from sciflow.systems.charts.geometry import place, torsions, wrap

# A chain with two branches, one atom of which branches again; and a ring with a tail.
TREE = ((0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (7, 8))
RING = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (2, 5), (5, 6), (5, 7))


def structure(n_atoms, bonds, seed=3):
    """A random structure whose bonds are of unit length."""
    generator = torch.Generator().manual_seed(seed)
    zmatrix = build_zmatrix(n_atoms, bonds)
    internal = InternalCoordinates(zmatrix, torch.randn(n_atoms, 3, generator=generator))
    bond = torch.ones(1, n_atoms - 1)
    angle = torch.full((1, n_atoms - 2), 1.9)
    torsion = 2 * math.pi * torch.rand(1, n_atoms - 3, generator=generator) - math.pi
    return internal.inverse(torch.cat([bond, angle, torsion], 1))[0][0]


def shaken(n_atoms, bonds, n_frames, size=0.05, seed=5):
    x = structure(n_atoms, bonds)
    noise = torch.randn(n_frames, n_atoms, 3, generator=torch.Generator().manual_seed(seed))
    return x + size * noise


def rotation(n, seed=7):
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=torch.Generator().manual_seed(seed)))
    return q * torch.linalg.det(q)[:, None, None]


def moved(x, seed=7):
    """Each frame turned and shifted by its own amount."""
    shift = 10 * torch.randn(len(x), 1, 3, generator=torch.Generator().manual_seed(seed))
    return x @ rotation(len(x), seed).mT + shift


def charts(bonds, n_atoms):
    x = shaken(n_atoms, bonds, 40)
    mass = torch.linspace(1, 16, n_atoms)
    return {
        "kabsch": EckartFrame.from_samples(x),
        "eckart": EckartFrame.from_samples(x, mass),
        "internal": InternalCoordinates.from_samples(x, build_zmatrix(n_atoms, bonds)),
    }


CASES = [
    (kind, bonds, n_atoms)
    for kind in ("kabsch", "eckart", "internal")
    for bonds, n_atoms in ((TREE, 9), (RING, 8))
]


@pytest.mark.parametrize("kind, bonds, n_atoms", CASES)
def test_contract(kind, bonds, n_atoms):
    chart = charts(bonds, n_atoms)[kind]
    x = shaken(n_atoms, bonds, 12, seed=11)
    xi, log_det = chart(x)
    assert xi.shape == (12, 3 * n_atoms - 6) and chart.periods.shape == (chart.n_dim,)
    q, back = chart.inverse(xi)
    torch.testing.assert_close(chart(q)[0], xi, atol=1e-11, rtol=0)
    torch.testing.assert_close(back, -log_det, atol=1e-10, rtol=0)
    # Rigid motion changes nothing, and distances survive the round trip.
    torch.testing.assert_close(chart(moved(x))[0], xi, atol=1e-10, rtol=0)
    torch.testing.assert_close(chart(moved(x))[1], log_det, atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.cdist(q, q), torch.cdist(x, x), atol=1e-11, rtol=0)
    mass = torch.linspace(1, 16, n_atoms)[:, None]
    again = type(chart)(**json.loads(json.dumps(chart.config)))
    again.load_state_dict(chart.state_dict())
    torch.testing.assert_close(again(x)[0], xi, atol=1e-12, rtol=0)
    g = chart.metric(x, mass)
    torch.testing.assert_close(g, Chart.metric(chart, x, mass), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(chart.metric(moved(x), mass), g, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["internal", "eckart"])
@pytest.mark.parametrize("bonds, n_atoms", [(TREE, 9), (RING, 8)])
def test_log_determinant_by_differentiation(kind, bonds, n_atoms):
    """Against the Jacobian with respect to orthonormal coordinates of the aligned molecule."""
    chart = charts(bonds, n_atoms)[kind]
    frame = EckartFrame(chart.reference)
    x = shaken(n_atoms, bonds, 3, size=0.15, seed=13)
    y, _ = frame(x)
    _, log_det = chart(x)

    def forward(y):
        return chart(frame.inverse(y[None])[0])[0][0]

    for i in range(len(x)):
        matrix = torch.autograd.functional.jacobian(forward, y[i])
        exact = torch.linalg.slogdet(matrix)[1]
        torch.testing.assert_close(log_det[i], exact, atol=1e-9, rtol=0)
        step = 1e-5
        basis = step * torch.eye(chart.n_dim)
        plus, minus = (
            torch.stack([forward(y[i] + sign * row) for row in basis]) for sign in (1, -1)
        )
        finite = torch.linalg.slogdet((plus - minus) / (2 * step))[1]
        torch.testing.assert_close(log_det[i], finite, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind, bonds, n_atoms", [case for case in CASES if case[1] is TREE])
def test_volume_of_positions_by_differentiation(kind, bonds, n_atoms):
    """Of the coordinates with translations and rotations beside them, up to a constant."""
    chart = charts(bonds, n_atoms)[kind]
    x = shaken(n_atoms, bonds, 4, size=0.1, seed=17)
    xi, log_volume = chart.cartesian(x)
    torch.testing.assert_close(xi, chart(x)[0])
    torch.testing.assert_close(chart.cartesian(moved(x))[1], log_volume, atol=1e-10, rtol=0)
    axes = torch.eye(3)
    exact = []
    for i in range(len(x)):
        place = lambda y: chart.inverse(y[None])[0][0]
        inner = torch.autograd.functional.jacobian(place, xi[i]).flatten(0, 1)
        q = place(xi[i])
        shifts = axes.repeat(n_atoms, 1)
        turns = torch.stack([torch.linalg.cross(a.expand_as(q), q).flatten() for a in axes], 1)
        exact.append(-torch.linalg.slogdet(torch.cat([inner, shifts, turns], 1))[1])
    off = log_volume - torch.stack(exact)
    torch.testing.assert_close(off, off[:1].expand(4), atol=1e-9, rtol=0)


def test_water_in_closed_form():
    """Three atoms, equal weights: the volume of the frame against J of a bent molecule."""
    zmatrix = build_zmatrix(3, [(0, 1), (0, 2)])
    r, theta = 0.09572, math.radians(104.52)
    chart = InternalCoordinates(zmatrix, torch.eye(3))
    xi = torch.tensor([[r, r, theta]])
    q, log_det = chart.inverse(xi)
    g = chart.metric(q, torch.tensor([[15.999], [1.008], [1.008]]))[0]
    # Wilson, Decius, Cross, table VI-1.
    o, h = 1 / 15.999, 1 / 1.008
    torch.testing.assert_close(g[0, 0], torch.tensor(o + h))
    assert g[0, 1] == pytest.approx(o * math.cos(theta))
    bend = 2 * (h + o * (1 - math.cos(theta))) / r**2
    assert g[2, 2] == pytest.approx(bend)
    assert g[0, 2] == pytest.approx(-o * math.sin(theta) / r)
    assert torch.isfinite(log_det).all()


def test_zmatrix_of_alanine_dipeptide():
    """Heavy atoms: four torsions along the backbone, three impropers."""
    bonds = [(0, 1), (1, 2), (1, 3), (3, 4), (4, 5), (4, 6), (6, 7), (6, 8), (8, 9)]
    rows = build_zmatrix(10, bonds).torsions
    proper = {(4, 3, 1, 0), (6, 4, 3, 1), (8, 6, 4, 3), (9, 8, 6, 4)}
    assert proper < set(rows)
    assert {row[:2] for row in set(rows) - proper} == {(2, 1), (5, 4), (7, 6)}
    relabelled = build_zmatrix(10, [(b, a) for a, b in reversed(bonds)])
    assert relabelled == build_zmatrix(10, bonds)


def test_torsion_sign_and_placement():
    x = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]])
    # From the first to the last bond, seen along +z, the turn from x to y is clockwise.
    assert float(torsions(x, torch.tensor([[0, 1, 2, 3]]))) == pytest.approx(math.pi / 2)
    one = torch.ones(1, 1)
    new = place(x[:, 2:3], x[:, 1:2], x[:, :1], one, math.pi / 2 * one, math.pi / 2 * one)
    torch.testing.assert_close(new, x[:, 3:4])


def test_cuts_and_stiff_torsions(generator):
    x = structure(9, TREE)
    chart = InternalCoordinates(build_zmatrix(9, TREE), x[None][0])
    xi, _ = chart(x[None].repeat(4000, 1, 1))
    first = 2 * 9 - 3
    uniform = 4.0 * (torch.rand(4000, generator=generator) - 0.5)
    # One torsion covers two thirds of the circle about 2.5, one is narrow about pi.
    xi[:, first] = wrap(2.5 + uniform)
    xi[:, first + 1] = wrap(math.pi + 0.1 * uniform)
    q, _ = chart.inverse(xi)
    chosen = InternalCoordinates.from_samples(q, build_zmatrix(9, TREE))
    assert float(wrap(chosen.middle[0] - 2.5).abs()) < 0.1
    assert float(wrap(chosen.middle[1] - math.pi).abs()) < 0.1
    assert float(chosen.periods[first]) == pytest.approx(2 * math.pi)
    assert math.isinf(float(chosen.periods[first + 1]))
    values = chosen(q)[0]
    assert float(values[:, first].abs().max()) < 2.2
    torch.testing.assert_close(chosen.angle_of(values, first), wrap(2.5 + uniform))
    own = InternalCoordinates.from_samples(q, build_zmatrix(9, TREE), {0: 1.0})
    assert float(wrap(own.middle[0] - 1.0 - math.pi).abs()) < 1e-12
    assert chosen.torsion_index(chosen.zmatrix.torsions[2][::-1]) == first + 2


def test_gradients_pass():
    chart = charts(TREE, 9)["internal"]
    x = shaken(9, TREE, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: chart(q), (x,))
    xi = chart(x)[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: torch.cdist(*(chart.inverse(v)[0],) * 2)[:, 0, 1:], xi
    )


def test_single_precision():
    for chart in charts(TREE, 9).values():
        xi, log_det = chart(shaken(9, TREE, 5).float())
        assert xi.dtype == log_det.dtype == torch.float32
        assert chart.inverse(xi)[0].dtype == torch.float32


@pytest.mark.parametrize(
    "rows, message",
    [
        (((0,), (1, 0)), "at least 3"),
        (((0,), (1, 0), (2, 1, 0), (3, 2, 1)), r"rows\[3\]"),
        (((0,), (1, 0), (2, 1, 0), (3, 2, 1, 1)), "all different"),
        (((0,), (1, 2), (2, 1, 0)), "placed before"),
        (((0,), (1, 0), (4, 1, 0)), "expected 0 to 2"),
    ],
)
def test_bad_zmatrix(rows, message):
    with pytest.raises(ValueError, match=message):
        ZMatrix(rows)


def test_bad_arguments(unchecked):
    zmatrix = build_zmatrix(9, TREE)
    x = structure(9, TREE)
    with pytest.raises(ValueError, match=r"bonds do not join the atoms \[3\]"):
        build_zmatrix(4, [(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="expected two different atoms below 4"):
        build_zmatrix(4, [(0, 1), (1, 4)])
    with pytest.raises(ValueError, match=r"q has shape \(1, 8, 3\); expected \(B, 9, 3\)"):
        InternalCoordinates(zmatrix, x)(x[None, :8])
    with pytest.raises(ValueError, match="q is not finite: frame 0, atom 4"):
        bad = x[None].clone()
        bad[0, 4, 1] = math.nan
        EckartFrame(x)(bad)
    with pytest.raises(ValueError, match="cuts has 2 entries; expected 6"):
        InternalCoordinates(zmatrix, x, cuts=[0.0, 0.0])
    with pytest.raises(ValueError, match=r"weights has shape \(3,\); expected \(9,\)"):
        EckartFrame(x, torch.ones(3))
    line = torch.arange(4.0)[:, None] * torch.ones(3)
    with pytest.raises(ValueError, match="on a line"):
        EckartFrame(line)
    with pytest.raises(ValueError, match="the atoms 2, 1, 0 are on a line"):
        InternalCoordinates.from_samples(line[None], build_zmatrix(4, [(0, 1), (1, 2), (2, 3)]))
    with pytest.raises(ValueError, match="are no torsion of this chart"):
        InternalCoordinates(zmatrix, x).torsion_index([0, 1, 2, 3])
