"""How often a solver asks the device for a number: each time, a GPU would stand still."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import sciflow


class Count(TorchDispatchMode):
    """Counts the operations that hand a value of a tensor to Python."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self):
        names = ("_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal")
        return sum(self.seen[name] for name in names)


def waits_and_steps(field, y0, end, **options):
    with torch.no_grad(), Count() as count:
        stats = sciflow.integrate(field, y0, torch.tensor([0.0, end]), **options).stats
    return count.waits, int(stats.steps + stats.rejected)


def oscillator(t, y):
    return torch.stack([y[:, 1], -y[:, 0]], 1)


SPRING = sciflow.Hamiltonian(lambda q: 0.5 * q.square().sum(1))
NOISY = sciflow.SDE(lambda t, y: -y, 0.3)


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "dopri8"])
def test_an_adaptive_step_waits_once(method, unchecked):
    y0 = torch.randn(16, 2)
    short, few = waits_and_steps(oscillator, y0, 1.0, method=method)
    long, many = waits_and_steps(oscillator, y0, 20.0, method=method)
    assert many > few + 5
    assert long - short == many - few


@pytest.mark.parametrize(
    "field, method",
    [(oscillator, m) for m in ("euler", "midpoint", "heun", "rk4", "dopri5")]
    + [(SPRING, m) for m in ("leapfrog", "yoshida4")]
    + [(NOISY, m) for m in ("euler_maruyama", "heun_strat", "reversible_heun", "sra1")],
)
def test_constant_steps_never_wait(field, method, unchecked):
    y0 = torch.randn(16, 2)
    if field is SPRING:
        y0 = (y0, torch.randn(16, 2))
    more = dict(seed=0) if field is NOISY else {}
    short, few = waits_and_steps(field, y0, 1.0, method=method, dt=0.125, **more)
    long, many = waits_and_steps(field, y0, 16.0, method=method, dt=0.125, **more)
    assert many > few + 100
    assert long == short
