"""Value, gradient and Laplacian of a network in one forward sweep (forward Laplacian).

A `Jet` carries a tensor with its Jacobian and its Laplacian in the coordinates of all particles.
It answers torch functions, so that a network written for tensors runs on jets unchanged; the
derivatives are plain tensors, so that a reverse pass over the sweep gives third derivatives. Li et
al., Nat. Mach. Intell. 6, 209 (2024), arXiv:2307.08214, eqs. 5 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

from sciflow.nn.jet_rules import CHAIN, RULES, beside
from sciflow.shapes import Float, Tensor


class Jet:
    """A tensor with its first derivatives and its Laplacian.

    Attributes:
        value: shape (...).
        jacobian: shape (D, ...), derivatives along D coordinates.
        laplacian: shape (...), sum of the second derivatives along the D coordinates.
        frame: whose D coordinates. "all": of all particles; "particle": of the one that the entry
            belongs to (last axis but one), see `spread`; "pair": the displacement of the two
            particles that it belongs to (the two axes before the last), see `differences`.
    """

    def __init__(
        self, value: Tensor, jacobian: Tensor, laplacian: Tensor, frame: str = "all"
    ) -> None:
        self.value, self.jacobian, self.laplacian, self.frame = value, jacobian, laplacian, frame

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
        ValueError: jets in different coordinates meet.
    """
    jets = [x for x in _leaves(args) if isinstance(x, Jet)]
    frame = jets[0].frame
    if any(jet.frame != frame for jet in jets):
        frames = " and ".join(sorted({jet.frame for jet in jets}))
        raise ValueError(f"{name} of jets in the frames {frames}: call spread or convolve first")
    if name in CHAIN:
        (x,) = args
        y, first, second = CHAIN[name](x.value)
        laplacian = first * x.laplacian + second * x.jacobian.square().sum(0)
        return Jet(y, first * x.jacobian, laplacian, frame)
    if name not in RULES:
        raise NotImplementedError(
            f"the forward Laplacian has no rule for torch.{name}; write the network without it, "
            "or add a rule to RULES in sciflow.nn.jet_rules"
        )
    result = RULES[name](*args, **kwargs)
    if name.endswith("slogdet"):
        sign, *parts = result
        return SignLog(sign, Jet(parts[0], parts[1], parts[2], frame))
    value, jacobian, laplacian = result
    return Jet(value, jacobian, laplacian, frame)


def _leaves(args: Any) -> list[Any]:
    return [y for x in args for y in (_leaves(x) if isinstance(x, tuple | list) else [x])]


def spread(x: Any) -> Any:
    """A jet of one particle each as one in the coordinates of all; anything else as it is.

    A network calls it on per-particle features, (..., particle, feature), before it mixes
    particles; until then it is spared the derivatives that are zero.
    """
    if not (isinstance(x, Jet) and x.frame == "particle"):
        return x
    dim, n = len(x.jacobian), x.shape[-2]
    one = torch.eye(n, dtype=x.dtype, device=x.value.device)
    # (n, dim, ..., n, feature): the particle of the coordinate, then of the feature.
    shape = (n, 1, *[1] * (x.ndim - 2), n, 1)
    full = (x.jacobian.unsqueeze(0) * one.view(shape)).flatten(0, 1)
    assert len(full) == n * dim
    return Jet(x.value, full, x.laplacian)


def differences(x: Any) -> Any:
    """Displacements ``x_i - x_j`` of coordinates x (..., N, d), shape (..., N, N, d).

    A network derives features of pairs from them, and `convolve` brings these to the particles:
    until then d coordinates do for all N d.

    Args:
        x: the coordinates themselves, a tensor or the jet that `forward_laplacian` gives to f.
    """
    if not isinstance(x, Jet):
        return x.unsqueeze(-2) - x.unsqueeze(-3)
    value = x.value.unsqueeze(-2) - x.value.unsqueeze(-3)
    n, dim = value.shape[-2:]
    one = torch.eye(dim, dtype=x.dtype, device=value.device).view(dim, *[1] * x.ndim, dim)
    others = 1 - torch.eye(n, dtype=x.dtype, device=value.device)  # x_i - x_i does not move
    jacobian = (one * others.unsqueeze(-1)).expand(dim, *value.shape)
    return Jet(value, jacobian, torch.zeros_like(value), "pair")


