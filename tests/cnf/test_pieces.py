"""Evaluations without gradients go in pieces: the same numbers, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sciflow import cnf
from sciflow.cnf import pieces


def particles(generator):
    field = cnf.ParticleField(4, 2, 1.3, channels=5, width=12, n_radial=8)
    torch.nn.init.normal_(field.weight.last.weight, std=0.3, generator=generator)
    return field


def conditional(generator):
    field = cnf.VelocityMLP(3, 16, 2, n_context=2, periodic=(1,), plane_waves=4)
    torch.nn.init.normal_(field.last.weight, std=0.5, generator=generator)
    return field


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().nbytes():
                size = x.untyped_storage().nbytes() // x.element_size()
                self.numbers = max(self.numbers, size)
        return out


@pytest.mark.parametrize("make", [particles, conditional])
@pytest.mark.parametrize("times", ["one", "each"])
def test_pieces_change_nothing(make, times, generator, monkeypatch):
    field = make(generator)
    x = torch.randn(101, field.dim, generator=generator)
    t = torch.tensor(0.4) if times == "one" else torch.rand(101, generator=generator)
    rest = (torch.randn(101, 2, generator=generator),) if make is conditional else ()
    with torch.no_grad():
        whole = (*field.value_and_divergence(t, x, *rest), field(t, x, *rest))
        monkeypatch.setattr(pieces, "_ON_CPU", 4000)
        parts = (*field.value_and_divergence(t, x, *rest), field(t, x, *rest))
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-13)


@pytest.mark.parametrize("make", [particles, conditional])
def test_memory_does_not_grow_with_the_batch(make, generator, monkeypatch):
    """No tensor is larger than a piece, or than the configurations that came in."""
    field, n = make(generator), 20_000
    monkeypatch.setattr(pieces, "_ON_CPU", 2**15)
    x = torch.randn(n, field.dim, generator=generator)
    rest = (torch.randn(n, 2, generator=generator),) if make is conditional else ()
    with torch.no_grad(), Largest() as seen:
        field.value_and_divergence(torch.tensor(0.4), x, *rest)
    assert seen.numbers <= max(2**15, x.numel())
    with Largest() as seen:  # the graph of a gradient has the whole batch
        field.value_and_divergence(torch.tensor(0.4), x, *rest)
    assert seen.numbers > 4 * x.numel()


def test_a_solve_in_pieces_takes_the_same_steps(generator, monkeypatch):
    flow = cnf.ContinuousFlow(particles(generator), cnf.MeanFreeGaussian(4, 2))
    x = flow.sample(60, generator=generator)
    with torch.no_grad():
        whole = flow.log_prob(x)
        monkeypatch.setattr(pieces, "_ON_CPU", 2**12)
        parts = flow.log_prob(x)
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-12)
