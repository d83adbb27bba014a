"""The maps of each kind of model that are exported: one table.

An exporter is a function that takes a model and gives its maps; a new one is an entry of
`EXPORTERS` and a model in ``tests/contracts/test_exporters.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sciflow.am import ActionPotential
from sciflow.bridges.bias import ModeBias
from sciflow.bridges.loops import FlowEnergy, FlowLoop, FlowMap, Piece
from sciflow.bridges.metadata import Invariance
from sciflow.bridges.steps import METHOD, constant_steps
from sciflow.bridges.tracing import Later
from sciflow.cnf import ContinuousFlow, MeanFreeGaussian, StandardBase
from sciflow.nct import CanonicalTransformation
from sciflow.nct.layers import Linear, PointMap
from sciflow.shapes import Float, Tensor
from sciflow.systems import Molecule

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Map:
    """One map of a model.

    Attributes:
        inputs: names of its inputs (B, ...), in order.
        outputs: names of its outputs (B, ...), in order.
        function: tensors to a tuple of tensors.
        example: inputs of a batch of this size, such as the model meets them.
        note: how it differs from the model.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    function: Callable[..., Tensors]
    example: Callable[[int], Tensors]
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """What a model does not know of itself.

    Attributes:
        units: its system of units; None for what the model says, or reduced.
        kT: thermal energy in those units; None for the model's own.
        tolerance: error of a flow by its constant steps, see `constant_steps`.
    """

    units: str | None = None
    kT: float | None = None
    tolerance: float = 1e-7


@dataclass(frozen=True)
class Parts:
    """What an exporter makes of a model.

    Attributes:
        maps: by name.
        units: system of units.
        kT: thermal energy.
        invariance: rigid motions that leave the density as it is.
        molecule: atoms, where they are known.
    """

    maps: dict[str, Map]
    units: str = "reduced"
    kT: float | None = None
    invariance: Invariance = "none"
    molecule: Molecule | None = field(default=None, repr=False)


