"""Ring, double well and Mueller-Brown against quadrature and published stationary points."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, simpson
from scipy.optimize import root

from sciflow.errors import SciflowError
from sciflow.systems import SYSTEMS, DoubleWell, ExactSystem, MuellerBrown, Ring, make_system


@pytest.mark.parametrize(
    ("beta", "log_z"),
    [(1.0, 4.3715491254), (0.5, 5.4112842379), (2.0, 3.3318283439), (5.0, 1.9573922461)],
)
def test_ring(beta, log_z):
    assert -beta * Ring().free_energy(1 / beta) == pytest.approx(log_z, abs=1e-9)


def test_small_ring_against_quadrature():
    ring, kT = Ring(0.3, 0.9), 1.4
    exact = quad(lambda r: 2 * math.pi * r * math.exp(-((r - 0.3) ** 2) / 0.9 / kT), 0, 20)[0]
    assert ring.configurational_free_energy(kT) == pytest.approx(-kT * math.log(exact), abs=1e-9)
    q = torch.tensor([[0.3, 0.0], [0.0, 1.2]])
    assert torch.allclose(ring.potential(q), torch.tensor([0.0, 0.9]))
    assert torch.allclose(ring.force(q), torch.tensor([[0.0, 0.0], [0.0, -2.0]]))


def test_double_well():
    assert DoubleWell().free_energy(1.0) == pytest.approx(-0.8653666796, abs=1e-9)
    well = DoubleWell(3.0, 1.5, n_bath=3, bath=2.0)
    q = torch.zeros(3, 4)
    q[1, 0], q[2, 0] = 1.5, -1.5
    assert torch.allclose(well.potential(q), torch.tensor([3.0, 0.0, 0.0]))
    assert well.force(q).abs().max() < 1e-12


@pytest.mark.parametrize("kT", [0.2, 1.0, 6.0])
def test_tilted_double_well_with_bath(kT):
    well = DoubleWell(2.0, 1.2, 0.8, n_bath=2, bath=3.0, mass=(1.0, 2.0, 5.0))

    def weight(x):
        return math.exp(-(2 * ((x / 1.2) ** 2 - 1) ** 2 + 0.8 * x) / kT)

    x = quad(weight, -8, 8, epsabs=1e-14, epsrel=1e-13, points=[-1.2, 0, 1.2], limit=200)[0]
    exact = -kT * (math.log(x) + math.log(2 * math.pi * kT / 3))
    assert well.configurational_free_energy(kT) == pytest.approx(exact, abs=1e-9)
    momenta = -kT / 2 * sum(math.log(2 * math.pi * m * kT) for m in (1, 2, 5))
    assert well.free_energy(kT) == pytest.approx(exact + momenta, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "energy", "downhill"),
    [
        (-0.558, 1.442, -146.700, 0),
        (0.623, 0.028, -108.167, 0),
        (-0.050, 0.467, -80.768, 0),
        (-0.822, 0.624, -40.665, 1),
        (0.212, 0.293, -72.249, 1),
    ],
)
def test_mueller_brown_stationary_points(x, y, energy, downhill):
    surface = MuellerBrown()

    def force(q):
        return surface.force(torch.tensor(q)[None])[0].cpu().numpy()

    found = torch.tensor(root(force, [x, y], tol=1e-12).x)
    assert torch.allclose(found, torch.tensor([x, y]), atol=6e-4)
    assert surface.potential(found[None]).item() == pytest.approx(energy, abs=6e-4)
    hessian = torch.autograd.functional.hessian(lambda q: surface.potential(q[None])[0], found)
    assert int((torch.linalg.eigvalsh(hessian) < 0).sum()) == downhill


def test_mueller_brown_free_energy():
    """Simpson's rule on the surface written out as in the paper."""
    x, y = np.meshgrid(np.linspace(-7, 5, 1201), np.linspace(-5, 7, 1201), indexing="ij")
    energy = (
        -200 * np.exp(-((x - 1) ** 2) - 10 * y**2)
        - 100 * np.exp(-(x**2) - 10 * (y - 0.5) ** 2)
        - 170 * np.exp(-6.5 * (x + 0.5) ** 2 + 11 * (x + 0.5) * (y - 1.5) - 6.5 * (y - 1.5) ** 2)
        + 15 * np.exp(0.7 * (x + 1) ** 2 + 0.6 * (x + 1) * (y - 1) + 0.7 * (y - 1) ** 2)
    )
    surface, kT = MuellerBrown(0.05), 2.0
    exact = simpson(simpson(np.exp(-0.05 * energy / kT), dx=0.01), dx=0.01)
    assert surface.configurational_free_energy(kT) == pytest.approx(
        -kT * math.log(exact), abs=1e-8
    )
    doubled = 2 * surface.free_energy(2.0) - 4 * math.log(2.0)
    assert MuellerBrown(0.1).free_energy(4.0) == pytest.approx(doubled, abs=1e-9)
    with pytest.raises(SciflowError, match="kT may be too low"):
        MuellerBrown().free_energy(1e-4)


@pytest.mark.parametrize("name", SYSTEMS)
def test_table(name, generator):
    system = make_system(name)
    # Far from collisions, so that finite differences mean something for every member.
    q = 2 * torch.randn(2, system.n_dim, generator=generator)
    if name == "mueller_brown":
        q = q / 2
    value = system.potential(q)
    assert value.shape == (2,) and value.isfinite().all()
    assert system.masses.shape == (system.n_dim,)
    direction = torch.randn(2, system.n_dim, generator=generator)
    h = 1e-6
    slope = (system.potential(q + h * direction) - system.potential(q - h * direction)) / (2 * h)
    expected = -(system.force(q) * direction).sum(1)
    assert torch.allclose(slope, expected, rtol=1e-4, atol=1e-4)
    single = system.potential(q.float())
    assert single.dtype == torch.float32 and torch.allclose(single.double(), value, rtol=1e-3)
    if isinstance(system, ExactSystem):
        total = system.configurational_free_energy(2.0) + system.kinetic_free_energy(2.0)
        assert system.free_energy(2.0) == pytest.approx(total)


def test_refused(unchecked):
    with pytest.raises(ValueError, match="name is 'cube'; expected one of ring, "):
        make_system("cube")
    with pytest.raises(ValueError, match="width must be positive and finite, got 0.0"):
        make_system("ring", width=0.0)
    with pytest.raises(TypeError, match="size"):
        make_system("ring", size=1)
    with pytest.raises(ValueError, match="mass has 3 entries; expected a number or 2 entries"):
        MuellerBrown(mass=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"\|tilt\| must be finite"):
        DoubleWell(tilt=math.nan)
    with pytest.raises(ValueError, match=r"q has shape \(3,\); expected \(B, 2\)"):
        Ring().potential(torch.zeros(3))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        Ring().sample_momenta(0, 1.0, torch.Generator())
