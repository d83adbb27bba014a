"""What importing costs, and that the public names are there."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import sciflow

HEAVY = ("matplotlib", "ot", "mdtraj", "anndata", "openmm", "scipy", "tqdm", "pandas", "pooch")


@pytest.mark.parametrize(
    "code",
    [
        "import sciflow",
        "import sciflow; sciflow.integrate; sciflow.Trainer; sciflow.Snapshots; sciflow.Brownian",
        "import sciflow; sciflow.am.fit; sciflow.wlf.fit; sciflow.wlf.evaluate; sciflow.wqmc.fit",
        "import sciflow.plots, sciflow.data, sciflow.metrics, sciflow.report, sciflow.systems",
    ],
)
def test_imports_stay_light(code):
    # torch itself may load some of these: only what sciflow adds counts.
    script = (
        f"import sys, torch; before = set(sys.modules); {code}; print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert loaded.isdisjoint(HEAVY)
    assert "sciflow" in loaded


def test_public_names():
    for name in sciflow.__all__:
        assert getattr(sciflow, name) is not None
        assert name in dir(sciflow)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sciflow.nothing


def test_version_is_that_of_the_distribution():
    assert sciflow.__version__ == version("sciflow")
