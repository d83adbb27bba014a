"""Wrong arguments are refused with their name, what came and what is expected."""

import pytest
import torch

import sciflow
from sciflow.integrators import Status

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)
DECAY = lambda t, y: -y
NOISE = sciflow.SDE(DECAY, 1.0)
OU = dict(field=NOISE, method="euler_maruyama", dt=0.1, seed=0)
ENERGY = lambda q: 0.5 * q.square().sum(1)
BATH = sciflow.Hamiltonian(ENERGY, friction=1.0, kT=1.0)
SPRING = dict(
    field=sciflow.Hamiltonian(ENERGY), y0=(torch.ones(3, 2), torch.ones(3, 2)), method="leapfrog"
)

BAD = [
    (dict(t=[0.0, 1.0]), TypeError, "t must be a floating-point tensor of times; got list"),
    (dict(t=torch.tensor([0, 1])), TypeError, "t must be a floating-point tensor.*int64"),
    (dict(t=torch.tensor(1.0)), ValueError, r"t must have shape \(T,\); got \(\)"),
    (dict(t=UNIT[:, None]), ValueError, r"t must have shape \(T,\); got \(2, 1\)"),
    (dict(t=UNIT[:1]), ValueError, "t must hold at least the initial and one more time; got 1"),
    (dict(t=torch.tensor([0.0, 1.0, 1.0])), ValueError, "t must be strictly increasing"),
    (dict(t=torch.tensor([0.0, 1.0, 0.5])), ValueError, "t must be strictly increasing"),
    (dict(t=torch.tensor([0.0, float("nan")])), ValueError, "t must be finite; got nan"),
    (
        dict(t=torch.zeros(2, 7), batch="each"),
        ValueError,
        r"t of shape \(T, batch\) must have the batch of y0, \(3, 2\); got \(2, 7\)",
    ),
    (dict(y0="state"), TypeError, "y0 must be a tensor, or a tuple.*got str"),
    (dict(y0=(torch.ones(2), 1.0)), TypeError, r"y0\[1\] must be a tensor.*got float"),
    (dict(y0={"a": [None]}), TypeError, r"y0\['a'\]\[0\] must be a tensor.*got NoneType"),
    (dict(y0=()), ValueError, "y0 must hold at least one tensor; got none"),
    (
        dict(y0=torch.ones(3, dtype=torch.int64)),
        TypeError,
        "y0 must be floating.*leaf 0 is.*int64",
    ),
    (
        dict(y0=torch.tensor([[1.0, 2.0], [3.0, float("inf")]])),
        ValueError,
        r"y0 must be finite; leaf 0 is not, first at index \[1, 1\]",
    ),
    (dict(method="rk45"), ValueError, "method must be one of .*'dopri5'.*got 'rk45'"),
    (dict(method=None), ValueError, "method must be one of .* got None"),
    (dict(method="torchdiffeq:best"), ValueError, "method of torchdiffeq .*'dopri8'.*got 'best'"),
    (
        dict(method="euler_maruyama", dt=0.1),
        ValueError,
        "'euler_maruyama' is for an SDE; got.*lam",
    ),
    (dict(rtol=-1.0), ValueError, "rtol must be a finite number, not negative; got -1.0"),
    (dict(atol=float("nan")), ValueError, "atol must be a finite number, not negative; got nan"),
    (dict(rtol="1e-5"), ValueError, "rtol must be a finite number, not negative; got '1e-5'"),
    (dict(rtol=0, atol=0), ValueError, "rtol and atol must not both be zero"),
    (dict(dt=0.0), ValueError, "dt must be a finite positive number.*got 0.0"),
    (dict(dt=-0.1), ValueError, "dt must be a finite positive number.*got -0.1"),
    (dict(grad="auto"), ValueError, "grad must be 'direct', 'checkpoint' or.*; got 'auto'"),
    (dict(OU, grad="adjoint"), ValueError, "grad=\"adjoint\" needs a method of .*'dopri5'.*'leap"),
    (dict(method="leapfrog"), ValueError, "'leapfrog' is for a Hamiltonian; got the field func"),
    (dict(SPRING, y0=torch.ones(3, 2)), TypeError, r"a Hamiltonian must be \(q, p\); got Tensor"),
    (
        dict(SPRING, y0=(torch.ones(3, 2), torch.ones(3))),
        ValueError,
        r"q and p of one shape.*\(3, 2\).*\(3,\)",
    ),
    (
        dict(SPRING, field=sciflow.Hamiltonian(lambda q: q.sum(0))),
        ValueError,
        r"potential must give an energy per sample.*got \(2,\)",
    ),
    (dict(SPRING, field=BATH), ValueError, "friction needs method 'baoab'; got 'leapfrog'"),
    (dict(SPRING, field=BATH, method="dopri5"), ValueError, "friction needs method 'baoab'"),
    (dict(SPRING, method="baoab"), ValueError, "draws random numbers: give seed or generator"),
    (
        dict(SPRING, field=BATH, method="baoab", seed=0, t=UNIT.flip(0)),
        ValueError,
        "t must increase with 'baoab'",
    ),
    (dict(SPRING, method="hmc", seed=0), ValueError, "'hmc' needs a temperature.*got kT=0"),
    (dict(SPRING, dense=True), ValueError, "dense=True needs"),
    (dict(SPRING, batch="each"), ValueError, 'batch="each" needs an adaptive'),
    (dict(batch="one"), ValueError, "batch must be 'joint' or 'each'; got 'one'"),
    (dict(max_steps=0), ValueError, "max_steps must be at least 1; got 0"),
    (dict(seed=1.5), TypeError, "seed must be an integer; got float"),
    (dict(generator=3), TypeError, "generator must be a torch.Generator; got int"),
    (dict(seed=1, generator=torch.Generator()), ValueError, "give seed or generator, not both"),
    (dict(field=3), TypeError, r"field must be callable, f\(t, y\), or an SDE; got int"),
    (dict(field=lambda t, y: 0.0), TypeError, "the field must return tensors; got float"),
    (
        dict(field=lambda t, y: y[:, :1]),
        ValueError,
        r"the field must return the shapes of the state \[\(3, 2\)\]; got \[\(3, 1\)\]",
    ),
    (dict(field=lambda t, y: y.float()), ValueError, "the type of the state.*64; got.*32"),
    (
        dict(field=lambda t, y: y, y0=(torch.ones(2), torch.ones(2))),
        ValueError,
        None,
    ),
    (
        dict(field=lambda t, y: (y[0],), y0=(torch.ones(2), torch.ones(2))),
        TypeError,
        "what the field returns must be a tuple or list of 2; got 1",
    ),
    (
        dict(field=lambda t, y: {"b": y["a"]}, y0={"a": torch.ones(2)}),
        TypeError,
        r"what the field returns must be a dict with the keys \['a'\]; got \['b'\]",
    ),
    (dict(event=1.0), TypeError, "event must be callable; got float"),
    (dict(on_step=1.0), TypeError, "on_step must be callable; got float"),
    (dict(event=ENERGY, method="rk4"), ValueError, "event needs an adaptive method.*got 'rk4'"),
    (dict(event=ENERGY, dt=0.1), ValueError, "event needs an adaptive method without dt"),
    (dict(event=ENERGY, grad="adjoint"), ValueError, "event needs grad=\"direct\".*'adjoint'"),
    (
        dict(event=lambda t, y: y.sum()),
        ValueError,
        r"event must give one value per sample, shape \(3,\); got \(\)",
    ),
    (dict(on_step=lambda t, y: y[:1]), ValueError, r"on_step must return the shapes.*\(1, 2\)"),
    (dict(on_step=ENERGY, batch="each"), ValueError, 'on_step needs batch="joint"'),
    (dict(OU, grad="checkpoint", on_step=ENERGY), ValueError, 'on_step needs grad="direct"'),
    (dict(batch="each", dt=0.1), ValueError, 'batch="each" needs an adaptive method without dt'),
    (dict(batch="each", method="rk4"), ValueError, "batch=\"each\" needs an adaptive.*got 'rk4'"),
    (dict(batch="each", grad="checkpoint"), ValueError, "needs grad=\"direct\"; got 'checkpoint'"),
    (dict(batch="each", compile=True), ValueError, "compile=True needs.*got batch='each'"),
    (dict(batch="each", dense=True), ValueError, "dense=True needs.*got batch='each'"),
    (dict(batch="each", y0=torch.ones(3)), ValueError, r'batch="each" needs leaves.*got \(3,\)'),
    (dict(grad="checkpoint", dense=True), ValueError, 'dense=True needs grad="direct"'),
    (dict(method="torchdiffeq:dopri5", grad="checkpoint"), ValueError, "torchdiffeq needs grad="),
    (dict(method="torchdiffeq:dopri5", dense=True), ValueError, "dense=True needs"),
    (dict(OU, method="dopri5"), ValueError, "method for an SDE must be one of .*got 'dopri5'"),
    (dict(OU, method="torchdiffeq:dopri5"), ValueError, "method for an SDE must be one of"),
    (
        dict(OU, method="sra1", field=sciflow.SDE(DECAY, lambda t, y: y)),
        ValueError,
        "'sra1' is for additive noise, but the diffusion depends on the state",
    ),
    (
        dict(OU, field=sciflow.SDE(DECAY, torch.ones(3, 2), noise="matrix")),
        ValueError,
        r"matrix noise needs a state of one tensor.*\(3, 2\); got \(3, 2\)",
    ),
    (dict(OU, dt=None), ValueError, "an SDE needs dt, the step in units of t; got None"),
    (dict(OU, dt=1e-12), ValueError, r"dt must be at least .*, span / 2\*\*26; got 1e-12"),
    (dict(OU, seed=None), ValueError, "draws random numbers: give seed or generator; got neither"),
    (dict(OU, batch="each"), ValueError, 'batch="each" needs an adaptive method'),
    (dict(OU, compile=True), ValueError, "compile=True needs an ordinary differential equation"),
    (
        dict(OU, t=UNIT.clone().requires_grad_()),
        ValueError,
        "t must not require a gradient for an SDE",
    ),
    (
        dict(OU, field=sciflow.SDE(DECAY, torch.ones(4))),
        ValueError,
        r"diffusion must broadcast to its leaf \(3, 2\); got \(4,\)",
    ),
    (
        dict(OU, field=sciflow.SDE(lambda t, y: y, 1.0), y0=(torch.ones(2), torch.ones(2))),
        TypeError,
        "diffusion must be a tuple or list of 2; got float",
    ),
]


