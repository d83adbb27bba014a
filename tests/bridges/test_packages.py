"""Compiled packages: from Python, from OpenMM, from C++."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from sciflow.bridges.export import export
from sciflow.bridges.exported import Exported
from sciflow.bridges.forcefield import ForceField

SOURCES = Path(__file__).parents[2] / "examples" / "cpp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cluster):
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("there is no C++ compiler")
    return export(cluster(mixed=False), tmp_path_factory.mktemp("compiled"), ["energy"])


def test_package(folder, cluster):
    """The package gives what the model gives, for every batch, and OpenMM runs with it."""
    run = Exported(folder)["energy"]
    assert run.compiled and run.record.package.name == f"energy-{platform.machine()}.pt2"
    model = cluster(mixed=False)
    for n in (1, 4, 9):
        q = torch.rand(n, 12, dtype=torch.float64).requires_grad_()
        expected = -model.kT * model.log_prob(q)
        (gradient,) = torch.autograd.grad(expected.sum(), q)
        energy, forces = run(q)
        torch.testing.assert_close(energy, expected.detach(), atol=1e-6, rtol=1e-9)
        torch.testing.assert_close(forces, -gradient, atol=1e-6, rtol=1e-9)
    mm = pytest.importorskip("openmm")
    from sciflow.bridges.openmm_force import model_force

    system = mm.System()
    for _ in range(4):
        system.addParticle(12.0)
    system.addForce(model_force(folder, system))
    reference = mm.Platform.getPlatformByName("Reference")
    context = mm.Context(system, mm.VerletIntegrator(0.001), reference)
    x = np.random.default_rng(0).random((4, 3))
    context.setPositions(x)
    state = context.getState(getEnergy=True, getForces=True)
    energy, forces = ForceField(folder)(x)
    assert state.getPotentialEnergy()._value == pytest.approx(energy)
    np.testing.assert_allclose(state.getForces(asNumpy=True)._value, forces)


def test_cpp(folder, tmp_path):
    """The example builds, and prints the energies and forces that Python gets."""
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for words in (["-S", str(SOURCES), "-B", str(tmp_path), prefix], ["--build", str(tmp_path)]):
        done = subprocess.run(["cmake", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    x = np.random.default_rng(0).random((3, 12))
    package = folder / f"energy-{platform.machine()}.pt2"
    done = subprocess.run(
        [str(tmp_path / "energy"), str(package), "12"],
        input="\n".join(" ".join(map(str, row)) for row in x),
        capture_output=True,
        text=True,
        check=True,
    )
    got = np.array([[float(word) for word in line.split()] for line in done.stdout.splitlines()])
    energy, forces = Exported(folder)["energy"](torch.from_numpy(x))
    np.testing.assert_allclose(got[:, 0], energy.numpy(), rtol=1e-12)
    np.testing.assert_allclose(got[:, 1:], forces.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_flow_package(tmp_path):
    """Loops survive the compiler: energy and forces of a flow, for every batch."""
    from sciflow import cnf

    flow = cnf.ContinuousFlow(cnf.VelocityMLP(3, width=8, depth=2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    folder = export(flow, tmp_path, ["energy"])
    run = Exported(folder)["energy"]
    assert run.compiled
    exact = flow.with_solver("dopri8", 1e-10, 1e-10)
    for n in (1, 4, 9):
        x = torch.randn(n, 3).requires_grad_()
        expected = -exact.log_prob(x)
        (gradient,) = torch.autograd.grad(expected.sum(), x)
        energy, forces = run(x)
        torch.testing.assert_close(energy, expected.detach(), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(forces, -gradient, atol=1e-6, rtol=1e-6)
