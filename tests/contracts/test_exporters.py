"""Every exporter: its programs, in a process that has no sciflow, give what the model gives."""

import copy
import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from sciflow import am, cnf, nct, turbulence, wqmc
from sciflow.bridges.bias import ModeBias
from sciflow.bridges.export import export
from sciflow.bridges.exporters import EXPORTERS
from sciflow.bridges.metadata import read
from sciflow.errors import DataError
from sciflow.nct.latent import Latent
from sciflow.nct.layers import AffineCoupling, Leapfrog, Linear, SplineCoupling
from sciflow.turbulence.forecaster import Calibration
from sciflow.turbulence.model import DecayODE
from sciflow.wqmc.physics import Coulomb

INFINITE = float("inf")
BATCHES = (1, 4, 9)
# Everything but torch and what it needs is out of reach of the process that loads.
ALONE = """
import json, sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sciflow":
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
import torch
try:
    import sciflow
except ImportError:
    pass
else:
    raise SystemExit("sciflow is importable")
folder = sys.argv[1]
cases = torch.load(f"{folder}/cases.pt", weights_only=True)
results = {}
for name, inputs in cases.items():
    map, _, size = name.partition(":")
    program = torch.export.load(f"{folder}/{map}.pt2").module()
    results[name] = [x.detach() for x in program(*inputs)]
torch.save(results, f"{folder}/results.pt")
"""


