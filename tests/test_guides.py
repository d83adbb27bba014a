"""The Python of the README and of the guides runs as it stands, on small data and few updates."""

import functools
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

import sciflow
from sciflow import Snapshots, Trainer, am, cnf, data, nct, turbulence, wlf, wqmc
from sciflow.am import Lagrangian
from sciflow.bridges.exporters import EXPORTERS
from sciflow.bridges.maps import Map, Parts
from sciflow.integrators.tableaus import Tableau
from sciflow.systems import DoubleWellParticles, hmc_chains
from sciflow.train import Loss, Samples

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

#: Few updates, for the calls that train or simulate; the arguments of a guide win.
SHORT = [
    (cnf, "fit_samples", {"matching_steps": 20, "likelihood_steps": 2}),
    (cnf, "fit_energy", {"matching_steps": 5, "likelihood_steps": 2}),
    (cnf, "fit_particles", {"matching_steps": 20, "tuning_steps": 2}),
    (cnf, "annealed_free_energy", {"n_chains": 32, "n_strata": 2, "n_moves": 1}),
    (nct, "fit_samples", {"steps": 2}),
    (am, "fit_sampler", {"steps": 5}),
    (wlf, "fit", {"steps": 5}),
    (turbulence, "simulate", {"tau_max": 0.05}),
    (wqmc, "fit", {"batch_size": 16, "evaluation_walkers": 16, "evaluation_batches": 2}),
    (wqmc, "curve", {"batch_size": 16, "evaluation_walkers": 16}),
]

#: Numbers of a guide that ask for more than its code shows.
SMALLER = {
    "steps=800": "steps=2",
    "steps=300": "steps=2",
    "steps=200": "steps=2",
    "steps=50": "steps=2",
    "steps=40": "steps=2",
    "walkers=200": "walkers=20",
    "steps=500": "steps=2",
    "10_000": "30",
    "[:500], 100": "[:20], 2",
    "simulate(64, nu=0.03": "simulate(16, nu=0.2",
}


def at_hand(guide):
    """What a reader of ``guide`` has before its first line of code."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if guide == "README.md":
        return {
            **{f"x{i}": normal(60, 2) + i for i in range(3)},
            "x": normal(600, 2),
            "energy": lambda x: 0.5 * x.square().sum(-1),
            "y0": normal(8, 2),
            "t": torch.linspace(0, 1, 3),
            "q": normal(8, 1),
            "p": normal(8, 1),
            "potential": lambda q: 0.5 * q.square().sum(-1),
            "f": lambda t, x: -x,
            "logp": torch.zeros(600, dtype=torch.float64),
        }
    if guide == "docs/boltzmann-generators.md":
        system = DoubleWellParticles()
        x = hmc_chains(system, normal(80, 8), 10, g).x.flatten(0, 1)
        return {"x": x[:600], "x_test": x[600:]}
    if guide == "docs/nct.md":
        return {"generator": g}
    if guide == "docs/extending.md":
        return {
            "nn": nn, "Loss": Loss, "Trainer": Trainer, "Samples": Samples, "wlf": wlf,
            "Lagrangian": Lagrangian, "Tableau": Tableau, "net": nn.Linear(2, 1).double(),
            "snapshots": Snapshots([normal(40, 2), normal(40, 2) + 1], times=[0.0, 1.0]),
            "x": normal(40, 2), "y": normal(40, 1),
            "Map": Map, "Parts": Parts, "EXPORTERS": dict(EXPORTERS), "Rotation": type,
        }  # fmt: skip
    return {"x": normal(600, 2)}


@pytest.mark.parametrize(
    "guide",
    [
        str(path.relative_to(ROOT))
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        if BLOCK.search(path.read_text())
    ],
)
def test_guide(guide, monkeypatch, tmp_path, request):
    text = (ROOT / guide).read_text()
    monkeypatch.chdir(tmp_path)
    for module, name, options in SHORT:
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), **options))
    if "data.mnist" in text:
        request.getfixturevalue("data_dir")
        monkeypatch.setattr(data, "mnist", lambda part, mnist=data.mnist: _some(mnist(part)))
    names = {"torch": torch, "sciflow": sciflow, "cnf": cnf, **at_hand(guide)}
    with mock.patch.dict(wqmc.ANSAETZE):
        for code in BLOCK.findall(text):
            for long, short in SMALLER.items():
                code = code.replace(long, short)
            if code.startswith('"'):  # an entry of a table
                code = f"entry = {{{code}}}"
            exec(compile(code, guide, "exec"), names)


def _some(images):
    """Few images, and every second pixel of them."""
    return images._replace(images=images.images[:400, ::2, ::2], labels=images.labels[:400])
