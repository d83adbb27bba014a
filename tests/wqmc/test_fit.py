"""Whole fits of tiny systems against exact energies, and what a result offers."""

import math

import pytest
import torch

from sciflow import wqmc
from sciflow.errors import TrainingError
from sciflow.wqmc import Molecule
from sciflow.wqmc.evaluate import equilibrated, evaluate, summary

QUICK = {"progress": False, "device": "cpu", "log": None}
TINY = QUICK | {
    "width": 8,
    "depth": 1,
    "determinants": 2,
    "batch_size": 64,
    "moves": 5,
    "burn_in": 50,
    "evaluation_walkers": 128,
    "evaluation_batches": 4,
}
HELIUM = -2.903724


def test_hydrogen_to_a_tenth_of_a_millihartree():
    options = TINY | {"batch_size": 128, "steps": 100, "evaluation_walkers": 512}
    result = wqmc.fit("H", **options)
    assert abs(result.energy + 0.5) < 2e-4 + 5 * result.error
    assert result.error < 1e-3 and result.variance < 1e-3


@pytest.mark.parametrize("ansatz", wqmc.ANSAETZE)
def test_helium_to_a_few_millihartree(ansatz):
    options = TINY | {"batch_size": 128, "evaluation_walkers": 512, "evaluation_batches": 8}
    result = wqmc.fit("He", ansatz=ansatz, steps=80, **options)
    assert -5 * result.error < result.energy - HELIUM < 5e-3 + 5 * result.error
    assert result.error < 3e-3
    assert result.history["energy"][0] > HELIUM - 0.3


@pytest.mark.parametrize("metric", ["wasserstein", "joint"])
def test_other_metrics_lower_the_energy(metric):
    """From a start whose network is as large as its Slater orbitals."""
    options = TINY | {"steps": 40, "evaluation_walkers": 512}
    result = wqmc.fit("He", metric=metric, ansatz="psiformer", **options)
    start = wqmc.Psiformer(Molecule("He"), 2, 8, 1, generator=torch.Generator().manual_seed(0))
    before = evaluate(start, 512, 4, seed=3)
    assert result.variance < before.variance
    assert result.energy < before.energy + 3 * math.hypot(before.error, result.error)
    assert result.energy > HELIUM - 5 * result.error


def test_same_seed_same_energy_and_resume(tmp_path):
    first = wqmc.fit("He", steps=6, **TINY)
    options = TINY | {"out": tmp_path, "log": "csv"}
    wqmc.fit("He", steps=3, **options)
    second = wqmc.fit("He", steps=6, resume=True, **options)
    assert second.energy == first.energy
    assert (tmp_path / "metrics.csv").is_file()


def test_what_a_result_offers(tmp_path):
    result = wqmc.fit("He", steps=2, **TINY)
    x = result.sample(32, seed=1)
    assert x.shape == (32, 2, 3) and x.dtype == torch.float64
    sign, log = result.wavefunction(x.float())
    assert sign.shape == log.shape == (32,)
    energies = result.local_energy(x)
    assert abs(float(energies.mean()) - result.energy) < 1.0
    loaded = wqmc.load(result.save(tmp_path / "he.safetensors"))
    assert torch.equal(loaded.float()(x.float())[1], log)
    with pytest.raises(ValueError, match=r"x has shape \(32, 1, 3\); expected \(B, 2, 3\)"):
        result.local_energy(x[:, :1])
    with pytest.raises(ValueError, match="not finite"):
        result.local_energy(x * math.nan)


def test_error_bar_of_correlated_walkers():
    """Walkers whose energies never change are worth one sample each."""
    constant = torch.randn(400, generator=torch.Generator().manual_seed(0)).expand(50, 400)
    found = summary(constant, 0.5)
    assert found.error == pytest.approx(1 / 20, rel=0.15)
    assert found.autocorrelation == pytest.approx(1.0, rel=0.02)
    holes = constant.clone()
    holes[0, :10] = math.nan
    assert summary(holes, 0.5).bad == 10
    with pytest.raises(ValueError, match="fewer than two walkers"):
        summary(constant * math.nan, 0.5)