def with_forces(
    energy: Callable[[Tensor], Float[Tensor, " batch"]],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Energies (B,) and forces -dE/dq (B, ...) of ``q``."""

    def function(q: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            value = energy(q)
            (gradient,) = torch.autograd.grad(value.sum(), q)
        return value.detach(), -gradient

    return function


class SolvedLinear(Linear):
    """A linear layer that keeps its inverse, which a program then need not compute."""

    def __init__(self, layer: Linear) -> None:
        super().__init__(**layer.config)
        self.to(layer.basis)
        self.set_modes(layer.center, layer.basis)
        self.register_buffer("inverse_basis", torch.linalg.inv(self.basis))
        self.register_buffer("log_volume", torch.linalg.slogdet(self.basis).logabsdet)

    def coordinates(
        self, q: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Mode coordinates Q = basis^-1 (q - center)."""
        Q = (self.columns.take(q) - self.center) @ self.inverse_basis.T
        return self.columns.put(q, Q), -self._log_det(q)

    def inverse(
        self, Q: Float[Tensor, "batch dim"], P: Float[Tensor, "batch dim"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Positions and momenta of modes."""
        p = self.columns.take(P) @ self.inverse_basis
        return self.coordinates_inverse(Q)[0], self.columns.put(P, p)

    def _log_det(self, x: Tensor) -> Tensor:
        return self.log_volume.expand(len(x))


def solve_linear(model: CanonicalTransformation) -> None:
    """Put `SolvedLinear` in the place of each linear layer."""
    for i, layer in enumerate(model.layers):
        if type(layer) is Linear:
            model.layers[i] = SolvedLinear(layer).requires_grad_(False)


def canonical_maps(model: CanonicalTransformation, settings: Settings) -> Parts:
    """Both directions of phase space; with a map of coordinates also modes, density, energy.

    The density of a molecule is that of its 3N positions, as a simulation samples them (see
    `Chart.cartesian`): the Boltzmann density of ``energy`` is the model.
    """
    solve_linear(model)
    units = _agreed("units", model.units if model.units != "reduced" else None, settings.units)
    kT = _agreed("kT", model.kT, settings.kT)
    point = lambda n: tuple(model.sample(n))
    latent = lambda n: tuple(model.to_latent(*model.sample(n)))
    maps = {
        "to_latent": Map(("q", "p"), ("Q", "P"), model.to_latent, point),
        "to_physical": Map(("Q", "P"), ("q", "p"), model.to_physical, latent),
    }

    def log_prob(q: Tensor) -> Tensor:
        if model.chart is None:
            return model.log_prob(q)
        xi, log_volume = model.chart.cartesian(q)
        Q, log_det = model.from_chart(xi)
        return model.latent.log_density(Q) + log_det + log_volume

    if all(isinstance(layer, PointMap) for layer in model.layers):
        q = lambda n: (model.sample(n).q,)
        noise = lambda n: (_normal(n, model.n_dim, model.mass),)
        maps |= {
            "collective_variables": Map(("q",), ("Q",), lambda q: model.coordinates(q)[:1], q),
            "sample": Map(
                ("noise",),
                ("q",),
                lambda z: model.coordinates_inverse(model.latent.coordinates(z))[:1],
                noise,
                "noise: independent standard normal numbers",
            ),
            "log_prob": Map(("q",), ("log_prob",), lambda q: (log_prob(q),), q),
            "energy": Map(
                ("q",), ("energy", "forces"), with_forces(lambda q: -model.kT * log_prob(q)), q
            ),
        }
    else:
        maps["log_prob"] = Map(
            ("q", "p"), ("log_prob",), lambda q, p: (model.log_prob(q, p),), point
        )
    rigid = model.chart is not None and model.chart.n_dim < math.prod(model.mass.shape)
    return Parts(maps, units or "reduced", kT, "rigid" if rigid else "none", model.molecule)


def bias_maps(bias: ModeBias, settings: Settings) -> Parts:
    """The biased modes, and the energy with its forces."""
    model = bias.model
    solve_linear(model)
    units = _agreed("units", model.units if model.units != "reduced" else None, settings.units)
    q = lambda n: (model.sample(n).q,)
    maps = {
        "collective_variables": Map(("q",), ("Q",), lambda q: (bias.modes(q),), q),
        "energy": Map(("q",), ("energy", "forces"), with_forces(bias), q),
    }
    kT = _agreed("kT", model.kT, settings.kT)
    rigid = model.chart is not None and model.chart.n_dim < math.prod(model.mass.shape)
    return Parts(maps, units or "reduced", kT, "rigid" if rigid else "none", model.molecule)


def flow_maps(flow: ContinuousFlow, settings: Settings) -> Parts:
    """Both directions, samples of noise, log-density, velocity, energy with forces.

    Adaptive steps cannot be exported: the maps take the constant steps of `constant_steps`, whose
    number follows from the tolerance, and the exact trace also where the flow estimates it.
    Every map of a conditional flow has the context (B, c) as its last input.
    """
    n_context = getattr(flow.field, "n_context", 0)
    context = torch.zeros(n_context).to(flow.shift) if n_context else None
    if hasattr(flow.field, "compiled"):
        flow.field.compiled = False
    times, error = constant_steps(flow, settings.tolerance, context)
    note = (
        f"{len(times) - 1} constant steps of {METHOD}, largest error {error:.1e} against an "
        "adaptive solve of tolerance 1e-10"
    )
    kT = settings.kT
    if kT is None and settings.units in (None, "reduced"):
        kT = 1.0

    def given(n: int) -> Tensors:
        return (_normal(n, n_context, flow.shift),) if n_context else ()

    latent = lambda n: flow.base.sample(n, _generator(flow.shift)).to(flow.shift)
    data = lambda n: flow.to_data_units(latent(n))
    time = lambda n: torch.linspace(0.1, 0.9, n).to(flow.shift)
    last = ("context",) if n_context else ()
    points = lambda n: (latent(n), *given(n))
    ends = lambda n: (latent(n), time(n))
    loop = lambda times, **kind: FlowLoop(flow, times, METHOD, points, **kind)
    back = times[::-1]

    def log_density(end: Tensor, change: Tensor) -> Tensor:
        return flow.base.log_prob(end) + change - flow.scale.log().sum()

    def rise(end: Tensor) -> Tensor:
        with torch.enable_grad():
            end = end.detach().requires_grad_()
            return torch.autograd.grad(flow.base.log_prob(end).sum(), end)[0]

    def velocity(t: Tensor, x: Tensor, *c: Tensor) -> Tensors:
        return (flow.scale * flow.field_at(*(c or (None,)))(t, flow.to_unit(x)),)

    enter = lambda: Piece(lambda x: (flow.to_unit(x),), lambda n: (data(n),))
    stay = lambda: Piece(lambda z: (z,), lambda n: (latent(n),))
    drawn = lambda: Piece(lambda z: (NOISE[type(flow.base)](flow.base, z),), noise)
    leave = lambda: Piece(lambda end, change: (flow.to_data_units(end),), ends)
    home = lambda: Piece(lambda end, change: (flow.wrapped(end),), ends)
    density = lambda: Piece(lambda end, change: (log_density(end, change),), ends)
    value = lambda: Piece(lambda end, change: (-kT * log_density(end, change), rise(end)), ends)
    force = lambda: Piece(lambda pull: (kT * pull / flow.scale,), lambda n: (latent(n),))
    noise = lambda n: (_normal(n, flow.dim, flow.shift),)
    at_data = lambda n: (data(n), *given(n))

    def moved(enter: Any, times: list[float], leave: Any, **kind: bool) -> Later:
        return Later(lambda: FlowMap(enter(), loop(times, **kind), leave()))

    inward = moved(enter, back, home, density=False)
    outward = moved(stay, times, leave, density=False)
    maps = {
        "to_latent": Map(("x", *last), ("z",), inward, at_data, note),
        "to_physical": Map(("z", *last), ("x",), outward, points, note),
        "log_prob": Map(("x", *last), ("log_prob",), moved(enter, back, density), at_data, note),
        "velocity": Map(
            ("t", "x", *last), ("velocity",), velocity, lambda n: (time(n), *at_data(n))
        ),
    }
    if type(flow.base) in NOISE:
        maps["sample"] = Map(
            ("noise", *last),
            ("x",),
            moved(drawn, times, leave, density=False),
            lambda n: (*noise(n), *given(n)),
            f"noise: independent standard normal numbers; {note}",
        )
    if kT is not None:
        energy = lambda: FlowEnergy(enter(), loop(back, gradient=True), value(), force())
        maps["energy"] = Map(("x", *last), ("energy", "forces"), Later(energy), at_data, note)
    free = isinstance(flow.base, MeanFreeGaussian)
    return Parts(maps, settings.units or "reduced", kT, "translation" if free else "none")


def action_maps(model: ActionPotential, settings: Settings) -> Parts:
    """Potential, velocity and growth rate at times t (B,) and positions x (B, d)."""
    scale = model.scale

    def example(n: int) -> Tensors:
        x = model.center + scale.length * _normal(n, scale.dim, model.center)
        t = torch.linspace(0.1, 0.9, n).to(x)
        return scale.start + scale.duration * t, x

    maps = {
        name: Map(("t", "x"), (name,), _single(getattr(model, name)), example)
        for name in ("potential", "velocity", "growth")
    }
    return Parts(maps, settings.units or "reduced", settings.kT)


#: A model that is of a class of this table, or of one derived from it, is exported by its entry.
EXPORTERS: dict[type[nn.Module], Callable[[Any, Settings], Parts]] = {
    ActionPotential: action_maps,
    CanonicalTransformation: canonical_maps,
    ContinuousFlow: flow_maps,
    ModeBias: bias_maps,
}

#: Draws of a base density as functions of standard normal numbers.
NOISE: dict[type, Callable[[Any, Tensor], Tensor]] = {
    StandardBase: lambda base, z: torch.where(
        base.angle, (2 * torch.special.ndtr(z) - 1) * math.pi, z
    ),
    MeanFreeGaussian: lambda base, z: base.scale * base.centred(z),
}


def parts_of(model: nn.Module, settings: Settings) -> Parts:
    """The maps of a model.

    Raises:
        TypeError: no exporter knows its class.
        ValueError: the settings contradict the model.
    """
    if settings.kT is not None and not (math.isfinite(settings.kT) and settings.kT > 0):
        raise ValueError(f"kT must be positive and finite; got {settings.kT}")
    for kind, exporter in EXPORTERS.items():
        if isinstance(model, kind):
            return exporter(model, settings)
    raise TypeError(
        f"model is a {type(model).__name__}; exporters are known for "
        f"{', '.join(kind.__name__ for kind in EXPORTERS)}"
    )


def _single(function: Callable[..., Tensor]) -> Callable[..., Tensors]:
    return lambda *inputs: (function(*inputs),)


def _agreed(name: str, own: Any, given: Any) -> Any:
    """The model's own value, or the one given where it has none.

    Raises:
        ValueError: they differ.
    """
    if own is not None and given is not None and own != given:
        raise ValueError(f"{name} is {given!r}, and the model says {own!r}")
    return given if own is None else own


def _generator(like: Tensor) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(0)


def _normal(n: int, size: int, like: Tensor) -> Tensor:
    noise = torch.randn(
        n, size, generator=_generator(like), dtype=torch.float64, device=like.device
    )
    return noise.to(like)