def convolve(pairs: Any, x: Any) -> Any:
    """``sum_j pairs_ij x_j``, in the coordinates of all particles.

    Args:
        pairs: features of pairs (..., N, N, c), of `differences`.
        x: features of particles (..., N, c) that were not yet mixed, or a constant.
    """
    if not isinstance(pairs, Jet):
        return (pairs * x.unsqueeze(-3)).sum(-2)
    if not isinstance(x, Jet):
        x = x.expand(*pairs.shape[:-2], -1)
        still = x.new_zeros(()).expand(len(pairs.jacobian), *x.shape)
        x = Jet(x, still, still[0], "particle")
    f, df = pairs.value, pairs.jacobian
    y = x.value.unsqueeze(-3)
    dy, lap_y = x.jacobian.unsqueeze(-3), x.laplacian.unsqueeze(-3)
    flux = df * y
    # A displacement moves with i and against j; x_j with j.
    towards = (f * dy - flux).movedim(-2, 0)  # (j, d, ..., i, c)
    n = len(towards)
    one = torch.eye(n, dtype=y.dtype, device=y.device).view(n, *[1] * (towards.ndim - 3), n, 1)
    jacobian = towards + one * flux.sum(-2)
    laplacian = 2 * (pairs.laplacian * y - (df * dy).sum(0)) + f * lap_y
    return Jet((f * y).sum(-2), jacobian.flatten(0, 1), laplacian.sum(-2))


def products(a: Any, b: Any) -> Any:
    """Scalar products ``a_i . b_j`` of particles, (..., N, N), in the coordinates of all.

    Args:
        a: features of particles (..., N, c), mixed or not yet, or constants.
        b: as a.
    """
    if not all(isinstance(x, Jet) and x.frame == "particle" for x in (a, b)):
        return spread(a) @ spread(b).transpose(-2, -1)
    # a_i . b_j moves with i by a alone, and with j by b alone.
    with_i = (beside(a.jacobian).flatten(-3, -2) @ b.value.mT).unflatten(-2, (-1, len(a.jacobian)))
    with_j = (beside(b.jacobian).flatten(-3, -2) @ a.value.mT).unflatten(-2, (-1, len(b.jacobian)))
    jacobian = torch.diag_embed(with_i.movedim(-2, 0).mT, dim1=0, dim2=-2)  # (N, d, ..., i, j)
    jacobian = jacobian + torch.diag_embed(with_j.movedim(-2, 0).mT, dim1=0, dim2=-1)
    both = torch.diag_embed((a.jacobian * b.jacobian).sum((0, -1)))
    laplacian = a.laplacian @ b.value.mT + a.value @ b.laplacian.mT + 2 * both
    return Jet(a.value @ b.value.mT, jacobian.flatten(0, 1), laplacian)


def mixture(weights: Any, x: Any) -> Any:
    """``sum_j weights_ij x_j``, (..., N, c), in the coordinates of all particles.

    Args:
        weights: of pairs (..., N, N), in the coordinates of all, or constants.
        x: features of particles (..., N, c), mixed or not yet.
    """
    if not (isinstance(weights, Jet) and isinstance(x, Jet) and x.frame == "particle"):
        return weights @ spread(x)
    w, dw, dx = weights.value, beside(weights.jacobian), beside(x.jacobian)
    dim = len(x.jacobian)
    # x_j moves with j alone: (..., i, k, d, c), by coordinate d of particle k.
    by_weights = (dw.flatten(-3, -2) @ x.value).view(*w.shape, dim, -1)
    jacobian = torch.addcmul(by_weights, w[..., None, None], dx.unsqueeze(-4))
    # The weights of j by its own coordinates, (..., i, j d).
    own = dw.unflatten(-2, (-1, dim)).diagonal(dim1=-3, dim2=-1).mT.flatten(-2)
    laplacian = weights.laplacian @ x.value + w @ x.laplacian + 2 * (own @ dx.flatten(-3, -2))
    return Jet(w @ x.value, jacobian.flatten(-3, -2).movedim(-2, 0), laplacian)


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
        f: takes x (B, N, d) as a tensor or a jet of each particle and returns (B,); it must call
            `spread` or `convolve` where it mixes particles, and use functions that have a rule.
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
    _keep_memory()
    batch, n, dim = x.shape
    seed = torch.eye(dim, dtype=x.dtype, device=x.device).view(dim, 1, 1, dim)
    result = f(Jet(x, seed.expand(dim, batch, n, dim), torch.zeros_like(x), "particle"))
    if not isinstance(result, Jet) or result.frame != "all" or result.shape != (batch,):
        raise ValueError(
            f"f must return a jet of shape ({batch},) in the coordinates of all particles; got "
            f"{tuple(result.shape)} in the frame {getattr(result, 'frame', 'of a tensor')!r}"
        )
    gradient = result.jacobian.transpose(0, 1).reshape(batch, n, dim)
    return Derivatives(result.value, gradient, result.laplacian)


@cache
def _keep_memory() -> None:
    """Keep freed memory for the next sweep, since to map it anew costs as much as to fill it.

    glibc gives back to the system what lies above a bound, which the largest block freed so far
    sets; 32 MiB is the most it learns. Elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")
