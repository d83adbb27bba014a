"""Every ansatz of the table: antisymmetry, spins, exact cusps, gradients, forward Laplacian."""

from unittest import mock

import pytest
import torch

from sciflow.nn.laplacian import forward_laplacian
from sciflow.wqmc import ANSAETZE, Molecule, load
from sciflow.wqmc.physics import Coulomb, local_energy, local_energy_gradient

LIH = Molecule("LiH")
SMALL = {"determinants": 2, "width": 8, "depth": 1}


def wave(ansatz, molecule=LIH, seed=0, **sizes):
    """A wave function away from its start: every parameter moved at random."""
    generator = torch.Generator().manual_seed(seed)
    psi = ANSAETZE[ansatz](molecule, **(SMALL | sizes), generator=generator).double()
    with torch.no_grad():
        for p in psi.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return psi


def electrons(molecule=LIH, n=4, seed=1):
    shape = (n, molecule.n_electrons, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.fixture(params=ANSAETZE)
def ansatz(request):
    return request.param


def test_antisymmetric_in_equal_spins_only(ansatz):
    psi, x = wave(ansatz), electrons()
    sign, log = psi(x)
    for i, j in ((0, 1), (2, 3)):
        order = list(range(4))
        order[i], order[j] = j, i
        swapped_sign, swapped_log = psi(x[:, order])
        assert torch.equal(swapped_sign, -sign)
        assert (swapped_log - log).abs().max() < 1e-10
    assert (psi(x[:, [2, 1, 0, 3]])[1] - log).abs().max() > 1e-3


def test_flipping_all_spins_of_the_molecule_mirrors_a_symmetric_start(ansatz):
    """At the start, without the network, psi is a function of space that both spins share."""
    psi, x = wave(ansatz), electrons()
    with torch.no_grad():
        fresh = ANSAETZE[ansatz](LIH, **SMALL).double()
        psi.load_state_dict(fresh.state_dict())
        psi.heads.zero_()
    log = psi(x)[1]
    assert (psi(x[:, [2, 3, 0, 1]])[1] - log).abs().max() < 1e-10


def test_decays_whatever_training_does_to_the_exponents(ansatz):
    """An electron that leaves takes psi down at half the smallest exponent of the start."""
    psi, x = wave(ansatz), electrons()
    with torch.no_grad():
        for p in (psi.exponent_change, psi.zeta_change):
            p.fill_(-30.0)
        logs = []
        for distance in (60.0, 90.0):
            x[:, 0] = torch.tensor([0.6, 0.0, 0.8]) * distance
            logs.append(psi(x)[1])
    smallest = float(min(psi.exponent.min(), psi.zeta.min()))
    # The network grows with the logarithm of the distance.
    assert (logs[1] - logs[0] < -0.5 * smallest * 30 + 6).all()


@pytest.mark.parametrize("pair, slope", [((0, 1), None), ((0, 2), 0.5)])
def test_electron_electron_cusp(ansatz, pair, slope):
    """d log|psi| / dr averaged over directions: 1/2; for equal spins, psi / r has slope 1/4."""
    psi, x = wave(ansatz), electrons(n=1)
    i, j = pair
    direction = torch.tensor([0.36, 0.48, 0.8])

    def log(r):
        y = x.repeat(2, 1, 1)
        y[0, i], y[1, i] = x[0, j] + r * direction, x[0, j] - r * direction
        value = psi(y)[1].mean()
        return value if slope else value - torch.log(torch.tensor(r))

    h = 1e-4
    derivative = (-5 * log(h) + 8 * log(2 * h) - 3 * log(3 * h)).detach() / (2 * h)  # at r = 0
    assert abs(float(derivative) - (slope or 0.25)) < 1e-5


@pytest.mark.parametrize("nucleus", [0, 1])
def test_electron_nucleus_cusp(ansatz, nucleus):
    """The derivative of log|psi| along r, averaged over two opposite directions, is -Z."""
    psi, x = wave(ansatz), electrons(n=1)
    direction, centre = torch.tensor([0.36, 0.48, 0.8]), LIH.coordinates()[nucleus]

    def log(r):
        y = x.repeat(2, 1, 1)
        y[0, 0], y[1, 0] = centre + r * direction, centre - r * direction
        return psi(y)[1].mean()

    h = 1e-4
    derivative = float((-5 * log(h) + 8 * log(2 * h) - 3 * log(3 * h)).detach()) / (2 * h)
    assert abs(derivative + LIH.charges[nucleus]) < 1e-4


def test_forward_laplacian_is_that_of_autograd(ansatz):
    psi, x = wave(ansatz), electrons(n=2)
    got = forward_laplacian(psi.log_psi, x)

    def one(y):
        return psi.log_psi(y.view(1, 4, 3))[0]

    for k in range(2):
        flat = x[k].flatten()
        assert (got.value[k] - one(flat)).abs() < 1e-12
        gradient = torch.func.grad(one)(flat)
        assert (got.gradient[k].flatten() - gradient).abs().max() < 1e-9 * gradient.abs().max()
        truth = torch.autograd.functional.hessian(one, flat).trace()
        assert (got.laplacian[k] - truth).abs() < 1e-9 * (1 + truth.abs())


def test_gradient_of_the_local_energy(ansatz):
    """The reverse pass over the forward Laplacian against finite differences."""
    psi, x = wave(ansatz), electrons(n=1)
    potential = Coulomb(LIH)
    _, force = local_energy_gradient(psi.log_psi, potential, x)
    h = 1e-5
    for k in range(12):
        shift = torch.zeros(12).index_fill(0, torch.tensor([k]), h).view(1, 4, 3)
        up, down = (local_energy(psi.log_psi, potential, y).energy for y in (x + shift, x - shift))
        truth = float((up - down).detach() / (2 * h))
        assert abs(float(force.flatten()[k]) - truth) < 1e-5 * (1 + abs(truth))


def test_gradient_in_the_parameters(ansatz):
    psi, x = wave(ansatz), electrons(n=3)
    (gradient,) = torch.autograd.grad(psi.log_psi(x).sum(), [psi.exponent_change])
    h = 1e-6
    for k in range(len(gradient)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                psi.exponent_change[k] += sign * h
                values.append(float(psi.log_psi(x).sum()))
                psi.exponent_change[k] -= sign * h
        truth = (values[0] - values[1]) / (2 * h)
        assert abs(float(gradient[k]) - truth) < 1e-6 * (1 + abs(truth))


@pytest.mark.parametrize(
    "molecule",
    [
        Molecule("H"),
        Molecule("He", [[0, 0, 0]], spin=2),
        Molecule("Li", [[0, 0, 0]], charge=1),
        Molecule("H", [[0, 0, 0]], charge=-1),
        Molecule("Li", [[0, 0, 0]], spin=-3),
    ],
    ids=["one electron", "polarised", "cation", "anion", "no up"],
)
def test_every_number_of_each_spin_works(ansatz, molecule):
    psi, x = wave(ansatz, molecule), electrons(molecule)
    energy = local_energy(psi.log_psi, Coulomb(molecule), x).energy
    assert bool(torch.isfinite(energy).all())


def test_saved_and_loaded(ansatz, tmp_path):
    psi, x = wave(ansatz).float(), electrons().float()
    loaded = load(psi.save(tmp_path / "psi.safetensors"))
    assert loaded.molecule == LIH
    assert torch.equal(loaded.to(x)(x)[1], psi(x)[1])


def test_a_new_ansatz_is_one_entry(guide_code, tmp_path):
    """The lines of docs/extending.md, as they stand there."""
    with mock.patch.dict(ANSAETZE):
        exec(guide_code("An ansatz"), {"torch": torch})
        name = list(ANSAETZE)[-1]
        test_antisymmetric_in_equal_spins_only(name)
        test_electron_electron_cusp(name, (0, 2), 0.5)
        test_electron_nucleus_cusp(name, 0)
        test_forward_laplacian_is_that_of_autograd(name)
        test_saved_and_loaded(name, tmp_path)
