"""How value, Jacobian and Laplacian pass through each torch function: two tables.

``CHAIN``: elementwise functions, by value, first and second derivative. ``RULES``: everything
else, from jets and tensors to the triple (value, jacobian, laplacian). A function new to the
forward Laplacian is one entry here and one in the cases of its test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from sciflow.shapes import Tensor

Triple = tuple[Tensor, Tensor, Tensor]


def _tanh(x: Tensor) -> Triple:
    y = x.tanh()
    slope = 1 - y * y
    return y, slope, -2 * y * slope


def _sqrt(x: Tensor) -> Triple:
    y = x.sqrt()
    slope = 0.5 / y
    return y, slope, -0.5 * slope / x


def _exp(x: Tensor) -> Triple:
    y = x.exp()
    return y, y, y


def _log(x: Tensor) -> Triple:
    slope = 1 / x
    return x.log(), slope, -slope * slope


def _log1p(x: Tensor) -> Triple:
    slope = 1 / (1 + x)
    return x.log1p(), slope, -slope * slope


def _reciprocal(x: Tensor) -> Triple:
    y = 1 / x
    return y, -y * y, 2 * y * y * y


def _sigmoid(x: Tensor) -> Triple:
    y = x.sigmoid()
    slope = y * (1 - y)
    return y, slope, slope * (1 - 2 * y)


def _silu(x: Tensor) -> Triple:
    y, first, second = _sigmoid(x)
    return x * y, y + x * first, 2 * first + x * second


def _gelu(x: Tensor) -> Triple:
    cdf, pdf = torch.special.ndtr(x), torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return x * cdf, cdf + x * pdf, (2 - x * x) * pdf


CHAIN: dict[str, Callable[[Tensor], Triple]] = {
    "abs": lambda x: (x.abs(), x.sign(), torch.zeros_like(x)),
    "cos": lambda x: (x.cos(), -x.sin(), -x.cos()),
    "exp": _exp,
    "gelu": _gelu,
    "log": _log,
    "log1p": _log1p,
    "reciprocal": _reciprocal,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "sin": lambda x: (x.sin(), x.cos(), -x.sin()),
    "sqrt": _sqrt,
    "square": lambda x: (x.square(), 2 * x, 2 * torch.ones_like(x)),
    "tanh": _tanh,
}


def _is_jet(x: Any) -> bool:
    return hasattr(x, "jacobian")


def _value(x: Any) -> Any:
    return x.value if _is_jet(x) else x


def _each(x: Any, f: Callable[[Tensor], Tensor]) -> Triple:
    """A linear function of trailing axes only."""
    return f(x.value), f(x.jacobian), f(x.laplacian)


def _behind(dim: int, n: int) -> int:
    """An axis counted from the end, so that the leading axis of the Jacobian does not matter."""
    return dim if dim < 0 else dim - n


def _wide(x: Any, n: int) -> Tensor:
    """The Jacobian with axes put in after the first, until the value would have ``n``."""
    return x.jacobian.reshape(len(x.jacobian), *[1] * (n - x.ndim), *x.shape)


def _add(a: Any, b: Any) -> Triple:
    value = _value(a) + _value(b)
    n = value.ndim
    if _is_jet(a) and _is_jet(b):
        return value, _wide(a, n) + _wide(b, n), a.laplacian + b.laplacian
    jet = a if _is_jet(a) else b
    return (
        value,
        _wide(jet, n).expand(len(jet.jacobian), *value.shape),
        jet.laplacian.expand(value.shape),
    )


def _neg(x: Any) -> Triple:
    return _each(x, torch.neg)


def _scale(jet: Any, factor: Any) -> Triple:
    """A jet times a constant."""
    value = jet.value * factor
    return value, _wide(jet, value.ndim) * factor, jet.laplacian * factor


def _mul(a: Any, b: Any) -> Triple:
    if not _is_jet(a):
        return _scale(b, a)
    if not _is_jet(b):
        return _scale(a, b)
    value = a.value * b.value
    left, right = _wide(a, value.ndim), _wide(b, value.ndim)
    cross = (left * right).sum(0)
    return (
        value,
        left * b.value + a.value * right,
        a.laplacian * b.value + 2 * cross + a.value * b.laplacian,
    )


class _Plain:
    """The result of a rule as an operand of the next."""

    def __init__(self, parts: Triple) -> None:
        self.value, self.jacobian, self.laplacian = parts
        self.shape, self.ndim = self.value.shape, self.value.ndim


def _chain(name: str, x: Any) -> _Plain:
    y, first, second = CHAIN[name](x.value)
    laplacian = first * x.laplacian + second * x.jacobian.square().sum(0)
    return _Plain((y, first * x.jacobian, laplacian))


def _sub(a: Any, b: Any) -> Triple:
    return _add(a, _Plain(_neg(b)) if _is_jet(b) else -b)


def _div(a: Any, b: Any) -> Triple:
    return _mul(a, _chain("reciprocal", b)) if _is_jet(b) else _scale(a, 1 / b)


def _pow(x: Any, exponent: int | float) -> Triple:
    n, v = exponent, x.value
    first, second = n * v ** (n - 1), n * (n - 1) * v ** (n - 2)
    laplacian = first * x.laplacian + second * x.jacobian.square().sum(0)
    return v**n, first * x.jacobian, laplacian


def _matmul(a: Any, b: Any) -> Triple:
    if not _is_jet(b):
        return _each(a, lambda x: x @ b)
    if not _is_jet(a):
        return _each(b, lambda x: a @ x)
    # Rows of value, Laplacian and all D derivatives side by side: few large products instead of
    # many small ones.
    size = len(a.jacobian)
    left = torch.cat([beside(a.jacobian), a.laplacian.unsqueeze(-2), a.value.unsqueeze(-2)], -2)
    right = torch.cat([beside(b.jacobian.mT), b.laplacian.mT.unsqueeze(-2)], -2)
    first = (left.flatten(-3, -2) @ b.value).unflatten(-2, (-1, size + 2))  # (..., m, D + 2, n)
    second = (right.flatten(-3, -2) @ a.value.mT).unflatten(-2, (-1, size + 1))
    cross = left[..., :size, :].flatten(-2) @ right[..., :size, :].flatten(-2).mT
    second = second.movedim(-1, -3).mT  # (..., m, D + 1, n)
    moved = first[..., :-1, :] + second
    return first[..., -1, :], moved[..., :-1, :].movedim(-2, 0), moved[..., -1, :] + 2 * cross


def beside(jacobian: Tensor) -> Tensor:
    """The derivatives (D, ..., m, k) by the rows that they belong to, (..., m, D, k)."""
    return jacobian.movedim(0, -2)


def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Triple:
    value, jacobian, laplacian = _each(x, lambda y: F.linear(y, weight))
    return (value if bias is None else value + bias), jacobian, laplacian


def _sum(x: Any, dim: int | Sequence[int], keepdim: bool = False) -> Triple:
    dims = [_behind(d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim)]
    return _each(x, lambda y: y.sum(dims, keepdim))


def _mean(x: Any, dim: int | Sequence[int], keepdim: bool = False) -> Triple:
    dims = [_behind(d, x.ndim) for d in ([dim] if isinstance(dim, int) else dim)]
    return _each(x, lambda y: y.mean(dims, keepdim))


def _softmax(x: Any, dim: int, dtype: torch.dtype | None = None) -> Triple:
    dim = _behind(dim, x.ndim)
    y = x.value.softmax(dim)

    def centred(z: Tensor) -> Tensor:
        return z - (y * z).sum(dim, keepdim=True)

    slope = centred(x.jacobian)
    # d2 y = y (d d2x' - sum y d d2x') + y (dx' dx' - sum y dx' dx'), dx' the centred derivative
    return y, y * slope, y * centred(x.laplacian + slope.square().sum(0))


def _layer_norm(
    x: Any,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Triple:
    dims = list(range(-len(normalized_shape), 0))
    centred = _Plain(_each(x, lambda y: y - y.mean(dims, keepdim=True)))
    spread = _Plain(_add(_Plain(_mean(_chain("square", centred), dims, True)), eps))
    result = _Plain(_mul(centred, _chain("reciprocal", _chain("sqrt", spread))))
    if weight is not None:
        result = _Plain(_scale(result, weight))
    value = result.value if bias is None else result.value + bias
    return value, result.jacobian, result.laplacian


def _cat(xs: Sequence[Any], dim: int) -> Triple:
    n = _value(xs[0]).ndim
    dim = _behind(dim, n)
    jets = [x for x in xs if _is_jet(x)]
    size = len(jets[0].jacobian)

    def parts(x: Any) -> Triple:
        if _is_jet(x):
            return x.value, x.jacobian, x.laplacian
        return x, x.new_zeros(()).expand(size, *x.shape), torch.zeros_like(x)

    values, jacobians, laplacians = zip(*map(parts, xs), strict=True)
    return torch.cat(values, dim), torch.cat(jacobians, dim), torch.cat(laplacians, dim)


def _unsqueeze(x: Any, dim: int) -> Triple:
    return _each(x, lambda y: y.unsqueeze(_behind(dim, x.ndim + 1)))


def _transpose(x: Any, dim0: int, dim1: int) -> Triple:
    dims = _behind(dim0, x.ndim), _behind(dim1, x.ndim)
    return _each(x, lambda y: y.transpose(*dims))


def _unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Triple:
    return _each(x, lambda y: y.unflatten(_behind(dim, x.ndim), sizes))


def _flatten(x: Any, start_dim: int, end_dim: int = -1) -> Triple:
    ends = _behind(start_dim, x.ndim), _behind(end_dim, x.ndim)
    return _each(x, lambda y: y.flatten(*ends))


def _expand(x: Any, *shape: int) -> Triple:
    jacobian = _wide(x, len(shape))
    full = tuple(n if s == -1 else s for s, n in zip(shape, jacobian.shape[1:], strict=True))
    return x.value.expand(full), jacobian.expand(-1, *full), x.laplacian.expand(full)


def _getitem(x: Any, index: Any) -> Triple:
    index = index if isinstance(index, tuple) else (index,)
    return x.value[index], x.jacobian[(slice(None), *index)], x.laplacian[index]


def _to(x: Any, dtype: torch.dtype) -> Triple:
    return _each(x, lambda y: y.to(dtype))


def _slogdet(x: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sign, log|det A|, tr(A^-1 dA), and tr(A^-1 d2A) - sum of tr((A^-1 dA)^2)."""
    sign, value = torch.linalg.slogdet(x.value)
    inverse = torch.linalg.inv_ex(x.value).inverse
    size, n = len(x.jacobian), x.shape[-1]
    # (..., n, D n): one product per matrix, instead of D small ones.
    side_by_side = x.jacobian.movedim(0, -2).flatten(-2)
    moved = (inverse @ side_by_side).unflatten(-1, (size, n))  # (..., n, D, n)
    jacobian = moved.diagonal(dim1=-3, dim2=-1).sum(-1).movedim(-1, 0)
    squares = (moved * moved.transpose(-3, -1)).sum((-3, -2, -1))
    return sign, value, jacobian, (inverse.mT * x.laplacian).sum((-2, -1)) - squares


RULES: dict[str, Callable[..., Any]] = {
    "add": _add,
    "cat": _cat,
    "div": _div,
    "double": lambda x: _to(x, torch.float64),
    "expand": _expand,
    "flatten": _flatten,
    "getitem": _getitem,
    "layer_norm": _layer_norm,
    "linalg_slogdet": _slogdet,
    "linear": _linear,
    "matmul": _matmul,
    "mean": _mean,
    "mul": _mul,
    "neg": _neg,
    "pow": _pow,
    "slogdet": _slogdet,
    "softmax": _softmax,
    "sub": _sub,
    "sum": _sum,
    "to": _to,
    "transpose": _transpose,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
}
