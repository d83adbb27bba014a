"""The continuous adjoint against the gradients of the steps themselves, and its memory."""

import math
import weakref

import pytest
import torch

import sciflow
from sciflow import IntegrationError
from sciflow.integrators import TABLEAUS

METHODS = ["rk4", "dopri5", "tsit5", "dopri8"]


def setting():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    log_rate = torch.tensor(-0.2, requires_grad=True)
    y0 = torch.randn(4, 2, requires_grad=True)
    t = torch.tensor([0.0, 0.5, 1.3], requires_grad=True)
    return net, log_rate, y0, t


def gradients(method, grad, dt=None, tolerance=1e-10, scale=1.0):
    net, log_rate, y0, t = setting()
    rate = log_rate.exp()  # what a closure holds need not be a leaf, nor belong to a module

    def field(s, y):
        return net(torch.cat([y, s.expand(len(y), 1)], 1)) - rate * y

    y = sciflow.integrate(
        field, y0, t, method=method, dt=dt, grad=grad, rtol=tolerance, atol=tolerance
    ).y
    loss = scale * ((y[-1] ** 2).sum() + torch.sin(y[1]).sum() + y[0].sum())
    return y, torch.autograd.grad(loss, [y0, t, log_rate, *net.parameters()])


@pytest.mark.parametrize("method", METHODS)
def test_equals_direct_in_the_limit(method):
    dt = None if TABLEAUS[method].adaptive else 0.01
    y, direct = gradients(method, "direct", dt)
    again, got = gradients(method, "adjoint", dt)
    torch.testing.assert_close(again, y, rtol=0, atol=1e-14)
    for a, b in zip(got, direct, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_units_of_the_loss_do_not_matter():
    """A loss of 1e-8, as of a mean over many samples, keeps the relative error."""
    _, one = gradients("dopri5", "adjoint", tolerance=1e-7)
    _, small = gradients("dopri5", "adjoint", tolerance=1e-7, scale=1e-8)
    for a, b in zip(small, one, strict=True):
        torch.testing.assert_close(1e8 * a, b, rtol=1e-10, atol=1e-12)


def test_closed_form_backwards_in_time_and_complex():
    rate = torch.tensor(0.7, requires_grad=True)
    y0 = torch.tensor([[1.0 + 0.5j]], requires_grad=True)
    t = torch.tensor([1.0, -0.5], requires_grad=True)
    y = sciflow.integrate(
        lambda s, y: 1j * rate * y, y0, t, rtol=1e-10, atol=1e-10, grad="adjoint"
    ).y[-1]
    got = torch.autograd.grad(y.real.sum(), [rate, y0, t])
    span = -1.5
    turn = torch.exp(1j * rate.detach() * span)
    slope = (1j * y0.detach() * turn).real
    expected = [(slope * span).sum(), turn.conj().reshape(1, 1), 0.7 * slope[0] * (-1.0)]
    torch.testing.assert_close(got[0], expected[0], rtol=1e-8, atol=0)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-8, atol=0)
    speed = 0.7 * float(slope)
    torch.testing.assert_close(got[2], torch.tensor([-speed, speed]), rtol=1e-8, atol=0)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_log_density(trace):
    results = []
    for grad in ("direct", "adjoint"):
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        x = torch.randn(5, 2, requires_grad=True)
        field = sciflow.WithLogDensity(lambda t, x, net=net: torch.cos(t) * net(x), trace)
        y = sciflow.integrate(
            field, (x, torch.zeros(5)), torch.tensor([0.0, 1.0]), rtol=1e-9, atol=1e-9,
            grad=grad, seed=0,
        ).y  # fmt: skip
        loss = (y[0][-1] ** 2).sum() - y[1][-1].sum()
        results.append(torch.autograd.grad(loss, [x, *list(net.parameters())[:3]]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_parameters_that_sleep_at_first_are_found():
    """A module whose second half wakes up later."""

    class Late(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (torch.nn.Parameter(torch.tensor(x)) for x in (0.3, 0.4))

        def forward(self, t, y):
            return self.a * y if t < 0.5 else self.b * y

    field = Late()
    t = torch.tensor([0.0, 0.5, 1.0])
    y = sciflow.integrate(field, torch.ones(1, 1), t, method="rk4", dt=0.01, grad="adjoint").y
    y[-1].sum().backward()
    for x in (field.a, field.b):
        assert float(x.grad) == pytest.approx(0.5 * math.exp(0.35), rel=0.02)


def test_memory_is_that_of_the_outputs():
    class Held:
        def __init__(self, x):
            self.x = x

    def saved(grad, steps):
        held = weakref.WeakSet()

        def pack(x):
            box = Held(x)
            held.add(box)
            return box

        net, _, y0, t = setting()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.x):
            y = sciflow.integrate(
                lambda s, y: net(torch.cat([y, y[:, :1]], 1)), y0, t.detach(), method="rk4",
                dt=1.3 / steps, grad=grad,
            ).y  # fmt: skip
        storages = {b.x.untyped_storage().data_ptr(): b.x.untyped_storage() for b in held}
        total = sum(storage.nbytes() for storage in storages.values())
        if steps == 25:
            torch.autograd.grad(y[-1].sum(), y0)
        return total

    assert saved("direct", 100) > 3 * saved("direct", 25)
    sizes = [saved("adjoint", n) for n in (25, 100, 400)]
    assert 0 < sizes[0] == sizes[1] == sizes[2]


def test_second_derivatives_and_lost_adjoints_are_refused():
    y0 = torch.ones(2, 1, requires_grad=True)
    t = torch.tensor([0.0, 1.0])
    y = sciflow.integrate(lambda s, y: -y, y0, t, grad="adjoint").y
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(y[-1].sum(), y0, create_graph=True)

    # Strong damping is strong growth backwards: what is left of the state says nothing.
    y = sciflow.integrate(lambda s, y: -900 * y, y0, t, grad="adjoint", rtol=1e-3).y
    with pytest.raises(IntegrationError, match="adjoint equation could not be solved"):
        torch.autograd.grad(y[-1].sum(), y0)
