"""Two sets of columns, taken and put back: blocks, every other column, and any others."""

import pytest
import torch

from sciflow.nct.layers.base import Partition


@pytest.mark.parametrize(
    "n_dim, first, second",
    [
        (5, [0, 1], [2, 3, 4]),
        (5, [2, 3, 4], [0, 1]),
        (6, [0, 2, 4], [1, 3, 5]),
        (6, [1, 3, 5], [0, 2, 4]),
        (5, [1, 3], [0, 2, 4]),
        (6, [5, 1], [3]),
    ],
)
def test_columns_are_those_of_indexing(n_dim, first, second, generator):
    parts = Partition(n_dim, first, second)
    x = torch.randn(4, n_dim, generator=generator, requires_grad=True)
    one, other = parts.take(x)
    torch.testing.assert_close(one, x[:, first], atol=0, rtol=0)
    torch.testing.assert_close(other, x[:, second], atol=0, rtol=0)
    expected = x.clone()
    expected[:, first] = x[:, first].sin()
    expected[:, second] = x[:, second].exp()
    found = parts.put(x, one.sin(), other.exp())
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    grads = [
        torch.autograd.grad(v.square().sum(), x, retain_graph=True) for v in (found, expected)
    ]
    torch.testing.assert_close(*grads)