@pytest.mark.parametrize("given, error, message", BAD)
def test_refused(given, error, message, unchecked):
    arguments = dict(field=DECAY, y0=torch.ones(3, 2), t=UNIT) | given
    if given.get("field") is not None and message is None:
        # a field that gives a sum of tuples: wrong shapes, found by its own structure
        arguments["field"] = lambda t, y: (y[0], y[1][:1])
        message = r"the shapes of the state \[\(2,\), \(2,\)\]; got \[\(2,\), \(1,\)\]"
    with pytest.raises(error, match=message):
        sciflow.integrate(**arguments)


def test_the_drift_of_an_sde_is_callable(unchecked):
    with pytest.raises(TypeError, match="drift must be callable; got int"):
        sciflow.SDE(3, 1.0)
    with pytest.raises(ValueError, match="noise must be 'diagonal', 'scalar' or.*got 'full'"):
        sciflow.SDE(DECAY, 1.0, noise="full")


def test_a_hamiltonian_is_physical(unchecked):
    for given, error, message in (
        (dict(potential=1.0), TypeError, "potential must be callable; got float"),
        (dict(mass=0.0), ValueError, "mass must be positive; got 0.0"),
        (dict(mass=torch.tensor([1.0, -1.0])), ValueError, "mass must be positive"),
        (dict(friction=-1.0), ValueError, "friction must be a finite number, not negative"),
        (dict(kT=float("nan")), ValueError, "kT must be a finite number, not negative; got nan"),
    ):
        with pytest.raises(error, match=message):
            sciflow.Hamiltonian(**dict(potential=ENERGY) | given)