def test_local_energies_that_are_not_finite_stop_the_run(monkeypatch, tmp_path):
    from sciflow.wqmc import objective

    def broken(log_psi, potential, x):
        found = local(log_psi, potential, x)
        found.energy[:count] = math.nan
        return found

    local, count = objective.local_energy, 0
    monkeypatch.setattr(objective, "local_energy", broken)
    options = TINY | {"batch_size": 200, "steps": 2}
    count = 2  # 1 %: masked
    assert math.isfinite(wqmc.fit("He", **options).energy)
    count = 3
    with pytest.raises(TrainingError, match="the loss is nan") as stopped:
        wqmc.fit("He", out=tmp_path, **options)
    assert stopped.value.checkpoint.is_file()


def test_a_curve_begins_each_geometry_with_the_last(tmp_path):
    molecules = [Molecule("H2", [[0, 0, 0], [0, 0, r]]) for r in (1.4, 1.5)]
    options = TINY | {"steps": 40, "batch_size": 128, "evaluation_walkers": 256}
    first, second = wqmc.curve(molecules, later_steps=5, out=tmp_path, **options)
    assert len(second.history) == 2 and (tmp_path / "01" / "checkpoint.pt").is_file()
    fresh = wqmc.FermiNet(molecules[1], 2, 8, 1)
    start = evaluate(fresh, 256, 4)
    assert second.variance < start.variance
    assert second.wavefunction.molecule == molecules[1]
    for result, exact in ((first, -1.174476), (second, -1.17286)):
        assert -5 * result.error < result.energy - exact < 0.02 + 5 * result.error


def test_figures_of_the_walkers_are_logged():
    history = wqmc.fit("He", steps=2, **TINY).history
    for name in ("energy", "error", "variance", "bad", "acceptance", "autocorrelation", "ess"):
        assert math.isfinite(history[name][-1])


def test_pretraining_brings_hartree_fock_orbitals():
    pytest.importorskip("pyscf")
    from sciflow.wqmc.hartree_fock import OrbitalMatching, hartree_fock, pretrain

    lih = Molecule("LiH")
    psi = wqmc.FermiNet(lih, 2, 8, 1)
    x = equilibrated(psi, 256, 50, 5, 0, "metropolis")[0].x
    matching = OrbitalMatching(psi, hartree_fock(lih))
    before = float(matching(x).value.detach())
    pretrain(psi, steps=20)
    after = float(matching(x).value.detach())
    assert after < 0.01 and after < before


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": wqmc.Psiformer(Molecule("He"), 4, 32, 2)}, "start has the ansatz psiformer"),
        ({"start": wqmc.FermiNet(Molecule("H"))}, "start has the atoms"),
        ({"start": wqmc.FermiNet(Molecule("He"), width=8)}, "start has the sizes"),
        ({"ansatz": "slater"}, "ansatz must be one of ferminet, psiformer; got 'slater'"),
        ({"metric": "euclid"}, "metric must be one of fisher-rao, wasserstein, joint"),
        ({"metric": "joint", "velocity": "fast"}, "velocity must be one of tanh"),
        ({"metric": "joint", "optimizer": "spring"}, "'spring' is for the metric 'fisher-rao'"),
        (
            {"optimizer": "newton"},
            "optimizer must be auto or one of spring, fisher, kronecker, adam",
        ),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"ansatz": "psiformer", "width": 10}, "width = 10 is not a multiple of heads = 4"),
        ({"molecule": "Unobtainium"}, "no molecule 'Unobtainium'"),
        ({"sampler": "gibbs"}, "sampler must be one of metropolis, one-electron, langevin"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_bad_options_are_named(options, message, unchecked):
    arguments = {"molecule": "He"} | QUICK | options
    with pytest.raises(ValueError, match=message):
        wqmc.fit(**arguments)
