"""The verbs of ``sciflow wqmc`` as a user meets them."""

import json

import pytest

from sciflow.cli import main

SHORT = ("--steps=2", "--batch-size=16", "--width=4", "--depth=1", "--determinants=1", "--moves=2",
         "--burn-in=4", "--evaluation-walkers=8", "--evaluation-batches=2", "--device=cpu",
         "--no-progress")  # fmt: skip


def test_fit_and_evaluate(tmp_path, capsys):
    xyz, out = tmp_path / "ion.xyz", tmp_path / "ion.safetensors"
    xyz.write_text("2\n\nH 0 0 0\nH 0 0 1.06\n")
    assert main(["wqmc", "fit", str(xyz), str(out), "--charge=1", *SHORT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("energy: ") and lines[1] == str(out)
    found = json.loads((tmp_path / "ion.json").read_text())
    assert f"{found['energy']:.6f}" in lines[0] and found["samples"] == 16
    assert (tmp_path / "ion-run" / "metrics.csv").is_file()
    assert main(["wqmc", "evaluate", str(out), "--walkers=8", "--batches=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("dipole: ") and len(lines) == 4


@pytest.mark.parametrize(
    "words, message",
    [
        (("Xx", "x.safetensors"), "there is no molecule 'Xx'"),
        (("He", "x.pt"), "OUT must end in .safetensors"),
        (("none.xyz", "x.safetensors"), "none.xyz"),
        (("He", "x.safetensors", "--spin=1"), "does not fit 2 electrons"),
    ],
)
def test_bad_words_are_named(words, message, capsys):
    assert main(["wqmc", "fit", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err
