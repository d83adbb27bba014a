"""The verbs, from files to files."""

import numpy as np

from sciflow import turbulence
from sciflow.cli import main


def test_simulate_and_forecast(tmp_path, capsys):
    record, later = tmp_path / "decay.csv", tmp_path / "later.csv"
    assert main(
        ["turbulence", "simulate", str(record), "--n", "24", "--nu", "0.08", "--tau-max", "0.6",
         "--device", "cpu"]
    ) == 0  # fmt: skip
    assert "energy balance" in capsys.readouterr().out
    words = ["turbulence", "forecast", str(record), str(later), "--nu", "0.08", "--box", "6.2832",
             "--k-max", "7", "--points", "5"]  # fmt: skip
    run = turbulence.read_csv(record, 0.08)
    end = float(run.t[-1])
    assert main([*words, "--until", str(end + 3)]) == 0
    assert "from skewness" in capsys.readouterr().out
    table = np.loadtxt(later, delimiter=",", skiprows=1)
    assert table.shape == (5, 8) and table[0, 0] == end
    assert (table[:, 2] <= table[:, 1]).all() and (table[:, 1] <= table[:, 3]).all()
    # Without skewness the rows before the last one are the history.
    plain = tmp_path / "plain.csv"
    columns = np.stack([run.t, run.k, run.eps], 1)
    np.savetxt(plain, columns, delimiter=",", header="t,k,eps", comments="")
    assert main([*words[:2], str(plain), *words[3:], "--until", str(end + 3)]) == 0
    assert "from history" in capsys.readouterr().out
    assert main([*words, "--until", str(end)]) == 2
    assert "until must be after" in capsys.readouterr().err
    assert main(["turbulence", "forecast", str(record), "x.txt", "--nu", "1", "--until", "9"]) == 2


def test_fit(tmp_path, capsys):
    runs = turbulence.write_runs(tmp_path / "runs.npz", turbulence.decays("train")[::8])
    out = tmp_path / "own.safetensors"
    words = ["turbulence", "fit", str(runs), str(out), "--steps", "3", "--members", "2", "--width",
             "8", "--batch-size", "32", "--starts", "3", "--horizon", "0.3", "0.5"]  # fmt: skip
    assert main(words) == 0
    assert out.is_file()
    found = turbulence.load(out).forecast(1.0, 1.0, 0.02, [0.0, 1.0])
    assert float(found.k[1]) < 1.0
    assert main([*words[:3], str(tmp_path / "own.txt")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
