"""Value, gradient and Laplacian of a network in one forward sweep (forward Laplacian).

A `Jet` carries a tensor with its Jacobian and its Laplacian in the coordinates of all particles.
It answers torch functions, so that a network written for tensors runs on jets unchanged; the
derivatives are plain tensors, so that a reverse pass over the sweep gives third derivatives. Li et
al., Nat. Mach. Intell. 6, 209 (2024), arXiv:2307.08214, eqs. 5 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sciflow.nn.jet_rules import CHAIN, RULES
from sciflow.shapes import Float, Tensor


class Jet:
    """A tensor with its first derivatives and its Laplacian.

    Attributes:
        value: shape (...).
        jacobian: shape (D, ...), derivatives along D coordinates.
        laplacian: shape (...), sum of the second derivatives along the D coordinates.
        local: the D coordinates are those of the particle that the entry belongs to (particles on
            the last axis but one), not those of all particles; see `spread`.
    """

    def __init__(
        self, value: Tensor, jacobian: Tensor, laplacian: Tensor, local: bool = False
    ) -> None:
        self.value, self.jacobian, self.laplacian, self.local = value, jacobian, laplacian, local

    @property
    def shape(self) -> torch.Size:
        """Shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the value."""
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the value."""
        return self.value.dtype

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return apply(func.__name__.strip("_"), *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Jet]:
        if name in CHAIN or name in RULES:
            return lambda *args, **kwargs: apply(name, self, *args, **kwargs)
        raise AttributeError(f"a Jet has no {name!r}")

    def __getitem__(self, index: Any) -> Jet:
        return apply("getitem", self, index)

    def __neg__(self) -> Jet:
        return apply("neg", self)

    def __add__(self, other: Any) -> Jet:
        return apply("add", self, other)

    def __sub__(self, other: Any) -> Jet:
        return apply("sub", self, other)

    def __mul__(self, other: Any) -> Jet:
        return apply("mul", self, other)

    def __truediv__(self, other: Any) -> Jet:
        return apply("div", self, other)

    def __matmul__(self, other: Any) -> Jet:
        return apply("matmul", self, other)

    def __pow__(self, exponent: int | float) -> Jet:
        return apply("pow", self, exponent)

    def __radd__(self, other: Any) -> Jet:
        return apply("add", self, other)

    def __rsub__(self, other: Any) -> Jet:
        return apply("sub", other, self)

    def __rmul__(self, other: Any) -> Jet:
        return apply("mul", self, other)

    def __rtruediv__(self, other: Any) -> Jet:
        return apply("div", other, self)


class SignLog(NamedTuple):
    """What ``slogdet`` of a jet gives: the sign is a tensor, its derivatives are zero."""

    sign: Tensor
    logabsdet: Jet


def apply(name: str, *args: Any, **kwargs: Any) -> Any:
    """The torch function ``name`` of jets and tensors.

    Raises:
        NotImplementedError: there is no rule for this function.
        ValueError: local jets meet jets in the coordinates of all particles.
    """
    jets = [x for x in _leaves(args) if isinstance(x, Jet)]
    local = jets[0].local
    if any(jet.local is not local for jet in jets):
        raise ValueError(f"{name} of a local jet and a spread one: call spread on the local one")
    if name in CHAIN:
        (x,) = args
        y, first, second = CHAIN[name](x.value)
        laplacian = first * x.laplacian + second * x.jacobian.square().sum(0)
        return Jet(y, first * x.jacobian, laplacian, local)
    if name not in RULES:
        raise NotImplementedError(
            f"the forward Laplacian has no rule for torch.{name}; write the network without it, "
            "or add a rule to RULES in sciflow.nn.jet_rules"
        )
    result = RULES[name](*args, **kwargs)
    if name.endswith("slogdet"):
        sign, *parts = result
        return SignLog(sign, Jet(parts[0], parts[1], parts[2], local))
    value, jacobian, laplacian = result
    return Jet(value, jacobian, laplacian, local)


def _leaves(args: Any) -> list[Any]:
    return [y for x in args for y in (_leaves(x) if isinstance(x, tuple | list) else [x])]


def spread(x: Any) -> Any:
    """A local jet as one in the coordinates of all particles; anything else as it is.

    A network calls it on per-particle features, (..., particle, feature), before it mixes
    particles; until then it is spared the derivatives that are zero.
    """
    if not (isinstance(x, Jet) and x.local):
        return x
    dim, n = len(x.jacobian), x.shape[-2]
    one = torch.eye(n, dtype=x.dtype, device=x.value.device)
    # (n, dim, ..., n, feature): the particle of the coordinate, then of the feature.
    shape = (n, 1, *[1] * (x.ndim - 2), n, 1)
    full = (x.jacobian.unsqueeze(0) * one.view(shape)).flatten(0, 1)
    assert len(full) == n * dim
    return Jet(x.value, full, x.laplacian)


class Derivatives(NamedTuple):
    """Of a function of the particles' coordinates.

    Attributes:
        value: (B,).
        gradient: (B, N, d).
        laplacian: (B,), over all N d coordinates.
    """

    value: Float[Tensor, "batch"]
    gradient: Float[Tensor, "batch particle dim"]
    laplacian: Float[Tensor, "batch"]


def forward_laplacian(
    f: Callable[[Any], Any], x: Float[Tensor, "batch particle dim"]
) -> Derivatives:
    """Value, gradient and Laplacian of ``f`` by one forward sweep.

    Args:
        f: takes x (B, N, d) as tensor or local jet and returns (B,); it must call `spread` before
            it mixes particles, and use functions that have a rule.
        x: coordinates (B, N, d). A graph through them is kept, so that the result can be
            differentiated once more.

    Raises:
        NotImplementedError: ``f`` uses a function without a rule.
        ValueError: ``f`` mixed particles without `spread`, or does not return (B,).

    Example:
        >>> x = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
        >>> forward_laplacian(lambda x: spread(x).square().sum((-2, -1)), x).laplacian
        tensor([8.])
    """
    batch, n, dim = x.shape
    seed = torch.eye(dim, dtype=x.dtype, device=x.device).view(dim, 1, 1, dim)
    result = f(Jet(x, seed.expand(dim, batch, n, dim), torch.zeros_like(x), local=True))
    if not isinstance(result, Jet) or result.local or result.shape != (batch,):
        raise ValueError(
            f"f must return a jet of shape ({batch},) in the coordinates of all particles; got "
            f"{tuple(result.shape)}{', local' if getattr(result, 'local', False) else ''}"
        )
    gradient = result.jacobian.transpose(0, 1).reshape(batch, n, dim)
    return Derivatives(result.value, gradient, result.laplacian)
