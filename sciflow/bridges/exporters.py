"""The maps of each kind of model that are exported: one table.

An exporter is a function that takes a model and gives its maps; a new one is an entry of
`EXPORTERS` and a model in ``tests/contracts/test_exporters.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sciflow.am import ActionPotential
from sciflow.bridges.bias import ModeBias
from sciflow.bridges.canonical_maps import bias_maps, canonical_maps
from sciflow.bridges.flow_maps import flow_maps
from sciflow.bridges.forecast_maps import forecast_maps
from sciflow.bridges.maps import Map, Parts, Settings, Tensors, normal
from sciflow.bridges.wave_maps import wave_maps
from sciflow.cnf import ContinuousFlow
from sciflow.nct import CanonicalTransformation
from sciflow.shapes import Tensor
from sciflow.turbulence import Forecaster
from sciflow.wqmc import Wavefunction


def action_maps(model: ActionPotential, settings: Settings) -> Parts:
    """Potential, velocity and growth rate at times t (B,) and positions x (B, d)."""
    scale = model.scale

    def example(n: int) -> Tensors:
        x = model.center + scale.length * normal(n, scale.dim, model.center)
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
    Forecaster: forecast_maps,
    ModeBias: bias_maps,
    Wavefunction: wave_maps,
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
