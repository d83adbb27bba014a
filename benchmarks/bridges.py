"""Time per step of OpenMM with a model of 22 atoms as its only force, Reference platform.

A round is 1000 steps, so that its milliseconds are microseconds per step.
"""

import copy
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import conditions, race, short
from sciflow import DataError, nct
from sciflow.bridges.bias import ModeBias
from sciflow.bridges.dipeptide import dipeptide_pdb
from sciflow.bridges.export import export
from sciflow.bridges.exported import Exported
from sciflow.bridges.openmm_force import model_force
from sciflow.nct.latent import Latent
from sciflow.nct.layers import Linear
from sciflow.nn import MLP
from sciflow.systems import Molecule
from sciflow.systems.charts import InternalCoordinates
from sciflow.units import kT

N = 22
STEPS = 1000


class Network(torch.nn.Module):
    """An energy by a network 66-128-1."""

    def __init__(self):
        super().__init__()
        self.net = MLP(3 * N, 1, 128, 1, generator=torch.Generator().manual_seed(0))

    def forward(self, x):
        return self.net(x).squeeze(1)


def identity():
    """Cartesian coordinates as they are, as a model."""
    linear, latent = Linear(3 * N), Latent([math.inf] * 3 * N, kT(300.0))
    mass = torch.full((3 * N,), 12.0)
    return nct.CanonicalTransformation([linear], latent, mass, units="md")


def torsions(positions, topology):
    """A canonical transformation of the dipeptide in internal coordinates, splines and all."""
    from sciflow.systems.trajectories import molecule_of

    molecule: Molecule = molecule_of(topology)
    generator = torch.Generator().manual_seed(0)
    frames = torch.from_numpy(positions)[None] + 0.004 * torch.randn(
        2000, N, 3, generator=generator, dtype=torch.float64
    )
    chart = InternalCoordinates.from_samples(frames, molecule.zmatrix())
    model = nct.fit_samples(
        frames, torch.tensor(molecule.masses), kT(300.0), chart=chart, units="md", steps=5,
        space="modes", couplings=2, width=64, progress=False, device="cpu",
    )  # fmt: skip
    model.molecule = molecule
    return model


def run(device: str) -> dict[str, Any]:
    if device != "cpu":
        raise DataError("the benchmark of OpenMM is for its Reference platform")
    import io

    import mdtraj
    import openmm as mm
    from openmm import app

    pdb = app.PDBFile(io.StringIO(dipeptide_pdb()))
    x = np.array([[p.x, p.y, p.z] for p in pdb.positions])
    topology = mdtraj.Topology.from_openmm(pdb.topology)
    spring = lambda Q: 20.0 * (Q[:, 0] - 0.1).square()
    models = {
        "network 66-128-1": ModeBias(identity().float(), Network().float(), range(3 * N)),
        "bias on a mode": ModeBias(torsions(x, topology).float(), spring, [0]),
    }
    system = mm.System()
    for atom in pdb.topology.atoms():
        system.addParticle(atom.element.mass)
    tables = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, bias in models.items():
            print(f"compiling {name}", flush=True)
            folder = export(bias, Path(scratch) / name.split()[0], ["energy"])
            assert Exported(folder)["energy"].compiled
            plain = export(bias, Path(scratch) / "plain", ["energy"], compile=False)
            forces = {
                "package": model_force(folder, system),
                "program": model_force(plain, system),
                "eager": mm.PythonForce(eager(bias)),
                "null callback": mm.PythonForce(null),
            }
            runs = {key: stepper(mm, system, force, x) for key, force in forces.items()}
            rows = race(runs, device, rounds=5)
            tables[f"{name}, us per step of 22 atoms"] = {
                key: {k.replace("ms", "us"): v for k, v in short(row, device).items()}
                for key, row in rows.items()
            }
    return {"conditions": conditions(device, "openmm"), "tables": tables}


def eager(bias):
    """What a user would write: autograd at each step."""
    model = copy.deepcopy(bias).requires_grad_(False)
    shape = model.model.mass.shape

    def computation(state):
        x = torch.from_numpy(state.getPositions(asNumpy=True)._value)
        q = x.reshape(1, *shape).float().requires_grad_()
        energy = model(q)
        (gradient,) = torch.autograd.grad(energy.sum(), q)
        return float(energy.detach()), -gradient.reshape(N, 3).double().numpy()

    return computation


def null(state):
    return 0.0, np.zeros((N, 3))


def stepper(mm, system, force, x):
    """A run of its own, by a step so short that the structure hardly moves."""
    own = copy.deepcopy(system)
    own.addForce(force)
    reference = mm.Platform.getPlatformByName("Reference")
    integrator = mm.VerletIntegrator(1e-5)
    context = mm.Context(own, integrator, reference)
    context.setPositions(x)

    def go(keep=context):
        integrator.step(STEPS)

    return go
