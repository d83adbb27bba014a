"""Small objectives shared by the tests of the trainer."""

import torch

from sciflow.train import Loss, Samples


class Regression(torch.nn.Module):
    """Least squares of x1 * x2 by a small network, with a batch norm (buffers) on request."""

    def __init__(self, norm=False, generator_slot=False):
        super().__init__()
        # The network is made under its own seed: two objects of a test start equal.
        with torch.random.fork_rng():
            torch.manual_seed(1)
            hidden = torch.nn.BatchNorm1d(16) if norm else torch.nn.Identity()
            self.model = torch.nn.Sequential(
                torch.nn.Linear(2, 16), hidden, torch.nn.SiLU(), torch.nn.Linear(16, 1)
            )
        if generator_slot:
            self.generator = None

    def forward(self, batch):
        x, y = batch
        if hasattr(self, "generator"):
            x = x + 0.1 * torch.randn(
                x.shape, generator=self.generator, dtype=x.dtype, device=x.device
            )
        error = (self.model(x) - y).square().mean()
        return Loss(error, {"rmse": error.detach().sqrt()})


def product_data(n=400):
    g = torch.Generator().manual_seed(7)
    x = torch.randn(n, 2, generator=g, dtype=torch.float64, device="cpu")
    return x, x.prod(1, keepdim=True)


def product_samples():
    return Samples(*product_data())


class Location(torch.nn.Module):
    """Mean squared distance of the samples to a point: a closed form for everything."""

    def __init__(self, start=0.0):
        super().__init__()
        self.centre = torch.nn.Parameter(torch.tensor([start]))

    def forward(self, batch):
        return Loss((batch - self.centre).square().mean(), {})


def same(a, b):
    """Whether two nested structures of tensors and values are equal, bit for bit (NaN = NaN)."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)
