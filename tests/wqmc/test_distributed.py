"""Two processes make the step of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "distributed_walkers.py"


def run(folder, *launcher):
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "found.pt", weights_only=True)


def test_one_energy_and_one_step(tmp_path):
    one = run(tmp_path / "one")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    two = run(tmp_path / "two", *launcher)
    for name in ("spring", "dense", "kronecker"):
        assert float(two[f"{name} energy"]) == pytest.approx(float(one[f"{name} energy"]))
        torch.testing.assert_close(two[name], one[name], rtol=1e-8, atol=1e-10)
    assert torch.equal(two["fits"][0], two["fits"][1]) and len(one["fits"]) == 1
    assert two["energies"][0] == two["energies"][1]
    assert (tmp_path / "two" / "run" / "metrics.csv").is_file()
