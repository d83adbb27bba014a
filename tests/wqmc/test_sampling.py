"""Walkers against moments of the hydrogen atom, psi = exp(-r): <r> = 3/2, <1/r> = 1."""

import pytest
import torch

from sciflow.wqmc import ANSAETZE, Molecule
from sciflow.wqmc.sampling import SAMPLERS, ElectronWalkers, initial


@pytest.fixture
def hydrogen():
    psi = ANSAETZE["psiformer"](Molecule("H"), determinants=1, width=4, depth=1).double()
    with torch.no_grad():
        psi.heads.zero_()
    return psi.requires_grad_(False)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_moments_of_hydrogen(sampler, hydrogen, generator):
    walkers = ElectronWalkers(hydrogen, 4000, generator, sampler, moves=40)
    for _ in range(3):
        walkers.sample(1, generator)
    walkers.adapting = False
    r = walkers.sample(4000, generator).norm(dim=-1)[:, 0]
    for values, truth in ((r, 1.5), (1 / r, 1.0)):
        error = float(values.std()) / 4000**0.5
        assert abs(float(values.mean()) - truth) < 5 * error
    assert 0.3 < walkers.acceptance < 0.97


def test_state_comes_back(hydrogen, generator):
    walkers = ElectronWalkers(hydrogen, 16, generator)
    walkers.sample(16, generator)
    state, mark = walkers.state_dict(), generator.get_state()
    first = walkers.sample(16, generator)
    other = ElectronWalkers(hydrogen, 16, torch.Generator().manual_seed(9))
    other.load_state_dict(state)
    generator.set_state(mark)
    assert torch.equal(other.sample(16, generator), first) and other.tau == walkers.tau


def test_exchanges_mix_the_spins_of_a_broken_bond(generator):
    """Spin up starts at one atom of H2 at 8 bohr; half of it must come to the other."""
    molecule = Molecule("H2", [[0, 0, -4], [0, 0, 4]])
    psi = ANSAETZE["ferminet"](molecule, determinants=1, width=4, depth=1).double()
    walkers = ElectronWalkers(psi.requires_grad_(False), 600, generator, moves=1)
    up = walkers.x[:, 0, 2]
    assert float((up > 0).double().mean()) in (0.0, 1.0) or float(up.std()) < 2
    for _ in range(10):
        x = walkers.sample(600, generator)
    share = float((x[:, 0, 2] > 0).double().mean())
    assert abs(share - 0.5) < 5 * (0.25 / 600) ** 0.5
    found = walkers.figures()
    assert found["exchanged"] > 0.3 and found["ess"] <= 600


def test_start_is_near_the_nuclei(generator):
    """Each atom of N2 starts with seven electrons."""
    x = initial(Molecule("N2"), 2000, generator)
    near = (x[..., 2] > 0).double().sum(1).mean()
    assert abs(float(near) - 7) < 0.2


def test_bad_input_is_named(hydrogen, generator):
    with pytest.raises(
        ValueError, match="sampler must be one of metropolis, one-electron, langevin"
    ):
        ElectronWalkers(hydrogen, 4, generator, "gibbs")
    with pytest.raises(ValueError, match="at least 1; got 0 and 10"):
        ElectronWalkers(hydrogen, 0, generator)
