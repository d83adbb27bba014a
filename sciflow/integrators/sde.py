"""Steps for stochastic differential equations, one entry per method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sciflow.integrators.brownian import Brownian, BrownianWithArea
from sciflow.integrators.ode import batch_shape
from sciflow.integrators.rungekutta import LeafField, Step, Time, value_of
from sciflow.shapes import Tensor

Diffusion = Callable[[Time, list[Tensor]], list[Any]]
# Per leaf an increment of its Wiener process, None for a leaf without noise.
Increments = list[Tensor | None]


class Piece(NamedTuple):
    """The Wiener process over one step.

    ``dw`` are its increments and ``mean`` (where the method asks for the area) the mean of
    ``W(s) - W(t)`` over the step. ``matrix`` says that they are to be multiplied as matrices.
    """

    dw: Increments
    mean: Increments
    matrix: bool


def euler_maruyama(
    f: LeafField, g: Diffusion, t: float, h: float, y: list[Tensor], w: Piece, carry: Any
) -> tuple[list[Tensor], None]:
    """Ito; strong order 1/2, 1 for additive noise (Maruyama 1955)."""
    return _add(y, f(t, y), h, g(t, y), w.dw, w.matrix), None


def heun_strat(
    f: LeafField, g: Diffusion, t: float, h: float, y: list[Tensor], w: Piece, carry: Any
) -> tuple[list[Tensor], None]:
    """Stratonovich; strong order 1 for noise that commutes (Kloeden and Platen, section 15.1)."""
    f0, g0 = f(t, y), g(t, y)
    guess = _add(y, f0, h, g0, w.dw, w.matrix)
    f1, g1 = f(t + h, guess), g(t + h, guess)
    return _add(y, _mean(f0, f1), h, _mean(g0, g1), w.dw, w.matrix), None


def reversible_heun(
    f: LeafField, g: Diffusion, t: float, h: float, y: list[Tensor], w: Piece, carry: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Stratonovich; one evaluation per step, and a step can be undone without an equation.

    Kidger, Foster, Li and Lyons, NeurIPS 2021: a second copy z of the state is carried along, by
    ``z1 = 2 y - z + f(z) h + g(z) dW``, and ``y1 = y + (f(z) + f(z1)) h/2 + (g(z) + g(z1)) dW/2``.
    """
    n = len(y)
    z, f0, g0 = (carry[:n], carry[n : 2 * n], carry[2 * n :]) if carry else (y, f(t, y), g(t, y))
    mirrored = [2 * a - b for a, b in zip(y, z, strict=True)]
    z1 = _add(mirrored, f0, h, g0, w.dw, w.matrix)
    f1, g1 = f(t + h, z1), g(t + h, z1)
    y1 = _add(y, _mean(f0, f1), h, _mean(g0, g1), w.dw, w.matrix)
    return y1, [*z1, *f1, *(torch.as_tensor(x).to(y[0]) for x in g1)]


def sra1(
    f: LeafField, g: Diffusion, t: float, h: float, y: list[Tensor], w: Piece, carry: Any
) -> tuple[list[Tensor], None]:
    """Additive noise; strong order 3/2 (Roessler, SIAM J. Numer. Anal. 48, 922 (2010), SRA1)."""
    f0, g0, g1 = f(t, y), g(t, y), g(t + h, y)
    guess = _add(y, f0, 0.75 * h, [1.5 * x for x in g1], w.mean, w.matrix)
    f1 = f(t + 0.75 * h, guess)
    slope = [(a + 2 * b) / 3 for a, b in zip(f0, f1, strict=True)]
    rest = [None if a is None or b is None else a - b for a, b in zip(w.dw, w.mean, strict=True)]
    return _add(_add(y, slope, h, g1, rest, w.matrix), None, h, g0, w.mean, w.matrix), None


@dataclass(frozen=True)
class SDEMethod:
    """One method: its rule, evaluations of the drift per step, and what it asks for.

    ``start`` counts evaluations before the first step; ``additive`` methods are wrong for noise
    that depends on the state; ``area`` methods need the space-time Levy area.
    """

    rule: Callable[..., tuple[list[Tensor], list[Tensor] | None]]
    evaluations: int
    start: int = 0
    additive: bool = False
    area: bool = False


SDE_METHODS: dict[str, SDEMethod] = {
    "euler_maruyama": SDEMethod(euler_maruyama, 1),
    "heun_strat": SDEMethod(heun_strat, 2),
    "reversible_heun": SDEMethod(reversible_heun, 1, start=1),
    "sra1": SDEMethod(sra1, 2, additive=True, area=True),
}


def _mean(a: list[Any], b: list[Any]) -> list[Any]:
    return [0.5 * (x + y) for x, y in zip(a, b, strict=True)]


