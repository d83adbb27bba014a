"""The reversible Heun method undone on the way back, against the gradients of its steps."""

import weakref

import pytest
import torch

import sciflow

T = torch.tensor([0.0, 0.4, 1.0])


def fields(noise, net, level):
    """Drift and diffusion that depend on a network and on a tensor that a closure derives."""
    spread = level.exp()

    def drift(t, y):
        return net(y) * torch.cos(t) - y

    if noise == "number":
        return sciflow.SDE(drift, 0.3)
    if noise == "matrix":
        mixing = torch.tensor([[1.0, 0.2, -0.4], [0.3, -0.5, 0.8]])
        return sciflow.SDE(
            drift, lambda t, y: spread * torch.cos(y)[..., None] * mixing, noise="matrix"
        )
    return sciflow.SDE(drift, lambda t, y: spread * torch.sin(y + t), noise=noise)


def gradients(noise, grad):
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
    level = torch.tensor(-0.5, requires_grad=True)
    y0 = torch.randn(5, 2, requires_grad=True)
    y = sciflow.integrate(
        fields(noise, net, level), y0, T, method="reversible_heun", dt=1 / 32, seed=3, grad=grad
    ).y
    loss = y[1].pow(2).sum() + torch.sin(y[2]).sum()
    wanted = [y0, *net.parameters()] + ([level] if noise != "number" else [])
    return loss, torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("noise", ["number", "diagonal", "scalar", "matrix"])
def test_gradients_equal_direct_ones(noise):
    loss, direct = gradients(noise, "direct")
    again, got = gradients(noise, "adjoint")
    torch.testing.assert_close(again, loss, rtol=1e-13, atol=0)
    for a, b in zip(got, direct, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_gradient_of_geometric_brownian_motion():
    """y = y0 exp(a t + s W) in Stratonovich's sense: derivatives by hand, on the same path."""
    a, s = (torch.tensor(x, requires_grad=True) for x in (0.3, 0.4))
    y0 = torch.full((8, 1), 1.5, requires_grad=True)
    field = sciflow.SDE(lambda t, y: a * y, lambda t, y: s * y)
    options = dict(method="reversible_heun", dt=2.0**-11, seed=5, grad="adjoint")
    y = sciflow.integrate(field, y0, torch.tensor([0.0, 1.0]), **options).y[-1]
    got = torch.autograd.grad(y.sum(), [y0, a, s])
    w = (torch.log(y.detach() / 1.5) - 0.3) / 0.4  # what the path was, to the method's error
    exact = 1.5 * torch.exp(0.3 + 0.4 * w)
    for value, truth in zip(got, [exact / 1.5, exact.sum(), (w * exact).sum()], strict=True):
        torch.testing.assert_close(value, truth, rtol=2e-3, atol=2e-3)


def test_parts_without_noise_and_a_dict():
    y0 = {"x": torch.randn(4, 2, requires_grad=True), "w": torch.zeros(4, requires_grad=True)}
    field = sciflow.SDE(
        lambda t, y: {"x": -y["x"], "w": y["x"].square().sum(-1)},
        lambda t, y: {"x": 0.5 * torch.ones_like(y["x"]), "w": 0.0},
    )
    results = []
    for grad in ("direct", "adjoint"):
        y = sciflow.integrate(
            field, y0, T, method="reversible_heun", dt=1 / 16, seed=0, grad=grad
        ).y
        loss = y["w"][-1].sum() + y["x"][1].pow(3).sum()
        results.append(torch.autograd.grad(loss, [y0["x"], y0["w"]]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def saved_bytes(grad, steps):
    class Held:
        def __init__(self, x):
            self.x = x

    held = weakref.WeakSet()

    def pack(x):
        box = Held(x)
        held.add(box)
        return box

    k = torch.tensor(1.0, requires_grad=True)
    field = sciflow.SDE(lambda t, y: -k * torch.sin(y), lambda t, y: 0.1 * torch.cos(k * y))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.x):
        y = sciflow.integrate(
            field, torch.randn(64, 8), torch.tensor([0.0, 1.0]), method="reversible_heun",
            dt=1.0 / steps, seed=0, grad=grad,
        ).y  # fmt: skip
    storages = {box.x.untyped_storage().data_ptr(): box.x.untyped_storage() for box in held}
    total = sum(storage.nbytes() for storage in storages.values())
    torch.autograd.grad(y.sum(), k)
    return total


def test_memory_does_not_grow_with_the_steps():
    direct = [saved_bytes("direct", n) for n in (32, 128)]
    assert direct[1] > 3 * direct[0]
    back = [saved_bytes("adjoint", n) for n in (32, 128, 512)]
    assert 0 < back[0] == back[1] == back[2]


def test_other_methods_cannot_be_undone(unchecked):
    field = sciflow.SDE(lambda t, y: -y, 0.1)
    with pytest.raises(ValueError, match='grad="adjoint" needs a method of'):
        sciflow.integrate(
            field, torch.ones(2, 1), T, method="heun_strat", dt=0.1, seed=0, grad="adjoint"
        )
