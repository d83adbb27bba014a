"""The forward Laplacian against torch.func, function by function and through whole networks."""

import pytest
import torch
from torch.nn import functional as F

from sciflow.nn.jet_rules import CHAIN, RULES
from sciflow.nn.laplacian import (
    convolve,
    differences,
    forward_laplacian,
    mixture,
    products,
    spread,
)

B, N, D = 3, 3, 2


def reference(f, x):
    """Value, gradient and trace of the Hessian by torch.func, sample by sample."""

    def one(y):
        return f(y.view(1, N, D))[0]

    flat = x.flatten(1)
    # Reverse over reverse: vmap of torch.func.hessian (forward over reverse) is wrong for slogdet
    # in torch 2.13; without vmap, and by finite differences, it agrees with this.
    hessian = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(one)))(flat)
    gradient = torch.func.vmap(torch.func.grad(one))(flat).view_as(x)
    return f(x), gradient, hessian.diagonal(dim1=1, dim2=2).sum(-1)


W = torch.linspace(-1, 1, 4 * D, dtype=torch.float64).view(4, D).sin()
C = torch.linspace(0.3, 1.1, N * N, dtype=torch.float64).view(N, N).cos()


def features(x):
    """(B, N, 4), all positive, of mixed particles."""
    return C @ spread(torch.tanh(F.linear(x, W, W[:, 0]))) + 4.0


def square(x):
    return features(x)[..., :N]


def elementwise(name):
    return lambda x: getattr(torch, name)(features(x) * 0.3)


CASES = {
    **{name: elementwise(name) for name in CHAIN if name not in ("silu", "gelu")},
    "silu": lambda x: F.silu(features(x)),
    "gelu": lambda x: F.gelu(features(x)),
    "add": lambda x: 1.5 + features(x) + features(x)[..., :1] + C[:, :1] + torch.ones(2, 1, 1, 1),
    "sub": lambda x: (features(x) - features(x)[:, :1].square()) - C[:, :1] + (2.0 - features(x)),
    "neg": lambda x: -features(x),
    "mul": lambda x: features(x) * features(x).exp()[:, :, :1] * C[:, :1] * 3.0,
    "div": lambda x: features(x) / features(x)[:, :1] / 3.0 + C[:, :1] / features(x),
    "pow": lambda x: features(x) ** 3 + features(x) ** -0.5,
    "matmul": lambda x: (features(x) @ features(x).transpose(1, 2)) @ C,
    "linear": lambda x: F.linear(features(x), W.T, W[0]).square(),
    "sum": lambda x: features(x).sum(1) + features(x).sum((-2, -1), keepdim=True)[:, 0],
    "mean": lambda x: features(x).mean(1, keepdim=True) - features(x).square().mean(-1)[..., None],
    "softmax": lambda x: torch.softmax(features(x).square(), 2),
    "layer_norm": lambda x: F.layer_norm(features(x).square(), (4,), W[:, 0], W[:, 1]),
    "cat": lambda x: torch.cat([features(x), features(x)[:, :1] * torch.ones(N, 1),
                                torch.ones(x.shape[0], N, 2)], 2).square(),
    "unsqueeze": lambda x: features(x).unsqueeze(1) * features(x).unsqueeze(2),
    "transpose": lambda x: features(x).transpose(1, 2).square() @ C,
    "unflatten": lambda x: features(x).unflatten(2, (2, 2)).square().sum(-2),
    "flatten": lambda x: features(x).flatten(1).square(),
    "expand": lambda x: features(x).mean(1, keepdim=True).expand(-1, 5, -1).square(),
    "getitem": lambda x: features(x)[:, [0, 2]] * features(x)[:, None, 1],
    "double": lambda x: features(x).double().square(),
    "to": lambda x: features(x).to(torch.float64).square(),
    "slogdet": lambda x: torch.linalg.slogdet(square(x))[1] * 1.5,
    "linalg_slogdet": lambda x: torch.linalg.slogdet(square(x)).logabsdet * 1.5,
}  # fmt: skip


def test_every_function_has_a_case():
    assert set(CASES) == set(CHAIN) | set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_function(name):
    def f(x):
        y = CASES[name](x)
        while len(y.shape) > 3:
            y = y.sum(0) if name == "add" else y.flatten(1)
        y = y.flatten(1) if len(y.shape) > 2 else y
        return (y * torch.linspace(0.5, 1.5, y.shape[1])).sum(1) if len(y.shape) == 2 else y

    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(1))
    value, gradient, laplacian = forward_laplacian(f, x)
    expected = reference(f, x)
    assert (value - expected[0]).abs().max() < 1e-12
    assert (gradient - expected[1]).abs().max() < 1e-10
    scale = expected[2].abs().max().clamp(min=1)
    assert ((laplacian - expected[2]).abs().max() / scale) < 1e-10