def _add(
    y: list[Tensor], f: list[Tensor] | None, h: float, g: list[Any], dw: Increments, matrix: bool
) -> list[Tensor]:
    """``y + h f + g dw``, a new tensor per leaf."""
    new = []
    for i, (moved, g_i, dw_i) in enumerate(zip(y, g, dw, strict=True)):
        if f is not None:
            moved = torch.add(moved, f[i], alpha=h)
        if dw_i is None:
            pass
        elif matrix:
            moved = moved + (g_i @ dw_i.unsqueeze(-1)).squeeze(-1)
        elif isinstance(g_i, Tensor):
            moved = moved + g_i * dw_i
        elif f is None:
            moved = torch.add(moved, dw_i, alpha=g_i)
        else:  # a tensor of our own
            moved.add_(dw_i, alpha=g_i)
        new.append(moved)
    return new


def noise_term(g: list[Any], dw: Increments, matrix: bool) -> list[Tensor | None]:
    """``g dw`` per leaf; None for a leaf without noise."""
    return [
        None if b is None else (a @ b.unsqueeze(-1)).squeeze(-1) if matrix else a * b
        for a, b in zip(g, dw, strict=True)
    ]


class SDEStepper:
    """Steps of one SDE along the Wiener process of one seed."""

    def __init__(
        self,
        method: str,
        f: LeafField,
        g: Diffusion,
        y0: list[Tensor],
        times: list[float],
        dt: float,
        seed: int,
        noise: str = "diagonal",
    ) -> None:
        self.method, self.f, self.g, self.matrix = SDE_METHODS[method], f, g, noise == "matrix"
        span = abs(times[-1] - times[0])
        # Times off the dyadic grid (output times) are located to 2**-26 of the span.
        resolution = 2.0 ** (math.floor(math.log2(span)) - 26)
        if dt < resolution:
            raise ValueError(f"dt must be at least {resolution:g}, span / 2**26; got {dt:g}")
        with torch.no_grad():
            amplitudes = g(times[0], y0)
            if self.method.additive:
                _check_additive(method, amplitudes, g(times[0], [y + 1 for y in y0]))
        kind = BrownianWithArea if self.method.area else Brownian
        self.paths: list[Brownian | None] = []
        for i, (part, y) in enumerate(zip(amplitudes, y0, strict=True)):
            shape = _process_shape(noise, part, y0, i)
            # Scalar noise is one process: the same seed for every leaf.
            key = seed + ((i if noise == "diagonal" else 0) << 40)
            quiet = not isinstance(part, Tensor) and part == 0
            path = None if quiet else kind(key, shape, y.dtype, y.device, resolution)
            self.paths.append(path)

    def __call__(
        self,
        t: Time,
        h: Time,
        y: list[Tensor],
        k0: list[Tensor] | None,
        alive: Tensor | None = None,
    ) -> Step:
        """Take one step, in the form of all steppers."""
        start, h = value_of(t), value_of(h)  # an SDE's times have no gradient
        y1, carry = self.method.rule(self.f, self.g, start, h, y, self.piece(start, h), k0)
        return Step(t, h, y, y1, [], carry)

    def piece(self, start: float, h: float) -> Piece:
        """The Wiener process from ``start`` over ``h``."""
        end = start + h
        mean: Increments = []
        if self.method.area:
            dw: Increments = []
            for path in self.paths:
                if isinstance(path, BrownianWithArea):
                    increment, area = path.increment_and_area(start, end)
                    dw.append(increment)
                    mean.append(0.5 * increment + area)
                else:
                    dw.append(None)
                    mean.append(None)
        else:
            dw = [None if path is None else path.shared(start, end) for path in self.paths]
        return Piece(dw, mean, self.matrix)


def _process_shape(noise: str, diffusion: Any, y0: list[Tensor], i: int) -> tuple[int, ...]:
    """Shape of the Wiener process of a leaf, for a diffusion that fits it."""
    leaf = y0[i]
    if noise == "matrix":
        fits = len(y0) == 1 and leaf.ndim and isinstance(diffusion, Tensor) and diffusion.ndim > 1
        if not fits or diffusion.shape[-2] != leaf.shape[-1]:
            got = tuple(diffusion.shape) if isinstance(diffusion, Tensor) else repr(diffusion)
            raise ValueError(
                f"matrix noise needs a state of one tensor and a diffusion (..., dim, m) for "
                f"its shape (..., dim), {tuple(leaf.shape)}; got {got}"
            )
        return (*leaf.shape[:-1], diffusion.shape[-1])
    if isinstance(diffusion, Tensor):
        try:
            fits = torch.broadcast_shapes(diffusion.shape, leaf.shape) == leaf.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"diffusion must broadcast to its leaf {tuple(leaf.shape)}; "
                f"got {tuple(diffusion.shape)}"
            )
    if noise == "scalar":
        batch = batch_shape(y0)
        return (*batch, *[1] * (leaf.ndim - len(batch)))
    return tuple(leaf.shape)


def _check_additive(method: str, here: list[Any], there: list[Any]) -> None:
    for a, b in zip(here, there, strict=True):
        if not bool((torch.as_tensor(a) == torch.as_tensor(b)).all()):
            raise ValueError(
                f"method {method!r} is for additive noise, but the diffusion depends on the "
                "state: take 'heun_strat' or 'euler_maruyama'"
            )