def test_no_dense_output_says_how_to_get_it():
    solution = sciflow.integrate(DECAY, torch.ones(3, 2), UNIT, method="rk4", dt=0.1)
    with pytest.raises(ValueError, match="kept no dense output.*dense=True"):
        solution(0.5)
    solution = sciflow.integrate(DECAY, torch.ones(3, 2), UNIT)
    for t in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"t must lie within \[0, 1\]; got"):
            solution(t)


@pytest.mark.parametrize("batch", ["joint", "each"])
def test_table_for_notebooks(batch):
    y0 = torch.tensor([[1.0], [-1.0]])
    solution = sciflow.integrate(lambda t, y: y**2, y0, UNIT * 2, throw=False, batch=batch)
    html, lost = solution._repr_html_(), Status(int(solution.stats.status[0]))
    assert html.startswith("<table>") and html.endswith("</table>")
    assert (
        "1 ok" in html
        and f"1 {lost.name.lower()}" in html
        and "(2, 2, 1)" in html
        and "0 to 2" in html
    )


def test_arguments_are_not_changed():
    y0, t = torch.ones(3, 2), UNIT.clone()
    sciflow.integrate(DECAY, y0, t)
    sciflow.integrate(**OU | dict(y0=y0, t=t))
    assert torch.equal(y0, torch.ones(3, 2)) and torch.equal(t, UNIT)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.slow  # 20 to 60 s of compilation each