def shaken(model, size=0.2):
    """Away from the start, as after a training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for x in model.parameters():
            x.add_(size * torch.randn(x.shape, generator=generator))
    return model


def canonical(*layers, n=3, chart=None, strict=False):
    latent = Latent([INFINITE] * n, 1.5).double()
    mass = torch.ones(n) * 1.3
    return shaken(nct.CanonicalTransformation(layers, latent, mass, chart, strict).double())


def affine():
    coupling = AffineCoupling([INFINITE] * 3, [1], width=4, depth=1)
    return canonical(Linear(3), coupling)


def flow(**options):
    return shaken(cnf.ContinuousFlow(cnf.VelocityMLP(2, width=4, depth=1), **options))


def conditional():
    return shaken(cnf.ContinuousFlow(cnf.VelocityMLP(2, width=4, depth=1, n_context=1)))


def periodic():
    field = cnf.VelocityMLP(2, width=4, depth=1, periodic=[1], harmonics=1)
    return shaken(cnf.ContinuousFlow(field, periods={1: 3.0}, scale=2.0, shift=0.5))


def particles():
    field = cnf.ParticleField(2, 2, channels=2, width=4, depth=1, n_radial=3)
    return shaken(cnf.ContinuousFlow(field, cnf.MeanFreeGaussian(2, 2)))


def action():
    return am.ActionPotential(am.model.Scale((0.0, 1.0), 2.0, -1.0, 3.0), width=4, depth=1)


def bias():
    return ModeBias(affine(), lambda Q: 0.5 * (Q[:, 0] - 0.3).square() + Q[:, 1].cos(), [0, 1])


def forecaster():
    generator = torch.Generator().manual_seed(2)
    ode = DecayODE(members=2, memory=1, width=4, depth=1, generator=generator)
    calibration = Calibration({"bare": (1.2, 0.7)}, (1.0, 3.0), {"bare": (0.1, 0.2)})
    return turbulence.Forecaster(shaken(ode), calibration)


def helium():
    generator = torch.Generator().manual_seed(3)
    psi = wqmc.FermiNet(wqmc.Molecule("He"), 2, 4, 1, generator=generator)
    return shaken(psi.double(), 0.05)


#: name -> model and settings of its export; a new exporter has a model here.
MODELS = {
    "CanonicalTransformation": (affine, {}),
    "ContinuousFlow": (flow, {"kT": 2.0, "maps": ("to_latent", "velocity", "energy")}),
    "ContinuousFlow-context": (conditional, {"maps": ("to_latent",)}),
    "ContinuousFlow-periodic": (periodic, {"maps": ("to_latent", "log_prob", "sample")}),
    "ContinuousFlow-particles": (particles, {"maps": ("log_prob",)}),
    "ActionPotential": (action, {}),
    "Forecaster": (forecaster, {}),
    "Wavefunction-ferminet": (helium, {}),
    "ModeBias": (bias, {}),
}
SLOW = {
    "CanonicalTransformation-splines": (
        lambda: canonical(SplineCoupling([INFINITE] * 3, [0, 2], width=8)),
        {},
    ),
    "Wavefunction-psiformer": (
        lambda: shaken(wqmc.Psiformer(wqmc.Molecule("LiH"), 2, 8, 1).double(), 0.05),
        {},
    ),
    "CanonicalTransformation-shears": (
        lambda: canonical(Leapfrog(3, 1, 4, 1), strict=True),
        {},
    ),
    "ContinuousFlow-all": (flow, {"kT": 2.0}),
    "ContinuousFlow-context-all": (conditional, {}),
    "ContinuousFlow-particles-all": (particles, {}),
    "ContinuousFlow-periodic-all": (periodic, {}),
    "ContinuousFlow-own-field": (lambda: cnf.ContinuousFlow(Swirl()), {}),
}


class Swirl(torch.nn.Module):
    """A field without a divergence of its own."""

    dim = 2

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor([[0.3, -0.8], [0.5, 0.2]]))

    def forward(self, t, x):
        return torch.tanh(x @ self.rate) + t.reshape(-1, 1)


def eager(model, settings):
    """The maps of a model by its public functions, and no part of the exporter."""
    if isinstance(model, ModeBias):
        return {
            "collective_variables": lambda q: [model.modes(q)],
            "energy": lambda q: energy_of(model, q),
        }
    if isinstance(model, nct.CanonicalTransformation):
        maps = {"to_latent": model.to_latent, "to_physical": model.to_physical}
        if model.strict:
            return maps | {"log_prob": lambda q, p: [model.log_prob(q, p)]}
        return maps | {
            "collective_variables": lambda q: [model.modes(q)],
            "sample": lambda z: [model.coordinates_inverse(model.latent.coordinates(z))[0]],
            "log_prob": lambda q: [model.log_prob(q)],
            "energy": lambda q: energy_of(lambda x: -model.kT * model.log_prob(x), q),
        }
    if isinstance(model, turbulence.Forecaster):
        return {"forecast": lambda *starts: forecasts(model, *starts)}
    if isinstance(model, wqmc.Wavefunction):
        return {"log_psi": model, "local_energy": lambda x: local_energy(model, x)}
    if isinstance(model, am.ActionPotential):
        return {
            "potential": lambda t, x: [model.potential(t, x)],
            "velocity": lambda t, x: [model.velocity(t, x)],
            "growth": lambda t, x: [model.growth(t, x)],
        }
    exact = model.with_solver("dopri8", 1e-10, 1e-10)
    kT = settings.get("kT", 1.0)

    def noise(z):
        if isinstance(model.base, cnf.MeanFreeGaussian):
            return model.base.scale * model.base.centred(z)
        uniform = (torch.special.ndtr(z) * 2 - 1) * torch.pi
        return torch.where(model.base.angle, uniform, z)

    return {
        "to_latent": lambda x, *c: [exact.to_latent(x, *c)],
        "to_physical": lambda z, *c: [exact.to_data(z, *c)],
        "sample": lambda z, *c: [exact.to_data(noise(z), *c)],
        "log_prob": lambda x, *c: [exact.log_prob(x, *c)],
        "velocity": lambda t, x, *c: [velocity_of(exact, t, x, *c)],
        "energy": lambda x, *c: energy_of(lambda y: -kT * exact.log_prob(y, *c), x),
    }


def forecasts(model, k0, eps0, nu, t):
    """Of each decay by itself, on the grid of tau that it needs."""
    rows = [
        model.forecast(float(a), float(b), float(c), [0.0, float(end)])
        for a, b, c, end in zip(k0, eps0, nu, t, strict=True)
    ]
    names = ("k", "eps", "k_low", "k_high", "eps_low", "eps_high", "C2")
    return [torch.stack([getattr(row, name)[1] for row in rows]) for name in names]


def local_energy(psi, x):
    """By automatic second derivatives, where the exporter has a forward Laplacian."""
    energies, scores = [], []
    for walker in x:
        log = lambda y: psi.log_psi(y.reshape(1, -1, 3))[0]
        gradient = torch.func.grad(log)(walker.flatten())
        laplacian = torch.func.hessian(log)(walker.flatten()).trace()
        energies.append(-0.5 * (laplacian + gradient.square().sum()))
        scores.append(2 * gradient.reshape(-1, 3))
    return [torch.stack(energies) + Coulomb(psi.molecule)(x), torch.stack(scores)]


def velocity_of(flow, t, x, *context):
    """Of the path through x at time t, by finite differences of the path in time."""
    out = []
    for i in range(len(t)):
        y = flow.to_unit(x[i : i + 1])
        field = flow.field if not context else flow.field_at(context[0][i : i + 1])
        times = [t[i], t[i] - 1e-4, t[i] + 1e-4]
        low, high = (march(field, y, torch.stack([times[0], end])) for end in (times[1], times[2]))
        out.append((high - low) * flow.scale / 2e-4)
    return torch.cat(out)


def march(field, y, t):
    from sciflow import integrate

    with torch.no_grad():
        return integrate(field, y, t.double(), "dopri8", rtol=1e-12, atol=1e-12).y[-1]


def energy_of(energy, q):
    q = q.detach().requires_grad_()
    value = energy(q)
    (gradient,) = torch.autograd.grad(value.sum(), q)
    return [value.detach(), -gradient]


def inputs_of(record, n):
    generator = torch.Generator().manual_seed(n)
    made = []
    for name, shape in record.inputs.items():
        positive = name in ("t", "k0", "eps0", "nu")
        draw = torch.rand if positive else torch.randn
        x = draw((n, *shape), generator=generator)
        made.append(0.1 + 0.8 * x if positive else 0.7 * x)
    return made


def round_trip(folder, make, settings):
    model = make()
    before = copy.deepcopy(model.state_dict())
    trained = [x.requires_grad for x in model.parameters()]
    export(model, folder, compile=False, **settings)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert [x.requires_grad for x in model.parameters()] == trained
    records = read(folder).maps
    cases = {f"{name}:{n}": inputs_of(r, n) for name, r in records.items() for n in BATCHES}
    torch.save(cases, folder / "cases.pt")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = torch.load(folder / "results.pt", weights_only=True)
    maps = eager(model, settings)
    assert set(records) == (set(maps) if "maps" not in settings else set(settings["maps"]))
    for name, inputs in cases.items():
        map = name.partition(":")[0]
        expected = maps[map](*inputs)
        for got, x in zip(results[name], expected, strict=True):
            assert got.shape == x.shape
            torch.testing.assert_close(got, x.detach(), atol=1e-6, rtol=1e-6, msg=name)
    if "energy" in records:
        check_forces(folder, inputs_of(records["energy"], 4))
    return records


def check_forces(folder, inputs, step=1e-4):
    """Forces against central differences of the energies, relative to the largest."""
    program = torch.export.load(folder / "energy.pt2").module()
    q = inputs[0]
    with torch.no_grad():
        forces = program(*inputs)[1].flatten(1)
        flat, numeric = q.flatten(1), torch.empty_like(forces)
        for i in range(flat.shape[1]):
            shift = torch.zeros_like(flat)
            shift[:, i] = step
            low, high = (
                program((flat + sign * shift).reshape(q.shape), *inputs[1:])[0] for sign in (-1, 1)
            )
            numeric[:, i] = (low - high) / (2 * step)
    assert float((forces - numeric).abs().max()) <= 1e-4 * float(numeric.abs().max())


def test_every_exporter_is_tried():
    assert {name.partition("-")[0] for name in MODELS} == {kind.__name__ for kind in EXPORTERS}


@pytest.mark.timeout(900)  # some 20 s of CPU each, on a machine that has other work
@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name, tmp_path):
    make, settings = MODELS[name]
    round_trip(tmp_path, make, settings)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SLOW)
def test_round_trip_of_more_kinds(name, tmp_path):
    make, settings = SLOW[name]
    round_trip(tmp_path, make, settings)


def test_no_forecast_beyond_its_reach(tmp_path):
    """Where the forecaster raises an error, its program says that it knows nothing."""
    model = forecaster()
    folder = export(model, tmp_path, compile=False)
    program = torch.export.load(folder / "forecast.pt2").module()
    one = torch.ones(3)
    out = program(one, one, 0.02 * one, torch.tensor([1.0, 1e12, -1.0]))
    for x in out:
        assert torch.isfinite(x).tolist() == [True, False, False]
    with pytest.raises(DataError, match="beyond the fall of k"):
        model.forecast(1.0, 1.0, 0.02, [0.0, 1e12])


def test_metadata_are_plain(tmp_path):
    folder = export(action(), tmp_path / "new", ["velocity"], compile=False)
    content = json.loads((folder / "metadata.json").read_text())
    record = content["maps"]["velocity"]
    assert record["inputs"] == {"t": [], "x": [2]} and record["outputs"] == {"velocity": [2]}
    assert record["program"]["name"] == "velocity.pt2" and len(record["program"]["sha256"]) == 64
    assert content["units"] == "reduced" and content["dtype"] == "float64"
    again = asdict(read(folder))
    assert again["maps"] == content["maps"]


def test_a_new_exporter_is_one_entry(tmp_path, guide_code):
    """The lines of docs/extending.md, as they stand there."""
    from sciflow.bridges import maps

    class Rotation(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.angle = torch.nn.Parameter(torch.tensor(0.7))

        def forward(self, x):
            c, s = self.angle.cos(), self.angle.sin()
            return x @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])])

    names = {"torch": torch, "Rotation": Rotation, "EXPORTERS": EXPORTERS, **vars(maps)}
    try:
        exec(guide_code("An exporter"), names)
        model = Rotation()
        export(model, tmp_path, compile=False)
        program = torch.export.load(tmp_path / "to_latent.pt2").module()
        x = torch.randn(7, 2)
        torch.testing.assert_close(program(x)[0], model(x).detach())
    finally:
        EXPORTERS.pop(Rotation, None)
