"""Exported models: loaded and checked, other units, damage, a missing compiler; the verb."""

import copy
import json
import logging
import pickle
import shutil

import numpy as np
import pytest
import torch

from sciflow.bridges.export import export
from sciflow.bridges.exported import Exported
from sciflow.bridges.forcefield import ForceField
from sciflow.bridges.units import unit_factors
from sciflow.bridges.whole import Joined
from sciflow.cli import main
from sciflow.errors import DataError
from sciflow.units import kT


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    return export(cluster(), tmp_path_factory.mktemp("cluster"), ["energy"], compile=False)


def test_loaded_map(folder, cluster):
    model = Exported(folder)
    q = torch.rand(3, 12, dtype=torch.float64)
    energy, forces = model["energy"](q)
    expected = -kT(300.0) * cluster().log_prob(q)
    torch.testing.assert_close(energy, expected.detach())
    assert forces.shape == (3, 12) and not model["energy"].compiled
    assert "energy" in model and "velocity" not in model
    with pytest.raises(ValueError, match=r"q has shape \(3, 9\); expected \(B, 12\)"):
        model["energy"](q[:, :9])
    with pytest.raises(ValueError, match="expected q; got 2 inputs"):
        model["energy"](q, q)
    with pytest.raises(DataError, match="no map 'velocity'; it has energy"):
        model["velocity"]


def test_force_field_in_other_units(folder):
    x = np.random.default_rng(0).random((4, 3))
    energy, forces = ForceField(folder)(x)
    far = pickle.loads(pickle.dumps(ForceField(folder, "metal")))
    energy_eV, forces_eV = far(10 * x)
    # 1 eV is 96.485 kJ/mol
    assert energy_eV == pytest.approx(energy / 96.48533212, rel=1e-8)
    np.testing.assert_allclose(forces_eV, forces / 964.8533212, rtol=1e-8)
    with pytest.raises(ValueError, match="the model has 4 atoms"):
        ForceField(folder)(x[:3])


def test_units_that_do_not_fit(folder, tmp_path, cluster):
    with pytest.raises(ValueError, match="exported with units 'md', and units 'reduced'"):
        ForceField(folder, "reduced")
    with pytest.raises(ValueError, match="units must be one of"):
        unit_factors("md", "si")
    with pytest.raises(ValueError, match="units is 'metal', and the model says 'md'"):
        export(cluster(), tmp_path, ["energy"], units="metal", compile=False)
    with pytest.raises(ValueError, match="kT is 1.0, and the model says"):
        export(cluster(), tmp_path, ["energy"], kT=1.0, compile=False)
    with pytest.raises(ValueError, match="maps must be of to_latent"):
        export(cluster(), tmp_path, ["velocity"], compile=False)
    with pytest.raises(TypeError, match="model is a Linear; exporters are known for"):
        export(torch.nn.Linear(2, 2), tmp_path, compile=False)


def test_damaged_and_foreign_files(folder, tmp_path):
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    content = bytearray((bad / "energy.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (bad / "energy.pt2").write_bytes(bytes(content))
    with pytest.raises(DataError, match="is damaged, or not the file that was exported"):
        Exported(bad)["energy"]
    # What is not ours is refused before torch, which would unpickle it, sees it.
    with open(bad / "energy.pt2", "wb") as file:
        pickle.dump(Trap(), file)
    with pytest.raises(DataError, match="is damaged"):
        Exported(bad)["energy"]
    (bad / "energy.pt2").unlink()
    with pytest.raises(DataError, match="there is no file"):
        Exported(bad)["energy"]
    with pytest.raises(DataError, match="is no exported model"):
        Exported(tmp_path / "nothing")
    for text in ("{", "[]", '{"format": "other"}', '{"format": "sciflow-export", "version": 1}'):
        (bad / "metadata.json").write_text(text)
        with pytest.raises(DataError, match="was not written by sciflow export"):
            Exported(bad)
    whole = json.loads((folder / "metadata.json").read_text())
    whole["maps"]["energy"]["program"]["name"] = "../energy.pt2"
    (bad / "metadata.json").write_text(json.dumps(whole))
    with pytest.raises(DataError, match="there is no file"):
        Exported(bad)["energy"]
    (bad / "metadata.json").write_text(json.dumps(whole | {"version": 99}))
    with pytest.raises(DataError, match="has version 99"):
        Exported(bad)


class Trap:
    """Unpickling it would end the test."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_missing_compiler(tmp_path, caplog, cluster):
    import torch._inductor.config as config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}), caplog.at_level(logging.WARNING):
        made = export(cluster(1), tmp_path, ["collective_variables"])
    assert "there is no C++ compiler" in caplog.text
    assert sorted(p.name for p in made.iterdir()) == ["collective_variables.pt2", "metadata.json"]
    assert Exported(made)["collective_variables"](torch.zeros(1, 3))[0].shape == (1, 3)


def test_package_of_another_torch(folder, tmp_path, caplog):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    content = json.loads((other / "metadata.json").read_text())
    content["maps"]["energy"]["package"] = {"name": "energy-m68k.pt2", "sha256": "0" * 64}
    content["machine"] = "m68k"
    (other / "metadata.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        assert not Exported(other)["energy"].compiled
    assert "was compiled for torch" in caplog.text


def test_branches_on_numbers_are_refused(tmp_path, cluster):
    """A field whose operations hang on its input cannot be traced: the check finds it out."""
    from sciflow.bridges.bias import ModeBias
    from sciflow.errors import SciflowError

    calls = []

    def moody(Q):
        calls.append(len(Q))
        return Q[:, 0] * (1.0 if len(Q) < 5 else 2.0)

    with pytest.raises(SciflowError, match="differs from the model"):
        export(ModeBias(cluster(1), moody), tmp_path, ["energy"], compile=False)


def test_joined():
    """A chain cut by a triclinic box is what it was, moved as a whole."""
    generator = np.random.default_rng(0)
    chain = np.cumsum(generator.normal(scale=0.08, size=(6, 3)), axis=0)
    box = np.array([[1.0, 0.0, 0.0], [0.3, 1.1, 0.0], [-0.2, 0.4, 0.9]])
    turns = generator.integers(-2, 3, size=(6, 3))
    bonds = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    found = Joined(6, bonds)(chain + turns @ box, box)
    np.testing.assert_allclose(found - found[0], chain - chain[0], atol=1e-12)
    with pytest.raises(ValueError, match="1 of 6 are not joined"):
        Joined(6, bonds[:-1])


def test_verb(tmp_path, capsys, cluster):
    model = tmp_path / "model.safetensors"
    copy.deepcopy(cluster(1)).save(model)
    words = ["export", str(model), str(tmp_path / "out"), "--no-compile", "--plumed", "0"]
    assert main([*words, "--maps", "collective_variables"]) == 0
    names = [line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()]
    assert names == ["collective_variables.pt2", "metadata.json", "model.ptc", "plumed.dat"]
    assert main([*words, "--maps", "growth"]) == 2
    assert "maps must be of" in capsys.readouterr().err
    (tmp_path / "no.safetensors").write_bytes(b"no")
    assert main(["export", str(tmp_path / "no.safetensors"), str(tmp_path / "out")]) == 2
    assert "truncated or not" in capsys.readouterr().err