def network(x):
    """Attention, layer norm, products and determinants in float64, as a wave function has them."""
    h = spread(torch.tanh(F.linear(x, W)))
    scores = torch.softmax(h @ h.transpose(-2, -1) / 2.0, -1)
    h = F.layer_norm(h + torch.tanh(scores @ h), (4,))
    r = torch.sqrt((spread(x)[:, [0, 0, 1]] - spread(x)[:, [1, 2, 2]]).square().sum(-1) + 0.1)
    orbitals = (h[..., :N] + C) * torch.exp(-spread(x).square().sum(-1, keepdim=True))
    return torch.linalg.slogdet(orbitals.double())[1] + torch.log1p(r).sum(-1)


def test_network_against_the_hessian_of_torch_func():
    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(2))
    for got, truth in zip(forward_laplacian(network, x), reference(network, x), strict=True):
        assert ((got - truth).abs() / (1 + truth.abs())).max() < 1e-9


def test_features_of_pairs_against_the_hessian_of_torch_func():
    """Pairs with an odd part and, on the diagonal, a constant; sources that move."""

    def f(x):
        d = differences(x)
        r = torch.sqrt(d.square().sum(-1, keepdim=True) + 0.5)
        pairs = torch.tanh(
            F.linear(torch.cat([d, r], -1), torch.cat([W, C[:1, :1].expand(4, 1)], 1))
        )
        mixed = convolve(pairs, torch.tanh(F.linear(x, W)))
        return (mixed.square() @ W).sum((-2, -1)).exp()

    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(4))
    for got, truth in zip(forward_laplacian(f, x), reference(f, x), strict=True):
        assert ((got - truth).abs() / (1 + truth.abs())).max() < 1e-10


@pytest.mark.parametrize("key", ["unmixed", "mixed", "constant"])
@pytest.mark.parametrize("value", ["unmixed", "mixed"])
@pytest.mark.parametrize("weighted", [True, False])
def test_attention_against_the_hessian_of_torch_func(key, value, weighted):
    """Of particles not mixed yet, by rules of their own, mixed ones and constants; two heads."""
    before = {
        "unmixed": lambda h: h,
        "mixed": spread,
        "constant": lambda h: torch.ones(2, N, 4),
    }

    def f(x):
        h = torch.tanh(F.linear(x, torch.cat([W, W.cos()]))).unflatten(-1, (2, 4))
        h = h.transpose(-3, -2)
        scores = products(h, before[key](h.square()))
        weights = torch.softmax(scores, -1) if weighted else C.softmax(-1)
        return (mixture(weights, before[value](h)).square() @ W).sum((-3, -2, -1))

    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(5))
    for got, truth in zip(forward_laplacian(f, x), reference(f, x), strict=True):
        assert ((got - truth).abs() / (1 + truth.abs())).max() < 1e-10


def test_reverse_pass_over_the_sweep_gives_third_derivatives():
    x = torch.randn(B, N, D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    (got,) = torch.autograd.grad(forward_laplacian(network, x).laplacian.sum(), x)
    step = 1e-5
    for i in range(x.numel()):
        shift = torch.zeros(x.numel()).index_fill(0, torch.tensor([i]), step).view_as(x)
        up, down = (forward_laplacian(network, y).laplacian.sum() for y in (x + shift, x - shift))
        truth = float((up - down).detach() / (2 * step))
        assert abs(float(got.flatten()[i]) - truth) < 1e-6 * (1 + abs(truth))


def test_what_has_no_rule_or_is_not_spread_is_named():
    x = torch.randn(B, N, D)
    with pytest.raises(NotImplementedError, match="no rule for torch.erf"):
        forward_laplacian(lambda x: spread(torch.erf(x)).sum((-2, -1)), x)
    with pytest.raises(ValueError, match="frames all and particle: call spread"):
        forward_laplacian(lambda x: (x + spread(x)).sum((-2, -1)), x)
    with pytest.raises(ValueError, match=r"shape \(3,\).*frame 'particle'"):
        forward_laplacian(lambda x: x.sum((-2, -1)), x)
    with pytest.raises(AttributeError, match="a Jet has no 'cholesky'"):
        forward_laplacian(lambda x: x.cholesky(), x)
