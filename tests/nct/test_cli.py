"""``sciflow nct fit`` from a system's name and from files."""

import numpy as np
import pytest
import torch

from sciflow import nct
from sciflow.cli import main
from sciflow.systems import HarmonicChain

FAST = ["--device", "cpu", "--no-progress", "--linear-steps", "2", "--linear-draws", "256"]


def test_system_by_name(tmp_path, capsys):
    out = tmp_path / "chain.safetensors"
    words = [
        "nct",
        "fit",
        "harmonic_chain",
        str(out),
        "--set",
        "n",
        "4",
        "--steps",
        "0",
        "--strict",
    ]
    assert main([*words, *FAST]) == 0
    said = capsys.readouterr().out
    assert "bound of phase space" in said
    model = nct.load(out)
    torch.testing.assert_close(
        model.frequencies + 0, HarmonicChain(4).frequencies, atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_samples(suffix, tmp_path, generator):
    q = HarmonicChain(3).sample(500, 2.0, generator).numpy()
    path, out = tmp_path / f"q{suffix}", tmp_path / "model.safetensors"
    if suffix == ".csv":
        np.savetxt(path, q, delimiter=",", header="a,b,c", comments="")
    elif suffix == ".npy":
        np.save(path, q)
    else:
        np.savez(path, q=q)
    assert main(["nct", "fit", str(path), str(out), "--kT", "2", "--steps", "2", *FAST]) == 0
    modes = np.load(tmp_path / "model-modes.npy")
    assert modes.shape == (500, 3)
    expected = nct.load(out).modes(torch.as_tensor(q))
    torch.testing.assert_close(torch.as_tensor(modes), expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "a.safetensors"], "IN is 'nowhere'"),
        (["no.csv", "a.safetensors"], "there is no file no.csv"),
        (["ring", "a.txt"], "OUT must end in .safetensors"),
        (["ring", "a.safetensors", "--set", "radios", "2"], "--set"),
        (["ring", "a.safetensors", "--chart", "cubic"], "--chart must be one of"),
    ],
)
def test_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["nct", "fit", *words, *FAST]) == 2
    assert message in capsys.readouterr().err
