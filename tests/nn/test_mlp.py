"""The pullback of a network, against autograd."""

import pytest
import torch

from sciflow.nn import MLP


@pytest.mark.parametrize("depth", [1, 3])
def test_pullback_is_the_vector_jacobian_product(depth, generator):
    net = MLP(3, 4, 8, depth, generator=generator)
    x = torch.randn(7, 3, generator=generator, requires_grad=True)
    cotangent = torch.randn(7, 4, generator=generator, requires_grad=True)
    y, pull = net.pullback(x)
    torch.testing.assert_close(y, net(x))
    (expected,) = torch.autograd.grad(net(x), x, cotangent, create_graph=True)
    torch.testing.assert_close(pull(cotangent), expected)
    with torch.no_grad():
        torch.testing.assert_close(net.pullback(x)[1](cotangent), expected)
    inputs = [x, cotangent, *net.parameters()]
    both = [
        torch.autograd.grad(v.square().sum(), inputs, allow_unused=True, retain_graph=True)
        for v in (pull(cotangent), expected)
    ]
    for ours, theirs in zip(*both, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)


def test_derivatives_of_the_pullback(generator):
    net = MLP(2, 2, 4, 2, generator=generator)
    x, cotangent = torch.randn(2, 3, 2, generator=generator)

    def run(x, cotangent):
        return net.pullback(x)[1](cotangent)

    inputs = (x.requires_grad_(), cotangent.requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_pullback_of_frozen_weights_and_batches_of_batches(generator):
    net = MLP(3, 2, 8, 2, generator=generator).requires_grad_(False)
    x = torch.randn(4, 5, 3, generator=generator, requires_grad=True)
    cotangent = torch.randn(4, 5, 2, generator=generator)
    y, pull = net.pullback(x)
    (expected,) = torch.autograd.grad(net(x), x, cotangent, create_graph=True)
    torch.testing.assert_close(pull(cotangent), expected)
    ours, theirs = (
        torch.autograd.grad(v.sin().sum(), x, retain_graph=True)[0]
        for v in (torch.cat([y, pull(cotangent)], -1), torch.cat([net(x), expected], -1))
    )
    torch.testing.assert_close(ours, theirs)
