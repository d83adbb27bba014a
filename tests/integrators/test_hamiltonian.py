"""Symplectic and Langevin methods against closed forms, and gradients by stepping back."""

import math
import weakref

import numpy as np
import pytest
import torch

import sciflow
from sciflow.integrators import SPLITTINGS

METHODS = sorted(SPLITTINGS)


class Chain:
    """Unit masses between unit springs, both ends at a wall; brings its own force."""

    def __call__(self, q):
        wall = torch.zeros_like(q[:, :1])
        return 0.5 * torch.cat([wall, q, wall], 1).diff(dim=1).square().sum(1)

    def force(self, q):
        force = -2 * q
        force[:, 1:] += q[:, :-1]
        force[:, :-1] += q[:, 1:]
        return force


def pendulum(q):
    return (1 - torch.cos(q)).sum(1)


def solve(field, y0, t, method, dt, **more):
    return sciflow.integrate(field, y0, torch.as_tensor(t), method=method, dt=dt, **more)


def test_the_force_is_minus_the_slope():
    q = torch.randn(3, 5)
    by_rule = sciflow.Hamiltonian(Chain()).force(q)
    derived = sciflow.Hamiltonian(lambda q: Chain()(q)).force(q)
    torch.testing.assert_close(by_rule, derived, rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_coefficients(method):
    order, kicks, drifts = SPLITTINGS[method]
    assert kicks == kicks[::-1] and drifts == drifts[::-1]
    assert sum(kicks) == pytest.approx(1) and sum(drifts) == pytest.approx(1)
    # Yoshida's condition: the cubic errors of the leapfrog steps cancel
    assert (sum(a**3 for a in drifts) < 1e-14) == (order == 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mass", [1.0, 2.5, "per coordinate"])
def test_order_on_an_oscillator(method, mass):
    m = torch.tensor([0.7, 3.0]) if mass == "per coordinate" else mass
    k = torch.tensor([1.0, 2.0])
    field = sciflow.Hamiltonian(lambda q: 0.5 * (k * q**2).sum(1), m)
    q, p = torch.randn(3, 2), torch.randn(3, 2)
    t, omega = torch.tensor([0.0, 0.6, 3.0]), torch.sqrt(k / m)
    angle = omega * t[:, None, None]
    exact = q * torch.cos(angle) + p / (m * omega) * torch.sin(angle)
    errors = []
    for n in (24, 48, 96, 192, 384):
        solution = solve(field, (q, p), t, method, 3.0 / n)
        errors.append(float((solution.y[0] - exact).abs().max()))
        cost = len(SPLITTINGS[method].drifts)
        assert solution.stats.nfe == 1 + cost * solution.stats.steps
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert 2 * slopes[-1] - slopes[-2] == pytest.approx(SPLITTINGS[method].order, abs=0.2)


def test_runge_kutta_moves_a_hamiltonian_too():
    y0, t = (torch.randn(3, 2), torch.randn(3, 2)), torch.tensor([0.0, 1.0])
    field = sciflow.Hamiltonian(pendulum)
    fine = solve(field, y0, t, "yoshida4", 1e-3).y
    by_runge = sciflow.integrate(field, y0, t, method="dopri8", rtol=1e-11, atol=1e-11).y
    for a, b in zip(fine, by_runge, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_leapfrog_keeps_the_energy_of_a_chain():
    """No drift: the error at the end is that at the start, bounded by h squared."""
    q, p = torch.randn(1, 32), torch.randn(1, 32)
    field = sciflow.Hamiltonian(Chain())
    t = torch.linspace(0.0, 400.0, 401)
    with torch.no_grad():
        y = solve(field, (q, p), t, "leapfrog", 0.05).y
    energy = field.energy(y[0][:, 0], y[1][:, 0])
    error = (energy / energy[0] - 1).abs()
    assert error.max() < 2e-3
    assert error[200:].max() < 1.5 * error[:200].max()


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back(method):
    q, p = torch.randn(1, 32), torch.randn(1, 32)
    t = torch.tensor([0.0, 500.0 if method == "leapfrog" else 50.0])
    field = sciflow.Hamiltonian(Chain())
    with torch.no_grad():
        there = solve(field, (q, p), t, method, 0.05)
        assert there.stats.steps == (10_000 if method == "leapfrog" else 1000)
        end = tuple(leaf[-1] for leaf in there.y)
        back = solve(field, end, t.flip(0), method, 0.05).y
    torch.testing.assert_close(back[0][-1], q, rtol=0, atol=1e-10)
    torch.testing.assert_close(back[1][-1], p, rtol=0, atol=1e-10)


# ---------------------------------------------------------------------------------- heat bath


def test_baoab_has_no_error_in_the_positions_of_an_oscillator():
    """var(q) = kT/k at omega h = 0.5, where Euler-Maruyama is far off."""
    k, kT, mass, n = 2.0, 1.5, 0.5, 40_000
    field = sciflow.Hamiltonian(lambda q: 0.5 * k * q.square().sum(1), mass, 2.0, kT)
    zero = torch.zeros(n, 1)
    t = torch.linspace(0.0, 70.0, 29)  # omega = 2: steps of 0.25
    with torch.no_grad():
        q = solve(field, (zero, zero), t, "baoab", 0.25, seed=0).y[0][5:]
    assert float(q.var()) == pytest.approx(kT / k, rel=5e-3)
    assert float((q**4).mean()) == pytest.approx(3 * (kT / k) ** 2, rel=2e-2)


def test_free_particles_diffuse_as_the_bath_says():
    """Without force BAOAB is exact in the momenta: mean and variance of the bath's process."""
    n, friction, kT, mass = 20_000, 0.7, 2.0, torch.tensor([1.0, 4.0])
    field = sciflow.Hamiltonian(lambda q: 0 * q.sum(1), mass, friction, kT)
    p0 = torch.full((n, 2), 3.0)
    t = torch.tensor([0.0, 1.0])
    p = solve(field, (0 * p0, p0), t, "baoab", 0.3, seed=1).y[1][-1]
    variance = mass * kT * (1 - math.exp(-2 * friction))
    spread = torch.sqrt(variance / n)
    assert bool(((p.mean(0) - 3 * math.exp(-friction)).abs() < 4 * spread).all())
    assert bool(((p.var(0) / variance - 1).abs() < 4 * math.sqrt(2 / n)).all())


def test_the_noise_is_a_function_of_seed_and_time():
    field = sciflow.Hamiltonian(pendulum, 1.0, 0.5, 1.0)
    y0 = (torch.randn(4, 2), torch.randn(4, 2))

    def run(t, seed):
        return solve(field, y0, t, "baoab", 0.1, seed=seed).y[0][-1]

    one = run([0.0, 1.2], 3)
    torch.testing.assert_close(run([0.0, 0.3, 0.7, 1.2], 3), one, rtol=0, atol=1e-12)
    assert (run([0.0, 1.2], 4) - one).abs().min() > 1e-6
    # outputs much closer than dt have noise of their own
    bath = sciflow.Hamiltonian(lambda q: 0 * q.sum(1), 1.0, 1.0, 1.0)
    t = [0.0, 1.0, 1.0 + 1e-5, 1.0 + 2e-5]
    jumps = solve(bath, y0, t, "baoab", 0.1, seed=0).y[1].diff(dim=0)[1:].flatten(1)
    assert (jumps[0] - jumps[1]).abs().min() > 1e-5
    with pytest.raises(ValueError, match="tells times apart"):
        solve(bath, y0, [0.0, 1.0, 1.0 + 1e-9], "baoab", 0.1, seed=0)


def test_no_friction_is_no_noise():
    y0, t = (torch.randn(4, 2), torch.randn(4, 2)), [0.0, 1.0]
    field = sciflow.Hamiltonian(pendulum, kT=3.0)
    a, b = (solve(field, y0, t, m, 2e-3, seed=0).y[0] for m in ("baoab", "leapfrog"))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_hmc_samples_the_boltzmann_law():
    """A quartic well against quadrature, with steps so long that many moves are refused."""
    kT, n = 0.8, 4000
    field = sciflow.Hamiltonian(lambda q: q.pow(4).sum(1), 1.5, kT=kT)
    zero = torch.zeros(n, 1)
    with torch.no_grad():
        solution = solve(field, (zero, zero), torch.linspace(0.0, 80.0, 41), "hmc", 0.5, seed=2)
    q = solution.y[0][10:]
    grid = np.linspace(-4, 4, 4001)
    density = np.exp(-(grid**4) / kT)
    for power in (2, 4):
        expected = (density * grid**power).sum() / density.sum()
        chains = (q**power).mean((0, 2))  # chains are independent
        error = float(chains.std()) / math.sqrt(n)
        assert abs(float(chains.mean()) - expected) < 4 * error
        assert error < 0.02 * expected
    rate = solution.stats.acceptance
    assert rate.shape == (n,) and 0.6 < float(rate.mean()) < 0.95
    moved = (solution.y[0].diff(dim=0) != 0).double().mean((0, 2))
    torch.testing.assert_close(moved, rate)
    assert solution.stats.nfe == 1 + solution.stats.steps


def test_hmc_refuses_what_is_not_finite():
    """A wall: the energy beyond it is infinite; the chains stay inside and are all fine."""
    field = sciflow.Hamiltonian(lambda q: torch.where(q.abs() > 1, math.inf, 0 * q).sum(1), kT=1.0)
    zero = torch.zeros(500, 1)
    solution = solve(field, (zero, zero), torch.linspace(0.0, 20.0, 21), "hmc", 0.25, seed=0)
    q = solution.y[0][5:]
    assert solution.stats.ok and q.abs().max() <= 1
    assert float(q.var()) == pytest.approx(1 / 3, rel=0.1)


# ---------------------------------------------------------------------------------- gradients


def gradients(method, grad, n=20, **more):
    """Of a parameter, a tensor that a closure derives from one, masses, state and times."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    log_stiffness = torch.tensor(0.3, requires_grad=True)
    mass = torch.tensor([0.8, 1.7], requires_grad=True)
    q, p = (torch.randn(3, 2, requires_grad=True) for _ in "qp")
    t = torch.tensor([0.1, 0.6, 1.4], requires_grad=True)
    stiffness = log_stiffness.exp()
    field = sciflow.Hamiltonian(
        lambda q: net(q)[:, 0] + 0.5 * stiffness * q.square().sum(1), mass, **more
    )
    seed = 0 if more else None
    y = solve(field, (q, p), t, method, 1.3 / n, grad=grad, seed=seed).y
    loss = y[0][1].pow(2).sum() + torch.sin(y[1][2]).sum() + y[0][2].prod()
    return loss, torch.autograd.grad(loss, [q, p, t, mass, log_stiffness, *net.parameters()][:-1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grad", ["checkpoint", "adjoint"])
def test_gradients_equal_direct_ones(method, grad):
    loss, direct = gradients(method, "direct")
    again, got = gradients(method, grad)
    torch.testing.assert_close(again, loss, rtol=1e-13, atol=0)
    for a, b in zip(got, direct, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_baoab_checkpoint_equals_direct():
    bath = dict(friction=0.5, kT=1.0)
    loss, direct = gradients("baoab", "direct", **bath)
    again, got = gradients("baoab", "checkpoint", **bath)
    torch.testing.assert_close(again, loss, rtol=1e-13, atol=0)
    for a, b in zip(got[:2] + got[3:], direct[:2] + direct[3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grad", ["direct", "adjoint"])
def test_gradient_of_an_oscillator(grad):
    """q(t) = q0 cos(wt) + p0/w sin(wt): derivatives by hand, up to the error of small steps."""
    k, t = torch.tensor(1.7, requires_grad=True), torch.tensor([0.0, 2.0], requires_grad=True)
    q = torch.tensor([[1.2]], requires_grad=True)
    field = sciflow.Hamiltonian(lambda q: 0.5 * k * q.square().sum(1))
    y = solve(field, (q, torch.zeros(1, 1)), t, "yoshida4", 0.01, grad=grad).y[0][-1]
    got = torch.autograd.grad(y.sum(), [k, q, t])
    w = math.sqrt(1.7)
    speed = -1.2 * w * math.sin(2 * w)
    expected = [-1.2 * 2 * math.sin(2 * w) / (2 * w), math.cos(2 * w), [-speed, speed]]
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, torch.tensor(b).reshape(a.shape), rtol=1e-6, atol=1e-7)


def saved_bytes(grad, steps):
    """Bytes that autograd still holds after the forward pass, each storage once."""

    class Held:
        def __init__(self, x):
            self.x = x

    held = weakref.WeakSet()

    def pack(x):
        box = Held(x)
        held.add(box)
        return box

    k = torch.tensor(1.0, requires_grad=True)
    field = sciflow.Hamiltonian(lambda q: (k * (1 - torch.cos(q))).sum(1))
    y0 = (torch.randn(64, 8), torch.randn(64, 8))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.x):
        y = solve(field, y0, [0.0, 1.0], "leapfrog", 1.0 / steps, grad=grad).y
    storages = {box.x.untyped_storage().data_ptr(): box.x.untyped_storage() for box in held}
    total = sum(storage.nbytes() for storage in storages.values())
    torch.autograd.grad(y[0].sum(), k)
    return total


def test_stepping_back_holds_the_same_memory_for_any_number_of_steps():
    direct = [saved_bytes("direct", n) for n in (25, 100)]
    assert direct[1] > 3 * direct[0]
    back = [saved_bytes("adjoint", n) for n in (25, 100, 400)]
    assert 0 < back[0] == back[1] == back[2]


def test_second_derivatives_are_refused_by_the_adjoint():
    q = torch.ones(1, 1, requires_grad=True)
    y = solve(sciflow.Hamiltonian(pendulum), (q, q), [0.0, 1.0], "leapfrog", 0.1, grad="adjoint").y
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(y[0][-1].sum(), q, create_graph=True)


class Springs(Chain):
    """The chain, its force by padding: what the compiler of torch 2.13 gets right."""

    def force(self, q):
        pad = torch.nn.functional.pad
        return pad(q[:, 1:], (0, 1)) + pad(q[:, :-1], (1, 0)) - 2 * q


def test_compiled_chunks_give_the_same_answer(unchecked, monkeypatch):
    monkeypatch.setattr("sciflow.integrators.compiled.CHUNK", 3)  # quick to compile
    q, p = torch.randn(1, 8), torch.randn(1, 8)
    field = sciflow.Hamiltonian(Springs(), 1.3)  # 8 steps, 12 steps: chunks and a rest
    with torch.no_grad():
        plain, compiled = (
            solve(field, (q, p), [0.0, 0.8, 2.0], "leapfrog", 0.1, compile=c)
            for c in (False, True)
        )
    for a, b in zip(compiled.y, plain.y, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
    assert compiled.stats.nfe == plain.stats.nfe


def test_a_compiler_that_is_wrong_is_found_out(unchecked, monkeypatch):
    def wrong(steps, **_):
        return lambda t, h, y, carry: ([y[0], y[1] + 1e-6], carry)

    monkeypatch.setattr(torch, "compile", wrong)
    state = (torch.randn(1, 8), torch.randn(1, 8))
    with pytest.raises(RuntimeError, match="another answer"):
        solve(sciflow.Hamiltonian(Springs()), state, [0.0, 9.0], "yoshida4", 0.1, compile=True)


@pytest.mark.slow  # a million steps
def test_leapfrog_keeps_the_energy_for_a_million_steps(unchecked):
    field, t = sciflow.Hamiltonian(Springs()), torch.linspace(0.0, 50_000.0, 2001)
    with torch.no_grad():
        y0 = (torch.randn(1, 32), torch.randn(1, 32))
        y = solve(field, y0, t, "leapfrog", 0.05, compile=True).y
    energy = field.energy(y[0][:, 0], y[1][:, 0])
    error = (energy / energy[0] - 1).numpy()
    assert np.abs(error).max() < 2e-3
    blocks = error[1:].reshape(20, 100).mean(1)
    x = np.arange(20) - 9.5
    slope = (x * blocks).sum() / (x**2).sum()
    assert abs(slope) < 3 * (blocks - blocks.mean() - slope * x).std(ddof=2) / math.sqrt(
        (x**2).sum()
    )