def test_compiled_step_gives_the_same_answer(method, unchecked):
    a = torch.tensor(1.5, requires_grad=True)

    def field(t, y):
        return torch.sin(a * y) * torch.cos(t)

    y0, t = torch.randn(4, 2), torch.tensor([0.0, 0.4, 1.0])
    dt = 0.1 if method == "rk4" else None
    results = []
    for compile in (False, True, True):
        y = sciflow.integrate(field, y0, t, method=method, dt=dt, compile=compile).y
        (slope,) = torch.autograd.grad(y[-1].sum(), a)
        results.append((y, slope))
    for y, slope in results[1:]:
        torch.testing.assert_close(y, results[0][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(slope, results[0][1], rtol=1e-10, atol=1e-10)


def test_compiled_steps_forward(unchecked, monkeypatch):
    monkeypatch.setattr("sciflow.integrators.compiled.CHUNK", 6)  # quick to compile
    y0, t = torch.randn(4, 2), torch.tensor([0.0, 0.7, 1.0])  # chunks of three steps, and a rest
    with torch.no_grad():
        plain, compiled = (
            sciflow.integrate(
                lambda t, y: torch.cos(t) * y, y0, t, method="midpoint", dt=0.1, compile=c
            ).y
            for c in (False, True)
        )
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [dict(dt=0.01), dict(dt=0.5), dict()])
def test_a_compiler_that_is_wrong_is_found_out(options, unchecked, monkeypatch):
    def wrong(steps, **_):
        def compiled(t, h, y, *rest):
            end = steps(t, h, [1.0001 * x for x in y], *rest)
            return end

        return compiled

    monkeypatch.setattr(torch, "compile", wrong)
    with pytest.raises(RuntimeError, match="another answer"):
        sciflow.integrate(DECAY, torch.ones(3, 2), UNIT, compile=True, **options)
