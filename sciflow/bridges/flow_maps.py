"""The exporter of continuous normalizing flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sciflow.bridges.loops import FlowEnergy, FlowLoop, FlowMap, Piece
from sciflow.bridges.maps import Map, Parts, Settings, Tensors, normal, seeded
from sciflow.bridges.steps import METHOD, constant_steps
from sciflow.bridges.tracing import Later
from sciflow.cnf import ContinuousFlow, MeanFreeGaussian, StandardBase
from sciflow.shapes import Tensor

#: Draws of a base density as functions of standard normal numbers.
NOISE: dict[type, Callable[[Any, Tensor], Tensor]] = {
    StandardBase: lambda base, z: torch.where(
        base.angle, (2 * torch.special.ndtr(z) - 1) * math.pi, z
    ),
    MeanFreeGaussian: lambda base, z: base.scale * base.centred(z),
}


def flow_maps(flow: ContinuousFlow, settings: Settings) -> Parts:
    """Both directions, samples of noise, log-density, velocity, energy with forces.

    Adaptive steps cannot be exported: the maps take the constant steps of `constant_steps`, whose
    number follows from the tolerance, and the exact trace also where the flow estimates it.
    Every map of a conditional flow has the context (B, c) as its last input.
    """
    n_context = getattr(flow.field, "n_context", 0)
    if hasattr(flow.field, "compiled"):
        flow.field.compiled = False
    times, error = constant_steps(flow, settings.tolerance)
    note = (
        f"{len(times) - 1} constant steps of {METHOD}, largest error {error:.1e} against an "
        "adaptive solve of tolerance 1e-10"
    )
    kT = settings.kT
    if kT is None and settings.units in (None, "reduced"):
        kT = 1.0

    def given(n: int) -> Tensors:
        return (normal(n, n_context, flow.shift),) if n_context else ()

    latent = lambda n: flow.base.sample(n, seeded(flow.shift)).to(flow.shift)
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

    noise = lambda n: (normal(n, flow.dim, flow.shift),)
    enter = lambda: Piece(lambda x: (flow.to_unit(x),), lambda n: (data(n),))
    stay = lambda: Piece(lambda z: (z,), lambda n: (latent(n),))
    drawn = lambda: Piece(lambda z: (NOISE[type(flow.base)](flow.base, z),), noise)
    leave = lambda: Piece(lambda end, change: (flow.to_data_units(end),), ends)
    home = lambda: Piece(lambda end, change: (flow.wrapped(end),), ends)
    density = lambda: Piece(lambda end, change: (log_density(end, change),), ends)
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
        value = Piece(lambda end, change: (-kT * log_density(end, change), rise(end)), ends)
        force = Piece(lambda pull: (kT * pull / flow.scale,), lambda n: (latent(n),))
        energy = lambda: FlowEnergy(enter(), loop(back, gradient=True), value, force)
        maps["energy"] = Map(("x", *last), ("energy", "forces"), Later(energy), at_data, note)
    free = isinstance(flow.base, MeanFreeGaussian)
    return Parts(maps, settings.units or "reduced", kT, "translation" if free else "none")
