"""Notebooks run from top to bottom, in their fast mode."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_runs(path, request, tmp_path):
    if "alanine_dipeptide(" in path.read_text():  # skips where there are no data
        request.getfixturevalue("data_dir")
    environment = os.environ | {
        "SCIFLOW_FAST": "1",
        "MPLBACKEND": "agg",
        "PYTHONPATH": str(FOLDER.parent),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
